"""Statistics against scikit-learn, scipy and simulation."""

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from sae_reasoning.stats import (
    Estimate,
    auroc,
    aurocs,
    benjamini_hochberg,
    bootstrap_auroc,
    clustered_auroc,
    difference,
    kept_auroc,
    paired_bootstrap,
    sparse_concordance,
    tie_runs,
    widen_flat,
    wilson,
)


def _data(seed: int, n: int = 60, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.maximum(rng.normal(size=(n, columns)).round(1), 0)
    is_positive = rng.random(n) < 0.4
    is_positive[:2] = True, False
    return scores, is_positive


@given(st.integers(0, 10_000))
def test_auroc_equals_scikit_learn_with_ties(seed: int) -> None:
    scores, is_positive = _data(seed)
    expected = [roc_auc_score(is_positive, column) for column in scores.T]
    assert auroc(scores, is_positive) == pytest.approx(expected, abs=1e-9)
    assert clustered_auroc(scores, is_positive, np.arange(60)).value == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_sparse_concordance_needs_only_the_nonzero_scores(seed: int) -> None:
    scores, is_positive = _data(seed)
    latent, item = np.nonzero(scores.T)
    value = scores[item, latent]
    order = np.lexsort((value, latent))
    latent, item, value = latent[order], item[order], value[order]
    runs = tie_runs(latent, value)
    positives = np.add.reduceat(is_positive[item].astype(int), runs)
    sizes = np.diff(np.append(runs, len(item)))
    n1, n0 = np.full(4, float(is_positive.sum())), np.full(4, float((~is_positive).sum()))
    first = tie_runs(latent[runs])
    concordant = sparse_concordance(first, positives, sizes - positives, n1, n0)
    assert concordant / (n1 * n0) == pytest.approx(auroc(scores, is_positive), abs=1e-12)


def test_a_class_that_is_empty_gives_no_auroc() -> None:
    assert np.isnan(auroc(np.ones((3, 2)), np.ones(3, bool))).all()
    assert np.isnan(clustered_auroc(np.ones((3, 2)), np.zeros(3, bool), np.arange(3)).value).all()


def test_clustered_variance_with_one_item_a_cluster_is_delongs() -> None:
    scores, is_positive = _data(3, n=80, columns=1)
    found = clustered_auroc(scores, is_positive, np.arange(80))
    wins = (scores[is_positive] > scores[~is_positive].T) + 0.5 * (
        scores[is_positive] == scores[~is_positive].T
    )
    variance = wins.mean(1).var(ddof=1) / len(wins) + wins.mean(0).var(ddof=1) / wins.shape[1]
    value = float(wins.mean())
    fewest = min(wins.shape)
    p = 2 * scipy_stats.t.sf(abs(value - 0.5) / variance**0.5, fewest - 1)
    assert found.p[0] == pytest.approx(p, rel=1e-6)
    assert found.low[0] < value < found.high[0]


def test_clustering_keeps_the_level_where_single_items_do_not() -> None:
    # A problem shifts all its items' scores and favours one class: independent under the null.
    rng = np.random.default_rng(0)
    rejected_clustered = rejected_naive = 0
    for _ in range(300):
        cluster = np.repeat(np.arange(40), 10)
        scores = (rng.normal(size=40)[cluster] + 0.3 * rng.normal(size=400))[:, None]
        is_positive = rng.random(400) < rng.beta(0.5, 0.5, size=40)[cluster]
        rejected_clustered += clustered_auroc(scores, is_positive, cluster).p[0] < 0.05
        rejected_naive += clustered_auroc(scores, is_positive, np.arange(400)).p[0] < 0.05
    assert rejected_clustered / 300 < 0.1
    assert rejected_naive / 300 > 0.25


def test_a_perfect_score_on_few_problems_keeps_a_wide_interval() -> None:
    scores = np.array([[1.0], [1.0], [1.0], [0.0], [0.0], [0.0]])
    found = clustered_auroc(scores, scores[:, 0] > 0, np.array([0, 1, 2, 0, 1, 2]))
    assert found.value[0] == 1.0
    assert found.low[0] < 0.5


def test_bootstrap_agrees_with_the_clustered_variance() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(80), 6)
    is_positive = rng.random(480) < 0.5
    scores = rng.normal(size=80)[cluster] * 0.5 + rng.normal(size=480) + is_positive
    one = clustered_auroc(scores[:, None], is_positive, cluster)
    two = bootstrap_auroc(scores, is_positive, cluster, num_resamples=2000, seed=0)
    assert two.value == pytest.approx(one.value[0], abs=1e-12)
    assert two.low == pytest.approx(one.low[0], abs=0.012)
    assert two.high == pytest.approx(one.high[0], abs=0.012)
    assert two.n == 80


def test_stratified_bootstrap_compares_only_within_strata() -> None:
    # The stratum gives the score away; within it the score knows nothing.
    scores = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    is_positive = np.array([True, False, False, True, True, False])
    stratum = scores.astype(int)
    found = bootstrap_auroc(
        scores, is_positive, np.arange(6), stratum=stratum, num_resamples=20, seed=0
    )
    assert found.value == 0.5


@pytest.mark.parametrize("cells", [1, 40, 200])
def test_pairs_are_the_same_however_few_scores_are_held_at_once(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 25, 300) / 4  # Many ties.
    is_positive, cluster = rng.random(300) < 0.3, rng.integers(0, 20, 300)
    stratum = rng.integers(-1, 12, 300)

    def found() -> list[float]:
        kept = kept_auroc(
            scores,
            is_positive,
            ~is_positive,
            cluster,
            stratum,
            keep=0.5,
            num_resamples=50,
            seed=0,
        )
        one = bootstrap_auroc(
            scores, is_positive, cluster, stratum=stratum, num_resamples=50, seed=0
        )
        return [
            *(x for own in (kept.within, kept.plain, kept.margin, one) for x in (*astuple(own),)),
            kept.pair_weighted,
        ]

    whole = found()
    pairs = [
        np.sign(scores[i] - scores[j])
        for i in np.flatnonzero(is_positive)
        for j in np.flatnonzero(~is_positive)
        if stratum[i] == stratum[j] != -1
    ]
    assert whole[-1] == pytest.approx((1 + np.mean(pairs)) / 2, abs=1e-11)
    monkeypatch.setattr(aurocs, "_MAX_CELLS", cells)
    assert found() == pytest.approx(whole, abs=1e-11, nan_ok=True)


def test_pairs_of_many_scores_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of all scores by all problems would take 128 MB here."""
    monkeypatch.setattr(aurocs, "_MAX_CELLS", 1 << 17)
    rng = np.random.default_rng(0)
    scores, is_positive = rng.random(40_000), rng.random(40_000) < 0.5
    tracemalloc.start()
    try:
        bootstrap_auroc(scores, is_positive, rng.integers(0, 400, 40_000), num_resamples=10, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24e6


def test_paired_bootstrap_covers_the_mean_and_tells_nothing_from_something() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1.0, 200)
    found = paired_bootstrap(differences, 4000, 0)
    reach = 1.96 * differences.std(ddof=1) / 200**0.5
    assert found.value == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.value - reach, abs=0.02)
    assert found.high == pytest.approx(found.value + reach, abs=0.02)
    assert found.n == 200
    assert found.p < 1e-6
    assert paired_bootstrap(np.zeros(10), 100, 0).p == 1.0
    assert np.isnan(paired_bootstrap(np.zeros(0), 100, 0).value)


def test_a_perfect_score_keeps_width_by_the_problems_of_the_rarer_class() -> None:
    is_positive = np.array([True, True, True, False, False, False, False])
    found = bootstrap_auroc(
        is_positive.astype(float), is_positive, np.arange(7) % 5, num_resamples=200, seed=0
    )
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(wilson(3, 3).low)


def test_values_that_all_agree_keep_width_where_they_are_shares() -> None:
    ones = paired_bootstrap(np.ones(20), 100, 0)
    assert (ones.value, ones.low, ones.high) == (1.0, pytest.approx(wilson(20, 20).low), 1.0)
    tokens = paired_bootstrap(np.full(20, 7.0), 100, 0)
    assert (tokens.low, tokens.high) == (7.0, 7.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_the_least_rate_at_which_a_test_is_rejected(p: list[float]) -> None:
    """At a threshold t, some `len(p) * t` of the tests are rejected by mistake, of all up to t."""
    rates = [(t, min(len(p) * t / sum(one <= t for one in p), 1)) for t in p]
    expected = [min(rate for t, rate in rates if t >= one) for one in p]
    assert benjamini_hochberg(np.array(p)) == pytest.approx(expected)


def test_benjamini_hochberg_of_nothing_is_nothing() -> None:
    assert len(benjamini_hochberg(np.array([]))) == 0
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_benjamini_hochberg_leaves_out_what_was_not_tested() -> None:
    found = benjamini_hochberg(np.array([0.01, np.nan, 0.04]))
    assert found[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(found[1])


def test_wilson_equals_scipy() -> None:
    expected = scipy_stats.binomtest(7, 20).proportion_ci(method="wilson")
    found = wilson(7, 20)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert wilson(0, 0).n == 0


@pytest.mark.parametrize("n", [7, 10, 25, 28])
def test_a_share_that_is_none_or_all_is_bounded_by_itself(n: int) -> None:
    none, every = wilson(0, n), wilson(n, n)
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - every.low)


def test_a_difference_has_the_interval_of_newcombes_example() -> None:
    found = difference(56, 70, 48, 80)  # His table II, (a), method 10.
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_each_positive_counts_the_same_however_many_negatives_its_stratum_holds() -> None:
    """One loses to nine negatives, another beats its only one."""
    scores = np.array([0.0, *[5.0] * 9, 5.0, 0.0])
    is_positive = np.array([True, *[False] * 9, True, False])
    found = kept_auroc(
        scores,
        is_positive,
        ~is_positive,
        np.arange(12),
        np.array([0] * 10 + [1] * 2),
        keep=0.5,
        num_resamples=20,
        seed=0,
    )
    assert found.within.value == 0.5
    assert found.pair_weighted == 0.1


def test_bounds_that_are_unknown_stay_unknown_where_others_have_no_width():
    unknown = widen_flat(Estimate(0.5, np.nan, np.nan, 3), 3)
    assert np.isnan([unknown.low, unknown.high]).all()
    flat = widen_flat(Estimate(1.0, 1.0, 1.0, 3), 3)
    assert (flat.low, flat.high) == (wilson(3, 3).low, wilson(3, 3).high)
