"""Levels of the tests and coverage of the intervals, on autocorrelated activations.

Latents drift slowly and lean by problem and trace, as real ones do; labels are runs of tokens that
know nothing of them, or, where an effect is planted, shift them by a known amount.
"""

import numpy as np
import pytest
from behaviours.examples import made_up_trace, rows_of
from scipy.signal import lfilter

from sae_reasoning.behaviours.streams import Active, MaximaStream
from sae_reasoning.behaviours.windows import Intervals, cell_index, span_intervals
from sae_reasoning.records import Trace
from sae_reasoning.stats import AurocEstimates, benjamini_hochberg, clustered_auroc, kept_auroc

PROBLEMS, TRACES, LENGTH, LATENTS = 50, 3, 120, 30
BEHAVIOURS = ["a", "b"]


def labelled(rng: np.random.Generator) -> list[Trace]:
    """Traces with runs of two behaviours, more in some problems than in others."""
    traces = []
    for problem in range(PROBLEMS):
        rate = rng.beta(1, 1)
        for _ in range(TRACES):
            slots = np.flatnonzero(rng.random(10) < rate)
            spans = []
            for slot in slots:
                start = 4 + 11 * int(slot) + int(rng.integers(3))
                spans.append((BEHAVIOURS[rng.integers(2)], start, start + int(rng.integers(3, 8))))
            traces.append(made_up_trace(problem, spans=spans, length=LENGTH, split="report"))
    return traces


def drifting(rng: np.random.Generator, num_traces: int, rows_each: int) -> np.ndarray:
    """Dense latents [row, latent] with a memory of some ten tokens, leaning by problem."""
    noise = rng.normal(size=(num_traces, rows_each + 50, LATENTS))
    slow = lfilter([1.0], [1.0, -0.9], noise, axis=1)[:, 50:] * (1 - 0.81) ** 0.5
    problem = rng.normal(size=(PROBLEMS, LATENTS))[np.arange(num_traces) // TRACES]
    trace = rng.normal(size=(num_traces, LATENTS))
    return (slow + 0.5 * problem[:, None] + 0.3 * trace[:, None]).reshape(-1, LATENTS)


def maxima_of(intervals: Intervals, dense: np.ndarray, behaviour: int) -> tuple[np.ndarray, slice]:
    """Maxima [interval, latent] of one behaviour on the report split, and which intervals."""
    stream = MaximaStream(intervals, LATENTS)
    latents = np.tile(np.arange(LATENTS), (len(dense), 1))
    stream.add(Active.of(0, np.maximum(dense - 1.0, 0.0), latents))
    cell = cell_index(behaviour, "rl", "report")
    return stream.result().columns(cell, np.arange(LATENTS)), intervals.of_cell(cell)


def estimates_of(intervals: Intervals, dense: np.ndarray, behaviour: int) -> AurocEstimates:
    """The estimates that `rank` makes of latents that fire where `dense` is above 1."""
    maxima, here = maxima_of(intervals, dense, behaviour)
    return clustered_auroc(maxima, intervals.is_positive[here], intervals.problem[here])


def _unrelated(repeats: int) -> tuple[float, float]:
    """Share of raw p-values below 0.05, and of repeats with any rejection after correction."""
    p, found = [], 0
    for repeat in range(repeats):
        rng = np.random.default_rng((7, repeat))
        traces = labelled(rng)
        intervals = span_intervals(traces, rows_of(traces), BEHAVIOURS, repeat)
        dense = drifting(rng, len(traces), LENGTH - 2)
        own = np.concatenate([estimates_of(intervals, dense, b).p for b in range(2)])
        p.append(own)
        found += bool((benjamini_hochberg(own) < 0.05).any())
    return float(np.mean(np.concatenate(p) < 0.05)), found / repeats


@pytest.mark.slow
def test_the_level_is_kept_and_after_correction_hardly_anything_is_found() -> None:
    level, found = _unrelated(200)
    assert 0.04 <= level <= 0.06
    assert found <= 0.05


def test_in_a_few_repeats_the_level_is_about_kept() -> None:
    level, found = _unrelated(10)
    # 600 p-values, alike within a repeat: about four standard errors of independent ones.
    assert 0.02 <= level <= 0.085
    assert found <= 0.2


@pytest.mark.parametrize(
    "shift",
    [pytest.param(0.3, marks=pytest.mark.slow), 0.8, pytest.param(1.5, marks=pytest.mark.slow)],
)
def test_intervals_of_planted_effects_cover_as_often_as_they_say(shift: float) -> None:
    values, lows, highs = [], [], []
    for repeat in range(60):
        rng = np.random.default_rng((8, repeat))
        traces = labelled(rng)
        intervals = span_intervals(traces, rows_of(traces), BEHAVIOURS, repeat)
        dense = drifting(rng, len(traces), LENGTH - 2)
        here = intervals.of_cell(cell_index(0, "rl", "report"))
        for number in range(here.start, here.stop):
            if intervals.is_positive[number]:
                dense[intervals.start[number] : intervals.stop[number]] += shift
        estimates = estimates_of(intervals, dense, 0)
        values.append(estimates.value)
        lows.append(estimates.low)
        highs.append(estimates.high)
    truth = np.mean(values)
    covered = (np.array(lows) <= truth) & (truth <= np.array(highs))
    assert truth > 0.55
    assert 0.93 <= covered.mean() <= 0.97


@pytest.mark.slow
def test_what_is_kept_within_strata_covers_one_half_where_nothing_is_there() -> None:
    covered = []
    for repeat in range(30):
        rng = np.random.default_rng((9, repeat))
        traces = labelled(rng)
        intervals = span_intervals(traces, rows_of(traces), BEHAVIOURS, repeat)
        dense = drifting(rng, len(traces), LENGTH - 2)
        maxima, here = maxima_of(intervals, dense, 0)
        is_positive = intervals.is_positive[here]
        stratum = intervals.start[here] % 5
        for values in maxima.T:
            found = kept_auroc(
                values,
                is_positive,
                ~is_positive,
                intervals.problem[here],
                stratum,
                keep=0.5,
                num_resamples=200,
                seed=repeat,
            )
            assert found.comparable > 0.95
            covered.append(found.within.low <= 0.5 <= found.within.high)
    assert 0.92 <= np.mean(covered) <= 0.98  # 900 tests: 0.95, up to four standard errors.
