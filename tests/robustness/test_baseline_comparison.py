"""Latents against baselines, on spans that are counted by hand."""

import numpy as np
from shortlists import span_detector

from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.robustness.baseline_comparison import (
    baseline_scores,
    compare_with_baselines,
    count_outperforming,
    outperformed_baselines,
    problem_numbers_elsewhere,
)

PROBLEMS = 40


def _intervals() -> Intervals:
    """On both splits two items a problem, the first of them a span."""
    cells = [cell_index(0, "rl", split) for split in ("select", "report")]
    cell = np.repeat(cells, 2 * PROBLEMS)
    place = np.arange(len(cell))
    problem = np.tile(np.repeat(np.arange(PROBLEMS), 2), 2)
    return Intervals(place, place + 1, cell, place % 2 == 0, problem, place)


def _maxima(intervals: Intervals) -> SparseMaxima:
    """Latent 0 fires on every span; latent 1 on every other item, span or not."""
    spans = np.flatnonzero(intervals.is_positive)
    some = np.flatnonzero(np.arange(len(intervals.start)) % 4 < 2)
    interval = np.concatenate([spans, some])
    latent = np.repeat([0, 1], [len(spans), len(some)])
    order = np.lexsort([latent, interval])
    ones = np.ones(len(interval), np.float32)
    return SparseMaxima(intervals, 2, interval[order], latent[order], ones)


def test_a_latent_outperforms_what_it_is_significantly_above_and_not_its_equal() -> None:
    intervals = _intervals()
    here = intervals.of_cell(cell_index(0, "rl", "report"))
    rng = np.random.default_rng(0)
    lot = rng.random(2 * PROBLEMS)
    own = intervals.is_positive[here].astype(float)
    scores = {"lot": lot, "equal": own}
    rivals = {
        name: baseline_scores(lambda _select, _report, own=own: own, intervals, ["a"])
        for name, own in scores.items()
    }
    found = compare_with_baselines(
        "span_detectors",
        {"a": [span_detector(1, 0), span_detector(1, 1)]},
        ["a"],
        lambda reader, layer: _maxima(intervals),
        lambda reader, layer: rivals,
        num_resamples=200,
        seed=0,
    )
    table = found[found.reader == "rl"].set_index(["latent", "baseline"])
    assert table.auroc.to_dict() == {
        (0, "lot"): 1.0,
        (0, "equal"): 1.0,
        (1, "lot"): 0.5,
        (1, "equal"): 0.5,
    }
    assert table.outperforms.to_dict() == {
        (0, "lot"): True,
        (0, "equal"): False,
        (1, "lot"): False,
        (1, "equal"): False,
    }
    assert table.difference[1, "equal"] == -0.5
    assert outperformed_baselines(found)["span_detectors", "a", 1, 0] == {
        "base": ["lot"],
        "rl": ["lot"],
    }
    counts = count_outperforming(found).set_index("reader")
    assert counts.loc["rl"].to_dict() == {
        "list": "span_detectors",
        "behaviour": "a",
        "latents": 2,
        "lot": 1,
        "equal": 0,
    }


def test_what_is_above_a_baseline_by_one_bound_of_many_does_not_outperform_it() -> None:
    """A lower bound just above 0, among sixty comparisons of nothing, is what chance gives."""
    intervals = _intervals()
    lots = np.random.default_rng(0).random((60, 2 * PROBLEMS))
    rivals = {
        f"lot {i}": baseline_scores(lambda _select, _report, own=own: own, intervals, ["a"])
        for i, own in enumerate(lots)
    }
    table = compare_with_baselines(
        "span_detectors",
        {"a": [span_detector(1, 1)]},
        ["a"],
        lambda reader, layer: _maxima(intervals),
        lambda reader, layer: rivals,
        num_resamples=500,
        seed=0,
        readers=["rl"],
    )
    assert (table.low > 0).any()
    assert not table.outperforms.any()


def test_problems_keep_their_numbers_among_other_traces() -> None:
    assert problem_numbers_elsewhere(["c", "a", "c"], ["a", "b", "c", "a"]).tolist() == [2, 0]
