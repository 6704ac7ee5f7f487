"""Grades by program: right, wrong, without an answer, unreadable, or nothing that can be graded.

A response without an answer is wrong, and so is one whose answer nobody could read, as the field
counts them; `answer_status` tells them apart, and a difference between writers is warned of, since
it biases their accuracies against each other. A response has no grade where the program lacks the
means: the right answer is missing or can't be read, comparing takes too long, or what would compare
isn't installed. That share is reported, since accuracies leave it out.

How often a grade is what a careful reader says, by kind of ending, stands in
`data/findings/grading.md`; `python -m pytest tests/tasks/text/test_graded_endings.py -s` prints it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from sae_reasoning.records import Comparison, Trace
from sae_reasoning.stats import difference
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.answers import Answer, find_answer, reaches
from sae_reasoning.tasks.text.matching import as_asked, expression_in, match_number, match_text
from sae_reasoning.tasks.text.numbers import are_several, is_number, read_number

RIGHT, WRONG, NO_ANSWER, UNREADABLE, UNGRADED = OUTCOMES = (
    "right",
    "wrong",
    "no answer",
    "unreadable",
    "ungraded",
)
FOUND, NONE, TRUNCATED = "found", "none", "truncated"
STATUSES = FOUND, UNREADABLE, NONE, TRUNCATED
"""What became of a response's answer: it was read, it can't be, the response ended without one or
was cut before it."""

MATH, COUNTDOWN, GYM = "math", "countdown", "gym"
"""How a problem's answers are graded: by value, as arithmetic, or by reasoning-gym's own scorer."""


@runtime_checkable
class Scorers(Protocol):
    """Outside programs that judge answers."""

    def compare(self, reference: str, answer: str) -> Comparison:
        """An answer beside the right one, both mathematical expressions."""
        ...

    def gym(self, task: str, answer: str, entry: dict[str, Any]) -> float | None:
        """Score of an answer to an entry of a reasoning-gym task: 1 is right, None is too slow."""


@dataclass(frozen=True)
class Grade:
    """What a response is worth.

    Attributes:
        outcome: One of `OUTCOMES`.
        answer_status: One of `STATUSES`, or "" where there's nothing to grade by.
    """

    outcome: str
    answer_status: str

    @property
    def correct(self) -> bool | None:
        """Whether it's right; None where it has no grade."""
        return None if self.outcome == UNGRADED else self.outcome == RIGHT


@dataclass(frozen=True)
class Grader:
    """Grades responses to some problems.

    Attributes:
        problems: By problem id.
        scorers: What judges where plain comparison doesn't.
    """

    problems: dict[str, Problem]
    scorers: Scorers

    def grade(self, problem_id: str, text: str, truncated: bool, *, opened: bool = False) -> Grade:
        """What a response gives as its answer, and what that is worth.

        Args:
            problem_id: What was asked.
            text: The response.
            truncated: Whether it was cut.
            opened: Whether the prompt ends in an open thought.
        """
        problem = self.problems.get(problem_id)
        if problem is None or not problem.reference:
            return Grade(UNGRADED, "")
        kind, _, task = problem.grader.partition(":")
        reference: Any = problem.reference
        if kind != MATH:
            reference = json.loads(problem.reference)
        right = str(reference["answer"]) if kind == GYM else reference
        numeric = kind != COUNTDOWN and is_number(str(right))
        answer = find_answer(text, numeric=numeric, truncated=truncated, opened=opened)
        if answer is None:
            return Grade(NO_ANSWER, TRUNCATED if truncated else NONE)
        if kind == COUNTDOWN:
            is_right = reaches(answer, reference["numbers"], reference["target"])
            outcome = UNREADABLE if is_right is None else _named(is_right)
        elif kind == GYM:
            outcome = self._gym(task, reference, answer, numeric)
        else:
            if not numeric:
                answer = as_asked(right, answer)
            found = match_number(right, answer) if numeric else match_text(right, answer)
            outcome = self._by_algebra(right, answer) if found is None else _OUTCOME_OF[found]
        return Grade(outcome, UNREADABLE if outcome == UNREADABLE else FOUND)

    def outcome(self, problem_id: str, text: str, truncated: bool, *, opened: bool = False) -> str:
        """One of `OUTCOMES`; the arguments are those of `grade`."""
        return self.grade(problem_id, text, truncated, opened=opened).outcome

    def correct(
        self, problem_id: str, text: str, truncated: bool, *, opened: bool = False
    ) -> bool | None:
        """The grade, or None where there's none; the arguments are those of `grade`."""
        return self.grade(problem_id, text, truncated, opened=opened).correct

    def _by_algebra(self, reference: str, answer: Answer) -> str:
        if (expression := expression_in(answer)) is None:
            return UNREADABLE
        return _OUTCOME_OF[self.scorers.compare(reference, expression)]

    def _gym(self, task: str, entry: dict[str, Any], answer: Answer, numeric: bool) -> str:
        """By the task's own scorer, which gets the answer in each way that it may be spelt."""
        spellings: list[str] = [answer]
        if numeric:
            number, right = read_number(answer), read_number(str(entry["answer"]))
            if number is None or right is None or answer.is_unclear:
                return WRONG if are_several(answer) else UNREADABLE
            if (number.value < 0) != (right.value < 0):
                return WRONG  # Some scorers overlook signs.
            spellings = number.spellings
        scores = [self.scorers.gym(task, spelling, entry) for spelling in spellings]
        if any(score is not None and score > 1 - 1e-6 for score in scores):
            return RIGHT
        return UNGRADED if None in scores else WRONG


_OUTCOME_OF = {
    Comparison.EQUAL: RIGHT,
    Comparison.DIFFERENT: WRONG,
    Comparison.UNREADABLE: UNREADABLE,
    Comparison.UNDECIDED: UNGRADED,
}


def _named(is_right: bool) -> str:
    return RIGHT if is_right else WRONG


def grade_all(
    traces: Sequence[Trace],
    grader: Grader,
    opens: Callable[[Trace], bool] = lambda trace: False,
) -> tuple[list[Trace], pd.DataFrame]:
    """The traces with their grades and what became of their answers, and shares by writer.

    Columns: writer, traces, and the share of each outcome.

    Args:
        traces: Rollouts.
        grader: Of their problems.
        opens: Whether a trace's prompt ends in an open thought.
    """
    grades = [grader.grade(t.problem_id, t.text, t.truncated, opened=opens(t)) for t in traces]
    graded = [
        replace(t, correct=grade.correct, answer_status=grade.answer_status)
        for t, grade in zip(traces, grades, strict=True)
    ]
    rows = []
    for writer in sorted({trace.writer for trace in traces}):
        own = [g.outcome for g, t in zip(grades, traces, strict=True) if t.writer == writer]
        shares = {outcome: own.count(outcome) / len(own) for outcome in OUTCOMES}
        rows.append({"writer": writer, "traces": len(own)} | shares)
    return graded, pd.DataFrame(rows)


def uneven_answers(traces: Sequence[Trace]) -> list[str]:
    """Warnings of writers whose answers are read, or found, less often than the other's.

    Both count as wrong, so that who writes answers in a way that isn't read looks worse than it is.
    A difference is named where Newcombe's 95 % interval is on one side of 0, or where it's over two
    points.
    """
    said = []
    kinds = {UNREADABLE: "an answer that can't be read", NONE: "no answer, though they ended"}
    writers = sorted({trace.writer for trace in traces})
    for status, kind in kinds.items():
        for one, other in combinations(writers, 2):
            counts = [
                (sum(t.answer_status == status for t in own), len(own))
                for own in ([t for t in traces if t.writer == w] for w in (one, other))
            ]
            gap = difference(*counts[0], *counts[1])
            if abs(gap.value) <= _UNEVEN and gap.low <= 0 <= gap.high:
                continue
            shares = [
                f"{number / total:.1%} of {w}'s"
                for w, (number, total) in zip((one, other), counts, strict=True)
            ]
            said.append(
                f"{' and '.join(shares)} rollouts have {kind} (difference {100 * gap.value:.1f} "
                f"points [{100 * gap.low:.1f}, {100 * gap.high:.1f}]); they count as wrong, which "
                "biases accuracies: read those with this answer_status in traces.parquet, or ask "
                "for a form in traces.instruction, as \\boxed{}"
            )
    return said


_UNEVEN = 0.02
