"""Baselines of every latent, measured as the latents are.

Fitted or picked on the select split, reported as span AUROC on the report split, with the problems
as clusters:

* `random_reader`: the best latent of a dictionary trained on a randomly initialised reader, for as
  many steps as the others, on a share of the traces (`num_traces`);
* `random_direction`: the best of many random directions of the residual stream;
* `ngram`: token unigrams and bigrams, no model at all;
* `probe`: logistic regression on the mean activation over the span; the ceiling;
* `sparse_probe_<k>`: logistic regression on k latents' maxima (`probes`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from sae_reasoning.behaviours.probes import Probe, fit_probe
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.records import MODELS, SPLITS, Trace
from sae_reasoning.stats import auroc, clustered_auroc

RANDOM_READER, RANDOM_DIRECTION, NGRAM, PROBE = BASELINES = (
    "random_reader",
    "random_direction",
    "ngram",
    "probe",
)

SPARSE_PROBE = "sparse_probe_{}"


@dataclass(frozen=True)
class BaselineScore:
    """A baseline's span AUROC on the report split.

    Attributes:
        behaviour: Behaviour.
        layer: Decoder block; -1 where none is read.
        reader: Whose activations; `text` where none are read.
        writer: Whose traces.
        baseline: Which.
        span_auroc: Estimate.
        low: Lower bound.
        high: Upper bound.
        n_pos: Spans.
        n_neg: Windows.
        select_span_auroc: Span AUROC on the select split, on which it was fitted or picked.
        num_traces: Traces it was fitted and measured on.
        steps: Training steps of its dictionary; 0 where it has none.
    """

    behaviour: str
    layer: int
    reader: str
    writer: str
    baseline: str
    span_auroc: float
    low: float
    high: float
    n_pos: int
    n_neg: int
    select_span_auroc: float
    num_traces: int
    steps: int


Scorer = Callable[[int, int], Float[np.ndarray, " interval"] | None]
"""Scores of a cell's intervals, given the select cell, to fit or pick on, and that cell."""


def score_baseline(
    baseline: str,
    scorer: Scorer,
    intervals: Intervals,
    behaviours: Sequence[str],
    *,
    layer: int,
    reader: str,
    num_traces: int,
    steps: int = 0,
) -> Iterator[BaselineScore]:
    """Report one baseline wherever both splits hold spans and windows."""
    for number, behaviour in enumerate(behaviours):
        for writer in MODELS:
            select, report = (cell_index(number, writer, s) for s in ("select", "report"))
            if not all(_both_kinds(intervals, cell) for cell in (select, report)):
                continue
            scores = scorer(select, report)
            if scores is None:
                continue
            fitted = scorer(select, select)
            assert fitted is not None
            own = intervals.is_positive[intervals.of_cell(select)]
            here = intervals.of_cell(report)
            found = clustered_auroc(
                scores[:, None].astype(np.float64),
                intervals.is_positive[here],
                intervals.problem[here],
            )
            yield BaselineScore(
                behaviour,
                layer,
                reader,
                writer,
                baseline,
                float(found.value[0]),
                float(found.low[0]),
                float(found.high[0]),
                found.num_positives,
                found.num_negatives,
                float(auroc(fitted[:, None].astype(np.float64), own)[0]),
                num_traces,
                steps,
            )


def best_latent(maxima: SparseMaxima) -> Scorer:
    """The latent that is best on the select cell."""

    def score(select: int, report: int) -> np.ndarray:
        best = int(np.nanargmax(maxima.aurocs(select)))
        return maxima.columns(report, np.array([best]))[:, 0]

    return score


class IntervalActivations:
    """Mean activation, and largest projections on directions, over each interval."""

    def __init__(
        self, intervals: Intervals, directions: Float[Tensor, "direction d_model"]
    ) -> None:
        self.intervals, self._directions = intervals, directions
        num = len(intervals.start)
        self.mean = np.zeros((num, directions.shape[1]), np.float32)
        self.largest = np.full((num, len(directions)), -np.inf, np.float32)
        self._probes: dict[int, Probe] = {}
        self._size = (intervals.stop - intervals.start)[:, None].astype(np.float32)

    def add(self, first_row: int, activations: Float32[Tensor, "row d_model"]) -> None:
        """Take the next rows."""
        stop_row = first_row + len(activations)
        here = np.flatnonzero((self.intervals.start < stop_row) & (self.intervals.stop > first_row))
        start = np.maximum(self.intervals.start[here], first_row)
        length = np.minimum(self.intervals.stop[here], stop_row) - start
        raw = activations.numpy()
        projected = (activations @ self._directions.T).numpy()
        # The longest first, so that those with a further row are always the first few.
        order = np.argsort(-length, kind="stable")
        here, start, length = here[order], start[order] - first_row, length[order]
        total = np.zeros((len(here), raw.shape[1]), np.float32)
        largest = np.full((len(here), projected.shape[1]), -np.inf, np.float32)
        for offset in range(int(length[0]) if len(length) else 0):
            num = int(np.searchsorted(-length, -offset))
            row = start[:num] + offset
            total[:num] += raw[row]
            np.maximum(largest[:num], projected[row], out=largest[:num])
        self.mean[here] += total / self._size[here]
        self.largest[here] = np.maximum(self.largest[here], largest)

    @property
    def scorers(self) -> dict[str, Scorer]:
        """The baselines that read activations, by name."""
        return {RANDOM_DIRECTION: self.best_direction, PROBE: self.probe}

    def best_direction(self, select: int, report: int) -> np.ndarray:
        """The direction that is best on the select cell."""
        here = self.intervals.of_cell(select)
        found = auroc(self.largest[here], self.intervals.is_positive[here])
        return self.largest[self.intervals.of_cell(report), int(np.argmax(found))]

    def probe(self, select: int, report: int) -> np.ndarray:
        """A logistic probe fitted on the select cell."""
        if select not in self._probes:
            here = self.intervals.of_cell(select)
            self._probes[select] = fit_probe(self.mean[here], self.intervals.is_positive[here])
        return self._probes[select].scores(self.mean[self.intervals.of_cell(report)])


def random_directions(num: int, d_model: int, seed: int) -> Float32[Tensor, "direction d_model"]:
    """Unit vectors, uniform on the sphere."""
    drawn = torch.randn(num, d_model, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


class NgramScorer:
    """Log-odds of tokens, given the token before where that pair was seen, over the text alone."""

    def __init__(self, intervals: Intervals, token_id: Int[np.ndarray, " row"]) -> None:
        self._intervals, self._token_id = intervals, token_id

    def __call__(self, select: int, report: int) -> np.ndarray:
        """Fit on the select cell; the mean or the largest over the span, whichever fits better."""
        fitted = self._fit(select)
        here = self._intervals.of_cell(select)
        is_positive = self._intervals.is_positive[here]
        ways = (np.mean, np.max)
        fits = [
            auroc(np.array([way(s) for s in self._scores(select, fitted)])[:, None], is_positive)[0]
            for way in ways
        ]
        way = ways[int(np.argmax(fits))]
        return np.array([way(s) for s in self._scores(report, fitted)])

    def _pairs(self, cell: int) -> Iterator[tuple[bool, list[tuple[int, int]]]]:
        here = self._intervals.of_cell(cell)
        token = self._token_id
        for start, stop, hit in zip(
            self._intervals.start[here].tolist(),
            self._intervals.stop[here].tolist(),
            self._intervals.is_positive[here].tolist(),
            strict=True,
        ):
            # The first response token follows the last prompt token, which is cached too.
            before = token[start - 1 : stop - 1].tolist() if start else [-1]
            yield hit, list(zip(before, token[start:stop].tolist(), strict=False))

    def _fit(self, cell: int) -> dict[tuple[int, ...], float]:
        counts: dict[bool, Counter[tuple[int, ...]]] = {True: Counter(), False: Counter()}
        sizes = {True: 0, False: 0}
        for hit, pairs in self._pairs(cell):
            sizes[hit] += len(pairs)
            counts[hit].update(pairs)
            counts[hit].update((token,) for _, token in pairs)
        prior = np.log((sizes[True] + 1) / (sizes[False] + 1))
        return {
            key: float(np.log((counts[True][key] + 0.5) / (counts[False][key] + 0.5)) - prior)
            for key in counts[True] | counts[False]
        }

    def _scores(self, cell: int, fitted: dict[tuple[int, ...], float]) -> Iterator[list[float]]:
        for _, pairs in self._pairs(cell):
            yield [fitted.get(pair, fitted.get(pair[1:], 0.0)) for pair in pairs]


def _both_kinds(intervals: Intervals, cell: int) -> bool:
    is_positive = intervals.is_positive[intervals.of_cell(cell)]
    return bool(is_positive.any() and not is_positive.all())


def some_with_behaviours(traces: Sequence[Trace], most: int, seed: int) -> list[int]:
    """Which traces make behaviours, at most so many of each writer and split, in their order."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for split in SPLITS:
        for writer in MODELS:
            there = [
                t
                for t, trace in enumerate(traces)
                if (trace.split, trace.writer) == (split, writer) and trace.spans
            ]
            chosen += rng.permutation(there)[:most].astype(int).tolist()
    return sorted(chosen)
