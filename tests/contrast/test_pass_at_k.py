"""pass@k beside random walks, against what can be counted by hand or drawn at random."""

import random

import numpy as np
import pytest

from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.contrast.pass_at_k import (
    TOKENS,
    TRUNCATED,
    ProblemSamples,
    baseline_samples,
    pass_at_k,
    pass_summary,
    pass_told,
)
from sae_reasoning.organisms.measure import random_walks
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.baselines import OPEN_WALK, RANDOM_WALK, walk_odds
from sae_reasoning.tasks.search.task import search_task
from sae_reasoning.tasks.search.world import LONGER, parse_prompt, sample_problem

HOW = Resampling(num_resamples=400, seed=0)
FORK = parse_prompt(
    "map ash: either birch or cedar , birch: either dale or elm , dale: none , elm: gold , "
    "cedar: gold ; notes birch# open cedar# shut elm# real ; from ash find gold ?"
)


def floor_of(count: int) -> list[ProblemSamples]:
    """The random walks on as many problems."""
    posed = [Problem(f"p{index}", "report", FORK.prompt()) for index in range(count)]
    return baseline_samples(search_task(), posed)


def samples_of(model: str, right: list[int], samples: int) -> list[ProblemSamples]:
    return [
        ProblemSamples(model, f"p{index}", samples, one, 0, 9.0, one / samples)
        for index, one in enumerate(right)
    ]


def test_chances_of_a_walk_are_those_of_its_forks() -> None:
    assert walk_odds(FORK, keeps_off_shut=False) == 0.25
    assert walk_odds(FORK, keeps_off_shut=True) == 0.5


def test_chances_are_what_random_walks_come_to() -> None:
    rng = random.Random(5)
    for _ in range(20):
        problem = sample_problem(rng, LONGER, grammar.REMARKS)
        odds = walk_odds(problem, keeps_off_shut=False)
        drawn = np.mean(random_walks(problem, 4000, rng))
        assert abs(drawn - odds) < 4 * (odds * (1 - odds) / 4000) ** 0.5
        assert walk_odds(problem, keeps_off_shut=True) >= odds > 0


def test_pass_at_k_levels_and_differences_by_hand() -> None:
    floor = floor_of(40)
    made = pass_at_k(
        [*samples_of("base", [1] * 40, 4), *samples_of("rl", [4] * 40, 4), *floor], HOW
    )
    found = {(m.model, m.condition): m.value for m in made}
    assert [found["base", k] for k in "124"] == pytest.approx([0.25, 0.5, 1.0])
    assert found["rl-base", "1"] == pytest.approx(0.75)
    assert found[RANDOM_WALK, "2"] == pytest.approx(1 - 0.75**2)
    assert found[OPEN_WALK, "2"] == pytest.approx(1 - 0.5**2)
    assert found[f"base-{RANDOM_WALK}", "1"] == pytest.approx(0)
    assert found[f"rl-{OPEN_WALK}", "1"] == pytest.approx(0.5)
    shown = pass_summary(made)
    assert list(shown.k) == ["1", "2", "4"]
    assert shown[RANDOM_WALK][0].startswith("0.25 [")
    assert (
        pass_told(made, [RANDOM_WALK, OPEN_WALK])[1]
        == "samples: base 9 tokens, 0% truncated, rl 9 tokens, 0% truncated"
    )


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ([0] * 15 + [2] * 15, "up to k = 8 (30 problems); random walk, open places there"),
        ([2] * 15 + [3] * 15, "up to k = 4 (30 problems)"),
        ([4] * 15 + [5] * 15, "random walk, open places there: 75%"),
        ([7] * 30, "RL model's at no k (30 problems)"),
    ],
)
def test_how_far_the_base_is_significantly_behind(base: list[int], said: str) -> None:
    floor = floor_of(30)
    made = pass_at_k([*samples_of("base", base, 8), *samples_of("rl", [6] * 30, 8), *floor], HOW)
    assert said in pass_told(made, [RANDOM_WALK, OPEN_WALK])[0]


def test_where_the_base_is_behind_now_and_then_each_k_is_named() -> None:
    lows = {1: -0.1, 2: 0.1, 4: -0.1, 8: 0.1}
    made = [
        Measure("", "pass@k", model, str(k), 0.2, low, 0.3, 0.95, 30, 240)
        for k, low in lows.items()
        for model in ("rl-base", "base", OPEN_WALK)
    ]
    made += [
        Measure("", name, model, "", 0.0, 0.0, 0.0, 0.95, 30, 240)
        for name in (TRUNCATED, TOKENS)
        for model in ("base", "rl")
    ]
    assert (
        "at k = 2 and 8 (30 problems); random walk" in pass_told(made, [RANDOM_WALK, OPEN_WALK])[0]
    )


def test_differences_next_to_none_of_few_problems_are_not_sure() -> None:
    """At many tries all problems are nearly solved, each by its own odds."""
    rng = random.Random(3)
    floor = floor_of(60)
    base = samples_of("base", [rng.randrange(15, 70) for _ in range(60)], 256)
    made = pass_at_k([*base, *samples_of("rl", [230] * 60, 256), *floor], HOW)
    found = {(m.model, m.condition): m for m in made}
    for k in ("128", "256"):
        assert found["base", k].value > 0.99
        assert found["base", k].low < 0.95
        assert found["rl-base", k].low < 0 < found["rl-base", k].high
    assert found["rl-base", "1"].low > 0.6


def test_where_nearly_all_problems_agree_bounds_reach_to_wilsons() -> None:
    floor = floor_of(60)
    made = pass_at_k(
        [*samples_of("base", [2] * 59 + [0], 2), *samples_of("rl", [2] * 60, 2), *floor], HOW
    )
    found = {(m.model, m.condition): m for m in made if m.condition == "2"}
    assert found["rl", "2"].high == 1.0
    assert 0.93 < found["rl", "2"].low < 0.95
    assert 0.90 < found["base", "2"].low < 0.93
    assert found["rl-base", "2"].low < 0 < found["rl-base", "2"].value
    assert found["rl-base", "2"].high > 0.08


def test_models_that_tried_different_problems_are_not_compared() -> None:
    floor = floor_of(2)
    other = [ProblemSamples("rl", f"q{index}", 2, 1, 0, 9.0, 0.5) for index in range(2)]
    with pytest.raises(AssertionError, match="different problems"):
        pass_at_k([*samples_of("base", [1, 1], 2), *other, *floor], HOW)
