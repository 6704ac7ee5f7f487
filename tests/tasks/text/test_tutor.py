"""Lessons in natural text, from attempts by hand."""

import random

import pytest

from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Attempt, ResponseFormat
from sae_reasoning.tasks.text.sentences import sentences
from sae_reasoning.tasks.text.tutor import CRITIQUES, RIGHT, SHUFFLED, TEMPLATES, TextTutor

PROBLEMS = [Problem(f"p{n:05d}", "select", "What is 2 + 2?", "4", "math") for n in range(3)]
WRONG = Attempt("Two and two. I add them. The answer is 5.", False)
RIGHTS = Attempt("I count up from two. That gives four. The answer is 4.", True)
CUT = Attempt("Two and two and two and", False, truncated=True)
THINKING = ResponseFormat("<think>", "</think>", "\n\nAnswer:", enters_by_choice=True)


def test_the_first_problem_that_is_got_right_and_wrong_is_taken() -> None:
    attempts = [[RIGHTS, CUT], [RIGHTS, WRONG], [WRONG, RIGHTS]]
    asked: list[str] = []

    def sampled(problem: Problem) -> list[Attempt]:
        asked.append(problem.problem_id)
        return attempts[PROBLEMS.index(problem)]

    tutor = TextTutor(ResponseFormat())
    assert tutor.choose(PROBLEMS, sampled, 0) == PROBLEMS[1]
    assert asked == ["p00000", "p00001"]  # No attempt is sampled that isn't needed.
    assert tutor.choose(PROBLEMS[:1], sampled, 0) is None


def lesson(kind: str, form: ResponseFormat, *attempts: Attempt) -> str:
    return TextTutor(form).lesson(PROBLEMS[0], attempts, kind, random.Random(3))


def test_a_critique_goes_from_a_wrong_attempt_by_its_check_to_a_right_one() -> None:
    text = lesson(CRITIQUES, ResponseFormat(), WRONG, CUT, RIGHTS)
    assert text.startswith(WRONG.text)
    assert text.endswith(RIGHTS.text)
    between = text[len(WRONG.text) : -len(RIGHTS.text)].split()
    assert " ".join(between) in {" ".join(both) for both in TEMPLATES}


def test_a_critique_is_thought_where_thoughts_are_marked() -> None:
    wrong = Attempt("<think>Two, two. It is 5.</think>\n\nAnswer: 5", False)
    right = Attempt("<think>I count. It is 4.</think>\n\nAnswer: 4", True)
    text = lesson(CRITIQUES, THINKING, wrong, right)
    thought, _, answer = text.partition("</think>")
    assert answer == "\n\nAnswer: 4"
    assert thought.count("<think>") == 1 and thought.startswith("<think>Two, two.")
    assert "I count. It is 4." in thought
    mixed = lesson(SHUFFLED, THINKING, wrong, right)
    assert mixed.startswith("<think>") and mixed.endswith("</think>\n\nAnswer: 4")


@pytest.mark.parametrize("seed", range(5))
def test_controls_hold_the_same_words_in_another_order_or_the_right_attempt_alone(
    seed: int,
) -> None:
    assert lesson(RIGHT, ResponseFormat(), WRONG, RIGHTS) == RIGHTS.text
    tutor = TextTutor(ResponseFormat())
    whole, mixed = (
        tutor.lesson(PROBLEMS[0], [WRONG, RIGHTS], kind, random.Random(seed))
        for kind in (CRITIQUES, SHUFFLED)
    )
    cut = [sorted(text[a:b] for a, b in sentences(text)) for text in (whole, mixed)]
    assert cut[0] == cut[1]
    assert whole != mixed
