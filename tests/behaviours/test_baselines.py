"""Baselines: scikit-learn as the oracle of the probe, the others by hand."""

import numpy as np
import pytest
import torch
from behaviours.examples import made_up_trace, rows_of
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sae_reasoning.behaviours.baselines import (
    IntervalActivations,
    NgramScorer,
    fit_probe,
    random_directions,
    score_baseline,
)
from sae_reasoning.behaviours.windows import Intervals, cell_index, span_intervals
from sae_reasoning.records import Trace


def _example(num: int = 60) -> tuple[list[Trace], Intervals, np.ndarray]:
    """Spans that begin with token 90 and say 91 or 92; windows say 1 to 8."""
    rng = np.random.default_rng(0)
    traces = []
    for i in range(num):
        tokens = rng.integers(1, 9, 40)
        start = int(rng.integers(5, 30))
        tokens[start : start + 4] = [90, 91, 92, 91]
        split, writer = ("select", "report")[i >= num // 2], ("base", "rl")[i % 2]
        traces.append(
            made_up_trace(
                i // 2,
                spans=[("a", start, start + 4)],
                split=split,
                writer=writer,
                token_ids=tuple(tokens.tolist()),
            )
        )
    rows = rows_of(traces)
    return traces, span_intervals(traces, rows, ["a"], seed=0), rows.token_id


def test_probe_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(2.0, [0.5, 3.0, 1.0], (80, 3)).astype(np.float32)
    is_positive = features @ [1.0, 0.2, -0.5] + rng.normal(size=80) > 1.2
    found = fit_probe(features, is_positive, inverse_penalty=0.5).scores(features)
    scaled = StandardScaler().fit_transform(features)
    oracle = LogisticRegression(C=0.5, tol=1e-8).fit(scaled, is_positive)
    assert found == pytest.approx(oracle.decision_function(scaled), abs=1e-3)


def test_means_and_projections_are_taken_over_the_interval_across_batches() -> None:
    _, intervals, token_id = _example()
    activations = torch.randn(len(token_id), 6, generator=torch.Generator().manual_seed(0))
    directions = random_directions(5, 6, seed=1)
    assert directions.norm(dim=1).tolist() == pytest.approx([1.0] * 5)
    raw = IntervalActivations(intervals, directions)
    for start in range(0, len(token_id), 17):
        raw.add(start, activations[start : start + 17])
    for i in (0, 7, len(intervals.start) - 1):
        part = activations[intervals.start[i] : intervals.stop[i]]
        assert raw.mean[i] == pytest.approx(part.mean(0).numpy(), abs=1e-5)
        assert raw.largest[i] == pytest.approx((part @ directions.T).amax(0).numpy(), abs=1e-5)


def test_a_text_that_gives_the_behaviour_away_is_caught_by_the_ngrams() -> None:
    _, intervals, token_id = _example()
    scorer = NgramScorer(intervals, token_id)
    found = list(
        score_baseline("ngram", scorer, intervals, ["a"], layer=-1, reader="text", num_traces=60)
    )
    assert [row.writer for row in found] == ["base", "rl"]
    assert all(row.span_auroc == 1.0 and row.low < 1.0 for row in found)
    assert found[0].n_pos == 15


def test_noise_is_no_baseline_on_the_report_split_however_well_it_was_picked() -> None:
    _, intervals, token_id = _example(400)
    activations = torch.randn(len(token_id), 6, generator=torch.Generator().manual_seed(0))
    raw = IntervalActivations(intervals, random_directions(64, 6, seed=1))
    raw.add(0, activations)
    for scorer in (raw.best_direction, raw.probe):
        for row in score_baseline(
            "x", scorer, intervals, ["a"], layer=0, reader="rl", num_traces=9
        ):
            assert row.low < 0.55
            assert abs(row.span_auroc - 0.5) < 0.15


def test_selection_sees_the_select_cell_only() -> None:
    _, intervals, token_id = _example(200)
    raw = IntervalActivations(intervals, torch.eye(2))
    activations = torch.zeros(len(token_id), 2)
    # Direction 0 tells on the select split, direction 1 on the report split.
    border = intervals.start[intervals.of_cell(cell_index(0, "rl", "report"))].min()
    is_move = torch.from_numpy(token_id == 90)
    rows = torch.arange(len(token_id))
    activations[:, 0] = (is_move & (rows < border)).float()
    activations[:, 1] = (is_move & (rows >= border)).float()
    raw.add(0, activations)
    scored = list(
        score_baseline(
            "x", raw.best_direction, intervals, ["a"], layer=0, reader="rl", num_traces=9
        )
    )
    assert scored[1].writer == "rl"
    assert scored[1].span_auroc == 0.5
    assert scored[1].select_span_auroc == 1.0
    assert (scored[1].num_traces, scored[1].steps) == (9, 0)
