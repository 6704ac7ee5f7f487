"""Grades by program: right, wrong, without an answer, unreadable, or nothing that can be graded.

A response without an answer is wrong, and so is one whose answer nobody could read. It has no grade
where the program lacks the means: the right answer is missing or can't be read, comparing takes too
long, or what would compare isn't installed. That share is reported, since accuracies leave it out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from sae_reasoning.records import Comparison, Trace
from sae_reasoning.traces.answers import (
    as_number,
    find_answer,
    is_plainly_equal,
    may_be_number,
    reaches,
)
from sae_reasoning.traces.problems import PosedProblem

RIGHT, WRONG, NO_ANSWER, UNREADABLE, UNGRADED = OUTCOMES = (
    "right",
    "wrong",
    "no answer",
    "unreadable",
    "ungraded",
)
GRADING_VERSION = 2
"""Of the rules; grades by other ones are made anew."""

MATH, COUNTDOWN, GYM = "math", "countdown", "gym"
"""How a problem's answers are graded: by value, as arithmetic, or by reasoning-gym's own scorer."""


@runtime_checkable
class Scorers(Protocol):
    """Outside programs that judge answers."""

    def compare(self, reference: str, answer: str) -> Comparison:
        """An answer beside the right one, both mathematical expressions."""
        ...

    def gym(self, task: str, answer: str | None, entry: dict[str, Any]) -> float:
        """Score of an answer to an entry of a reasoning-gym task, 1 where it's right."""


@dataclass(frozen=True)
class Grader:
    """Grades responses to some problems.

    Attributes:
        problems: By problem id.
        scorers: What judges where plain comparison doesn't.
    """

    problems: dict[str, PosedProblem]
    scorers: Scorers

    def outcome(self, problem_id: str, text: str, truncated: bool) -> str:
        """One of `OUTCOMES`."""
        problem = self.problems.get(problem_id)
        if problem is None or not problem.reference:
            return UNGRADED
        kind, _, task = problem.grader.partition(":")
        reference: Any = problem.reference
        if kind != MATH:
            reference = json.loads(problem.reference)
        right = str(reference["answer"]) if kind == GYM else reference
        numeric = kind != COUNTDOWN and as_number(str(right)) is not None
        answer = find_answer(text, numeric=numeric, truncated=truncated)
        if answer is None:
            return NO_ANSWER
        if kind == COUNTDOWN:
            is_right = reaches(answer, reference["numbers"], reference["target"])
            return UNREADABLE if is_right is None else _named(is_right)
        if kind == GYM:
            number = answer.replace(",", "") if numeric else answer
            return _named(self.scorers.gym(task, number, reference) > 1 - 1e-6)
        found = is_plainly_equal(reference, answer)
        return self._compared(reference, answer) if found is None else _named(found)

    def correct(self, problem_id: str, text: str, truncated: bool) -> bool | None:
        """The grade, or None where there's none."""
        return _GRADES[self.outcome(problem_id, text, truncated)]

    def _compared(self, reference: str, answer: str) -> str:
        found = self.scorers.compare(reference, answer)
        if found is Comparison.UNDECIDED and as_number(reference) is not None:
            return UNGRADED if may_be_number(answer) else UNREADABLE
        return _OUTCOME_OF[found]


_GRADES = {RIGHT: True, WRONG: False, NO_ANSWER: False, UNREADABLE: False, UNGRADED: None}
_OUTCOME_OF = {
    Comparison.EQUAL: RIGHT,
    Comparison.DIFFERENT: WRONG,
    Comparison.UNREADABLE: UNREADABLE,
    Comparison.UNDECIDED: UNGRADED,
}


def _named(is_right: bool) -> str:
    return RIGHT if is_right else WRONG


def grade_all(traces: Sequence[Trace], grader: Grader) -> tuple[list[Trace], pd.DataFrame]:
    """The traces with their grades, and shares of outcomes by writer.

    Columns: writer, traces, and the share of each outcome.
    """
    outcomes = [grader.outcome(t.problem_id, t.text, t.truncated) for t in traces]
    graded = [
        replace(t, correct=_GRADES[outcome]) for t, outcome in zip(traces, outcomes, strict=True)
    ]
    rows = []
    for writer in sorted({trace.writer for trace in traces}):
        own = [o for o, t in zip(outcomes, traces, strict=True) if t.writer == writer]
        shares = {outcome: own.count(outcome) / len(own) for outcome in OUTCOMES}
        rows.append({"writer": writer, "traces": len(own)} | shares)
    return graded, pd.DataFrame(rows)
