"""Records behind the pages, and text that must stay text."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shortlists import onset_predictor, span_detector

from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.rates import OCCURS, PER_TRACE
from sae_reasoning.edges.pages import inert_json, plain, write_page
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.records import BASE, RL, SPAN_DETECTORS, Shortlist, TokenSpan, Trace
from sae_reasoning.report.cards import calibration_line, card, headline, summary
from sae_reasoning.report.examples import (
    QUARTERS,
    TOP,
    Mark,
    choose,
    example,
    histogram,
    token_pieces,
)
from sae_reasoning.report.figures import Axis, Bar
from sae_reasoning.report.firing import Firing
from sae_reasoning.report.latents import listing_rows, records
from sae_reasoning.report.never import never
from sae_reasoning.report.reviews import agreements, read_review, review_rows, tally
from sae_reasoning.report.sections import attacks, gap_curve, onsets
from sae_reasoning.report.verdict import Evidence, Verdict
from sae_reasoning.robustness.baseline_comparison import BaselineComparison
from sae_reasoning.robustness.injection import Injection
from sae_reasoning.robustness.outcomes import (
    EXCLUDED,
    INCONCLUSIVE,
    INJECTED,
    NOT_TESTABLE,
    PARAPHRASE,
    REFUTED,
    ROBUST,
    TOKEN,
    Target,
)
from sae_reasoning.robustness.replication import Replica, attack_by_seeds
from sae_reasoning.stats import most_of_none
from sae_reasoning.texts import bounded, number, shown


def evidence(
    measure="chance_corrected_accuracy rl own opening", value=0.8, low=0.7, margin=0.4, passed=True
):
    return Evidence(measure, value, low, 2 * value - low, 150, margin, passed)


def deployed(*held: Evidence) -> Verdict:
    return Verdict("backtracking", "deployed", "", "the model makes it often", list(held))


# What people read


def test_the_headline_says_what_became_of_every_behaviour():
    verdicts = [
        Verdict("a", "deployed", "", "", []),
        Verdict("b", "created", "", "", []),
        Verdict("c", "deployed", "", "", []),
    ]
    said = headline(verdicts)
    assert said.startswith("A and c are deployed (")
    assert "b is created (" in said


def test_a_card_names_the_figure_that_is_nearest_to_turning():
    far = evidence(low=0.7)
    near = evidence("execution_accuracy rl-base own opening", value=0.10, low=0.06, margin=0.15)
    said = card(deployed(far, near)).sure
    assert said.startswith("All 2 figures that it needs clear their margins")
    assert "execution accuracy" in said


def test_of_all_controls_of_a_steering_vector_the_card_shows_the_strongest():
    leads = [
        evidence(f"steered/chance_corrected_over base control {i}", 0.3, low, 0.0)
        for i, low in enumerate((0.2, 0.05, 0.1))
    ]
    (bar,) = card(deployed(*leads)).deciding
    assert "control 1" in bar.label
    assert bar.low == 0.05


def test_figures_that_ruled_other_verdicts_out_are_kept_apart():
    on_the_way = evidence("onset_probability/per_trace rl/base (90%)", passed=False)
    found = card(deployed(evidence(), on_the_way))
    assert [bar.passed for bar in found.deciding] == [True]
    assert [bar.passed for bar in found.others] == [False]
    assert "90 % interval" in found.others[0].label


def test_created_is_not_as_sure_as_a_lead_that_it_does_without():
    lead = evidence("steered/chance_corrected_over base control 1", 0.05, 0.001, 0.0)
    one = Verdict("x", "created", (), "the base lacks it", [evidence(), lead])
    found = card(one)
    assert [bar.label for bar in found.others] == [
        bar.label for bar in card(deployed(lead)).deciding
    ]
    assert found.sure.startswith("All 1 figures")


def test_an_inconclusive_card_says_that_it_is_not_sure():
    one = Verdict("x", "inconclusive", "", "too few", [evidence(passed=False)])
    assert card(one).sure.startswith("Not sure: 1 of 1")
    assert card(one).deciding[0].comparison == "margin 0.40: not cleared"


def test_without_a_calibration_the_page_names_the_target_that_makes_it():
    assert "`make calibrate`" in calibration_line(None)


def test_a_calibration_by_other_margins_is_said_to_be():
    right = {"value": 1.0, "low": 0.8, "high": 1.0, "cells": 30, "pairs": 9}
    said = [calibration_line({"right": {"all": right}}, same) for same in (True, False)]
    assert ["by other margins" in one for one in said] == [False, True]


def test_what_stands_between_backticks_is_code_and_stays_text(tmp_path):
    hostile = "`<img src=x>` and `one\u202e` and ` alone <b>"
    values = {"pair": "p", "headline": "h", "summaries": [], "facts": [], "cards": []}
    values |= {
        "title": "t",
        "has_latents": False,
        "num_latents": 0,
        "sections": [],
        "made_from": "m",
    }
    write_page(
        tmp_path / "page.html", "overview.html", values | {"calibration": hostile, "never": ""}
    )
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<code>&lt;img src=x&gt;</code> and <code>one" in page
    assert "\u202e" not in page
    assert "` alone &lt;b&gt;" in page


def test_a_measure_without_an_interval_is_shown_without_one():
    nan = float("nan")
    measures = [
        Measure("x", PER_TRACE, model, "", 0.5, nan, nan, 0.95, 3, 3) for model in (BASE, RL)
    ]
    (chart,) = onsets(measures, ["x"]).charts
    assert [bar.is_drawn for bar in chart.bars] == [False, False]
    assert chart.bars[0].figure == "0.50 (no interval)"


def test_the_share_refuted_is_of_the_latents_that_the_attack_could_test():
    outcomes = {
        TOKEN: [REFUTED, ROBUST, NOT_TESTABLE],
        INJECTED: [EXCLUDED, EXCLUDED, EXCLUDED],
        PARAPHRASE: [EXCLUDED, NOT_TESTABLE, ROBUST],
    }
    made = pd.DataFrame(
        [
            {"shortlist": SPAN_DETECTORS, "behaviour": "x", "reader": RL, "writer": RL, "layer": 0}
            | {"latent": latent, "kind": kind, "outcome": outcome, "label": "weak"}
            for kind, those in outcomes.items()
            for latent, outcome in enumerate(those)
        ]
    )
    (chart,) = attacks(made).charts
    found = {bar.label: (bar.n, bar.figure) for bar in chart.bars}
    assert found[TOKEN] == (2, "0.50 [0.095, 0.91]")
    assert found[INJECTED] == (0, "not tested")
    assert found[PARAPHRASE] == (1, "0 [0, 0.79]")


def test_attacks_that_could_test_nothing_have_no_chart():
    row = {"shortlist": SPAN_DETECTORS, "behaviour": "x", "reader": RL, "writer": RL, "layer": 0}
    row |= {"latent": 0, "kind": TOKEN, "outcome": NOT_TESTABLE, "label": "weak"}
    assert attacks(pd.DataFrame([row])).charts == ()


def test_the_gap_curve_is_of_all_problems_and_leaves_out_what_is_undefined():
    row = {"policy": "oracle", "vector": "sae", "budget": 0.1, "share_steered": 0.1, "n": 9}
    row |= {"gap_recovered": 0.5, "low": 0.4, "high": 0.6, "behaviour": "all", "defined": True}
    rows = [row | {"behaviour": "x", "share_steered": 0.05}, row, row | {"defined": False}]
    (plot,) = gap_curve(pd.DataFrame(rows)).plots  # Of all problems, whatever comes first.
    (curve,) = plot.curves
    assert len(curve.points) == 1
    assert "n = 9" in plot.title
    assert curve.points[0].low > curve.points[0].y > curve.points[0].high  # From the top down.


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0, 1], (0, 0.2, 0.4, 0.6, 0.8, 1)), ([3, 3], (2.6, 2.8, 3, 3.2, 3.4)), ([], (0, 0.2))],
)
def test_an_axis_has_round_ticks_and_holds_its_values(values, ticks):
    axis = Axis.of(values, "")
    assert axis.ticks[: len(ticks)] == pytest.approx(ticks)
    assert all(0 <= axis.at(value) <= 100 for value in values)


def test_an_axis_of_ratios_is_logarithmic_and_ends_at_a_thousand():
    axis = Axis.of_ratios([0.5, 2.0], "")
    assert axis.at(1.0) == pytest.approx(50, abs=0.01)
    assert axis.at(2.0) - axis.at(1.0) == pytest.approx(axis.at(1.0) - axis.at(0.5), abs=0.02)
    assert 1 in axis.ticks
    wide = Axis.of_ratios([1.25, 5e19, math.inf], "")
    assert (wide.high, wide.at(math.inf), wide.at(0.0)) == (pytest.approx(1300, rel=0.1), 100, 0)
    assert wide.ticks == (1, 10, 100, 1000)


def test_a_ratio_of_more_than_a_thousand_says_no_more():
    axis = Axis.of_ratios([1.25], "")
    figures = [
        Bar("", *found, 9, axis).figure
        for found in ((5.2e19, 1.6e19, 1.6e20), (30.0, 8.2, math.inf), (2.0, 1.5, 2.5))
    ]
    assert figures == ["over 1,000", "30 [8.20, ∞]", "2 [1.50, 2.50]"]


def test_a_ratio_is_near_its_margin_by_its_logarithm():
    """50 times as much, give or take a factor of two, is far above 1.25; 1.5 [1.3, 1.7] isn't."""

    def certainty(*figures: Evidence) -> str:
        return summary(deployed(*figures), []).certainty

    name = "onset_probability/per_trace rl/base"
    assert certainty(Evidence(name, 5.2e19, 1.6e19, 1.6e20, 90, 1.25, True)).startswith("sure")
    assert certainty(Evidence(name, 50.0, 25.0, 100.0, 90, 1.25, True)).startswith("sure")
    assert certainty(Evidence(name, math.inf, 40.0, math.inf, 90, 1.25, True)).startswith("sure")
    assert certainty(Evidence(name, math.inf, 1.3, math.inf, 90, 1.25, True)).startswith("fairly")
    assert certainty(Evidence(name, 1.5, 1.3, 1.7, 90, 1.25, True)).startswith("fairly")


def test_a_level_figure_is_as_near_as_the_nearer_of_its_two_margins():
    level = "onset_probability/per_trace rl/base (90%)"
    low = Evidence(level, 0.9, 0.82, 0.98, 90, 1.25, True)
    (bar,) = card(deployed(low)).deciding
    assert (bar.comparison, bar.other_margin) == ("within 0.80 and 1.25", pytest.approx(0.8))
    assert summary(deployed(low), []).certainty.startswith("fairly")
    middle = Evidence(level, 1.0, 0.95, 1.05, 90, 1.25, True)
    assert summary(deployed(middle), []).certainty.startswith("sure")


def test_a_base_that_was_never_seen_to_do_it_is_said_to_have_never_done_it():
    """None of 300 rollouts on 90 problems.

    Were rollouts on one problem all alike, that would have less than 5 % probability at a share of
    0.0328; only were they independent, at 0.0099.
    """

    def measures(mass: float, seen: float) -> list[Measure]:
        rate = Measure("x", PER_TRACE, BASE, "", mass, mass, mass, 0.95, 90, 300)
        return [rate, Measure("x", OCCURS, BASE, "", seen, 0.0, 0.1, 0.95, 90, 300)]

    never_did = "never in 300 rollouts on 90 problems (at most 0.033)"
    assert never("x", measures(1e-20, 0.0)) == never_did
    assert never("x", measures(1e-20, 0.01)) == never("x", measures(0.1, 0.0)) == ""
    assert summary(deployed(), []).starts[0] == "–"
    one = replace(deployed(), behaviour="x")
    assert summary(one, measures(1e-20, 0.0)).starts[0] == never_did
    (chart,) = onsets(measures(1e-20, 0.0), ["x"]).charts
    assert chart.bars[0].figure == never_did
    assert (1 - most_of_none(90)) ** 90 == pytest.approx(0.05)


def test_no_number_has_more_than_four_figures():
    numbers = [52398988077326057472.0, 123456.0, 52398.9, 1234.56, 99.996, 0.123456, 1e-5]
    assert [number(x) for x in numbers] == [
        *("5.24e19", "123,500", "52,400", "1,235", "100", "0.12", "1e−05")
    ]
    assert [number(x, 3) for x in (1234.56, 12.3456, 9.99996, 0.5, -0.0004, math.inf)] == [
        *("1,235", "12.35", "10.00", "0.500", "−0.000", "∞")
    ]
    assert bounded(0.5, 0.4, math.inf) == "0.50 [0.40, ∞]"
    assert bounded(math.nan, 0.4, 0.6) == "–"


def test_numbers_are_written_for_people():
    assert [number(x) for x in (2.0, 0.123456, 0.0123, -0.5, 1234.0, 123.4, math.nan, 1e-5)] == [
        *("2", "0.12", "0.012", "−0.50", "1,234", "123", "–", "1e−05")
    ]
    assert (number(-0.0), number(0)) == ("0", "0")


# Text that must stay text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("nul\x00", "nul⟨U+0000⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("line\u2028", "line⟨U+2028⟩"),
        ("two\nlines\t", "two\nlines\t"),
        ("👩\u200d🔬 שלום", "👩\u200d🔬 שלום"),
    ],
)
def test_characters_that_act_unseen_are_written_out(text, seen):
    assert shown(text) == seen


def test_a_line_of_a_megabyte_is_cut_and_says_so():
    assert shown("x" * 1_000_000) == "x" * 600 + " … (999,400 more characters)"


def test_json_in_a_page_cant_end_its_script_and_has_no_nan():
    hostile = {"<!--<script>": "</script>\u2028&'", "nan": [math.nan, np.float32(1.5), np.int64(2)]}
    text = inert_json(plain(hostile))
    assert not set("<>&'\u2028") & set(text)
    assert json.loads(text) == {"<!--<script>": "</script>\u2028&'", "nan": [None, 1.5, 2]}


# Examples


def test_examples_are_the_highest_first_then_each_quarter_and_no_problem_twice():
    value = np.linspace(1, 100, 400, dtype=np.float32)
    firing = Firing(np.arange(400), value)
    chosen = choose(firing, lambda row: str(row // 2), seed=0)
    top = [row for band, row in chosen if band == TOP]
    assert top == [399, 397, 395, 393, 391, 389, 387, 385]
    assert [band for band, _ in chosen][8::3] == list(QUARTERS)
    problems = [row // 2 for _, row in chosen]
    assert len(set(problems)) == len(problems)
    lowest = [row for band, row in chosen if band == QUARTERS[-1]]
    assert all(row < 100 for row in lowest)
    assert chosen == choose(firing, lambda row: str(row // 2), seed=0)


def test_a_latent_that_never_fires_has_no_examples_and_an_empty_histogram():
    silent = Firing(np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert choose(silent, str, seed=0) == []
    found = histogram({"rl": silent}, 10)
    assert sum(found.counts["rl"]) == 0
    assert found.active == {"rl": 0}


def test_both_readers_share_the_histograms_bins():
    firing = {
        "base": Firing(np.array([0]), np.array([1.0], np.float32)),
        "rl": Firing(np.array([0, 1]), np.array([2.0, 4.0], np.float32)),
    }
    found = histogram(firing, 10)
    assert found.edges[-1] == 4.0
    assert [sum(found.counts[r]) for r in ("base", "rl")] == [1, 2]


def test_no_character_is_lost_between_tokens():
    assert token_pieces("so  go. ", [2, 6, 7]) == ["so", "  go", ". "]


def test_an_example_counts_marks_and_values_from_its_own_first_token():
    span = TokenSpan("verification", 0, 1, 50, 55, "search")
    trace = Trace(
        "t", "p", "report", "rl", "m", "ask", "", tuple(range(200)), 5, None, False, (span,), ()
    )
    made = example(
        TOP, trace, [f"w{i}" for i in range(200)], 60, 4, {"base": {}, "rl": {60: 2.0, 3: 1.0}}
    )
    assert made.tokens[0] == "w20"
    assert made.tokens[made.chosen] == "w60"
    assert made.values == {"base": {}, "rl": {40: 2.0}}
    assert made.marks == (Mark("verification", 30, 35),)
    assert made.is_cut == (True, True)


# Reviews


def export(reviewer: str, *calls: str) -> dict:
    rows = [
        {"layer": 1, "latent": i, "behaviour": "x", "label": call, "note": "<b>"}
        for i, call in enumerate(calls)
    ]
    return {"schema_version": 2, "reviewer": reviewer, "rank": "r", "reviews": rows}


def test_two_reviewers_agreement_is_cohens_on_what_both_called():
    one = read_review(export("ann", "real", "real", "lexical", "lexical", "real"))
    other = read_review(export("bob", "real", "lexical", "lexical", "lexical", ""))
    (row,) = agreements([one, other], 50, 0).to_dict("records")
    assert (row["labels"], row["same"], row["latents"]) == (4, 3, 4)
    assert row["kappa"] == pytest.approx(0.5)  # 3 of 4 agree, 2 of 4 by chance.
    assert row["low"] <= 0.5 <= row["high"]
    counts = tally([one, other]).to_dict("records")
    assert [(c["reviewer"], c["latents"], c["real"]) for c in counts] == [
        ("ann", 5, 3),
        ("bob", 4, 1),
    ]
    assert len(review_rows([one, other])) == 10  # A note without a call is kept.


def test_reviewers_who_share_nothing_have_no_kappa():
    silent = {"schema_version": 2, "reviewer": "b", "rank": "r", "reviews": []}
    (row,) = agreements([read_review(export("a", "real")), read_review(silent)], 50, 0).to_dict(
        "records"
    )
    assert math.isnan(row["kappa"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "schema 2"),
        ({"schema_version": 2}, "no list"),
        ({"schema_version": 2, "reviews": ["x"]}, "review 0 lacks"),
        ({"schema_version": 2, "reviews": [{"layer": "x"}]}, "review 0 lacks"),
        (export("a", "excellent"), "'excellent'"),
    ],
)
def test_what_is_no_export_is_refused_with_the_reason(content, says):
    with pytest.raises(ValueError, match=says):
        read_review(content)


# Latents


TABLES = ("latents", "attacks", "injections", "baseline_comparison", "replicas")


def test_a_latent_on_both_lists_has_one_page_and_two_rows():
    lists = Shortlist(
        span_detectors={"x": [span_detector(1, 7, labels={"rl": "weak"})]},
        onset_predictors={"x": [onset_predictor(1, 7, onset_auroc=math.nan)]},
    )
    empty = {name: pd.DataFrame() for name in TABLES}
    scores = pd.DataFrame({"layer": [1], "latent": [8], "split": ["report"]})
    found = records(lists, empty | {"scores": scores}, None)
    assert [one.name for one in found] == ["1_7"]
    rows = listing_rows(found)
    assert [row["shortlist"] for row in rows] == ["span_detectors", "onset_predictors"]
    assert [row["auroc"] for row in rows] == pytest.approx([0.9, math.nan], nan_ok=True)


def test_a_record_holds_the_rows_of_rank_as_they_were_written(tmp_path):
    """Through Parquet, as the stages do; each kind of row once for another latent too."""
    target = Target(SPAN_DETECTORS, "x", RL, RL, 1, 7)
    replica = Replica("x", RL, RL, 1, 7, 3, 40, 0.9, 2, 0.8, 0.05, -0.01, 0.1, INCONCLUSIVE)
    attack = attack_by_seeds(target, [replica])
    injection = Injection(
        "x", RL, RL, 1, 7, "prompt", 1, "wait\u202e", *(0.5,) * 3, 9, 30, 0.1, False
    )
    bout = BaselineComparison(
        SPAN_DETECTORS, "x", 1, 7, RL, RL, "probe", 0.8, 0.9, -0.1, -0.2, 0.0, 0.05, 30
    )
    match = {"layer": 1, "latent": 7, "by": "cosine", "other_layer": 0, "other_latent": 2}
    match |= {"value": 0.7, "low": 0.6, "high": 0.8, "n": 64, "null_95": 0.3, "same_word": 0.1}
    match |= {"is_mutual": True, "other_behaviours": "detects y", "fires": 3}
    score = {"layer": 1, "latent": 7, "split": "report", "behaviour": "x", "reader": RL}
    score |= {"writer": RL, "status": "tested", "span_auroc": 0.8, "span_auroc_low": 0.7}
    score |= {"span_auroc_high": 0.9, "onset_auroc": 0.6, "n_pos": 3, "n_neg": 4, "n_onset_pos": 2}
    score |= {"n_onset_neg": 2, "num_problems": 3, "mutual_information": 0.1}
    rate = {"layer": 1, "latent": 7, "reader": RL, "writer": RL, "firing_rate": 0.1}
    rate |= {"mean_active": 1.0, "max_active": 2.0}
    made: dict[str, list[dict[str, Any]]] = {
        "attacks": [asdict(attack) | {"label": "inconclusive"}],
        "replicas": [asdict(replica)],
        "injections": [asdict(injection)],
        "baseline_comparison": [asdict(bout)],
        "scores": [score],
        "latents": [rate],
        "matches": [match],
    }
    for name, (row,) in made.items():
        write_table(tmp_path / name, pd.DataFrame([row, row | {"latent": 8}]))
    tables = {name: read_table(tmp_path / name) for name in made}
    lists = Shortlist({"x": [span_detector(1, 7)]}, {})
    (one,) = records(lists, tables, tables["matches"])
    assert one.replicas == (replica,)
    assert [vars(a) for a in one.attacks] == [pytest.approx(vars(attack), nan_ok=True)]
    assert one.injections == (replace(injection, words="wait⟨U+202E⟩"),)
    assert [vars(b) for b in one.baselines] == [pytest.approx(vars(bout), nan_ok=True)]
    for shown_row, row in ((one.scores, score), (one.matched, match), (one.rates, rate)):
        assert shown_row == ({name: row[name] for name in shown_row[0]},)
    kept = json.loads(inert_json(plain(asdict(one))))
    assert kept["replicas"][0]["outcome"] == INCONCLUSIVE
