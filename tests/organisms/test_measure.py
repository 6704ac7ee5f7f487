"""Figures of an organism that never have an interval without width."""

import random

import pytest

from sae_reasoning.organisms.measure import measure, measuring_problems, pass_at_k
from sae_reasoning.stats import wilson
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate


def test_pass_at_k_of_problems_that_all_agree_keeps_width() -> None:
    found = pass_at_k([[True] * 4] * 5, [1, 4], seed=0)
    assert {k: (e.value, e.high) for k, e in found.items()} == {1: (1.0, 1.0), 4: (1.0, 1.0)}
    assert found[4].low == pytest.approx(wilson(5, 5).low)
    assert pass_at_k([[True]], [1], seed=0)[1].low < 0.5


def test_a_move_that_is_always_taken_keeps_width() -> None:
    problems = measuring_problems(12, 0, "test")

    def write(prompts, beginnings, seed):
        rng = random.Random(seed)
        texts = [narrate(problem, ALWAYS, rng).text for problem in problems]
        return [(text, len(text.split()), False) for text in texts]

    figures, _ = measure(write, problems, 0, len(problems))
    taken = {m.behaviour: m.per_opportunity for m in figures.behaviours}[grammar.INITIALIZING]
    assert taken.value == 1.0
    assert taken.low == pytest.approx(wilson(12, 12).low)
