"""How much of a gap is recovered, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from sae_reasoning.records import BASE, RL
from sae_reasoning.steering.recovery import (
    at_largest_budget,
    decision_bits,
    findings,
    gap_curves,
    left_in_words,
    recovered_in_words,
    recovery,
)

Grades = dict[str, list[list[int]]] | dict[str, list[list[int | None]]]


def rollouts(right: Grades) -> pd.DataFrame:
    """Grades of each policy, problem by problem; None where there is none."""
    return pd.DataFrame(
        [
            {
                "policy": policy,
                "vector": "-",
                "budget": math.nan if policy in (BASE, RL) else 0.1,
                "draw": 0,
                "problem_id": f"p{problem}",
                "correct": None if grade is None else bool(grade),
                "truncated": False,
                "num_tokens": 9,
                "num_steered": 2 if policy == "oracle" else 0,
                "text": "one two three",
                "decided": [8, 1, 1],
                "by_rl": policy == "oracle",
            }
            for policy, grades in right.items()
            for problem, own in enumerate(grades)
            for grade in own
        ]
    )


def table(right: Grades, uses: dict[str, set[str]] | None = None):
    found = recovery(rollouts(right), uses or {}, ["backtracking"], num_resamples=500, seed=0)
    return found.set_index(["policy", "behaviour"])


MANY = 20


def test_half_of_the_way_is_half_of_the_gap() -> None:
    found = table({BASE: [[0, 1]] * MANY, RL: [[1]] * MANY, "oracle": [[1, 0, 1, 1]] * MANY})
    own = found.loc["oracle", "all"]
    assert own.accuracy == 0.75
    assert own.gap == 0.5
    assert own.gap_recovered == pytest.approx(0.5)
    assert (own.low, own.high) == (0.5, 0.5)  # Every problem says the same.
    assert own.n == MANY
    assert own.defined
    assert found.loc[(BASE, "all"), "gap_recovered"] == 0
    assert found.loc[(RL, "all"), "gap_recovered"] == 1


def test_more_than_the_gap_and_less_than_nothing_stay_as_they_are() -> None:
    grades = {BASE: [[0, 1]] * MANY, RL: [[1, 1, 1, 0]] * MANY}
    found = table(grades | {"oracle": [[1]] * MANY, "latent": [[0]] * MANY})
    assert found.loc[("oracle", "all"), "gap_recovered"] == pytest.approx(2.0)
    assert found.loc[("latent", "all"), "gap_recovered"] == pytest.approx(-2.0)


def test_where_there_is_no_sure_gap_nothing_is_recovered() -> None:
    mixed = [[0], [1]] * (MANY // 2)
    found = table({BASE: mixed, RL: mixed[::-1], "oracle": [[1]] * MANY})
    own = found.loc["oracle", "all"]
    assert not own.defined
    assert own.gap_low < 0 < own.gap_high
    assert np.isnan([own.gap_recovered, own.low, own.high]).all()
    assert own.accuracy == 1.0
    assert "no gap" in findings(found.reset_index()).to_string()
    assert "no gap to recover" in recovered_in_words(found.reset_index())


def test_words_name_the_policies_that_recover_some_of_the_gap_and_those_that_do_not() -> None:
    grades = {BASE: [[0, 1]] * MANY, RL: [[1]] * MANY}
    found = table(grades | {"oracle": [[1]] * MANY, "latent": [[0, 1]] * MANY})
    assert recovered_in_words(found.reset_index()) == (
        "Some of the gap is recovered (q ≤ 0.05 over 2, each at its largest budget) by oracle; not "
        "by latent."
    )


def test_words_deny_nothing_where_all_policies_recover_some_or_none_does() -> None:
    ends = {BASE: [[0, 1]] * MANY, RL: [[1]] * MANY}
    every, none = (table(ends | {"oracle": own * MANY}) for own in ([[1]], [[0, 1]]))
    assert recovered_in_words(every.reset_index()) == (
        "Some of the gap is recovered (q ≤ 0.05 over 1, each at its largest budget) by oracle."
    )
    assert recovered_in_words(none.reset_index()) == (
        "None of the gap is significantly recovered (q ≤ 0.05 over 1, each at its largest budget) "
        "by oracle."
    )
    assert recovered_in_words(table(ends).reset_index()) == "No policy was tried."


def test_problems_that_need_a_move_are_counted_apart() -> None:
    uses = {f"p{i}": {"backtracking"} for i in range(MANY // 2)}
    half = [[1]] * (MANY // 2) + [[0]] * (MANY // 2)
    found = table({BASE: [[0]] * MANY, RL: [[1]] * MANY, "oracle": half}, uses)
    assert found.loc[("oracle", "all"), "gap_recovered"] == pytest.approx(0.5)
    own = found.loc["oracle", "backtracking"]
    assert (own.gap_recovered, own.n) == (1.0, MANY // 2)


def test_shares_count_the_token_that_ends_a_rollout_and_bits_only_where_the_rl_model_decides() -> (
    None
):
    found = table({BASE: [[0]] * 3, RL: [[1]] * 3, "oracle": [[1]] * 3})
    assert found.loc[("oracle", "all"), "share_steered"] == pytest.approx(0.2)
    bits = -(0.8 * math.log2(0.8) + 0.2 * math.log2(0.1))
    assert found.loc[("oracle", "all"), "oracle_bits"] == pytest.approx(bits)
    assert math.isnan(found.loc[(BASE, "all"), "oracle_bits"])
    assert decision_bits(np.array([2.0, 1.0, 1.0, 0.0])) == 1.5
    assert decision_bits(np.zeros(3)) == 0.0


def test_a_gap_needs_both_of_its_ends() -> None:
    with pytest.raises(ValueError, match="of the base and of the RL model"):
        table({BASE: [[0]], "oracle": [[1]]})


def test_what_the_bases_tokens_leave_of_the_gap_is_said_apart() -> None:
    grades = {BASE: [[0]] * MANY, RL: [[1]] * MANY, "reverse-token-swap": [[1, 0]] * MANY}
    found = recovery(rollouts(grades), {}, [], num_resamples=100, seed=0)
    assert recovered_in_words(found) == "No policy was tried."
    assert left_in_words(found).startswith(
        "With the base's tokens in the RL model's text, of the gap is left: 0.5"
    )
    assert gap_curves(found).empty
    level = recovery(rollouts({**grades, RL: [[0]] * MANY}), {}, [], num_resamples=100, seed=0)
    assert left_in_words(level) == ""


def test_a_gap_is_recovered_on_the_problems_that_are_graded_under_all_three() -> None:
    """The oracle has no grade where the base fails, so it recovers nothing of what is graded."""
    half = MANY // 2
    found = table(
        {
            BASE: [[1, 0]] * half + [[0, 0]] * half,
            RL: [[1, 1]] * (MANY - 1) + [[None, None]],
            "oracle": [[1, 0]] * half + [[None, None]] * half,
            "latent": [[1, 0]] * MANY,
        }
    )
    own = found.loc["oracle", "all"]
    assert (own.n, own.gap, own.gap_recovered, own.accuracy) == (half, 0.5, 0, 0.5)
    assert found.loc[("latent", "all"), "n"] == MANY - 1
    none = table({BASE: [[0]] * 3, RL: [[1]] * 3, "oracle": [[None]] * 3}).loc["oracle", "all"]
    assert none.n == 0 and not none.defined and np.isnan([none.accuracy, none.gap, none.q]).all()


def test_the_largest_budget_is_tested_over_all_policies_at_once() -> None:
    """Luck at a small budget says nothing, nor does luck of one policy in many."""
    rng = np.random.default_rng(0)
    ends = {BASE: [[0, 1]] * MANY, RL: [[1, 1]] * MANY}
    by_budget = [
        rollouts(ends),
        rollouts({"oracle": [[1, 1]] * MANY}),
        rollouts({"oracle": [[0, 1]] * MANY}).assign(budget=0.5),
        rollouts({"latent": [[1, 1]] * (MANY - 2) + [[0, 1]] * 2}),
        *(
            rollouts({"random": rng.integers(0, 2, (MANY, 2)).tolist()}).assign(vector=f"v{n}")
            for n in range(8)
        ),
    ]
    found = recovery(pd.concat(by_budget), {}, [], num_resamples=500, seed=0)
    tested = at_largest_budget(found)
    assert found.q.notna().sum() == len(tested) == 10
    assert (tested.q >= tested.p - 1e-12).all() and (tested.q > tested.p).any()
    (budget,) = tested.budget[tested.policy == "oracle"]
    assert budget == 0.5
    said = recovered_in_words(found)
    assert said.startswith(
        "Some of the gap is recovered (q ≤ 0.05 over 10, each at its largest budget) by latent; "
        "not by oracle, random with v0, "
    )
    people = findings(found).set_index("policy")
    assert people.accuracy["oracle"] == "0.50" and people.q["base"] == "–"
