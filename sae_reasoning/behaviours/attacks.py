"""Attacks by comparing what is alike in the text as it stands; outcomes and names in `outcomes`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from sae_reasoning.behaviours.outcomes import (
    ALL,
    BIGRAM,
    LENGTH,
    POSITION,
    TOKEN,
    WORDING,
    Attack,
    Bars,
    Target,
    judge,
)
from sae_reasoning.behaviours.strata import Alike, Contents, answered, contents, tenths
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, Rows
from sae_reasoning.stats import kept_auroc


def attack_span_detector(
    target: Target,
    latents: Sequence[int],
    cell: int,
    drawn: Alike,
    maxima: SparseMaxima,
    token_id: Int[np.ndarray, " row"],
    bars: Bars,
) -> Iterator[Attack]:
    """Every attack by text on some latents of one layer, in one reader on one writer's text.

    Args:
        target: Which; its latent is replaced by each of `latents`.
        latents: Of the same layer.
        cell: Of the behaviour and writer, on the report split.
        drawn: Spans and windows.
        maxima: Of the latents over them.
        token_id: Token that each row has read.
        bars: What decides.
    """
    here = drawn.intervals.of_cell(cell)
    is_positive, problem = drawn.intervals.is_positive[here], drawn.intervals.problem[here]
    unseen = drawn.unseen[here]
    tokens = contents(drawn.intervals, here, token_id, pairs=False)
    pairs = contents(drawn.intervals, here, token_id, pairs=True)
    columns = maxima.columns(cell, np.array(latents, np.int64))
    for latent, values in zip(latents, columns.T, strict=True):
        for kind, stratum in _strata(
            values, drawn, here, tokens, pairs, bars.at.token_intervals
        ).items():
            told = is_positive & unseen if kind == WORDING else is_positive
            kept = kept_auroc(
                values,
                told,
                ~is_positive,
                problem,
                stratum,
                reference=is_positive & ~unseen if kind == WORDING else None,
                keep=bars.at.keep,
                num_resamples=bars.num_resamples,
                seed=bars.seed,
            )
            yield judge(
                replace(target, latent=latent),
                kind,
                kept,
                bars,
                n_pos=int(told.sum()),
                n_neg=int((~is_positive).sum()),
            )


def _strata(
    values: np.ndarray, drawn: Alike, here: slice, tokens: Contents, pairs: Contents, fewest: int
) -> dict[str, Int[np.ndarray, " interval"]]:
    one = np.zeros(len(values), np.int64)
    return {
        ALL: one,
        TOKEN: answered(values, tokens, fewest),
        WORDING: one,
        BIGRAM: answered(values, pairs, fewest),
        POSITION: drawn.position[here],
        LENGTH: drawn.length[here],
    }


def attack_onset_predictor(
    target: Target,
    latents: Sequence[int],
    cell: int,
    onsets: SparseMaxima,
    rows: Rows,
    bars: Bars,
) -> Iterator[Attack]:
    """Every attack on a layer's onset predictors: taken opportunities against those not taken.

    Args:
        target: Which; its latent is replaced by each of `latents`.
        latents: Of the same layer.
        cell: Of the behaviour and writer, on the report split.
        onsets: Activations at onset-1.
        rows: Where traces are.
        bars: What decides.
    """
    intervals = onsets.intervals
    here = intervals.of_cell(cell)
    taken: Bool[np.ndarray, " interval"] = intervals.is_positive[here]
    position, length = _places(intervals, here, rows)
    strata = {
        ALL: np.zeros(len(taken), np.int64),
        TOKEN: intervals.stratum[here],
        POSITION: tenths(position),
        LENGTH: tenths(length),
    }
    columns = onsets.columns(cell, np.array(latents, np.int64))
    for latent, values in zip(latents, columns.T, strict=True):
        for kind, stratum in strata.items():
            kept = kept_auroc(
                values,
                taken,
                ~taken,
                intervals.problem[here],
                stratum,
                keep=bars.at.keep,
                num_resamples=bars.num_resamples,
                seed=bars.seed,
            )
            counts = {"n_pos": int(taken.sum()), "n_neg": int((~taken).sum())}
            yield judge(replace(target, latent=latent), kind, kept, bars, **counts)


def _places(
    intervals: Intervals, here: slice, rows: Rows
) -> tuple[Int[np.ndarray, " interval"], Int[np.ndarray, " interval"]]:
    """Place of each interval in its trace's cached rows, and how many those are."""
    trace = np.searchsorted(rows.row_of_trace, intervals.start[here], side="right") - 1
    first = rows.row_of_trace[trace]
    return intervals.start[here] - first, rows.row_of_trace[trace + 1] - first
