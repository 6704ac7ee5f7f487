"""What each intervention recovers, by hand."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from sae_reasoning.elicitation.conditions import CONTROL, END, INTERVENTION, Condition
from sae_reasoning.elicitation.table import (
    Ends,
    accuracy_by_problem,
    chosen_of,
    columns,
    elicitation_table,
    ends_of,
    hybrid_rows,
    pass_at,
    recovered_in_words,
    row,
    shown,
)
from sae_reasoning.report.elicited import elicited

PROBLEMS = [f"p{number:05d}" for number in range(20)]


def series(*shares: float) -> pd.Series:
    return pd.Series(np.resize(shares, len(PROBLEMS)), PROBLEMS, float)


def rollouts(*grades: list[bool]) -> pd.DataFrame:
    """Two samples of each problem; the grades of problems in turn."""
    rows = [
        {"problem_id": problem, "sample": sample, "correct": grades[place % len(grades)][sample]}
        for place, problem in enumerate(PROBLEMS)
        for sample in range(2)
    ]
    costs = {"training_tokens": 7.0, "gradient_steps": 3.0, "trained_values": 2.0}
    nothing = {"num_tokens": 9, "num_written": 2, "prompt_tokens": 1, "truncated": False}
    return pd.DataFrame(rows).assign(**costs, **nothing)


def row_of(found: pd.DataFrame, ends: Ends) -> dict[str, object]:
    names = {"intervention": "prompt", "condition": "any", "role": INTERVENTION}
    return row(names, found, ends, [])


def test_the_base_recovers_nothing_rl_everything_and_half_way_is_half() -> None:
    base, rl, half = ([False, False],), ([True, True],), ([True, False],)
    ends = Ends(*(accuracy_by_problem(rollouts(*g)) for g in (base, rl)), 200, 0)
    for grades, recovered in ((base, 0.0), (rl, 1.0), (half, 0.5)):
        found = row_of(rollouts(*grades), ends)
        assert found["gap_recovered"] == recovered
        assert (found["gap_low"], found["gap_high"]) == (recovered, recovered)
        assert found["gap_defined"]
        assert found["n"] == len(PROBLEMS)


def test_what_nobody_graded_is_not_wrong() -> None:
    """Of every four problems one has no grade at all, and one a single grade, right."""
    grades: list[list[bool | None]] = [[True, None], [None, None], [False, True], [True, False]]
    found = rollouts(*grades)  # type: ignore[arg-type]
    ends = Ends(series(0), series(1), 200, 0)
    shares = accuracy_by_problem(found)
    assert len(shares) == 15
    assert shares.mean() == pytest.approx((1 + 0.5 + 0.5) / 3)
    told = row_of(found, ends)
    assert (told["accuracy"], told["n"], told["ungraded"]) == (pytest.approx(2 / 3), 15, 15)
    assert told["gap_recovered"] == pytest.approx(2 / 3)
    by_problem = found.set_index("problem_id").correct
    assert len(pass_at(by_problem, 2)) == 10  # Two grades each.
    assert pass_at(by_problem, 1).mean() == pytest.approx(2 / 3)
    chosen = chosen_of(found, 2).set_index("problem_id").correct
    assert [chosen[problem] for problem in PROBLEMS[:4]] == [True, None, True, True]


def test_where_the_gaps_interval_holds_0_nothing_is_recovered() -> None:
    ends = Ends(series(0, 1), series(1, 0), 200, 0)
    found = row_of(rollouts([True, True]), ends)
    assert not found["gap_defined"]
    assert math.isnan(found["gap_recovered"])
    assert math.isnan(found["gap_low"])
    assert found["accuracy"] == 1.0
    table = pd.DataFrame([found]).reindex(columns=columns([]))
    assert shown(table, [])["gap recovered"].tolist() == ["no gap"]
    assert "no gap to recover" in recovered_in_words(table)


def test_words_name_the_interventions_and_the_controls_that_recover_some_of_the_gap() -> None:
    ends = Ends(*(accuracy_by_problem(rollouts(g)) for g in ([False] * 2, [True] * 2)), 200, 0)
    rows = [row_of(rollouts([True, False]), ends), row_of(rollouts([False, False]), ends)]
    rows[1] |= {"intervention": "tools", "role": CONTROL}
    said = "Some of the gap is significantly recovered (95 % CI above 0) by"
    assert recovered_in_words(pd.DataFrame(rows)) == f"{said} prompt; of the controls none."
    assert recovered_in_words(pd.DataFrame(rows[1:])) == (
        f"{said} no intervention; of the controls none."
    )


def test_the_first_page_shows_interventions_with_controls_in_brackets() -> None:
    ends = Ends(*(accuracy_by_problem(rollouts(g)) for g in ([False] * 2, [True] * 2)), 200, 0)
    rows = [row_of(rollouts([True, False]), ends), row_of(rollouts([False, False]), ends)]
    rows[1] |= {"intervention": "tools", "role": CONTROL}
    found = pd.DataFrame(rows).reindex(columns=columns([]))
    section = elicited(found, ["doubt"])  # Which wasn't counted.
    (table,) = section.tables
    assert [line[0] for line in table.rows] == ["prompt", "  (tools)"]
    recovered = table.rows[0][table.columns.index("gap recovered")]
    assert recovered.startswith("0.50 [")
    assert "recovered (95 % CI above 0) by prompt; of the controls none" in section.lead
    assert section.rows is found


def test_tokens_steered_are_a_share_of_all_that_is_predicted_ends_too() -> None:
    found = row_of(rollouts([True, True]), Ends(series(0), series(1), 50, 0))
    assert found["tokens_steered"] == pytest.approx(2 / (9 + 1))
    assert (found["training_tokens"], found["gradient_steps"]) == (7.0, 3.0)


def test_pass_at_k_is_the_share_of_all_draws_of_k_that_hold_a_right_one() -> None:
    grades = {"p00000": [1, 0, 0, 1, 0], "p00001": [0, 0, 0, 0, 0], "p00002": [1, 1, 1, 1, 0]}
    given = pd.Series(
        [grade for own in grades.values() for grade in own],
        [problem for problem, own in grades.items() for _ in own],
    )
    for k in (1, 2, 3, 5):
        for problem, found in pass_at(given, k).items():
            draws = [any(draw) for draw in combinations(grades[str(problem)], k)]
            assert found == pytest.approx(np.mean(draws))


def test_the_judge_takes_the_first_right_answer_and_all_are_paid_for() -> None:
    found = pd.DataFrame(
        {
            "problem_id": ["p00000"] * 3 + ["p00001"] * 3,
            "sample": [0, 1, 2] * 2,
            "correct": [False, True, True, False, False, True],
            "num_tokens": [10, 20, 60, 1, 3, 500],
        }
    )
    chosen = chosen_of(found, 2)
    assert chosen["sample"].tolist() == [1, 0]
    assert chosen.num_tokens.tolist() == [15, 2]


def test_of_the_hybrid_the_row_that_steers_most_within_the_budget_is_taken() -> None:
    """Not the one that recovers most; with its controls beside it."""
    lines = [
        ("oracle", "sae", 0.04, 0.9),
        ("oracle", "sae", 0.1, 0.5),
        ("oracle", "sae", 0.4, 1.0),
        ("latent", "sae", 0.1, 0.4),
        ("random", "sae", 0.1, 0.0),
        ("cue-word", "-", 0.1, 0.7),
    ]
    names = ["policy", "vector", "share_steered", "gap_recovered"]
    known = {"behaviour": "all", "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 9}
    hybrid = pd.DataFrame(lines, columns=names).assign(
        **known, low=0.0, high=1.0, defined=True, length=30.0, rollouts=18
    )
    found = hybrid_rows(hybrid, 0.15)
    assert [(one["condition"], one["role"], one["gap_recovered"]) for one in found] == [
        ("oracle, sae", INTERVENTION, 0.5),
        ("latent, sae", INTERVENTION, 0.4),
        ("random, sae", CONTROL, 0.0),
    ]


def test_a_random_procedure_stands_beside_as_many_samples() -> None:
    """It answers each problem with a probability, so k tries of it fail with its k-th power."""
    ends = [
        Condition(model, "as it is", END, rollouts([model == "rl"] * 2)) for model in ("base", "rl")
    ]
    sampled = Condition("best-of", "samples", INTERVENTION, rollouts([True, False]))
    found = elicitation_table(
        [*ends, sampled],
        ends_of(ends, 100, 0),
        [],
        best_of=[2, 1],
        baselines={"guess": pd.Series(0.5, PROBLEMS)},
    )
    own = found[found.intervention == "best-of"].set_index("condition")
    assert list(own.index) == ["k=1", "k=2", "guess, k=1", "guess, k=2"]
    assert own.accuracy.tolist() == pytest.approx([0.5, 1.0, 0.5, 0.75])
    assert own.gap_recovered.tolist() == pytest.approx([0.0, 1.0, 0.0, 0.5])
    assert own.role.tolist() == [INTERVENTION] * 2 + [CONTROL] * 2
    assert own.tokens_written.tolist() == [9.0, 18.0, 0.0, 0.0]


def test_where_nothing_is_graded_there_is_no_accuracy_and_no_gap() -> None:
    conditions = [Condition(one, "as it is", END, rollouts([None, None])) for one in ("base", "rl")]  # type: ignore[list-item]
    ends = ends_of(conditions, 50, 0)
    found = elicitation_table(conditions, ends, [], best_of=[1], baselines={})
    assert found.accuracy.isna().all() and not found.gap_defined.any()
    assert found.ungraded.tolist() == [40, 40]


def test_what_nobody_can_judge_is_counted_and_not_called_right() -> None:
    ends = Ends(series(0), series(1), 50, 0)
    made = rollouts([True, True]).assign(**{"made/doubt": 2, "right/doubt": None})
    names = {"intervention": "prompt", "condition": "any", "role": INTERVENTION}
    found = pd.DataFrame([row(names, made, ends, ["doubt"])]).reindex(columns=columns(["doubt"]))
    assert found.doubt.tolist() == [2.0]
    assert found["doubt/right"].isna().all()
    assert "doubt" in shown(found, ["doubt"]).columns
    judged = pd.DataFrame([row(names, made.assign(**{"right/doubt": 1}), ends, ["doubt"])])
    assert shown(judged, ["doubt"])["doubt, right"].tolist() == ["1 [0.84, 1]"]
