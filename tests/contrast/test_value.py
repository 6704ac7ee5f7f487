"""Execution value, from planted outcomes: what its figures say, and how honest they are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float

from sae_reasoning.contrast.execution import BEST_OF
from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.contrast.sentences import Sentence
from sae_reasoning.contrast.value import (
    CONTROLS,
    DISPLACED,
    FOREIGN,
    NEUTRAL,
    OVER,
    OWN_WORDS,
    REDONE,
    SKILL,
    TRUNCATED,
    TRY,
    VALUE,
    against,
    anywhere_measures,
    best_of,
    best_of_tries,
    credited,
    mean_known,
    program_measures,
    share_measures,
    value_measures,
    without_redone,
)
from sae_reasoning.contrast.valued import Said, Valued, rows_of, value_table
from sae_reasoning.records import REPORT
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start

HOW = Resampling(400, 0)


def at(problem: int, place: int = 0) -> Start:
    name = f"p{problem}"
    return Start(
        Problem(name, REPORT, "?"), "rl", "backtracking", f"{name}/{place}", (1,), "so", True
    )


def measured(
    starts: list[Start], values: dict[tuple[str, str], Float[np.ndarray, " start"]]
) -> list[Measure]:
    """Where no completion does the behaviour again."""
    return value_measures(starts, values, dict.fromkeys(CONTROLS, values), HOW)


def found_of(found: Sequence[Measure]) -> dict[tuple[str, str, str], Measure]:
    return {(m.measure, m.model, m.condition): m for m in found}


def test_value_skill_is_0_as_the_control_and_1_as_the_rl_model() -> None:
    starts = [at(p) for p in range(60)]
    rng = np.random.default_rng(0)
    top, low = rng.uniform(0.6, 1.0, 60), rng.uniform(0.0, 0.4, 60)
    for base, skill in ((low, 0.0), (top, 1.0), ((top + low) / 2, 0.5)):
        values = {
            ("base", OWN_WORDS): base,
            ("rl", OWN_WORDS): top,
            ("rl", DISPLACED): low,
        }
        found = found_of(measured(starts, values))
        name = against(SKILL, DISPLACED)
        own = found[name, "base", OWN_WORDS]
        assert own.value == pytest.approx(skill)
        assert own.low <= own.value <= own.high
        behind = found[name, "rl-base", OWN_WORDS]
        assert (behind.value, behind.low) == pytest.approx((1 - own.value, 1 - own.high))
        assert found[VALUE, "rl", OWN_WORDS].value == pytest.approx(top.mean())
        rests = found[against(OVER, DISPLACED), "rl", OWN_WORDS]
        assert rests.value == pytest.approx((top - low).mean())
        assert rests.n == rests.items == 60


def test_what_the_rl_model_has_to_do_again_counts_as_the_control() -> None:
    starts, rng = [at(p) for p in range(200)], np.random.default_rng(0)
    grades = {
        ("base", OWN_WORDS): rng.binomial(1, 0.8, (200, 8)).astype(float),
        ("rl", OWN_WORDS): rng.binomial(1, 0.8, (200, 8)).astype(float),
        ("rl", DISPLACED): rng.binomial(1, 0.2, (200, 8)).astype(float),
    }
    values = {key: own.mean(1) for key, own in grades.items()}
    # The base says nothing; the RL model then does it, and is as often right.
    redone = np.ones((200, 8), bool)
    credit = values | {
        ("base", OWN_WORDS): credited(
            grades["base", OWN_WORDS], redone, values["rl", DISPLACED]
        ).mean(1)
    }
    found = found_of(value_measures(starts, values, {DISPLACED: credit, FOREIGN: credit}, HOW))
    assert found[VALUE, "base", OWN_WORDS].value == pytest.approx(0.8, abs=0.03)
    skill = found[against(SKILL, DISPLACED), "base", OWN_WORDS]
    assert skill.value == pytest.approx(0)
    # Nothing rests on what the RL model says, if it has to do it again.
    idle = credit | {("rl", OWN_WORDS): values["rl", DISPLACED]}
    found = found_of(value_measures(starts, values, {DISPLACED: idle, FOREIGN: idle}, HOW))
    assert found[against(OVER, DISPLACED), "rl", OWN_WORDS].value == pytest.approx(0)
    half = redone.copy()
    half[:, ::2] = False
    left = credited(grades["base", OWN_WORDS], half, values["rl", DISPLACED])
    assert left.mean() == pytest.approx(0.5, abs=0.03)


def test_a_control_after_which_the_rl_model_does_the_behaviour_is_not_worth_what_that_is() -> None:
    starts, size = [at(p) for p in range(100)], 8
    own = Sentence((1,), "so 7", "7")
    right, wrong = np.ones((100, size)), np.zeros((100, size))
    redone = np.zeros((100, size), bool)
    half, most = redone.copy(), redone.copy()
    half[:, :4], most[:, 1:] = True, True
    values = {
        ("base", OWN_WORDS): wrong.copy(),
        ("rl", OWN_WORDS): right,
        # Right wherever the RL model does it after all, and wrong where it doesn't.
        ("rl", DISPLACED): half.astype(float),
        ("rl", f"{DISPLACED}{TRY}2"): half.astype(float),
        ("rl", FOREIGN): wrong,
        ("rl", NEUTRAL): most.astype(float),
    }
    values["base", OWN_WORDS][7] = np.nan
    said: Said = {key: [own] * 100 for key in values}
    said["base", OWN_WORDS] = [*[own] * 7, replace(own, truncated=True), *[own] * 92]
    again = dict.fromkeys(values, redone)
    again |= {
        ("rl", DISPLACED): half,
        ("rl", f"{DISPLACED}{TRY}2"): half,
        ("rl", NEUTRAL): most,
    }
    valued = Valued(starts, said, values, again)
    rows = list(range(100))
    credit = {control: valued.outcomes(rows, control) for control in CONTROLS}
    found = found_of(value_measures(starts, valued.outcomes(rows), credit, HOW))
    assert found[against(OVER, DISPLACED), "rl", OWN_WORDS].value == pytest.approx(1)
    assert found[against(SKILL, DISPLACED), "base", OWN_WORDS].value == pytest.approx(0)
    assert found[VALUE, "rl", best_of(DISPLACED)].value == pytest.approx(0, abs=1e-9)
    # Where too few are left there is no figure, which is no "nothing rests on it".
    assert (VALUE, "rl", NEUTRAL) not in found
    assert set(valued.control().values()) == {0.0}
    shares = found_of(share_measures(REDONE, starts, valued.redone_shares(rows), HOW))
    assert shares[REDONE, "rl", DISPLACED].value == pytest.approx(0.5)
    assert shares[REDONE, "rl", NEUTRAL].value == pytest.approx(7 / 8)
    assert shares[REDONE, "rl", FOREIGN].value == 0
    # What was cut counts nowhere but in its own share.
    assert shares[REDONE, "base", OWN_WORDS].items == 99
    assert found[VALUE, "base", OWN_WORDS].items == 99
    cut = found_of(share_measures(TRUNCATED, starts, valued.truncated(rows), HOW))
    assert cut[TRUNCATED, "base", OWN_WORDS].value == pytest.approx(0.01)
    row = value_table(rows_of(valued)).query("model == 'base'").iloc[7]
    assert row.truncated and np.isnan(row.value) and row.completions == 0


def test_completions_that_are_left_of_a_control_all_have_grades() -> None:
    grades = np.array([[1.0, 0, np.nan, 1], [1, 0, np.nan, 1], [0, 0, 1, 1]])
    redone = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]], bool)
    found = mean_known(without_redone(grades, redone))
    assert found == pytest.approx([np.nan, 2 / 3, np.nan], nan_ok=True)


def test_skill_is_undefined_where_nothing_is_shown_to_rest_on_the_behaviour() -> None:
    starts = [at(p) for p in range(60)]
    rng = np.random.default_rng(0)
    values = {
        key: rng.uniform(0, 1, 60)
        for key in (("base", OWN_WORDS), ("rl", OWN_WORDS), ("rl", FOREIGN))
    }
    found = found_of(measured(starts, values))
    assert found[against(OVER, FOREIGN), "rl", OWN_WORDS].low < 0
    assert np.isnan(found[against(SKILL, FOREIGN), "base", OWN_WORDS].value)
    assert not [name for name, *_ in found if name.endswith(DISPLACED)]


def test_a_start_without_a_control_counts_for_values_and_not_for_skill() -> None:
    starts = [at(p) for p in range(40)]
    low = np.where(np.arange(40) < 30, 0.1, np.nan)
    values = {
        ("base", OWN_WORDS): np.full(40, 0.5),
        ("rl", OWN_WORDS): np.full(40, 0.9),
        ("rl", DISPLACED): low,
    }
    found = found_of(measured(starts, values))
    assert found[VALUE, "base", OWN_WORDS].items == 40
    assert found[against(SKILL, DISPLACED), "base", OWN_WORDS].items == 30
    assert found[against(SKILL, DISPLACED), "base", OWN_WORDS].value == pytest.approx(0.5)


def test_the_best_of_tries_that_differ_by_chance_alone_is_not_better_than_one() -> None:
    rng = np.random.default_rng(0)
    tries = rng.binomial(1, 0.5, (4, 4000, 8)).astype(float)
    assert best_of_tries(tries).mean() == pytest.approx(0.5, abs=0.01)
    tries[2] = rng.binomial(1, 0.9, (4000, 8))
    assert best_of_tries(tries).mean() > 0.75
    tries[3] = np.nan
    assert not np.isnan(best_of_tries(tries)).any()
    assert np.isnan(best_of_tries(tries[3:])).all()


def test_choosing_among_tries_that_are_worth_what_the_control_is_shows_no_ability() -> None:
    rng = np.random.default_rng(0)
    starts = [at(p) for p in range(400)]
    right = rng.uniform(0, 0.8, (4, 400))

    def drawn(tries: Float[np.ndarray, "try start"]) -> Float[np.ndarray, " start"]:
        return best_of_tries(rng.binomial(1, tries[..., None], (2, 400, 8)).astype(float))

    values = {
        ("base", OWN_WORDS): right[0],
        ("base", BEST_OF): drawn(right[:2]),
        ("rl", OWN_WORDS): np.full(400, 0.9),
        ("rl", FOREIGN): right[2],
    }
    name = against(SKILL, FOREIGN)
    alone = found_of(measured(starts, values))[name, "base", BEST_OF]
    assert alone.low > 0.1
    values["rl", best_of(FOREIGN)] = drawn(right[2:])
    fair = found_of(measured(starts, values))[name, "base", BEST_OF]
    assert fair.low < 0 < fair.high
    assert fair.value == pytest.approx(0, abs=0.08)


def test_a_judge_counts_where_it_can_tell_of_all_that_is_compared() -> None:
    starts = [at(p) for p in range(50)]
    top, low, base = np.ones(50), np.zeros(50), np.ones(50)
    low[:10], base[10:20] = np.nan, np.nan
    valid = {("base", OWN_WORDS): base, ("rl", OWN_WORDS): top, ("rl", FOREIGN): low}
    found = found_of(program_measures(starts, valid, HOW))
    assert found[against("program_skill", FOREIGN), "base", OWN_WORDS].items == 30
    assert found[against("program_skill_over", FOREIGN), "rl", OWN_WORDS].items == 40


def test_what_rests_on_a_behaviour_anywhere_is_told_of_starts_that_have_the_control() -> None:
    starts = [at(p) for p in range(60)]
    own, low = np.ones(60), np.where(np.arange(60) < 40, 0.5, np.nan)
    own[50:] = np.nan
    one, after = anywhere_measures(
        starts, own, {("rl", DISPLACED): low, ("rl", FOREIGN): own * np.nan}, HOW
    )
    assert (one.measure, one.model, one.items) == ("value_over_anywhere/displaced", "rl", 40)
    assert one.value == pytest.approx(0.5)
    assert (after.measure, after.condition) == ("control_value_anywhere", DISPLACED)
    assert (after.value, after.items) == (pytest.approx(0.5), 40)


def planted(
    rng: np.random.Generator, skill: float, gap: float, num_problems: int = 100
) -> tuple[list[Start], dict[tuple[str, str], Float[np.ndarray, " start"]]]:
    """Outcomes as completions give them: starts of a problem alike, eight completions each.

    At a share `skill` of starts the base's sentence is worth what the RL model's is, in six of ten
    cases the very same; elsewhere it is worth what the control is. What the behaviour says matters
    at seven starts of ten.
    """
    problems = np.repeat(np.arange(num_problems), rng.integers(1, 3, num_problems))
    starts = [at(problem, place) for place, problem in enumerate(problems.tolist())]
    size = len(starts)
    easy = rng.normal(0, 0.8, num_problems)[problems] + rng.normal(0, 0.8, size)
    right = 1 / (1 + np.exp(-0.8 - easy))
    control = right * np.where(rng.random(size) < 0.7, 1 - gap / 0.7, 1.0)
    able = rng.random(size) < skill

    def drawn(probability: Float[np.ndarray, " start"]) -> Float[np.ndarray, " start"]:
        return rng.binomial(8, probability) / 8

    top = drawn(right)
    base = drawn(np.where(able, right, control))
    base = np.where(able & (rng.random(size) < 0.6), top, base)
    return starts, {
        ("base", OWN_WORDS): base,
        ("rl", OWN_WORDS): top,
        ("rl", DISPLACED): drawn(control),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("skill", "gap"), [(0.0, 0.5), (0.3, 0.3), (0.9, 0.3), (0.9, 0.5)])
def test_intervals_of_value_skill_hold_the_planted_skill_as_often_as_they_say(
    skill: float, gap: float
) -> None:
    rng = np.random.default_rng(0)
    name, held, defined = against(SKILL, DISPLACED), 0, 0
    for _ in range(1000):
        starts, values = planted(rng, skill, gap)
        own = found_of(measured(starts, values))[name, "base", OWN_WORDS]
        defined += not np.isnan(own.low)
        held += own.low <= skill <= own.high
    assert defined == 1000
    assert 0.93 <= held / defined <= 0.97
