"""Grades by program: right, wrong, without an answer, or nothing that can be graded.

A response without an answer is wrong. One whose answer can't be compared, or whose problem comes
without a right answer, has no grade; its share is reported, since accuracies leave it out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from sae_reasoning.records import Trace
from sae_reasoning.traces.answers import as_number, find_answer, is_plainly_equal, reaches
from sae_reasoning.traces.problems import PosedProblem

RIGHT, WRONG, NO_ANSWER, UNGRADED = "right", "wrong", "no answer", "ungraded"
OUTCOMES = (RIGHT, WRONG, NO_ANSWER, UNGRADED)

MATH, COUNTDOWN, GYM = "math", "countdown", "gym"
"""How a problem's answers are graded: by value, as arithmetic, or by reasoning-gym's own scorer."""


@runtime_checkable
class Scorers(Protocol):
    """Outside programs that judge answers."""

    def equal(self, reference: str, answer: str) -> bool | None:
        """Whether two mathematical expressions are equal; None where that can't be said."""

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
        """`right`, `wrong`, `no answer` or `ungraded`."""
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
            return _named(reaches(answer, reference["numbers"], reference["target"]))
        if kind == GYM:
            number = answer.replace(",", "") if numeric else answer
            return _named(self.scorers.gym(task, number, reference) > 1 - 1e-6)
        found = is_plainly_equal(reference, answer)
        return _named(self.scorers.equal(reference, answer) if found is None else found)

    def correct(self, problem_id: str, text: str, truncated: bool) -> bool | None:
        """The grade, or None where there's none."""
        return _GRADES[self.outcome(problem_id, text, truncated)]


_GRADES = {RIGHT: True, WRONG: False, NO_ANSWER: False, UNGRADED: None}


def _named(is_right: bool | None) -> str:
    return UNGRADED if is_right is None else RIGHT if is_right else WRONG


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
