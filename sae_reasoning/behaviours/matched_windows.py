"""Spans of a behaviour on the report split, and matched windows of other text.

For each span windows of the same length are drawn outside the behaviour, most of them around an
occurrence of one of the span's tokens, at the same place in the window. Both can then be compared
within strata: of equal token, place in the response or length of the trace (`robustness.strata`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from sae_reasoning.behaviours.windows import (
    Intervals,
    Rows,
    cell_index,
    label_bits,
    problem_numbers,
)
from sae_reasoning.behaviours.wordings import wording
from sae_reasoning.records import MODELS, REPORT, Trace

MAX_SPANS = 1000
"""Spans of each behaviour and writer; beyond it, as many drawn."""

_WINDOWS, _ATTEMPTS = 4, 6
_TENTHS = 10


@dataclass(frozen=True)
class MatchedWindows:
    """Spans and the windows that are matched to them.

    Attributes:
        intervals: Ordered by cell.
        unseen: Whether a span is in a wording that selection didn't see.
        position: Tenth of its place in the response.
        length: Tenth of the length of its trace.
    """

    intervals: Intervals
    unseen: Bool[np.ndarray, " interval"]
    position: Int[np.ndarray, " interval"]
    length: Int[np.ndarray, " interval"]


def draw_matched_windows(
    traces: Sequence[Trace],
    rows: Rows,
    behaviours: Sequence[str],
    wordings: Mapping[str, Collection[str]],
    seed: int,
) -> MatchedWindows:
    """Draw the windows at random.

    Args:
        traces: Annotated; those of the report split count.
        rows: Where their tokens are.
        behaviours: Behaviours.
        wordings: Of each behaviour, first words that selection doesn't see.
        seed: Of the draws.
    """
    problems = problem_numbers(traces)
    bits = label_bits(traces, rows, behaviours)
    made: list[tuple[int, int, int, bool, int, bool, int, int]] = []
    for writer in MODELS:
        own = [t for t, x in enumerate(traces) if (x.writer, x.split) == (writer, REPORT)]
        response = {
            t: (rows.row(t, traces[t].num_prompt_tokens), int(rows.row_of_trace[t + 1]))
            for t in own
        }
        for number, behaviour in enumerate(behaviours):
            rng = np.random.default_rng((seed, number, MODELS.index(writer)))
            is_inside = (bits >> number & 1).astype(bool)
            places = _places(rows, response, is_inside)
            cell = cell_index(number, writer, REPORT)
            spans = [
                (t, rows.row(t, s.token_start), rows.row(t, s.token_end), s)
                for t in own
                for s in traces[t].spans
                if s.behaviour == behaviour
            ]
            for index in np.sort(rng.permutation(len(spans))[:MAX_SPANS]).tolist():
                t, start, stop, span = spans[index]
                if start >= stop:
                    continue
                is_unseen = wording(traces[t], span) in wordings.get(behaviour, ())
                first, last = response[t]
                made.append(
                    (start, stop, cell, True, problems[t], is_unseen, start - first, last - first)
                )
                for kept in range(_WINDOWS):
                    window = _window(start, stop, kept > 0, rows, places, is_inside, rng)
                    if window is not None:
                        row, of = window
                        first, last = response[of]
                        made.append(
                            (
                                row,
                                row + stop - start,
                                cell,
                                False,
                                problems[of],
                                False,
                                row - first,
                                last - first,
                            )
                        )
    table = np.array(made, np.int64).reshape(-1, 8)
    table = table[np.argsort(table[:, 2], kind="stable")]
    flags, one = table.astype(bool), np.zeros(len(table), np.int64)
    intervals = Intervals(table[:, 0], table[:, 1], table[:, 2], flags[:, 3], table[:, 4], one)
    return MatchedWindows(intervals, flags[:, 5], tenths(table[:, 6]), tenths(table[:, 7]))


@dataclass(frozen=True)
class _Places:
    """Response rows of some traces outside a behaviour.

    Attributes:
        row: All of them, ascending.
        trace: Trace of each.
        by_token: The same rows sorted by token.
        token: Tokens of `by_token`.
        bounds: First and last row of each trace's response.
    """

    row: Int[np.ndarray, " row"]
    trace: Int[np.ndarray, " row"]
    by_token: Int[np.ndarray, " row"]
    token: Int[np.ndarray, " row"]
    bounds: Mapping[int, tuple[int, int]]


def _places(
    rows: Rows, response: Mapping[int, tuple[int, int]], is_inside: Bool[np.ndarray, " row"]
) -> _Places:
    none = np.empty(0, np.int64)
    row = np.concatenate([none, *(np.arange(*bounds) for bounds in response.values())])
    trace = np.concatenate([none, *(np.full(b - a, t) for t, (a, b) in response.items())])
    outside = ~is_inside[row]
    row, trace = row[outside], trace[outside]
    order = np.argsort(rows.token_id[row], kind="stable")
    return _Places(row, trace, order, rows.token_id[row][order].astype(np.int64), response)


def _window(
    start: int,
    stop: int,
    has_token: bool,
    rows: Rows,
    places: _Places,
    is_inside: Bool[np.ndarray, " row"],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """First row and trace of a window as long as a span; with one of its tokens, or anywhere."""
    if not len(places.row):
        return None
    for _ in range(_ATTEMPTS):
        offset = int(rng.integers(stop - start))
        if has_token:
            token = int(rows.token_id[start + offset])
            low, high = np.searchsorted(places.token, [token, token + 1]).tolist()
            if low == high:
                continue
            pick = int(places.by_token[rng.integers(low, high)])
        else:
            pick = int(rng.integers(len(places.row)))
        row, trace = int(places.row[pick]) - offset, int(places.trace[pick])
        first, last = places.bounds[trace]
        end = row + stop - start
        if row >= first and end <= last and not is_inside[row:end].any():
            return row, trace
    return None


def tenths(values: Int[np.ndarray, " interval"]) -> Int[np.ndarray, " interval"]:
    """Tenth of all values that each belongs to."""
    if not len(values):
        return values
    bounds = np.quantile(values, np.arange(1, _TENTHS) / _TENTHS)
    found: np.ndarray = np.searchsorted(bounds, values, side="right")
    return found
