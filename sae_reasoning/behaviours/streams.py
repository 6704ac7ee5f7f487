"""What is kept of the latents as they stream by: sums, tables of values, maxima over intervals.

Only nonzero activations are touched, so the cost is tokens x k, whatever the dictionary's width.
Sums and tables are bounded by the dictionary, maxima by the number of intervals; neither grows with
the number of tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from sae_reasoning.behaviours.windows import Classes, Intervals
from sae_reasoning.stats import sparse_concordance, tie_runs

_CODE_BITS = 32


@dataclass(frozen=True)
class Active:
    """Nonzero latents of consecutive rows, in row order.

    Attributes:
        first_row: The first of the rows.
        num_rows: How many rows.
        row: Row of each activation.
        latent: Its latent.
        value: Its value, above 0.
    """

    first_row: int
    num_rows: int
    row: Int64[np.ndarray, " active"]
    latent: Int64[np.ndarray, " active"]
    value: Float32[np.ndarray, " active"]

    @classmethod
    def of(
        cls,
        first_row: int,
        values: Float[np.ndarray, "row k"],
        latents: Int[np.ndarray, "row k"],
    ) -> "Active":
        """From a dictionary's sparse latents, padded with value 0."""
        row, place = np.nonzero(values > 0)
        return cls(
            first_row,
            len(values),
            row + first_row,
            latents[row, place].astype(np.int64),
            values[row, place].astype(np.float32),
        )

    def rows_from(self, rows: Int[np.ndarray, " row"]) -> tuple[np.ndarray, np.ndarray]:
        """Which of `rows`, and which activation of it, for all activations of these rows."""
        bounds = np.searchsorted(self.row, np.arange(self.num_rows + 1) + self.first_row)
        first, last = bounds[rows - self.first_row], bounds[rows - self.first_row + 1]
        sizes = last - first
        which = np.repeat(np.arange(len(rows)), sizes)
        offset = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return which, first[which] + offset


class ClassSums:
    """Per class of rows and latent: how often it fired, sum and sum of squares."""

    def __init__(self, classes: Classes, num_latents: int) -> None:
        self.classes = classes
        self._num_latents = num_latents
        shape = len(classes.group), num_latents
        self.count, self.total, self.square = (np.zeros(shape) for _ in range(3))
        scored = classes.of_row[classes.of_row >= 0]
        self.num_rows = np.bincount(scored, minlength=len(classes.group)).astype(np.float64)

    def add(self, active: Active, *, values: bool = True) -> None:
        """Count a batch; without `values` only how often each latent fired."""
        of_row = self.classes.of_row[active.row]
        scored = of_row >= 0
        key = of_row[scored] * self._num_latents + active.latent[scored]
        self.count += self._sum(key, None)
        if values:
            value = active.value[scored].astype(np.float64)
            self.total += self._sum(key, value)
            self.square += self._sum(key, value**2)

    def _sum(self, key: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        size = self.count.size
        return np.bincount(key, weights, minlength=size).reshape(self.count.shape)


class WordSums:
    """Per writer and split, cue word and latent: sum of activations near the word."""

    def __init__(
        self,
        row: Int[np.ndarray, " pair"],
        word: Int[np.ndarray, " pair"],
        classes: Classes,
        num_words: int,
        num_groups: int,
        num_latents: int,
    ) -> None:
        of_row = classes.of_row[row]
        scored = of_row >= 0
        self._row = row[scored]
        self._slot = classes.group[of_row[scored]] * num_words + word[scored]
        self._num_latents = num_latents
        self.total = np.zeros((num_groups, num_words, num_latents))
        counts = np.bincount(self._slot, minlength=num_groups * num_words)
        self.num_rows = counts.reshape(num_groups, num_words).astype(np.float64)

    def add(self, active: Active) -> None:
        """Count a batch."""
        here = slice(
            *np.searchsorted(self._row, [active.first_row, active.first_row + active.num_rows])
        )
        which, index = active.rows_from(self._row[here])
        key = self._slot[here][which] * self._num_latents + active.latent[index]
        sums = np.bincount(key, active.value[index], minlength=self.total.size)
        self.total += sums.reshape(self.total.shape)

    def means(self, group: int, words: Bool[np.ndarray, " word"]) -> Float[np.ndarray, "_ latent"]:
        """Mean activation near each of some words that occur."""
        used = words & (self.num_rows[group] > 0)
        return self.total[group][used] / self.num_rows[group][used][:, None]


class ValueTable:
    """How often each latent took each value in each class: AUROCs without the tokens.

    Values are float32 bits, which sort as the values do. When more than `capacity` different ones
    have come, their last bits go, as many as are needed: exact on small data, and rounded to a
    relative 2^-10 or so on large, where it moves an AUROC by less than 1e-3.
    """

    def __init__(self, classes: Classes, num_latents: int, capacity: int = 1 << 23) -> None:
        self._classes, self._num_latents, self._capacity = classes, num_latents, capacity
        self._num_classes = max(len(classes.group), 1)
        self._keys = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._num_pending = 0
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        self.dropped_bits = 0

    def add(self, active: Active) -> None:
        """Count a batch."""
        of_row = self._classes.of_row[active.row]
        scored = of_row >= 0
        code = active.value[scored].view(np.int32).astype(np.int64)
        keys = (active.latent[scored] << _CODE_BITS) | code
        self._pending.append(keys * self._num_classes + of_row[scored])
        self._num_pending += len(code)
        if self._num_pending + len(self._keys) > self._capacity:
            self._merge()
            while len(self._keys) > self._capacity // 2:
                self.dropped_bits += 2
                self._merge()

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *self._pending])
        counts = np.concatenate([self._counts, np.ones(self._num_pending, np.int64)])
        self._pending, self._num_pending = [], 0
        self._decoded = None
        if self.dropped_bits:
            value, of_class = np.divmod(keys, self._num_classes)
            value = (value >> self.dropped_bits) << self.dropped_bits
            keys = value * self._num_classes + of_class
        if self._counts.size == 0:
            keys.sort()  # Every count is 1: no need to carry them along.
        else:
            order = np.argsort(keys)
            keys, counts = keys[order], counts[order]
        starts = tie_runs(keys)
        self._keys = keys[starts]
        self._counts = np.add.reduceat(counts, starts) if len(starts) else counts

    def _of_group(self, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (with their latent), classes and counts of one group, sorted by value."""
        if self._pending:
            self._merge()
        if self._decoded is None:
            self._decoded = np.divmod(self._keys, self._num_classes)
        values, of_class = self._decoded
        here = np.flatnonzero((self._classes.group == group)[of_class])
        return values[here], of_class[here], self._counts[here]

    def aurocs(self, group: int, num_behaviours: int) -> Float[np.ndarray, "behaviour latent"]:
        """AUROC of every latent for every behaviour, over the tokens of a writer and split."""
        classes = self._classes
        values, of_class, counts = self._of_group(group)
        starts = tie_runs(values)
        latent = values[starts] >> _CODE_BITS
        found = np.full((num_behaviours, self._num_latents), np.nan)
        scored = classes.of_row[classes.of_row >= 0]
        num_rows = np.bincount(scored, minlength=self._num_classes)
        for behaviour in range(num_behaviours):
            is_move = classes.has(behaviour) & (classes.group == group)
            num_in = float(num_rows[: len(is_move)][is_move].sum())
            num_out = float(num_rows[: len(is_move)][classes.group == group].sum()) - num_in
            if not num_in or not num_out:
                continue
            inside = _run_sums(counts * is_move[of_class], starts)
            outside = _run_sums(counts, starts) - inside
            found[behaviour] = sparse_concordance(
                latent,
                inside,
                outside,
                np.full(self._num_latents, num_in),
                np.full(self._num_latents, num_out),
            ) / (num_in * num_out)
        return found


@dataclass(frozen=True)
class SparseMaxima:
    """Largest activation of each latent over each interval, where it is above 0.

    Attributes:
        intervals: What was looked at.
        num_latents: Width of the dictionary.
        interval: Interval of each entry, ascending.
        latent: Its latent, ascending within an interval.
        value: Its largest activation.
    """

    intervals: Intervals
    num_latents: int
    interval: Int64[np.ndarray, " entry"]
    latent: Int64[np.ndarray, " entry"]
    value: Float32[np.ndarray, " entry"]

    def of_cell(self, cell: int) -> slice:
        """Entries of one behaviour, writer and split."""
        here = self.intervals.of_cell(cell)
        return slice(*np.searchsorted(self.interval, [here.start, here.stop]).tolist())

    def columns(
        self, cell: int, latents: Int[np.ndarray, " latent"]
    ) -> Float32[np.ndarray, "interval latent"]:
        """Dense maxima of a few latents over the intervals of one cell."""
        here, entries = self.intervals.of_cell(cell), self.of_cell(cell)
        place = np.full(self.num_latents, -1)
        place[latents] = np.arange(len(latents))
        column = place[self.latent[entries]]
        chosen = column >= 0
        dense = np.zeros((here.stop - here.start, len(latents)), np.float32)
        rows = self.interval[entries][chosen] - here.start
        dense[rows, column[chosen]] = self.value[entries][chosen]
        return dense

    def aurocs(
        self, cell: int, stratum: Int[np.ndarray, " interval"] | None = None
    ) -> Float[np.ndarray, " latent"]:
        """AUROC of every latent in one cell; within strata, where they are given."""
        here, entries = self.intervals.of_cell(cell), self.of_cell(cell)
        is_positive = self.intervals.is_positive[here]
        if stratum is None:
            stratum = np.zeros(len(is_positive), np.int64)
        used = _two_class(stratum, is_positive)
        _, stratum = np.unique(np.where(used, stratum, -1), return_inverse=True)
        if not used.any():
            return np.full(self.num_latents, np.nan)
        num_strata = int(stratum.max()) + 1
        local = self.interval[entries] - here.start
        kept = used[local]
        local, value = local[kept], self.value[entries][kept]
        group = stratum[local] * self.num_latents + self.latent[entries][kept]
        order = np.argsort((group << _CODE_BITS) | value.view(np.int32))
        group, value, hit = group[order], value[order], is_positive[local[order]].astype(float)
        starts = tie_runs(group, value)
        n1 = np.bincount(stratum[used], is_positive[used], num_strata)
        n0 = np.bincount(stratum[used], ~is_positive[used], num_strata)
        positives = _run_sums(hit, starts)
        concordant = sparse_concordance(
            group[starts],
            positives,
            _run_sums(np.ones(len(hit)), starts) - positives,
            np.repeat(n1, self.num_latents),
            np.repeat(n0, self.num_latents),
        )
        return concordant.reshape(num_strata, self.num_latents).sum(0) / (n1 * n0).sum()

    def firing_rates(self, cell: int) -> Float[np.ndarray, " latent"]:
        """Share of a cell's intervals in which each latent fires."""
        here, entries = self.intervals.of_cell(cell), self.of_cell(cell)
        fired = np.bincount(self.latent[entries], minlength=self.num_latents)
        return fired / max(here.stop - here.start, 1)


MaximaOf = Callable[[str, int], SparseMaxima]
"""Maxima of a reader and layer."""


@dataclass
class MaximaStream:
    """Gathers `SparseMaxima` from batches of rows."""

    intervals: Intervals
    num_latents: int
    _keys: list[np.ndarray] = field(default_factory=list)
    _values: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._row, self._interval = interval_rows(self.intervals)

    def add(self, active: Active) -> None:
        """Look at a batch; an interval may go on in the next."""
        here = slice(
            *np.searchsorted(self._row, [active.first_row, active.first_row + active.num_rows])
        )
        which, index = active.rows_from(self._row[here])
        key = self._interval[here][which] * self.num_latents + active.latent[index]
        self._keep(key, active.value[index])

    def _keep(self, key: np.ndarray, value: np.ndarray) -> None:
        order = np.argsort(key, kind="stable")
        key, value = key[order], value[order]
        starts = tie_runs(key)
        self._keys.append(key[starts])
        self._values.append(np.maximum.reduceat(value, starts) if len(starts) else value)

    def result(self) -> SparseMaxima:
        """What was gathered."""
        key = np.concatenate([np.empty(0, np.int64), *self._keys])
        value = np.concatenate([np.empty(0, np.float32), *self._values])
        self._keys, self._values = [], []
        self._keep(key, value)
        interval, latent = np.divmod(self._keys[0], self.num_latents)
        return SparseMaxima(self.intervals, self.num_latents, interval, latent, self._values[0])


def interval_rows(
    intervals: Intervals,
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    """Every row of every interval, with its interval, sorted by row."""
    sizes = intervals.stop - intervals.start
    interval = np.repeat(np.arange(len(sizes)), sizes)
    offset = np.arange(len(interval)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row = intervals.start[interval] + offset
    order = np.argsort(row, kind="stable")
    return row[order], interval[order]


def matched_strata(intervals: Intervals, cell: int) -> tuple[np.ndarray | None, float]:
    """Strata for a cell's onset AUROC, and the share of positives that they can compare.

    Onsets are compared after the same preceding token where at least half of those taken stand
    in strata that hold both kinds; else all with all.
    """
    here = intervals.of_cell(cell)
    is_positive, stratum = intervals.is_positive[here], intervals.stratum[here]
    if not is_positive.any():
        return None, float("nan")
    share = float(_two_class(stratum, is_positive)[is_positive].mean())
    return (stratum if share >= 0.5 else None), share


def _two_class(stratum: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Which items stand in a stratum that holds both kinds."""
    _, index = np.unique(stratum, return_inverse=True)
    num = int(index.max()) + 1 if len(index) else 0
    positives = np.bincount(index, is_positive, num)
    negatives = np.bincount(index, ~is_positive, num)
    return ((positives > 0) & (negatives > 0))[index]


def _run_sums(values: np.ndarray, starts: np.ndarray) -> Float[np.ndarray, " run"]:
    return np.add.reduceat(values, starts).astype(float) if len(starts) else np.empty(0)
