"""Which cached rows belong to which behaviour: labels of tokens, spans with their windows, onsets.

The activation at token t is the residual stream having read t; it predicts t+1. A span's rows are
its own tokens, as read. An onset's row is the token before the behaviour, onset-1, the one that
predicts the behaviour's first token; so an opportunity is an interval of one row.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from sae_reasoning.behaviours.wordings import HELD_OUT
from sae_reasoning.records import MODELS, SPLITS, Trace

Item = TypeVar("Item")

TESTED, POSITIONAL, NO_SPANS = "tested", "positional, not testable", "no spans"
MAX_INTERVALS = 2000
"""Spans, and opportunities, used per behaviour, writer and split; beyond it, as many drawn."""

_MAX_ONSET_TOKENS = 32
_OWN_SHARE = 0.5
_SAME_PLACE = 0.95
_MIN_TRACES = 5


@dataclass(frozen=True)
class Rows:
    """Where the tokens of traces stand among the cached rows.

    Attributes:
        token_id: Token that each row has just read.
        row_of_trace: Row of each trace's first cached token; one more, for the end.
        first_position: Index of each trace's first cached token into its `token_ids`.
    """

    token_id: Int[np.ndarray, " row"]
    row_of_trace: Int[np.ndarray, " trace_and_end"]
    first_position: Int[np.ndarray, " trace"]

    @classmethod
    def cached(
        cls,
        token_id: Int[np.ndarray, " row"],
        row_of_trace: Int[np.ndarray, " trace_and_end"],
        position: Int[np.ndarray, " row"],
    ) -> "Rows":
        """From the columns of a store; a trace that keeps no token begins where the next does."""
        first = np.minimum(row_of_trace[:-1], max(len(token_id) - 1, 0))
        return cls(token_id, row_of_trace, position[first])

    def indices(self, traces: Sequence[int]) -> Int[np.ndarray, " row"]:
        """Rows of some traces, one trace after the other."""
        ends = self.row_of_trace
        parts = [np.arange(ends[t], ends[t + 1], dtype=np.int64) for t in traces]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def of(self, traces: Sequence[int]) -> "Rows":
        """The rows of some traces by themselves."""
        sizes = np.diff(self.row_of_trace)[list(traces)]
        return Rows(
            self.token_id[self.indices(traces)],
            np.concatenate([[0], np.cumsum(sizes)]),
            self.first_position[list(traces)],
        )

    def row(self, trace: int, position: int) -> int:
        """Row of a token, held within its trace's cached rows (the end is one past the last)."""
        row = int(self.row_of_trace[trace]) + position - int(self.first_position[trace])
        return min(max(row, int(self.row_of_trace[trace])), int(self.row_of_trace[trace + 1]))


@dataclass(frozen=True)
class Intervals:
    """Runs of rows to be compared, ordered by cell.

    Attributes:
        start: First row.
        stop: One past the last row.
        cell: Behaviour, writer and split; see `cell_index`.
        is_positive: Whether it is the behaviour (a span; an opportunity taken).
        problem: Problem of its trace, the unit of resampling.
        stratum: Token id of its last row.
        weight: How many there were for each that was drawn, of its cell and kind; none where all
            were. AUROCs don't need it, shares of a cell do.
    """

    start: Int[np.ndarray, " interval"]
    stop: Int[np.ndarray, " interval"]
    cell: Int[np.ndarray, " interval"]
    is_positive: Bool[np.ndarray, " interval"]
    problem: Int[np.ndarray, " interval"]
    stratum: Int[np.ndarray, " interval"]
    weight: Float[np.ndarray, " interval"] | None = None

    def weights(self, cell: int) -> Float[np.ndarray, " interval"]:
        """Of the intervals of one cell."""
        here = self.of_cell(cell)
        return np.ones(here.stop - here.start) if self.weight is None else self.weight[here]

    def of_cell(self, cell: int) -> slice:
        """The intervals of one cell."""
        return slice(*np.searchsorted(self.cell, [cell, cell + 1]).tolist())


@dataclass(frozen=True)
class Classes:
    """Rows sorted into classes of equal writer, split and set of behaviours.

    Attributes:
        of_row: Class of each row, in few bytes; -1 for rows outside the response.
        group: Writer and split of each class; see `group_index`.
        bits: Behaviours of each class, bit b for behaviour b.
        num_rows: Rows of each class.
    """

    of_row: Int[np.ndarray, " row"]
    group: Int[np.ndarray, " class_"]
    bits: Int[np.ndarray, " class_"]
    num_rows: Int[np.ndarray, " class_"]

    def has(self, behaviour: int) -> Bool[np.ndarray, " class_"]:
        """Which classes hold a behaviour."""
        return (self.bits >> behaviour & 1).astype(bool)


def response_rows(traces: Sequence[Trace]) -> Rows:
    """Rows of the responses, from the last prompt position on, in trace order."""
    first = np.array([trace.num_prompt_tokens - 1 for trace in traces])
    lengths = np.array([len(trace.token_ids) for trace in traces])
    kept = [trace.token_ids[skip:] for trace, skip in zip(traces, first, strict=True)]
    return Rows(np.concatenate(kept), np.concatenate([[0], np.cumsum(lengths - first)]), first)


def group_index(writer: str, split: str) -> int:
    """Number of a writer and split."""
    return MODELS.index(writer) * len(SPLITS) + SPLITS.index(split)


def cell_index(behaviour: int, writer: str, split: str) -> int:
    """Number of a behaviour, writer and split."""
    return behaviour * len(MODELS) * len(SPLITS) + group_index(writer, split)


def classify_rows(
    bits: Int[np.ndarray, " row"], traces: Sequence[Trace], rows: Rows, *, shift_seed: int | None
) -> Classes:
    """Sort rows by writer, split and behaviours; with a seed, labels are shifted round their trace.

    Behaviours in held-out wordings take no part.
    """
    group = np.full(len(bits), -1)
    first = [rows.row(t, trace.num_prompt_tokens - 1) for t, trace in enumerate(traces)]
    stop = rows.row_of_trace[1:]
    for t, trace in enumerate(traces):
        group[first[t] : stop[t]] = group_index(trace.writer, trace.split)
        for span in trace.spans:
            if span.behaviour.startswith(HELD_OUT):
                group[rows.row(t, span.token_start) : rows.row(t, span.token_end)] = -1
    if shift_seed is not None:
        start = np.array(first)
        is_inside = np.arange(len(bits)) >= np.repeat(start, np.diff(rows.row_of_trace))
        moved = np.zeros_like(bits)
        moved[is_inside] = bits[moved_round(start, stop, np.random.default_rng(shift_seed))]
        bits = moved
    num_groups = len(MODELS) * len(SPLITS)
    codes, of_row, num_rows = np.unique(
        np.where(group < 0, -1, bits * num_groups + group), return_inverse=True, return_counts=True
    )
    outside = int(codes[:1].tolist() == [-1])
    codes, num_rows = codes[outside:], num_rows[outside:]
    of_row = (of_row - outside).astype(np.min_scalar_type(-len(codes) - 1))
    return Classes(of_row, codes % num_groups, codes // num_groups, num_rows)


def moved_round(
    start: Int[np.ndarray, " run"], stop: Int[np.ndarray, " run"], rng: np.random.Generator
) -> Int[np.ndarray, " row"]:
    """Rows of runs, one run after the other, each moved round by a random number of its rows.

    Whatever is read in this order keeps its runs as long as they are, which shuffling single rows
    would not.
    """
    length = stop - start
    shift = np.repeat(rng.integers(0, np.maximum(length, 1)), length)
    first = np.repeat(np.cumsum(length) - length, length)
    place = np.arange(len(first)) - first
    return np.repeat(start, length) + (place + shift) % np.repeat(length, length)


def label_bits(
    traces: Sequence[Trace], rows: Rows, behaviours: Sequence[str]
) -> Int[np.ndarray, " row"]:
    """Behaviours that each row's token belongs to, bit b for behaviour b."""
    bits = np.zeros(len(rows.token_id), np.int64)
    for t, trace in enumerate(traces):
        for span in trace.spans:
            if span.behaviour in behaviours:
                here = slice(rows.row(t, span.token_start), rows.row(t, span.token_end))
                bits[here] |= 1 << behaviours.index(span.behaviour)
    return bits


def span_intervals(
    traces: Sequence[Trace], rows: Rows, behaviours: Sequence[str], seed: int
) -> Intervals:
    """Spans, and for each a window of the same length in the same trace outside any such span.

    A span whose trace has no room for a window stands alone. Windows are drawn once, so all latents
    and readers are compared on the same. They keep clear of behaviours in held-out wordings too.
    """
    rng = np.random.default_rng(seed)
    problems = problem_numbers(traces)
    found: dict[int, list[tuple[int, int, int]]] = {}
    hidden: dict[int, list[tuple[int, int, int]]] = {}
    for t, trace in enumerate(traces):
        for span in trace.spans:
            name = span.behaviour.removeprefix(HELD_OUT)
            if name in behaviours:
                cell = cell_index(behaviours.index(name), trace.writer, trace.split)
                place = (t, rows.row(t, span.token_start), rows.row(t, span.token_end))
                if place[1] < place[2]:
                    (found if name == span.behaviour else hidden).setdefault(cell, []).append(place)
    made = []
    for cell, spans in sorted(found.items()):
        taken: dict[int, list[tuple[int, int]]] = {}
        for t, start, stop in [*spans, *hidden.get(cell, [])]:
            taken.setdefault(t, []).append((start, stop))
        for t, start, stop in _draw(spans, rng):
            made.append((start, stop, cell, True, problems[t]))
            response = (
                rows.row(t, traces[t].num_prompt_tokens),
                int(rows.row_of_trace[t + 1]),
            )
            window = _draw_window(response, taken[t], stop - start, rng)
            if window is not None:
                made.append((window, window + stop - start, cell, False, problems[t]))
    return _intervals(made, rows)


def onset_intervals(
    traces: Sequence[Trace], rows: Rows, behaviours: Sequence[str], seed: int
) -> Intervals:
    """The rows at onset-1 of opportunities, taken or not."""
    rng = np.random.default_rng(seed)
    problems = problem_numbers(traces)
    found: dict[tuple[int, bool], list[int]] = {}
    problem_of: dict[int, int] = {}
    for t, trace in enumerate(traces):
        for opportunity in trace.opportunities:
            row = rows.row(t, opportunity.token)
            is_cached = (
                opportunity.token >= rows.first_position[t] and row < rows.row_of_trace[t + 1]
            )
            if opportunity.behaviour in behaviours and is_cached:
                behaviour = behaviours.index(opportunity.behaviour)
                cell = cell_index(behaviour, trace.writer, trace.split)
                found.setdefault((cell, opportunity.taken), []).append(row)
                problem_of[row] = problems[t]
    made, weights = [], []
    for (cell, taken), here in sorted(found.items()):
        drawn = _draw(here, rng)
        made += [(row, row + 1, cell, taken, problem_of[row]) for row in drawn]
        weights += [len(here) / len(drawn)] * len(drawn)
    # Already in the order of cells, which `_intervals` keeps.
    return replace(_intervals(made, rows), weight=np.array(weights, np.float64))


def onset_tokens(traces: Sequence[Trace], behaviours: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The first tokens of each behaviour's spans on the select split, the most frequent first.

    A token that opens other behaviours more often is left out: it predicts those.
    """
    counts: dict[str, Counter[int]] = {behaviour: Counter() for behaviour in behaviours}
    totals: Counter[int] = Counter()
    for trace in traces:
        for span in trace.spans:
            if trace.split == "select":
                token = trace.token_ids[span.token_start]
                totals[token] += 1
                if span.behaviour in counts:
                    counts[span.behaviour][token] += 1
    return {
        behaviour: tuple(
            token for token, times in count.most_common() if times >= _OWN_SHARE * totals[token]
        )[:_MAX_ONSET_TOKENS]
        for behaviour, count in counts.items()
    }


def behaviour_status(
    traces: Sequence[Trace], behaviours: Sequence[str]
) -> Mapping[tuple[str, str], str]:
    """What can be said of each behaviour in each writer's text: a status.

    A behaviour that a trace makes once, at a place counted from its start, can't be told from that
    place: every latent of position would detect it.
    """
    status = {}
    for behaviour in behaviours:
        for writer in MODELS:
            places = [
                [s.token_start - t.num_prompt_tokens for s in t.spans if s.behaviour == behaviour]
                for t in traces
                if t.writer == writer
            ]
            places = [place for place in places if place]
            splits = {
                t.split
                for t in traces
                if t.writer == writer and any(s.behaviour == behaviour for s in t.spans)
            }
            if len(splits) < len(SPLITS):
                status[behaviour, writer] = NO_SPANS
                continue
            once = np.mean([len(place) == 1 for place in places])
            first = np.array([place[0] for place in places])
            same = np.mean(np.abs(first - np.median(first)) <= 1)
            is_positional = min(once, same) >= _SAME_PLACE and len(places) >= _MIN_TRACES
            status[behaviour, writer] = POSITIONAL if is_positional else TESTED
    return status


def problem_numbers(traces: Sequence[Trace]) -> list[int]:
    """Number of each trace's problem."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(trace.problem_id, len(numbers)) for trace in traces]


def _draw(items: list[Item], rng: np.random.Generator) -> list[Item]:
    """All items, or `MAX_INTERVALS` of them."""
    if len(items) <= MAX_INTERVALS:
        return items
    chosen = rng.choice(len(items), MAX_INTERVALS, replace=False)
    return [items[i] for i in np.sort(chosen)]


def _draw_window(
    response: tuple[int, int],
    taken: list[tuple[int, int]],
    length: int,
    rng: np.random.Generator,
) -> int | None:
    """First row of a window between the taken runs, uniform over where it fits."""
    bounds = [response[0]]
    for start, stop in sorted(taken):
        bounds += [start, max(stop, bounds[-1])]
    bounds.append(response[1])
    gaps = [
        (start, stop - start - length + 1)
        for start, stop in zip(bounds[::2], bounds[1::2], strict=True)
        if stop - start >= length
    ]
    total = sum(size for _, size in gaps)
    if not total:
        return None
    pick = int(rng.integers(total))
    for start, size in gaps:
        if pick < size:
            return start + pick
        pick -= size
    raise AssertionError("unreachable")


def _intervals(made: list[tuple[int, int, int, bool, int]], rows: Rows) -> Intervals:
    table = np.array(made, np.int64).reshape(-1, 5)
    table = table[np.argsort(table[:, 2], kind="stable")]
    start, stop, cell, is_positive, problem = table.T
    stratum = rows.token_id[stop - 1].astype(np.int64) if len(stop) else stop
    return Intervals(start, stop, cell, is_positive.astype(bool), problem, stratum)
