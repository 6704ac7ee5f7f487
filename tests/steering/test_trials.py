"""What is tried on the report split: swaps both ways and the published controls, by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from sae_reasoning.config.hybrid import HybridConfig
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.steering.onset_vectors import Vector
from sae_reasoning.steering.policies import (
    DIFFERS,
    NEVER,
    ORACLE,
    RANDOM,
    RANDOM_DIFFERS,
    SCALE,
    SWAP,
)
from sae_reasoning.steering.trials import (
    DIVERGING,
    MAGNITUDE,
    RANDOM_CATEGORY,
    REVERSE_SWAP,
    TOKEN_SWAP,
    Sizes,
    Steering,
    Trial,
    num_rollouts,
    other_categories,
    report_trials,
)
from sae_reasoning.steering.vectors import Steer

BEHAVIOURS = ("entry", "doubt", "check")
OWN = HybridConfig(budgets=[0.1, 0.4], vectors=["trained"], draws=2, samples=3)


def vector(behaviour: str, size: float) -> Vector:
    change = torch.tensor([size, 0.0, 0.0, 0.0])
    return Vector("trained", behaviour, 1, 1.0, change, 0.5, 4)


def trials(
    *having: str, own: HybridConfig = OWN, words: Sequence[Sequence[int]] = ()
) -> list[Trial]:
    by_behaviour = {name: vector(name, 1.0 + n) for n, name in enumerate(having)}
    vectors = dict.fromkeys(own.vectors, by_behaviour)
    steering = Steering(
        BEHAVIOURS,
        vectors,
        Sizes(dict.fromkeys(own.vectors, 1.0), "trained", Steer(1, torch.ones(4)), {}),
        {"oracle": [0.5, 0.2], "gate": [0.4, 0.1], "differs": [0.9, 0.3]},
        0.25,
        {0.1: [0.02, 0.03, 0.05], 0.4: [0.1, 0.1, 0.2]},
        words,
    )
    return report_trials(own, steering)


def test_each_end_of_the_gap_is_written_by_its_own_model_alone() -> None:
    ends = [(one.policy, one.writer, one.rule.when) for one in trials(*BEHAVIOURS)[:2]]
    assert ends == [(BASE, BASE, NEVER), (RL, RL, NEVER)]


def test_tokens_are_swapped_both_ways_at_rising_budgets_and_at_random_where_they_differ() -> None:
    for name, writer in ((TOKEN_SWAP, BASE), (REVERSE_SWAP, RL)):
        own = [t for t in trials(*BEHAVIOURS) if t.policy == name and t.vector != "-"]
        assert {one.writer for one in own} == {writer}
        assert all(one.rule.how == SWAP for one in own)
        told = [(one.vector, one.budget, one.rule.when) for one in own]
        assert told[1:] == [
            (DIVERGING, 0.1, DIFFERS),
            ("at random where they differ", 0.1, RANDOM_DIFFERS),
            (DIVERGING, 0.4, DIFFERS),
            ("at random where they differ", 0.4, RANDOM_DIFFERS),
        ]
        assert told[0][0] == "wherever they differ" and math.isnan(told[0][1])
        assert [one.rule.threshold for one in own if one.vector == DIVERGING] == [0.9, 0.3]
        at_random = [one.rule.shares for one in own if one.rule.when == RANDOM_DIFFERS]
        assert [sum(shares) for shares in at_random] == [0.1 / 0.25, 1.0]


def test_the_four_published_controls_stand_beside_the_oracle_at_its_own_thresholds() -> None:
    made = trials(*BEHAVIOURS)
    by_policy = {one.policy: one for one in made if one.budget == 0.1}
    oracle = by_policy["oracle"].rule
    for name in ("random-vector", RANDOM_CATEGORY, MAGNITUDE):
        rule = by_policy[name].rule
        assert (rule.when, rule.threshold) == (ORACLE, oracle.threshold)
    assert by_policy[MAGNITUDE].rule.how == SCALE
    lengths = {
        name: [float(one.change.norm()) for one in by_policy[name].rule.vectors if one]
        for name in ("oracle", MAGNITUDE, "random-vector", RANDOM_CATEGORY)
    }
    assert lengths[MAGNITUDE] == lengths["oracle"]
    assert lengths["random-vector"] == pytest.approx(lengths["oracle"])
    assert sorted(lengths[RANDOM_CATEGORY]) == lengths["oracle"] != lengths[RANDOM_CATEGORY]
    assert by_policy["random"].rule.when == RANDOM
    draws = [one.draw for one in made if one.policy == RANDOM_CATEGORY and one.budget == 0.1]
    assert draws == [0, 1]


@pytest.mark.parametrize(
    ("vectors", "draws", "distinct"), [(2, 5, 1), (3, 5, 2), (4, 5, 5), (4, 9, 6), (1, 3, 0)]
)
def test_another_category_is_another_ones_vector_and_no_draw_is_repeated(
    vectors: int, draws: int, distinct: int
) -> None:
    steering = [Steer(1, torch.tensor([float(n)])) if n != 1 else None for n in range(vectors + 1)]
    made = other_categories(steering, 0, draws)
    assert len({tuple(map(id, found)) for found in made}) == len(made) == distinct
    own = [one for one in steering if one is not None]
    for found in made:
        assert found[1] is None
        assert sorted(float(one.change) for one in found if one) == [float(o.change) for o in own]
        assert all(a is not b for a, b in zip(found, steering, strict=True) if b is not None)


def test_there_is_no_other_category_where_one_behaviour_has_a_vector() -> None:
    assert RANDOM_CATEGORY not in {one.policy for one in trials("doubt")}


@pytest.mark.parametrize("kinds", [["trained"], ["sae", "trained"]])
def test_as_many_rollouts_are_planned_as_are_tried(kinds: list[str]) -> None:
    own = replace(OWN, vectors=kinds)
    made = trials(*BEHAVIOURS, own=own, words=[[7], [8], [9]])
    counted = {w: sum(t.samples for t in made if t.writer == w) for w in MODELS}
    assert num_rollouts(own) == counted
