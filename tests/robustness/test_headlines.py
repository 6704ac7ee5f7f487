"""The last screen of `rank`: the best latent of each list, and what the attacks left of it."""

import math
from dataclasses import replace

import pandas as pd
from shortlists import onset_predictor, span_detector

from sae_reasoning.records import Shortlist
from sae_reasoning.robustness.headlines import (
    empty_lists,
    headlines,
    survivors_in_words,
    words_suffice,
)


def attack(latent: int, kind: str, outcome: str, label: str, **other: object) -> dict:
    row = {"shortlist": "span_detectors", "behaviour": "backtracking", "reader": "rl", "layer": 1}
    return row | {"latent": latent, "kind": kind, "outcome": outcome, "label": label} | other


SHORTLIST = Shortlist(
    span_detectors={
        "backtracking": [
            span_detector(1, 3, labels={"rl": "lexical"}),
            span_detector(1, 4, labels={"rl": "contextual"}),
        ],
        "deduction": [
            span_detector(1, 5, status="positional, not testable", labels={"rl": "not testable"})
        ],
        "verification": [],
    },
    onset_predictors={
        "backtracking": [onset_predictor(1, 9, labels={"rl": "weak"}, onset_auroc_low=math.nan)],
        "deduction": [],
    },
)
ATTACKS = pd.DataFrame(
    [
        attack(3, "all", "robust", "lexical"),
        attack(3, "token", "refuted", "lexical"),
        attack(3, "position", "robust", "lexical"),
        attack(3, "token", "robust", "contextual", reader="base"),
        attack(4, "token", "robust", "contextual"),
        attack(4, "token", "robust", "contextual", reader="random-init"),
        attack(9, "token", "refuted", "weak", shortlist="onset_predictors"),
    ]
)


def test_a_headline_names_the_first_latent_of_each_list_and_what_refutes_it() -> None:
    found = headlines(SHORTLIST, ATTACKS)
    assert [(h.behaviour, h.kind, h.latent, h.attacks) for h in found] == [
        ("backtracking", "span detector", "1/3", "lexical: token"),
        ("backtracking", "onset predictor", "1/9", "weak"),
        (
            "deduction",
            "span detector",
            "1/5",
            "not testable: it is at one place in every trace",
        ),
    ]
    assert found[0].interval == "0.900 [0.800, 0.950]"
    assert [one.label for one in found] == ["lexical", "weak", "not testable"]


def test_headlines_are_of_the_lists_that_are_asked_for() -> None:
    found = headlines(SHORTLIST, ATTACKS, ["onset_predictors"])
    assert [(h.behaviour, h.kind, h.latent) for h in found] == [
        ("backtracking", "onset predictor", "1/9")
    ]


def test_survivors_are_counted_once_over_trained_readers() -> None:
    assert survivors_in_words(ATTACKS) == (
        "The attacks leave contextual, in some reader: 2 of 2 span detectors, 0 of 1 onset "
        "predictors."
    )


def test_words_suffice_where_an_ngram_model_reaches_the_detectors_lower_bound() -> None:
    ngram = {"baseline": "ngram", "writer": "rl", "behaviour": "backtracking"}
    heads = headlines(SHORTLIST, ATTACKS)
    for auroc, expected in ((0.81, ["backtracking"]), (0.79, [])):
        assert words_suffice(heads, pd.DataFrame([ngram | {"span_auroc": auroc}])) == expected


def test_of_an_empty_list_its_name_is_said_and_nothing_else() -> None:
    without = replace(SHORTLIST, onset_predictors={"backtracking": [], "deduction": []})
    assert empty_lists(SHORTLIST) == []
    assert empty_lists(without) == ["onset predictor"]
    attacked = ATTACKS[ATTACKS.shortlist == "span_detectors"]
    assert survivors_in_words(attacked) == (
        "The attacks leave contextual, in some reader: 2 of 2 span detectors."
    )
    nothing = Shortlist({}, {})
    assert empty_lists(nothing) == ["span detector", "onset predictor"]
    assert headlines(nothing, ATTACKS[:0]) == []
    assert survivors_in_words(ATTACKS[:0]) == ""
    assert (
        words_suffice([], pd.DataFrame(columns=["baseline", "writer", "behaviour", "span_auroc"]))
        == []
    )
