"""What is kept of the latents token by token: sums by class, and values for AUROCs over tokens.

Sums are bounded by the dictionary. AUROCs need every value, so those wait in sorted runs on disk
(8 bytes an activation) and are worked through a range of latents at a time: exact, in a memory
that doesn't grow with the number of tokens.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from sae_reasoning.behaviours.scratch import SortedRuns
from sae_reasoning.behaviours.streams import VALUE_BITS, Active, latent_bits
from sae_reasoning.behaviours.windows import Classes
from sae_reasoning.stats import sparse_concordance, tie_runs

COUNT, TOTAL, SQUARE = "count", "total", "square"


class ClassSums:
    """Per class of rows and latent: how often it fired, sum and sum of squares.

    Args:
        classes: Of rows.
        num_latents: Width of the dictionary.
        kept: Which of the three are wanted.
    """

    def __init__(
        self,
        classes: Classes,
        num_latents: int,
        kept: Collection[str] = (COUNT, TOTAL, SQUARE),
    ) -> None:
        self.classes = classes
        self._shape = len(classes.group), num_latents
        self._sums = {what: np.zeros(self._shape) for what in kept}

    def add(self, active: Active) -> None:
        """Count a batch."""
        num_classes, num_latents = self._shape
        of_row = self.classes.of_row[active.first_row : active.first_row + active.num_rows]
        # Rows outside are counted behind the last class, which is faster than leaving them out.
        slot = np.where(of_row < 0, num_classes, of_row).astype(np.int64) * num_latents
        key = np.repeat(slot, np.diff(active.first)) + active.latent
        value = active.value.astype(np.float64)
        for what, sums in self._sums.items():
            weights = {COUNT: None, TOTAL: value, SQUARE: value**2}[what]
            counted = np.bincount(key, weights, minlength=(num_classes + 1) * num_latents)
            sums += counted[: num_classes * num_latents].reshape(self._shape)

    def split(
        self, what: str, behaviour: int, group: int, *, inside: bool
    ) -> tuple[float, Float[np.ndarray, " latent"]]:
        """Rows, and a sum over them, in or out of a behaviour among one group's."""
        here = (self.classes.group == group) & (self.classes.has(behaviour) == inside)
        return float(self.classes.num_rows[here].sum()), self._sums[what][here].sum(0)

    def of_group(self, what: str, group: int) -> tuple[float, Float[np.ndarray, " latent"]]:
        """Rows, and a sum over them, of one group."""
        here = self.classes.group == group
        return float(self.classes.num_rows[here].sum()), self._sums[what][here].sum(0)


class WordSums:
    """Per writer and split, cue word and latent: sum of activations near the word.

    Args:
        row: Rows near a cue word, ascending.
        word: Word of each.
        classes: Of rows.
        num_words: Cue words.
        num_groups: Writers times splits.
        num_latents: Width of the dictionary.
    """

    def __init__(
        self,
        row: Int[np.ndarray, " pair"],
        word: Int[np.ndarray, " pair"],
        classes: Classes,
        num_words: int,
        num_groups: int,
        num_latents: int,
    ) -> None:
        self._row, self._word, self._classes = row, word, classes
        self._num_words, self._num_latents = num_words, num_latents
        self.total = np.zeros((num_groups, num_words, num_latents))
        self.num_rows = np.zeros((num_groups, num_words))

    def add(self, active: Active) -> None:
        """Count a batch."""
        bounds = [active.first_row, active.first_row + active.num_rows]
        here = slice(*np.searchsorted(self._row, bounds))
        of_row = self._classes.of_row[self._row[here]]
        scored = of_row >= 0
        row = self._row[here][scored]
        slot = self._classes.group[of_row[scored]] * self._num_words + self._word[here][scored]
        counts = np.bincount(slot, minlength=self.num_rows.size)
        self.num_rows += counts.reshape(self.num_rows.shape)
        pair, index = active.within(row, row + 1)
        key = slot[pair] * self._num_latents + active.latent[index]
        # Few of all words and latents are near a cue of the batch: only they are touched.
        np.add.at(self.total.reshape(-1), key, active.value[index].astype(np.float64))

    def means(self, group: int, words: Bool[np.ndarray, " word"]) -> Float[np.ndarray, "_ latent"]:
        """Mean activation near each of some words that occur."""
        used = words & (self.num_rows[group] > 0)
        return self.total[group][used] / self.num_rows[group][used][:, None]


class ValueTable:
    """Every activation with its latent and class: AUROCs over tokens, without the tokens.

    Args:
        classes: Of rows.
        num_latents: Width of the dictionary.
        num_groups: Writers times splits.
        capacity: Activations in memory; the others wait on disk.
        scratch: Folder of the scratch file; none for the system's.
    """

    def __init__(
        self,
        classes: Classes,
        num_latents: int,
        num_groups: int,
        capacity: int = 1 << 20,
        scratch: Path | None = None,
    ) -> None:
        self._classes, self._num_latents, self._num_groups = classes, num_latents, num_groups
        # A key is group, latent, value and class.
        self._class_bits = max(len(classes.group), 1).bit_length()
        self._latent_bits = latent_bits(num_latents)
        self._runs = SortedRuns(capacity, scratch)
        self._at_once = max(capacity // 8, 1)
        self._sizes = np.zeros(num_groups << self._latent_bits, np.int64)

    def add(self, active: Active) -> None:
        """Take a batch."""
        of_row = self._classes.of_row[active.row]
        scored = of_row >= 0
        of_row, code = of_row[scored], active.code[scored]
        above = self._classes.group << self._latent_bits + VALUE_BITS
        code |= above[of_row]
        self._sizes += np.bincount(code >> VALUE_BITS, minlength=len(self._sizes))
        self._runs.add((code << self._class_bits) | of_row)

    def aurocs(self, num_behaviours: int) -> Float[np.ndarray, "group behaviour latent"]:
        """AUROC of every latent for every behaviour, over the tokens of each writer and split."""
        classes = self._classes
        has = np.stack([classes.has(b) for b in range(num_behaviours)]).astype(np.int64)
        of_group = np.arange(self._num_groups) == classes.group[:, None]
        num_rows = classes.num_rows.astype(np.float64)
        num_in = (has * num_rows) @ of_group
        num_out = num_rows @ of_group - num_in
        silent = np.broadcast_to(
            np.where((num_in > 0) & (num_out > 0), 0.5, np.nan).T[:, :, None],
            (self._num_groups, num_behaviours, self._num_latents),
        )
        found = silent.copy()
        for keys in self._runs.ranges(self._bounds()):
            code = keys >> self._class_bits
            of_class = keys & ((1 << self._class_bits) - 1)
            starts = tie_runs(code)
            sizes = np.diff(np.append(starts, len(code)))
            latent = code[starts] >> VALUE_BITS
            first = tie_runs(latent)
            group, latent = np.divmod(latent[first], 1 << self._latent_bits)
            for behaviour in range(num_behaviours):
                inside = has[behaviour][of_class]
                if len(starts) < len(code):
                    inside = np.add.reduceat(inside, starts)
                n1, n0 = num_in[behaviour][group], num_out[behaviour][group]
                concordant = sparse_concordance(first, inside, sizes - inside, n1, n0)
                known = n1 * n0 > 0
                found[group[known], behaviour, latent[known]] = concordant[known] / (n1 * n0)[known]
        return found

    def _bounds(self) -> Int[np.ndarray, " bound"]:
        """Keys between which there are about as many as fit into memory, and no latent is cut."""
        filled = np.flatnonzero(self._sizes)
        if not len(filled):
            return np.empty(0, np.int64)
        part = (np.cumsum(self._sizes[filled]) - 1) // self._at_once
        starts = filled[np.flatnonzero(np.diff(part, prepend=-1))]
        return np.append(starts, len(self._sizes)) << VALUE_BITS + self._class_bits
