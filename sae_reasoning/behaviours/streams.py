"""Latents as they stream by, and what is kept of them over intervals: largest activations.

Only nonzero activations are touched, so the cost is tokens x k, whatever the dictionary's width.
Activations travel as 64-bit codes that sort by latent, then value: the largest of each latent in
an interval is then the last of its run. Maxima wait in scratch files, a cell together, so that
memory holds one batch, or one cell, at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from sae_reasoning.behaviours.scratch import Scratch, release
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.stats import sparse_concordance, tie_runs

VALUE_BITS = 31
"""Of a float32 above 0; as integers they sort as the values do."""

_AT_ONCE = 1 << 17
"""Keys, besides those that wait, that are worked on together."""
_INTERVALS_AT_ONCE = 1024


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
        fires = values > 0
        return cls(
            first_row,
            len(values),
            np.repeat(np.arange(first_row, first_row + len(values)), fires.sum(1)),
            latents[fires].astype(np.int64),
            values[fires].astype(np.float32),
        )

    @cached_property
    def first(self) -> Int64[np.ndarray, " row_and_end"]:
        """First activation of each row; one more, for the end."""
        return np.searchsorted(self.row, np.arange(self.num_rows + 1) + self.first_row)

    @cached_property
    def code(self) -> Int64[np.ndarray, " active"]:
        """Latent and value of each activation in one number, which sorts by both."""
        return (self.latent << VALUE_BITS) | self.value.view(np.int32)

    def within(
        self, start: Int[np.ndarray, " run"], stop: Int[np.ndarray, " run"]
    ) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
        """Activations in runs of these rows: the number of the run, and that of the activation."""
        first, last = self.first[start - self.first_row], self.first[stop - self.first_row]
        sizes = last - first
        skipped = np.cumsum(sizes) - sizes
        run = np.repeat(np.arange(len(sizes)), sizes)
        return run, np.arange(len(run)) + np.repeat(first - skipped, sizes)


def value_of(code: Int64[np.ndarray, " active"]) -> Float32[np.ndarray, " active"]:
    """The value in a code."""
    return (code & ((1 << VALUE_BITS) - 1)).astype(np.int32).view(np.float32)


def latent_bits(num_latents: int) -> int:
    """Bits of a code's latent."""
    return max(num_latents - 1, 1).bit_length()


def uncut(
    keys: Int64[np.ndarray, " key"], bits: int, size: int = _AT_ONCE
) -> Iterator[Int64[np.ndarray, " part"]]:
    """Sorted keys, about `size` at a time, those that agree above their last `bits` together."""
    start = 0
    while start < len(keys):
        stop = min(start + size, len(keys))
        if stop < len(keys):
            stop = int(np.searchsorted(keys, (int(keys[stop - 1] >> bits) + 1) << bits))
        yield keys[start:stop]
        start = stop


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
    interval: Int[np.ndarray, " entry"]
    latent: Int[np.ndarray, " entry"]
    value: Float32[np.ndarray, " entry"]

    def of_cell(self, cell: int) -> slice:
        """Entries of one behaviour, writer and split."""
        here = self.intervals.of_cell(cell)
        # Bounds of another type would have the entries copied, which may be on disk.
        bounds = np.array([here.start, here.stop], self.interval.dtype)
        return slice(*np.searchsorted(self.interval, bounds).tolist())

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
        if not used.any():
            return np.full(self.num_latents, np.nan)
        _, dense_stratum = np.unique(stratum[used], return_inverse=True)
        n1 = np.bincount(dense_stratum, is_positive[used])
        n0 = np.bincount(dense_stratum, ~is_positive[used])
        pairs = n1 * n0
        stratum = np.zeros(len(used), np.int64)
        stratum[used] = dense_stratum
        local = self.interval[entries] - here.start
        # Stratum and latent, then value, then class: equal scores of a group stand together.
        keys = stratum[local]
        keys *= self.num_latents
        keys += self.latent[entries]
        keys <<= VALUE_BITS
        keys |= self.value[entries].view(np.int32)
        keys <<= 1
        keys |= is_positive[local]
        keys = keys[used[local]]
        keys.sort()
        # A latent that is silent in a stratum ties all its pairs.
        concordant = np.full(self.num_latents, pairs.sum() / 2)
        for part in uncut(keys, VALUE_BITS + 1):
            starts = tie_runs(part >> 1)
            group = part[starts] >> VALUE_BITS + 1
            first = tie_runs(group)
            in_stratum, latent = np.divmod(group[first], self.num_latents)
            positives = np.add.reduceat(part & 1, starts)
            found = sparse_concordance(
                first,
                positives,
                np.diff(np.append(starts, len(part))) - positives,
                n1[in_stratum],
                n0[in_stratum],
            )
            gained = found - pairs[in_stratum] / 2
            concordant += np.bincount(latent, gained, self.num_latents)
        return concordant / pairs.sum()

    def release(self) -> None:
        """Give back the memory of what was looked at, where entries are on disk."""
        for entries in (self.interval, self.latent, self.value):
            release(entries)

    def firing_rates(self, cell: int) -> Float[np.ndarray, " latent"]:
        """Share of a cell's intervals in which each latent fires, those left undrawn included."""
        here, entries = self.intervals.of_cell(cell), self.of_cell(cell)
        weights = self.intervals.weights(cell)
        weight = weights[self.interval[entries] - here.start]
        fired = np.bincount(self.latent[entries], weight, minlength=self.num_latents)
        return fired / max(weights.sum(), 1)


MaximaOf = Callable[[str, int], SparseMaxima]
"""Maxima of a reader and layer."""


@dataclass
class MaximaStream:
    """Gathers `SparseMaxima` from batches of rows.

    Attributes:
        intervals: What is looked at.
        num_latents: Width of the dictionary.
        scratch: Folder of the scratch files; none for the system's.
    """

    intervals: Intervals
    num_latents: int
    scratch: Path | None = None
    _pieces: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        intervals = self.intervals
        self._by_start = np.argsort(intervals.start, kind="stable").astype(np.int32)
        self._start = intervals.start[self._by_start]
        self._longest = int((intervals.stop - intervals.start).max(initial=0))
        self._code_bits = latent_bits(self.num_latents) + VALUE_BITS
        # An entry is its interval's place in its cell, its latent and its value.
        self._file = Scratch(np.int64, self.scratch)

    def add(self, active: Active) -> None:
        """Look at a batch; an interval may go on in the next."""
        first_row, stop_row = active.first_row, active.first_row + active.num_rows
        near = slice(*np.searchsorted(self._start, [first_row - self._longest + 1, stop_row]))
        touched = np.sort(self._by_start[near])
        touched = touched[self.intervals.stop[touched] > first_row]
        for low in range(0, len(touched), _INTERVALS_AT_ONCE):
            here = touched[low : low + _INTERVALS_AT_ONCE]
            run, index = active.within(
                np.maximum(self.intervals.start[here], first_row),
                np.minimum(self.intervals.stop[here], stop_row),
            )
            keys = (run << self._code_bits) | active.code[index]
            keys.sort()
            self._keep(here, _largest(keys))

    def _keep(self, here: Int[np.ndarray, " interval"], keys: Int64[np.ndarray, " entry"]) -> None:
        """Write entries away by cell; their interval's place in `here` becomes that in its cell."""
        cells = self.intervals.cell[here]
        place = here - np.searchsorted(self.intervals.cell, cells)
        which = keys >> self._code_bits
        start = len(self._file)
        code = keys & ((1 << self._code_bits) - 1)
        self._file.append((place[which] << self._code_bits) | code)
        for cell in np.unique(cells).tolist():
            first, last = np.searchsorted(which, np.searchsorted(cells, [cell, cell + 1]))
            self._pieces.setdefault(cell, []).append((start + int(first), start + int(last)))

    def result(self) -> SparseMaxima:
        """What was gathered."""
        interval, latent, value = (
            Scratch(dtype, self.scratch) for dtype in (np.int32, np.int32, np.float32)
        )
        mask = (1 << latent_bits(self.num_latents)) - 1
        for cell in sorted(self._pieces):
            first = self.intervals.of_cell(cell).start
            keys = self._file.gather(self._pieces[cell])
            keys.sort()
            for part in uncut(keys, VALUE_BITS):
                kept = _largest(part)
                interval.append((kept >> self._code_bits) + first)
                latent.append((kept >> VALUE_BITS) & mask)
                value.append(value_of(kept))
        return SparseMaxima(
            self.intervals, self.num_latents, interval.mapped(), latent.mapped(), value.mapped()
        )


def matched_strata(intervals: Intervals, cell: int) -> tuple[np.ndarray | None, float]:
    """Strata for a cell's onset AUROC, and the share of positives that they can compare.

    Onsets are compared after the same preceding token where at least half of the onsets are
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


def _largest(keys: Int64[np.ndarray, " pair"]) -> Int64[np.ndarray, " entry"]:
    """Of each interval and latent, the key with the largest value; keys are sorted."""
    starts = tie_runs(keys >> VALUE_BITS)
    return keys[np.append(starts[1:], len(keys)) - 1] if len(keys) else keys
