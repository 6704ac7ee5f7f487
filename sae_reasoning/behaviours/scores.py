"""Point estimates for all latents x behaviours x writers x splits, from one pass over a reader.

1. `label_rows` says, once for all readers and layers, which rows are which behaviour's.
2. `LatentScores.add` takes each batch of sparse latents in row order.
3. `LatentScores.result` turns sums, values and interval maxima into the table of scores.

All are exact. What grows with the number of tokens waits in scratch files: 8 bytes an activation,
and 12 to 20 bytes for every latent that fires in an interval.

Tokens before a response (where they are cached) take no part; the last prompt position does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.behaviours.matched_windows import MatchedWindows, draw_matched_windows
from sae_reasoning.behaviours.reason_score import CueWindows, cue_windows, reason_score
from sae_reasoning.behaviours.streams import Active, MaximaStream, SparseMaxima, matched_strata
from sae_reasoning.behaviours.tables import (
    COUNT,
    SQUARE,
    TOTAL,
    ClassSums,
    ValueTable,
    WordSums,
)
from sae_reasoning.behaviours.windows import (
    NO_SPANS,
    Classes,
    Intervals,
    Rows,
    behaviour_status,
    cell_index,
    classify_rows,
    group_index,
    label_bits,
    onset_intervals,
    onset_tokens,
    span_intervals,
)
from sae_reasoning.behaviours.wordings import draw_wordings, hold_out
from sae_reasoning.records import MODELS, ONSET_PREDICTORS, SPAN_DETECTORS, SPLITS, Trace

SCORES = [
    "dictionary",
    "layer",
    "latent",
    "behaviour",
    "reader",
    "writer",
    "split",
    "status",
    "n_pos",
    "n_neg",
    "num_problems",
    "span_auroc",
    "span_auroc_low",
    "span_auroc_high",
    "token_auroc",
    "onset_auroc",
    "onset_matched_share",
    "n_onset_pos",
    "n_onset_neg",
    "point_biserial",
    "mutual_information",
    "mutual_information_null",
    "reason_score",
    "rate_in",
    "rate_out",
    "rate_at_opportunities",
    "onset_attribution",
    "is_candidate",
    "p",
    "q",
]
"""Columns of the table of scores."""

_NUM_SHIFTS = 3
"""Circular shifts of the labels whose mean mutual information is the null."""


@dataclass(frozen=True)
class Labels:
    """What the cached rows are, the same for all readers and layers.

    Attributes:
        behaviours: Names, in the order of bits and cells.
        status: What can be said of each behaviour and writer.
        wordings: Of each behaviour, first words that selection doesn't see.
        spans: Spans and their windows.
        onsets: Rows at onset-1 of opportunities.
        classes: Rows by the behaviours they belong to.
        shifted: The same with behaviours shifted round their traces.
        near_cue: Rows by the behaviours whose cue words are near.
        cues: Rows near each cue word.
        matched: Spans on the report split, and windows that are matched to them.
        onset_ids: First tokens of each behaviour's spans on the select split; also its cue words.
    """

    behaviours: tuple[str, ...]
    status: Mapping[tuple[str, str], str]
    wordings: Mapping[str, tuple[str, ...]]
    spans: Intervals
    onsets: Intervals
    classes: Classes
    shifted: tuple[Classes, ...]
    near_cue: Classes
    cues: CueWindows
    matched: MatchedWindows
    onset_ids: Mapping[str, tuple[int, ...]]

    @property
    def compared(self) -> dict[str, Intervals]:
        """What each shortlist's latents are compared on: spans with windows, or opportunities."""
        return {SPAN_DETECTORS: self.spans, ONSET_PREDICTORS: self.onsets}

    def cells(self) -> list[tuple[int, str, str]]:
        """Behaviour, writer and split of everything that is scored."""
        return [
            (b, writer, split)
            for b, behaviour in enumerate(self.behaviours)
            for writer in MODELS
            for split in SPLITS
            if self.status[behaviour, writer] != NO_SPANS
        ]


def label_rows(traces: Sequence[Trace], rows: Rows, behaviours: Sequence[str], seed: int) -> Labels:
    """Label the cached rows; windows, shifts and held-out wordings are drawn here, once."""
    status = behaviour_status(traces, behaviours)
    wordings = draw_wordings(traces, behaviours, seed)
    traces = hold_out(traces, wordings)
    bits = label_bits(traces, rows, behaviours)
    classes = classify_rows(bits, traces, rows, shift_seed=None)
    trace_of_row = np.repeat(np.arange(len(traces)), np.diff(rows.row_of_trace))
    cue_ids = onset_tokens(traces, behaviours)
    cues = cue_windows(rows.token_id, np.where(classes.of_row >= 0, trace_of_row, -1), cue_ids)
    return Labels(
        behaviours=tuple(behaviours),
        status=status,
        wordings=wordings,
        spans=span_intervals(traces, rows, behaviours, seed),
        onsets=onset_intervals(traces, rows, behaviours, seed),
        classes=classes,
        shifted=tuple(
            classify_rows(bits, traces, rows, shift_seed=seed + shift)
            for shift in range(_NUM_SHIFTS)
        ),
        near_cue=classify_rows(cues.bits(len(bits)), traces, rows, shift_seed=None),
        cues=cues,
        matched=draw_matched_windows(traces, rows, behaviours, wordings, seed),
        onset_ids=cue_ids,
    )


@dataclass(frozen=True)
class ReaderScores:
    """Scores of one dictionary's latents on one reader.

    Attributes:
        points: One row a latent, behaviour, writer and split.
        latents: Firing rate and size of each latent on the select split, by writer.
        maxima: Largest activations over spans and windows, for intervals later.
        onsets: Activations at onset-1.
        matched: The same over spans on the report split and their matched windows.
    """

    points: pd.DataFrame
    latents: pd.DataFrame
    maxima: SparseMaxima
    onsets: SparseMaxima
    matched: SparseMaxima


class LatentScores:
    """Gathers the scores of one dictionary on one reader while its latents stream by.

    Args:
        labels: Of the rows.
        num_latents: Width of the dictionary.
        capacity: Activations in memory; the others wait on disk.
        scratch: Folder for what waits on disk; none for the system's temporary folder.
    """

    def __init__(
        self,
        labels: Labels,
        num_latents: int,
        capacity: int = 1 << 20,
        scratch: Path | None = None,
    ) -> None:
        self._labels, self._num_latents = labels, num_latents
        self._classes = ClassSums(labels.classes, num_latents)
        self._shifted = [ClassSums(classes, num_latents, {COUNT}) for classes in labels.shifted]
        self._near = ClassSums(labels.near_cue, num_latents, {TOTAL})
        num_groups = len(MODELS) * len(SPLITS)
        cues = labels.cues
        self._words = WordSums(
            cues.row,
            cues.word,
            labels.classes,
            len(cues.word_behaviour),
            num_groups,
            num_latents,
        )
        self._table = ValueTable(labels.classes, num_latents, num_groups, capacity, scratch)
        self._spans = MaximaStream(labels.spans, num_latents, scratch)
        self._onsets = MaximaStream(labels.onsets, num_latents, scratch)
        self._matched = MaximaStream(labels.matched.intervals, num_latents, scratch)
        self._max = np.zeros(num_groups * num_latents, np.float32)

    def add(self, active: Active) -> None:
        """Take the next rows."""
        self._classes.add(active)
        self._near.add(active)
        for shifted in self._shifted:
            shifted.add(active)
        self._words.add(active)
        self._table.add(active)
        for maxima in (self._spans, self._onsets, self._matched):
            maxima.add(active)
        of_row = self._labels.classes.of_row[active.row]
        scored = of_row >= 0
        group = self._labels.classes.group[of_row[scored]]
        key = group * self._num_latents + active.latent[scored]
        np.maximum.at(self._max, key, active.value[scored])

    def result(self) -> ReaderScores:
        """All point estimates."""
        spans, onsets = self._spans.result(), self._onsets.result()
        token_aurocs = self._table.aurocs(len(self._labels.behaviours))
        blocks = [
            pd.DataFrame(
                self._identity(b, writer, split)
                | {"token_auroc": token_aurocs[group_index(writer, split), b]}
                | _interval_scores(spans, onsets, cell_index(b, writer, split))
                | self._dependence(b, group_index(writer, split))
            )
            for b, writer, split in self._labels.cells()
        ]
        points = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()
        return ReaderScores(points, self._latents(), spans, onsets, self._matched.result())

    def _identity(self, behaviour: int, writer: str, split: str) -> dict[str, object]:
        spans = self._labels.spans
        here = spans.of_cell(cell_index(behaviour, writer, split))
        is_positive = spans.is_positive[here]
        name = self._labels.behaviours[behaviour]
        return {
            "latent": np.arange(self._num_latents),
            "behaviour": name,
            "writer": writer,
            "split": split,
            "status": self._labels.status[name, writer],
            "n_pos": int(is_positive.sum()),
            "n_neg": int((~is_positive).sum()),
            "num_problems": len(np.unique(spans.problem[here])),
        }

    def _dependence(self, behaviour: int, group: int) -> dict[str, np.ndarray]:
        """Rates, correlation, information and ReasonScore, over the tokens of one group."""
        n_in, fired_in = self._classes.split(COUNT, behaviour, group, inside=True)
        n_out, fired_out = self._classes.split(COUNT, behaviour, group, inside=False)
        _, total_in = self._classes.split(TOTAL, behaviour, group, inside=True)
        _, total_out = self._classes.split(TOTAL, behaviour, group, inside=False)
        _, square = self._classes.of_group(SQUARE, group)
        null = [_information(shifted, behaviour, group) for shifted in self._shifted]
        n_near, near = self._near.split(TOTAL, behaviour, group, inside=True)
        n_far, far = self._near.split(TOTAL, behaviour, group, inside=False)
        words = self._words.means(group, self._labels.cues.word_behaviour == behaviour)
        return {
            "rate_in": fired_in / max(n_in, 1),
            "rate_out": fired_out / max(n_out, 1),
            "point_biserial": point_biserial(total_in, total_out, square, n_in, n_out),
            "mutual_information": _information(self._classes, behaviour, group),
            "mutual_information_null": np.mean(null, 0),
            "reason_score": reason_score(near / max(n_near, 1), far / max(n_far, 1), words),
        }

    def _latents(self) -> pd.DataFrame:
        blocks = []
        for writer in MODELS:
            group = group_index(writer, "select")
            num_rows, count = self._classes.of_group(COUNT, group)
            _, total = self._classes.of_group(TOTAL, group)
            blocks.append(
                pd.DataFrame(
                    {
                        "latent": np.arange(self._num_latents),
                        "writer": writer,
                        "firing_rate": count / max(num_rows, 1),
                        "mean_active": total / np.maximum(count, 1),
                        "max_active": self._max.reshape(-1, self._num_latents)[group],
                    }
                )
            )
        return pd.concat(blocks, ignore_index=True)


def point_biserial(
    total_in: Float[np.ndarray, " latent"],
    total_out: Float[np.ndarray, " latent"],
    square: Float[np.ndarray, " latent"],
    n_in: float,
    n_out: float,
) -> Float[np.ndarray, " latent"]:
    """Correlation of activation and label from sums; NaN where either doesn't vary."""
    n = n_in + n_out
    if not n_in or not n_out:
        return np.full(len(square), np.nan)
    variance = square / n - ((total_in + total_out) / n) ** 2
    gap = total_in / n_in - total_out / n_out
    with np.errstate(invalid="ignore", divide="ignore"):
        r = gap * np.sqrt(n_in * n_out) / n / np.sqrt(np.maximum(variance, 0))
    return np.where(variance > 0, r, np.nan)


def _information(sums: ClassSums, behaviour: int, group: int) -> Float[np.ndarray, " latent"]:
    """Of firing and one behaviour: rows and firings of the same classes."""
    n_in, fired_in = sums.split(COUNT, behaviour, group, inside=True)
    n_out, fired_out = sums.split(COUNT, behaviour, group, inside=False)
    return mutual_information(fired_in, fired_out, n_in, n_out)


def mutual_information(
    fired_in: Float[np.ndarray, " latent"],
    fired_out: Float[np.ndarray, " latent"],
    n_in: float,
    n_out: float,
) -> Float[np.ndarray, " latent"]:
    """Mutual information of firing and label in bits."""
    n = n_in + n_out
    if not n:
        return np.zeros(len(fired_in))
    fired = fired_in + fired_out
    information = np.zeros(len(fired_in))
    for joint, of_firing, of_label in (
        (fired_in, fired, n_in),
        (fired_out, fired, n_out),
        (n_in - fired_in, n - fired, n_in),
        (n_out - fired_out, n - fired, n_out),
    ):
        expected = of_firing * of_label / n
        ratio = np.where(
            (joint > 0) & (expected > 0), joint / np.where(expected > 0, expected, 1), 1
        )
        information += joint / n * np.log2(ratio)
    return np.maximum(information, 0)


def _interval_scores(spans: SparseMaxima, onsets: SparseMaxima, cell: int) -> dict[str, object]:
    strata, share = matched_strata(onsets.intervals, cell)
    is_onset = onsets.intervals.is_positive[onsets.intervals.of_cell(cell)]
    found = {
        "span_auroc": spans.aurocs(cell),
        "onset_auroc": onsets.aurocs(cell, strata),
        "onset_matched_share": share,
        "n_onset_pos": int(is_onset.sum()),
        "n_onset_neg": int((~is_onset).sum()),
        "rate_at_opportunities": onsets.firing_rates(cell),
    }
    for maxima in (spans, onsets):
        maxima.release()
    return found
