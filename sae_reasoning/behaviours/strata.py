"""Spans of a behaviour on the report split, and windows of other text that are like them.

For each span windows of the same length are drawn outside the behaviour, most of them around an
occurrence of one of the span's tokens, at the same place in the window. Both can then be compared
within strata, that is only with what is alike: in the token (or the two tokens) that a latent
answers to, in the place in the response, in the length of the trace.

The token that a latent answers to is looked up for each latent: of an interval's tokens, the one in
whose intervals, behaviour or not, the latent rises highest on average. So a latent which knows a
word is compared among intervals with that word, wherever they stand (after Ma et al. 2601.05679).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

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

_WINDOWS, _TRIES = 4, 6
_TENTHS = 10
_TOKEN_BITS = 24
_MOST_TIMES = 3


@dataclass(frozen=True)
class Alike:
    """Spans and windows like them.

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


@dataclass(frozen=True)
class Contents:
    """Tokens, or pairs of tokens, that intervals hold.

    Attributes:
        interval: Interval of each, ascending.
        code: Number of the token or pair, from 0 on.
    """

    interval: Int[np.ndarray, " entry"]
    code: Int[np.ndarray, " entry"]


def alike(
    traces: Sequence[Trace],
    rows: Rows,
    behaviours: Sequence[str],
    wordings: Mapping[str, Collection[str]],
    seed: int,
) -> Alike:
    """Draw the windows.

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
            is_move = (bits >> number & 1).astype(bool)
            places = _places(rows, response, is_move)
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
                    window = _window(start, stop, kept > 0, rows, places, is_move, rng)
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
    return Alike(intervals, flags[:, 5], tenths(table[:, 6]), tenths(table[:, 7]))


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
    rows: Rows, response: Mapping[int, tuple[int, int]], is_move: Bool[np.ndarray, " row"]
) -> _Places:
    none = np.empty(0, np.int64)
    row = np.concatenate([none, *(np.arange(*bounds) for bounds in response.values())])
    trace = np.concatenate([none, *(np.full(b - a, t) for t, (a, b) in response.items())])
    outside = ~is_move[row]
    row, trace = row[outside], trace[outside]
    order = np.argsort(rows.token_id[row], kind="stable")
    return _Places(row, trace, order, rows.token_id[row][order].astype(np.int64), response)


def _window(
    start: int,
    stop: int,
    has_token: bool,
    rows: Rows,
    places: _Places,
    is_move: Bool[np.ndarray, " row"],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """First row and trace of a window like a span; with one of its tokens, or anywhere."""
    if not len(places.row):
        return None
    for _ in range(_TRIES):
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
        if row >= first and end <= last and not is_move[row:end].any():
            return row, trace
    return None


def contents(
    intervals: Intervals, here: slice, token_id: Int[np.ndarray, " row"], *, pairs: bool
) -> Contents:
    """Tokens of a cell's intervals, or each token with the one before it."""
    start, stop = intervals.start[here], intervals.stop[here]
    sizes = stop - start
    interval = np.repeat(np.arange(len(sizes)), sizes)
    offset = np.arange(len(interval)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row = start[interval] + offset
    token = token_id[row].astype(np.int64)
    if pairs:
        token = (token_id[np.maximum(row - 1, 0)].astype(np.int64) << _TOKEN_BITS) | token
    _, code = np.unique(token, return_inverse=True)
    return Contents(interval, code)


def answered(
    values: Float[np.ndarray, " interval"], held: Contents, fewest: int
) -> Int[np.ndarray, " interval"]:
    """Of each interval, the token (or pair) that a latent answers to most, and how often it stands.

    A word said twice gives a latent two chances to rise. -1 where all tokens are rare.

    Args:
        values: The latent's maximum over each interval.
        held: What the intervals hold.
        fewest: Intervals that must hold a token for it to be what the latent answers to.
    """
    found = np.full(len(values), -1)
    if not len(held.code):
        return found
    each, times = np.unique(np.stack([held.interval, held.code]), axis=1, return_counts=True)
    interval, code = each
    count = np.bincount(code)
    mean = np.bincount(code, values[interval]) / np.maximum(count, 1)
    mean[count < fewest] = -1.0
    order = np.lexsort((code, mean[code], interval))
    last = np.flatnonzero(np.append(interval[order][1:] != interval[order][:-1], True))
    best = order[last]
    usable = mean[code[best]] >= 0
    stratum = code * _MOST_TIMES + np.minimum(times, _MOST_TIMES) - 1
    found[interval[best][usable]] = stratum[best][usable]
    return found


def tenths(values: Int[np.ndarray, " interval"]) -> Int[np.ndarray, " interval"]:
    """Tenth of all values that each belongs to."""
    if not len(values):
        return values
    bounds = np.quantile(values, np.arange(1, _TENTHS) / _TENTHS)
    found: np.ndarray = np.searchsorted(bounds, values, side="right")
    return found
