"""What the attacks left, counted by hand."""

from dataclasses import fields

import numpy as np
import pandas as pd

from sae_reasoning.config import AttackConfig
from sae_reasoning.robustness.outcomes import (
    EXCLUDED,
    INCONCLUSIVE,
    INJECTED,
    NOT_TESTABLE,
    RANDOM,
    REFUTED,
    ROBUST,
    TOKEN,
    Attack,
    Target,
    Thresholds,
    add_labels,
    attack_summary,
    count_labels,
    judge,
)
from sae_reasoning.stats import Estimate, Kept, kept_auroc

ROWS = [
    # shortlist, behaviour, reader, latent, kind, outcome, label
    ("span_detectors", "a", "base", 1, "all", "robust", "lexical"),
    ("span_detectors", "a", "base", 1, "token", "refuted", "lexical"),
    ("span_detectors", "a", "base", 1, "bigram", "refuted", "lexical"),
    ("span_detectors", "a", "base", 2, "token", "robust", "contextual"),
    ("span_detectors", "b", "base", 3, "token", "refuted", "lexical"),
    ("span_detectors", "a", "rl", 1, "token", "robust", "contextual"),
    ("span_detectors", "a", "rl", 2, "token", "robust", "contextual"),
    ("span_detectors", "b", "rl", 3, "token", "robust", "inconclusive"),
    ("span_detectors", "a", RANDOM, 1, "token", "robust", "contextual"),
    ("onset_predictors", "a", "base", 1, "length", "refuted", "positional"),
]


def _attacks() -> pd.DataFrame:
    columns = ["shortlist", "behaviour", "reader", "latent", "kind", "outcome", "label"]
    return pd.DataFrame(ROWS, columns=columns).assign(layer=1)


def test_the_summary_counts_each_attack_that_refuted_and_no_other_list() -> None:
    found = attack_summary(_attacks(), "span_detectors")
    assert found.values.tolist() == [
        ["a", "base", 2, 1, 1],
        ["a", "rl", 2, 0, 0],
        ["a", RANDOM, 1, 0, 0],
        ["b", "base", 1, 1, 0],
        ["b", "rl", 1, 0, 0],
    ]
    assert list(found)[3:] == ["token", "bigram"]


def test_a_text_that_the_dictionary_could_not_read_is_no_attack_that_refuted_nobody() -> None:
    attacks = _attacks()
    is_rl = attacks.reader == "rl"
    unread = attacks[is_rl].assign(kind=INJECTED, outcome=EXCLUDED)
    found = attack_summary(pd.concat([attacks, unread]), "span_detectors").set_index(
        ["behaviour", "reader"]
    )
    assert found[INJECTED].to_dict() == {
        ("a", "base"): 0,
        ("a", "rl"): EXCLUDED,
        ("a", RANDOM): 0,
        ("b", "base"): 0,
        ("b", "rl"): EXCLUDED,
    }
    assert found.token["a", "base"] == 1
    # The one excluded, the other not testable: nothing was decided there either.
    unread.loc[unread.latent == 2, "outcome"] = NOT_TESTABLE
    found = attack_summary(pd.concat([attacks, unread]), "span_detectors").set_index(
        ["behaviour", "reader"]
    )
    assert found.loc[("a", "rl"), INJECTED] == EXCLUDED


def test_a_latent_is_contextual_in_both_where_both_trained_readers_say_so() -> None:
    found = count_labels(_attacks(), "span_detectors").set_index(["behaviour", "reader"])
    assert list(found) == ["latents", "contextual", "lexical", "inconclusive", "contextual in both"]
    assert found.loc[("a", "base")].tolist() == [2, 1, 1, 0, 1]
    assert found.loc[("a", "rl")].tolist() == [2, 2, 0, 0, 1]
    assert found.loc[("b", "rl")].tolist() == [1, 0, 0, 1, 0]
    assert found.loc[("a", RANDOM), "contextual in both"] is None
    alone = count_labels(_attacks().query("reader != 'base'"), "span_detectors")
    assert alone["contextual in both"].isna().all()


def test_a_list_with_nothing_on_it_has_tables_without_rows() -> None:
    none = add_labels(pd.DataFrame(columns=[field.name for field in fields(Attack)]))
    span_detectors = _attacks().query("shortlist == 'span_detectors'")
    for attacks, shortlist in (
        (none, "span_detectors"),
        (none, "onset_predictors"),
        (span_detectors, "onset_predictors"),
    ):
        assert list(attack_summary(attacks, shortlist)) == ["behaviour", "reader", "latents"]
        assert attack_summary(attacks, shortlist).empty
        assert count_labels(attacks, shortlist).empty
        assert "contextual in both" in count_labels(attacks, shortlist)


def _judged(low: float, high: float, **changed: float) -> str:
    """Outcome of an attack on twenty spans of ten problems, half of them comparable."""
    at = {"comparable": 0.5, "items": 20, "problems": 10} | changed
    some = Estimate(0.7, 0.65, 0.75, int(at["problems"]))
    kept = Kept(some, some, Estimate(0.0, low, high, 10), at["comparable"], 0.7)
    target = Target("span_detectors", "a", "rl", "rl", 1, 0)
    thresholds = Thresholds(AttackConfig(), num_resamples=1, seed=0)
    num = int(at["items"])
    return judge(target, TOKEN, kept, thresholds, n_pos=num, n_neg=num + 1).outcome


def test_a_margin_whose_bound_lies_on_the_threshold_decides_nothing() -> None:
    just = np.nextafter
    assert _judged(0.0, 0.2) == INCONCLUSIVE
    assert _judged(just(0.0, 1), 0.2) == ROBUST
    assert _judged(-0.2, 0.0) == INCONCLUSIVE
    assert _judged(-0.2, just(0.0, -1)) == REFUTED


def test_with_one_item_problem_or_comparable_span_less_nothing_is_decided() -> None:
    assert _judged(0.1, 0.2) == ROBUST
    for less in ({"items": 19}, {"problems": 9}, {"comparable": 0.499}):
        assert _judged(0.1, 0.2, **less) == NOT_TESTABLE


def test_the_margin_is_what_is_left_beyond_the_share_that_must_be_kept() -> None:
    # Three of four pairs are concordant plainly; within its stratum the one positive ties: 1/2.
    scores = np.array([1.0, 1.0, 0.0])
    is_positive = np.array([True, False, False])
    stratum = np.array([0, 0, 1])
    problem = np.array([0, 1, 2])
    found = kept_auroc(
        scores, is_positive, ~is_positive, problem, stratum, keep=0.5, num_resamples=10, seed=0
    )
    assert (found.within.value, found.plain.value) == (0.5, 0.75)
    assert found.margin.value == (0.5 - 0.5) - 0.5 * (0.75 - 0.5)
