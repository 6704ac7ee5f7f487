"""Intervals and q under the null, and whom the lists name."""

import numpy as np
import pandas as pd
import pytest
from behaviours.examples import made_up_trace, rows_of
from shortlists import span_detector

from sae_reasoning.behaviours.scores import LatentScores, label_rows
from sae_reasoning.behaviours.shortlist import add_intervals, draw_up, findings, mark_candidates
from sae_reasoning.behaviours.streams import Active
from sae_reasoning.behaviours.windows import TESTED
from sae_reasoning.records import Shortlist

NUM_LATENTS = 60


def _autocorrelated(num_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Activations that stay up for about ten tokens and are 0 half of the time."""
    x = np.zeros((num_rows, NUM_LATENTS))
    for row in range(1, num_rows):
        x[row] = 0.9 * x[row - 1] + rng.normal(size=NUM_LATENTS)
    return np.maximum(x, 0).astype(np.float32)


def test_independent_labels_on_autocorrelated_activations_are_significant_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    traces = []
    for i in range(160):
        starts = rng.choice(np.arange(4, 56, 8), size=3, replace=False)
        spans = [("a", int(s), int(s) + 6) for s in np.sort(starts)]
        split = ("select", "report")[i >= 80]
        traces.append(made_up_trace(i // 2, spans=spans, length=64, split=split, writer="rl"))
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a"], seed=0)
    dense = _autocorrelated(len(rows.token_id), rng)
    stream = LatentScores(labels, NUM_LATENTS)
    stream.add(Active.of(0, dense, np.tile(np.arange(NUM_LATENTS), (len(dense), 1))))
    result = stream.result()
    points = result.points.assign(layer=0, reader="rl", is_candidate=True)
    found = add_intervals(points, lambda _reader, _layer: result.maxima, ["a"])
    report = found[found.split == "report"]
    assert report.status.eq(TESTED).all()
    assert (report.p < 0.05).mean() < 0.12  # 0.05, up to three standard errors of 60 latents.
    assert (report.q < 0.05).sum() == 0
    covered = (report.span_auroc_low <= 0.5) & (report.span_auroc_high >= 0.5)
    assert covered.mean() > 0.88
    # The same labels tested token by token reject far more than their level: what not to do.
    of_row = labels.classes.of_row
    mine = labels.classes.group[of_row] == labels.classes.group.max()
    y, x = labels.classes.has(0)[of_row][mine], dense[mine]
    gap = x[y].mean(0) - x[~y].mean(0)
    error = np.sqrt(x[y].var(0) / y.sum() + x[~y].var(0) / (~y).sum())
    assert (np.abs(gap / error) > 1.96).mean() > 0.2


def _table() -> pd.DataFrame:
    """Four latents; the select and the report split disagree on which is best."""
    rows = []
    for split, aurocs in (("select", [0.9, 0.8, 0.7, 0.6]), ("report", [0.6, 0.7, 0.8, 0.9])):
        for latent, value in enumerate(aurocs):
            rows.append(
                {
                    "dictionary": "pooled/layer_0",
                    "layer": 0,
                    "latent": latent,
                    "behaviour": "a",
                    "reader": "rl",
                    "writer": "rl",
                    "split": split,
                    "status": TESTED,
                    "span_auroc": value,
                    "token_auroc": value,
                    "onset_auroc": 1 - value,
                    "onset_attribution": [-1.0, 0.0, 0.5, 0.2][latent],
                    "span_auroc_low": 0.0,
                    "span_auroc_high": 1.0,
                    "q": 0.01,
                    "n_pos": 5,
                    "n_neg": 5,
                }
            )
    return pd.DataFrame(rows)


def test_candidates_are_the_best_of_the_select_split_by_either_measure() -> None:
    table = _table()
    marked = mark_candidates(
        table, candidates=1, onset_predictors=1, onset_predictors_by="attribution"
    )
    assert sorted(set(table.latent[marked])) == [0, 2]
    marked = mark_candidates(
        table, candidates=1, onset_predictors=1, onset_predictors_by="onset_auroc"
    )
    assert sorted(set(table.latent[marked])) == [0, 3]


@pytest.mark.parametrize(("by", "expected"), [("attribution", [2, 3]), ("onset_auroc", [])])
def test_lists_choose_on_select_and_show_report(by: str, expected: list[int]) -> None:
    traces = [made_up_trace(0, spans=[("a", 9, 12)])]
    labels = label_rows(traces, rows_of(traces), ["a"], seed=0)
    onsets = LatentScores(labels, 4).result().onsets
    latents = pd.DataFrame(
        {
            "dictionary": "pooled/layer_0",
            "layer": 0,
            "latent": range(4),
            "reader": "rl",
            "writer": "rl",
            "firing_rate": 0.1,
            "mean_active": 1.0,
            "max_active": 2.0,
        }
    )
    table = _table()
    table.loc[table.split == "select", "onset_auroc"] = [0.1, 0.2, 0.3, 0.4]
    lists = draw_up(
        table,
        latents,
        lambda _reader, _layer: onsets,
        ["a", "z"],
        span_detectors=2,
        onset_predictors=3,
        onset_predictors_by=by,
        bootstrap=10,
        seed=0,
    )
    assert [entry.latent for entry in lists.span_detectors["a"]] == [0, 1]
    first = lists.span_detectors["a"][0]
    assert (first.select_span_auroc, first.span_auroc, first.max_active) == (0.9, 0.6, 2.0)
    assert [entry.latent for entry in lists.onset_predictors["a"]] == expected
    assert lists.span_detectors["z"] == lists.onset_predictors["z"] == []


def test_findings_show_the_random_reader_in_the_layer_that_select_prefers() -> None:
    columns = ["baseline", "layer", "reader", "select_span_auroc", "span_auroc"]
    rows = [
        ("random_reader", 0, "random", 0.7, 0.9),
        ("random_reader", 1, "random", 0.8, 0.6),
        ("probe", 0, "rl", 0.9, 0.95),
        ("probe", 1, "rl", 1.0, 0.99),
        ("ngram", -1, "text", 0.9, 0.85),
    ]
    baselines = pd.DataFrame(rows, columns=columns).assign(behaviour="a", writer="rl")
    lists = Shortlist(span_detectors={"a": [span_detector(0, 0)]}, onset_predictors={"a": []})
    (found,) = findings(_table(), baselines, lists, ["a"]).to_dict("records")
    assert (found["random_reader"], found["probe"], found["ngram"]) == (0.6, 0.95, 0.85)
