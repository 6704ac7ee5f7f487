"""Natural text as a task."""

import pytest

from sae_reasoning.records import BASE, RL, Comparison
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.annotators import CueAnnotator
from sae_reasoning.tasks.text.task import (
    THINKING_MARKS,
    TextGrader,
    response_format,
    text_task,
    written_mark,
)

PROBLEM = Problem("p00000", "report", "What is 6 times 7?", "42", "math")


class NoScorers:
    """Nothing outside is asked for whole numbers."""

    def compare(self, reference: str, answer: str) -> Comparison:
        raise AssertionError("not needed")

    def gym(self, task: str, answer: str, entry: dict) -> float | None:
        raise AssertionError("not needed")


TASK = text_task(
    CueAnnotator({"backtracking": ["wait"], "deduction": ["^so"]}, ["backtracking", "deduction"]),
    {
        BASE: response_format(),
        RL: response_format(opened="<think>"),
    },
    TextGrader(NoScorers()),
)


def test_cues_mark_sentences_and_every_sentence_start_is_an_opportunity():
    text = "So it is 41. Wait, no. It is 42."
    found = TASK.annotate(PROBLEM, text, truncated=False, model=BASE)
    assert [(s.behaviour, text[s.char_start : s.char_end]) for s in found.spans] == [
        ("deduction", "So it is 41."),
        ("backtracking", "Wait, no."),
    ]
    assert len(found.opportunities) == 2 * len(TASK.sentences(text)) == 6
    assert found.correct is True


def test_an_answer_within_an_open_chain_of_thought_is_none():
    said = "The answer is 42."
    assert TASK.grade(PROBLEM, said, truncated=False, model=BASE)
    assert TASK.grade(PROBLEM, said, truncated=False, model=RL) is False
    assert TASK.grade(PROBLEM, f"Hmm.</think> {said}", truncated=False, model=RL)


def test_only_a_model_that_opens_its_chain_of_thought_itself_enters_it_by_choice():
    opened, chosen = response_format(opened="<think>"), response_format(written="<think>")
    assert opened.is_opened_by_prompt and not opened.enters_by_choice
    assert chosen.enters_by_choice and chosen.thinking_prefix == "<think>"
    assert chosen.split("<think>Hmm.</think>42") == ("<think>Hmm.", "42")
    neither = TASK.formats[BASE]
    assert not (neither.is_opened_by_prompt or neither.enters_by_choice)


@pytest.mark.parametrize(("mark", "closes"), THINKING_MARKS.items())
def test_a_chain_of_thought_ends_with_the_mark_that_goes_with_its_beginning(mark, closes):
    responses = [f"\n{mark} So it is 42.{closes} 42", "It is 42.", f"{mark} Hmm."]
    assert written_mark(responses) == mark and written_mark(responses[1:2]) == ""
    form = response_format(written=mark)
    assert form.split(responses[0])[1].strip() == "42"
    # A prompt that opened it says more than a response that does so again.
    assert response_format(opened=mark, written="<think>").thinking_suffix == closes


def test_what_natural_text_has_no_means_for_is_missing():
    lacks = ("openings", "judge", "null")
    assert TASK.missing(*lacks, "tutor") == lacks


@pytest.mark.parametrize(
    ("text", "found", "found_last"),
    [
        ("", None, None),
        (" So", None, None),
        ("So.", None, 3),
        ("It is 3.", None, 8),
        ("It is 3.5 and", None, None),
        (" Wait, no. It", 10, 10),
        ("x is 3\nSo", 6, 6),
        ("1. Add them. Then", 12, 12),
    ],
)
def test_the_first_sentence_ends_where_whole_texts_are_cut(text, found, found_last):
    assert TASK.sentence_end.find(text, is_last=False) == found
    assert TASK.sentence_end.find(text, is_last=True) == found_last
