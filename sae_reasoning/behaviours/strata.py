"""Does a latent still tell a move from other text among tokens that are alike?

Rows inside the spans of a move are compared with rows outside them, one token each, but only within
strata: of the same token, of the same two tokens, at the same tenth of places, in the same tenth of
lengths of traces.
A latent that knows a word, a place or a long trace from a short one has nothing left there (after
Ma et al. 2601.05679, whose latents mostly know single tokens). Concordant pairs are summed over
strata and divided by all pairs: strata in which a sparse latent is silent count as what they are,
ties.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from sae_reasoning.behaviours.windows import (
    WRITERS,
    Intervals,
    Rows,
    cell_index,
    label_bits,
    problem_numbers,
)
from sae_reasoning.behaviours.wordings import wording
from sae_reasoning.records import Trace

ALL, TOKEN, BIGRAM, POSITION, LENGTH = "all", "token", "bigram", "position", "length"
WORDING = "held-out wording"
KINDS = (ALL, TOKEN, WORDING, BIGRAM, POSITION, LENGTH)
MAX_ROWS = 2000
"""Rows of each class, in each cell and kind of strata."""

_SPLIT = "report"
_TENTHS = 10
_TOKEN_BITS = 24


@dataclass(frozen=True)
class _Here:
    """The response rows of one writer's traces on the report split."""

    row: Int[np.ndarray, " row"]
    moves: Int[np.ndarray, " row"]
    problem: Int[np.ndarray, " row"]
    token: Int[np.ndarray, " row"]
    before: Int[np.ndarray, " row"]
    position: Int[np.ndarray, " row"]
    length: Int[np.ndarray, " row"]


def stratified_rows(
    traces: Sequence[Trace],
    rows: Rows,
    behaviours: Sequence[str],
    wordings: Mapping[str, Collection[str]],
    seed: int,
) -> dict[str, Intervals]:
    """Single rows in and out of each move on the report split, with strata of each kind.

    Of the move in held-out `wordings`, every other row is alike.

    Out of the move, as many rows of each stratum are drawn as there are in it, where there are so
    many: a row of another stratum is never compared with any.
    """
    bits = label_bits(traces, rows, behaviours)
    unseen = label_bits([_only(trace, wordings) for trace in traces], rows, behaviours)
    made: dict[str, list[tuple[np.ndarray, ...]]] = {kind: [] for kind in KINDS}
    for writer in WRITERS:
        here = _rows_of(traces, rows, bits, writer)
        is_unseen = unseen[here.row]
        for number in range(len(behaviours)):
            is_move = (here.moves >> number & 1).astype(bool)
            cell = cell_index(number, writer, _SPLIT)
            for kind, stratum in _strata(here).items():
                rng = np.random.default_rng((seed, number, WRITERS.index(writer)))
                is_told = is_unseen >> number & 1 if kind == WORDING else is_move
                inside, outside = _matched(is_told.astype(bool), ~is_move, stratum, rng)
                for chosen, positive in ((inside, True), (outside, False)):
                    made[kind].append(
                        (
                            here.row[chosen],
                            np.full(len(chosen), cell),
                            np.full(len(chosen), positive),
                            here.problem[chosen],
                            stratum[chosen],
                        )
                    )
    return {kind: _intervals(parts) for kind, parts in made.items()}


def comparable_share(
    is_positive: Bool[np.ndarray, " interval"], stratum: Int[np.ndarray, " interval"]
) -> float:
    """Share of positives whose stratum holds a negative; NaN without positives."""
    if not is_positive.any():
        return float("nan")
    return float(np.isin(stratum[is_positive], stratum[~is_positive]).mean())


def _rows_of(
    traces: Sequence[Trace], rows: Rows, bits: Int[np.ndarray, " row"], writer: str
) -> _Here:
    problems = problem_numbers(traces)
    parts = []
    for t, trace in enumerate(traces):
        if (trace.writer, trace.split) == (writer, _SPLIT):
            row = np.arange(rows.row(t, trace.num_prompt_tokens), int(rows.row_of_trace[t + 1]))
            size = np.full(len(row), len(row))
            parts.append(
                (
                    row,
                    bits[row],
                    np.full(len(row), problems[t]),
                    rows.token_id[row].astype(np.int64),
                    rows.token_id[row - 1].astype(np.int64),
                    np.arange(len(row)),
                    size,
                )
            )
    if not parts:
        return _Here(*(np.empty(0, np.int64) for _ in range(7)))
    return _Here(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _only(trace: Trace, wordings: Mapping[str, Collection[str]]) -> Trace:
    """A trace with the moves in some wordings alone."""
    spans = [s for s in trace.spans if wording(trace, s) in wordings.get(s.behaviour, ())]
    return replace(trace, spans=tuple(spans))


def _strata(here: _Here) -> dict[str, Int[np.ndarray, " row"]]:
    return {
        ALL: np.zeros(len(here.row), np.int64),
        TOKEN: here.token,
        BIGRAM: (here.before << _TOKEN_BITS) | here.token,
        POSITION: _tenths(here.position),
        LENGTH: _tenths(here.length),
        WORDING: np.zeros(len(here.row), np.int64),
    }


def _tenths(values: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    if not len(values):
        return values
    bounds = np.quantile(values, np.arange(1, _TENTHS) / _TENTHS)
    found: np.ndarray = np.searchsorted(bounds, values, side="right")
    return found


def _matched(
    is_in: Bool[np.ndarray, " row"],
    is_out: Bool[np.ndarray, " row"],
    stratum: Int[np.ndarray, " row"],
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " in_"], Int[np.ndarray, " out"]]:
    """Some rows in the move, and as many out of it in each of their strata, as far as there are."""
    inside = np.flatnonzero(is_in)
    inside = np.sort(rng.permutation(inside)[:MAX_ROWS])
    outside = rng.permutation(np.flatnonzero(is_out))
    outside = outside[np.argsort(stratum[outside], kind="stable")]
    kinds, wanted = np.unique(stratum[inside], return_counts=True)
    first = np.searchsorted(stratum[outside], kinds)
    last = np.searchsorted(stratum[outside], kinds, side="right")
    taken = [outside[a : min(a + n, b)] for a, b, n in zip(first, last, wanted, strict=True)]
    return inside, np.sort(np.concatenate([np.empty(0, np.int64), *taken]))


def _intervals(parts: list[tuple[np.ndarray, ...]]) -> Intervals:
    row, cell, is_positive, problem, stratum = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    order = np.lexsort((row, cell))
    row = row[order].astype(np.int64)
    return Intervals(
        row, row + 1, cell[order], is_positive[order].astype(bool), problem[order], stratum[order]
    )
