"""Lessons on one problem."""

import random

import pytest

from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Attempt
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import BACKTRACKING, UNCERTAINTY, VERIFICATION
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.task import SearchGrader
from sae_reasoning.tasks.search.tutor import CRITIQUES, DIRECT, SHUFFLED, SearchTutor
from sae_reasoning.tasks.search.world import TRAINED, parse_prompt, sample_problem

PROBLEMS = [
    Problem("", "", sample_problem(random.Random(number), TRAINED, grammar.REMARKS).prompt())
    for number in range(40)
]
PROBLEM = SearchTutor().choose(PROBLEMS, lambda problem: [], 0)
assert PROBLEM
MAP = parse_prompt(PROBLEM.prompt)


def drawn(kind: str, attempts: list[Attempt], seed: int = 0) -> str:
    return SearchTutor().lesson(PROBLEM, attempts, kind, random.Random(seed))


def test_the_problem_of_the_lessons_needs_every_behaviour_that_pays() -> None:
    spans = narrate(MAP, ALWAYS, random.Random(0)).spans
    assert {span.behaviour for span in spans} >= {UNCERTAINTY, BACKTRACKING, VERIFICATION}


@pytest.mark.parametrize("kind", [CRITIQUES, DIRECT])
def test_lessons_end_in_the_right_answer(kind: str) -> None:
    text = drawn(kind, [Attempt("answer : nowhere .", False)])
    assert SearchGrader().grade(PROBLEM, text, truncated=False)
    assert text.startswith(grammar.THINK) == (kind == CRITIQUES)


def test_shuffled_critiques_say_the_same_sentences_in_another_order() -> None:
    own, shuffled = drawn(CRITIQUES, []), drawn(SHUFFLED, [])
    assert own != shuffled
    assert sorted(own.split()) == sorted(shuffled.split())
    assert own.split(grammar.END_THINK)[1] == shuffled.split(grammar.END_THINK)[1]


def test_a_critique_tries_what_the_attempt_tried() -> None:
    problem = MAP
    fork = problem.start
    while len(problem.children(fork)) < 2:
        (fork,) = problem.children(fork)
    for child in problem.children(fork):
        text = narrate(problem, ALWAYS, random.Random(0), attempt=[child]).text
        said = text.split(f"at {fork} :")[-1] if f"at {fork} :" in text else text
        tried = [place for place in said.split() if place in problem.children(fork)]
        assert child in tried
