"""Attacks within strata of the text as it stands; outcomes and labels are in `outcomes`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from sae_reasoning.behaviours.matched_windows import MatchedWindows, tenths
from sae_reasoning.behaviours.streams import MaximaOf, SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, Rows, cell_index
from sae_reasoning.records import ONSET_PREDICTORS, REPORT, ShortlistEntry
from sae_reasoning.robustness.outcomes import (
    ALL,
    BIGRAM,
    LENGTH,
    POSITION,
    TOKEN,
    WORDING,
    Attack,
    Target,
    Thresholds,
    judge,
)
from sae_reasoning.robustness.readers import Reader, by_layer
from sae_reasoning.robustness.strata import Contents, contents, most_active_token
from sae_reasoning.stats import kept_auroc


def attack_span_detectors(reader: Reader, thresholds: Thresholds) -> Iterator[Attack]:
    """The attacks on a reader's span detectors that need no other text than there is."""
    for target, latents in by_layer(reader.targets):
        yield from attack_span_detector(
            target,
            latents,
            reader.cell(target),
            reader.matched,
            reader.maxima(target.layer),
            reader.rows.token_id,
            thresholds,
        )


def attack_onset_predictors(
    lists: Mapping[str, Sequence[ShortlistEntry]],
    readers: Sequence[str],
    behaviours: Sequence[str],
    onsets_of: MaximaOf,
    rows: Rows,
    thresholds: Thresholds,
) -> Iterator[Attack]:
    """All attacks on the shortlisted onset predictors, in every reader.

    Args:
        lists: By behaviour.
        readers: The models.
        behaviours: In the order of cells.
        onsets_of: Activations at onset-1, of a reader and layer.
        rows: Where traces are.
        thresholds: What decides.
    """
    for reader in readers:
        targets = [
            Target(ONSET_PREDICTORS, behaviour, reader, entry.writer, entry.layer, entry.latent)
            for behaviour, entries in lists.items()
            for entry in entries
        ]
        for target, latents in by_layer(targets):
            cell = cell_index(behaviours.index(target.behaviour), target.writer, REPORT)
            yield from attack_onset_predictor(
                target, latents, cell, onsets_of(reader, target.layer), rows, thresholds
            )


def attack_span_detector(
    target: Target,
    latents: Sequence[int],
    cell: int,
    matched: MatchedWindows,
    maxima: SparseMaxima,
    token_id: Int[np.ndarray, " row"],
    thresholds: Thresholds,
) -> Iterator[Attack]:
    """Every attack by text on some latents of one layer, in one reader on one writer's text.

    Args:
        target: Which; its latent is replaced by each of `latents`.
        latents: Of the same layer.
        cell: Of the behaviour and writer, on the report split.
        matched: Spans and windows.
        maxima: Of the latents over them.
        token_id: Token that each row has read.
        thresholds: What decides.
    """
    here = matched.intervals.of_cell(cell)
    is_positive, problem = matched.intervals.is_positive[here], matched.intervals.problem[here]
    unseen = matched.unseen[here]
    tokens = contents(matched.intervals, here, token_id, pairs=False)
    pairs = contents(matched.intervals, here, token_id, pairs=True)
    columns = maxima.columns(cell, np.array(latents, np.int64))
    for latent, values in zip(latents, columns.T, strict=True):
        for kind, stratum in _strata(
            values, matched, here, tokens, pairs, thresholds.at.token_intervals
        ).items():
            positive = is_positive & unseen if kind == WORDING else is_positive
            kept = kept_auroc(
                values,
                positive,
                ~is_positive,
                problem,
                stratum,
                reference=is_positive & ~unseen if kind == WORDING else None,
                keep=thresholds.at.keep,
                num_resamples=thresholds.num_resamples,
                seed=thresholds.seed,
            )
            yield judge(
                replace(target, latent=latent),
                kind,
                kept,
                thresholds,
                n_pos=int(positive.sum()),
                n_neg=int((~is_positive).sum()),
            )


def _strata(
    values: np.ndarray,
    matched: MatchedWindows,
    here: slice,
    tokens: Contents,
    pairs: Contents,
    fewest: int,
) -> dict[str, Int[np.ndarray, " interval"]]:
    one = np.zeros(len(values), np.int64)
    return {
        ALL: one,
        TOKEN: most_active_token(values, tokens, fewest),
        WORDING: one,
        BIGRAM: most_active_token(values, pairs, fewest),
        POSITION: matched.position[here],
        LENGTH: matched.length[here],
    }


def attack_onset_predictor(
    target: Target,
    latents: Sequence[int],
    cell: int,
    onsets: SparseMaxima,
    rows: Rows,
    thresholds: Thresholds,
) -> Iterator[Attack]:
    """Every attack on a layer's onset predictors: onsets against opportunities that are none.

    Args:
        target: Which; its latent is replaced by each of `latents`.
        latents: Of the same layer.
        cell: Of the behaviour and writer, on the report split.
        onsets: Activations at onset-1.
        rows: Where traces are.
        thresholds: What decides.
    """
    intervals = onsets.intervals
    here = intervals.of_cell(cell)
    is_onset: Bool[np.ndarray, " interval"] = intervals.is_positive[here]
    position, length = _places(intervals, here, rows)
    strata = {
        ALL: np.zeros(len(is_onset), np.int64),
        TOKEN: intervals.stratum[here],
        POSITION: tenths(position),
        LENGTH: tenths(length),
    }
    columns = onsets.columns(cell, np.array(latents, np.int64))
    for latent, values in zip(latents, columns.T, strict=True):
        for kind, stratum in strata.items():
            kept = kept_auroc(
                values,
                is_onset,
                ~is_onset,
                intervals.problem[here],
                stratum,
                keep=thresholds.at.keep,
                num_resamples=thresholds.num_resamples,
                seed=thresholds.seed,
            )
            counts = {"n_pos": int(is_onset.sum()), "n_neg": int((~is_onset).sum())}
            yield judge(replace(target, latent=latent), kind, kept, thresholds, **counts)


def _places(
    intervals: Intervals, here: slice, rows: Rows
) -> tuple[Int[np.ndarray, " interval"], Int[np.ndarray, " interval"]]:
    """Place of each interval in its trace's cached rows, and how many those are."""
    trace = np.searchsorted(rows.row_of_trace, intervals.start[here], side="right") - 1
    first = rows.row_of_trace[trace]
    return intervals.start[here] - first, rows.row_of_trace[trace + 1] - first
