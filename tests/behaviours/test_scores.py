"""Streamed scores against scikit-learn and scipy on dense arrays."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from behaviours.examples import made_up_trace, rows_of
from scipy import stats as scipy_stats
from sklearn.metrics import mutual_info_score, roc_auc_score

from sae_reasoning.behaviours.reason_score import cue_windows, reason_score
from sae_reasoning.behaviours.scores import Labels, LatentScores, ReaderScores, label_rows
from sae_reasoning.behaviours.streams import Active, MaximaStream, matched_strata
from sae_reasoning.behaviours.tables import ValueTable, WordSums
from sae_reasoning.behaviours.windows import Classes, cell_index, group_index
from sae_reasoning.behaviours.wordings import HELD_OUT
from sae_reasoning.records import TokenOpportunity

NUM_LATENTS, K = 12, 3


def _traces(num: int = 60, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    traces = []
    for i in range(num):
        starts = np.sort(rng.choice(np.arange(5, 34, 6), size=2, replace=False))
        spans = [("ab"[j], int(s), int(s) + int(rng.integers(2, 5))) for j, s in enumerate(starts)]
        tokens = tuple(rng.integers(0, 9, 40).tolist())
        split, writer = ("select", "report")[i >= num // 2], ("base", "rl")[i % 2]
        traces.append(
            made_up_trace(i // 2, spans=spans, split=split, writer=writer, token_ids=tokens)
        )
    return traces


def _sparse(num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random sparse latents with ties: values, latents, and the same dense."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (num_rows, K)).astype(np.float32) / 4
    latents = np.argsort(rng.random((num_rows, NUM_LATENTS)), axis=1)[:, :K]
    dense = np.zeros((num_rows, NUM_LATENTS), np.float32)
    np.put_along_axis(dense, latents, values, axis=1)
    return values, latents, dense


def _stream(
    labels: Labels, values: np.ndarray, latents: np.ndarray, batch: int, capacity: int = 1 << 20
) -> ReaderScores:
    scores = LatentScores(labels, NUM_LATENTS, capacity)
    for start in range(0, len(values), batch):
        part = slice(start, start + batch)
        scores.add(Active.of(start, values[part], latents[part]))
    return scores.result()


@pytest.mark.parametrize("batch", [7, 4096])
def test_streamed_scores_equal_scikit_learn_and_scipy(batch: int) -> None:
    traces = _traces()
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a", "b"], seed=0)
    values, latents, dense = _sparse(len(rows.token_id))
    found = _stream(labels, values, latents, batch)
    points = found.points.set_index(["behaviour", "writer", "split", "latent"])
    for b, writer, split in labels.cells():
        behaviour = labels.behaviours[b]
        mine = np.zeros(len(dense), bool)
        label = np.zeros(len(dense), bool)
        for t, trace in enumerate(traces):
            first = rows.row_of_trace[t]
            if (trace.writer, trace.split) == (writer, split):
                mine[first : rows.row_of_trace[t + 1]] = True
            for span in trace.spans:
                if span.behaviour == behaviour:
                    label[first + span.token_start - 2 : first + span.token_end - 2] = True
        y = label[mine]
        cell = cell_index(b, writer, split)
        here = labels.spans.of_cell(cell)
        bounds = list(zip(labels.spans.start[here], labels.spans.stop[here], strict=True))
        for latent in range(NUM_LATENTS):
            x = dense[mine, latent]
            row = points.loc[behaviour, writer, split, latent]
            assert row.token_auroc == pytest.approx(roc_auc_score(y, x), abs=1e-6)
            assert row.point_biserial == pytest.approx(
                scipy_stats.pointbiserialr(y, x.astype(float))[0]
            )
            bits = mutual_info_score(y, x > 0) / np.log(2)
            assert row.mutual_information == pytest.approx(bits, abs=1e-9)
            assert row.rate_in == pytest.approx((x[y] > 0).mean())
            assert row.rate_out == pytest.approx((x[~y] > 0).mean())
            largest = [dense[start:stop, latent].max() for start, stop in bounds]
            expected = roc_auc_score(labels.spans.is_positive[here], largest)
            assert row.span_auroc == pytest.approx(expected, abs=1e-6)
        columns = found.maxima.columns(cell, np.array([4, 1]))
        assert columns[:, 0].tolist() == [dense[s:e, 4].max() for s, e in bounds]


def test_the_null_of_information_is_of_the_shifted_rows_alone() -> None:
    """Where held-out wordings lie, a shift changes how many rows are in a behaviour and out."""
    traces = [
        replace(t, spans=(replace(t.spans[0], behaviour=f"{HELD_OUT}a"), *t.spans[1:]))
        for t in _traces()
    ]
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a", "b"], seed=0)
    values, latents, dense = _sparse(len(rows.token_id))
    points = _stream(labels, values, latents, 500).points
    unlike = 0
    for b, writer, split in labels.cells():
        group = group_index(writer, split)
        drawn = np.zeros((len(labels.shifted), NUM_LATENTS))
        for number, classes in enumerate(labels.shifted):
            mine = np.flatnonzero(classes.of_row >= 0)
            mine = mine[classes.group[classes.of_row[mine]] == group]
            label = classes.has(b)[classes.of_row[mine]]
            drawn[number] = [mutual_info_score(label, dense[mine, j] > 0) for j in range(12)]
            plain = labels.classes.of_row[mine]
            unlike += int(label.sum()) != int((labels.classes.has(b)[plain] & (plain >= 0)).sum())
        of_cell = (points.behaviour == labels.behaviours[b]) & (points.writer == writer)
        found = points[of_cell & (points.split == split)].sort_values("latent")
        assert found.mutual_information_null.to_numpy() == pytest.approx(
            drawn.mean(0) / np.log(2), abs=1e-9
        )
    assert unlike


def test_latents_are_described_on_the_select_split() -> None:
    traces = _traces()
    rows = rows_of(traces)
    values, latents, dense = _sparse(len(rows.token_id))
    found = _stream(label_rows(traces, rows, ["a", "b"], 0), values, latents, 100).latents
    mine = np.repeat(
        [t.split == "select" and t.writer == "rl" for t in traces], np.diff(rows.row_of_trace)
    )
    here = found[found.writer == "rl"]
    assert here.firing_rate.to_numpy() == pytest.approx((dense[mine] > 0).mean(0))
    assert here.max_active.to_numpy() == pytest.approx(dense[mine].max(0))
    expected = dense[mine].sum(0) / (dense[mine] > 0).sum(0)
    assert here.mean_active.to_numpy() == pytest.approx(expected)


def test_what_waits_on_disk_changes_no_score(tmp_path) -> None:
    traces = _traces(seed=1)
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a", "b"], seed=0)
    values, latents, _ = _sparse(len(rows.token_id), seed=2)
    held = _stream(labels, values, latents, 500)
    scores = LatentScores(labels, NUM_LATENTS, capacity=64, scratch=tmp_path)
    for start in range(0, len(values), 100):
        part = slice(start, start + 100)
        scores.add(Active.of(start, values[part], latents[part]))
    pd.testing.assert_frame_equal(scores.result().points, held.points)
    assert not list(tmp_path.iterdir())


def test_values_take_no_more_memory_when_there_are_ten_times_as_many() -> None:
    rng = np.random.default_rng(0)

    def peak(num_rows: int) -> int:
        zero, rows = np.zeros(1, np.int64), np.zeros(num_rows, np.int8)
        table = ValueTable(Classes(rows, zero, zero, zero + num_rows), 400, 1, capacity=1 << 14)
        tracemalloc.start()
        for start in range(0, num_rows, 500):
            latents = rng.integers(0, 50, (500, 8)) + 50 * np.arange(8)
            table.add(Active.of(start, rng.random((500, 8)), latents))
        table.aurocs(1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(50_000) < 1.1 * peak(5_000)


def test_sums_near_cue_words_touch_only_what_is_active_there() -> None:
    """All words and latents of a wide dictionary take 26 MB; a batch adds next to nothing."""
    rng = np.random.default_rng(0)
    num_rows, width, num_words = 64, 1 << 14, 50
    classes = Classes(
        rng.integers(-1, 3, num_rows).astype(np.int8),
        np.array([0, 1, 3]),
        np.zeros(3, np.int64),
        np.ones(3, np.int64),
    )
    row, word = np.sort(rng.integers(0, num_rows, 80)), rng.integers(0, num_words, 80)
    values = rng.random((num_rows, 8)).astype(np.float32)
    latents = rng.integers(0, width // 8, (num_rows, 8)) + width // 8 * np.arange(8)
    sums = WordSums(row, word, classes, num_words, 4, width)
    tracemalloc.start()
    for start in range(0, num_rows, 16):
        part = slice(start, start + 16)
        sums.add(Active.of(start, values[part], latents[part]))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1e6
    expected = np.zeros((4, num_words, width))
    for r, w in zip(row.tolist(), word.tolist(), strict=True):
        if classes.of_row[r] >= 0:
            expected[classes.group[classes.of_row[r]], w, latents[r]] += values[r]
    np.testing.assert_allclose(sums.total, expected, rtol=1e-12)


@pytest.mark.parametrize("num_tokens", [3, 200])
def test_onset_auroc_within_tokens_equals_counting_pairs(num_tokens: int) -> None:
    rng = np.random.default_rng(num_tokens)
    traces = []
    for trace in _traces(seed=3):
        places = np.sort(rng.choice(np.arange(4, 39), 20, replace=False)).tolist()
        opportunities = [TokenOpportunity("a", 0, p, bool(rng.random() < 0.4)) for p in places]
        tokens = tuple(rng.integers(0, num_tokens, 40).tolist())
        traces.append(replace(trace, opportunities=tuple(opportunities), token_ids=tokens))
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a", "b"], seed=0)
    values, latents, dense = _sparse(len(rows.token_id), seed=4)
    points = _stream(labels, values, latents, 100).points.set_index(
        ["behaviour", "writer", "split", "latent"]
    )
    cell = cell_index(0, "rl", "report")
    here = labels.onsets.of_cell(cell)
    token, share = matched_strata(labels.onsets, cell)
    assert (token is None) == (num_tokens == 200)
    taken = labels.onsets.is_positive[here]
    token = np.zeros(len(taken)) if token is None else token
    comparable = taken[:, None] & ~taken & (token[:, None] == token)
    for latent in range(NUM_LATENTS):
        x = dense[labels.onsets.start[here], latent]
        won = (x[:, None] > x) + (x[:, None] == x) / 2
        found = points.loc["a", "rl", "report", latent]
        assert found.onset_auroc == pytest.approx(won[comparable].mean(), abs=1e-12)
        assert found.onset_matched_share == pytest.approx(share)


def test_onsets_are_compared_after_the_same_token_where_there_are_enough() -> None:
    # Latent 0 reads the token, 5 before taken and mostly 7 before untaken; within 5 it is blind.
    tokens = tuple([1] * 10 + [5, 1, 1, 5, 1, 1, 7, 1, 7] + [1] * 21)
    trace = made_up_trace(0, spans=[("a", 11, 13), ("a", 25, 27)], token_ids=tokens)
    other = made_up_trace(1, spans=[("a", 11, 13)], split="report", token_ids=tokens)
    opportunities = tuple(
        type(o)("a", 0, token, taken)
        for o, token, taken in zip(
            [trace.opportunities[0]] * 4,
            (10, 13, 16, 18),
            (True, False, False, False),
            strict=True,
        )
    )
    traces = [type(trace)(**{**vars(t), "opportunities": opportunities}) for t in (trace, other)]
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a"], seed=0)
    values = (rows.token_id == 5).astype(np.float32)[:, None]
    scores = LatentScores(labels, 2)
    scores.add(Active.of(0, values, np.zeros((len(values), 1), np.int64)))
    points = scores.result().points
    row = points[(points.split == "select") & (points.latent == 0)].iloc[0]
    assert (row.n_onset_pos, row.n_onset_neg) == (1, 3)
    assert row.onset_matched_share == 1.0
    assert row.onset_auroc == 0.5  # All with all it would be 5/6.
    assert row.rate_at_opportunities == 0.5


def test_information_of_shifted_labels_is_small_where_that_of_labels_is_large() -> None:
    traces = _traces()
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a", "b"], seed=0)
    fires = labels.classes.has(0)[labels.classes.of_row]
    values = np.where(fires, 1.0, 0.0).astype(np.float32)[:, None]
    scores = LatentScores(labels, 2)
    scores.add(Active.of(0, values, np.zeros((len(values), 1), np.int64)))
    points = scores.result().points
    row = points[(points.behaviour == "a") & (points.latent == 0)].iloc[0]
    assert row.mutual_information > 0.3
    assert row.mutual_information_null < 0.05


def test_maxima_go_on_from_one_batch_to_the_next() -> None:
    traces = [made_up_trace(0, spans=[("a", 10, 20)])]
    rows = rows_of(traces)
    labels = label_rows(traces, rows, ["a"], seed=0)
    values = np.arange(38, dtype=np.float32)[:, None]
    stream = MaximaStream(labels.spans, 1)
    for start in range(0, 38, 3):
        part = values[start : start + 3]
        stream.add(Active.of(start, part, np.zeros((len(part), 1), np.int64)))
    maxima = stream.result().columns(cell_index(0, "rl", "select"), np.array([0]))
    assert maxima[0, 0] == 17


def test_reason_score_is_the_papers_formula_by_hand() -> None:
    near, elsewhere = np.array([3.0, 1.0, 0.0]), np.array([1.0, 1.0, 2.0])
    by_word = np.array([[3.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    found = reason_score(near, elsewhere, by_word)
    # Latent 0 is spread evenly over both words (entropy 1), latent 1 lives near one (entropy 0).
    assert found == pytest.approx([3 / 4 - 1 / 4, -1 / 4, -2 / 4])
    assert reason_score(near, elsewhere, by_word[:1]) == pytest.approx([-1 / 4, -1 / 4, -2 / 4])


def test_cue_windows_reach_one_left_and_two_right_within_a_trace() -> None:
    tokens = np.array([0, 9, 0, 0, 0, 0, 9, 8, 0])
    trace = np.array([0, 0, 0, 0, 0, 1, 1, 1, -1])
    cues = cue_windows(tokens, trace, {"a": (9,), "b": (8,)})
    near = [cues.row[cues.word == word].tolist() for word in (0, 1)]
    assert near == [[0, 1, 2, 3, 5, 6, 7], [6, 7]]
    assert cues.bits(9).tolist() == [1, 1, 1, 1, 0, 1, 3, 3, 0]
