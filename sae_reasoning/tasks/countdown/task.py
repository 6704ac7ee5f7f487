"""Countdown as a task: what `tasks/protocol.py` asks for, by program."""

from collections.abc import Sequence
from functools import lru_cache

from sae_reasoning.records import Annotation
from sae_reasoning.tasks.countdown.reader import (
    Standing,
    answered,
    behaviour_of,
    has_form,
    is_valid,
    read,
    standing,
)
from sae_reasoning.tasks.countdown.world import CountdownProblem, parse_prompt
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Execution, Judgement, Start
from sae_reasoning.tasks.text.sentences import FirstSentence


@lru_cache(maxsize=4096)
def _posed(prompt: str) -> CountdownProblem:
    return parse_prompt(prompt)


class CountdownGrader:
    """Grades the expression that a response gives as its answer."""

    def grade(
        self, problem: Problem, response: str, *, truncated: bool, opened: bool = False
    ) -> bool:
        """Whether it uses each number once and reaches the target; a cut response is wrong."""
        return not truncated and _posed(problem.prompt).grade(answered(response))


class CountdownAnnotator:
    """Reads behaviours by their words, and whether each was carried out rightly by their content.

    A whole text alone can be annotated.
    """

    name = "countdown"

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """Spans, opportunities, and of each span whether it was carried out rightly."""
        return read(_posed(problem.prompt), response, truncated=truncated)

    def listen(self, problem: Problem) -> None:
        """None: nothing is said of a response while it is written."""


class CountdownJudge:
    """Says whether a behaviour that was started does what it is for, by its content alone.

    It reads the first sentence from the start on, in whatever words.
    """

    name = "countdown"

    def judge(self, executions: Sequence[Execution]) -> list[Judgement]:
        """Of behaviours that were started; where no opening was written, as `judge_free` does."""
        return [
            _judged(one.start, _joined(one.opening, one.continuation))
            if one.opening
            else self.judge_free([one.start], [one.continuation])[0]
            for one in executions
        ]

    def judge_free(self, starts: Sequence[Start], texts: Sequence[str]) -> list[Judgement]:
        """Of texts whose writer was free: whether they are the behaviour, and valid."""
        found = []
        for start, text in zip(starts, texts, strict=True):
            is_it = behaviour_of(_first_sentence(text)) == start.behaviour
            found.append(_judged(start, text) if is_it else Judgement(False, False))
        return found


def _joined(opening: str, continuation: str) -> str:
    is_apart = continuation[:1].isspace() or not continuation[:1].isalnum()
    return f"{opening}{'' if is_apart else ' '}{continuation}"


def _first_sentence(text: str) -> str:
    end = FirstSentence().find(text, is_last=True)
    return text[:end].strip() if end is not None else text.strip()


def _judged(start: Start, text: str) -> Judgement:
    at: Standing = standing(_posed(start.problem.prompt), start.text)
    sentence = _first_sentence(text)
    is_formed = has_form(start.behaviour, at.problem, sentence)
    return Judgement(is_formed, is_formed and is_valid(start.behaviour, at, sentence))
