"""Thinks about a problem in plain English, working backwards, and answers.

A find may be a slip: a false equation that seems to give what is needed. Only a check shows it, so
verification pays; a number that can't come last is left only by backtracking; without weighing what
the hint leaves open the number that it excludes is tried as well; and without a subgoal one step on
two numbers is tried at random.
"""

import random
from dataclasses import dataclass

from sae_reasoning.records import Span
from sae_reasoning.tasks.countdown.wordings import (
    BACKTRACKING,
    BAD,
    FITS,
    GOOD,
    NONE,
    REMARKS,
    SUBGOAL,
    UNCERTAINTY,
    VERIFICATION,
    trained,
)
from sae_reasoning.tasks.countdown.world import CountdownProblem, Pair, compute
from sae_reasoning.tasks.protocol import ResponseFormat
from sae_reasoning.tasks.text.task import ANSWER, END_THINK, THINK

THINKING, DIRECT = THINK, ANSWER.strip()
FORMAT = ResponseFormat(THINK, END_THINK, ANSWER, enters_by_choice=True)
"""What a response begins with: a chain of thought, or the answer."""


@dataclass(frozen=True)
class Rates:
    """Probability of each behaviour where it could start.

    Attributes:
        subgoal: Of naming what is needed, before a number is tried as the last.
        backtrack: Of taking another number where one can't come last.
        verify: Of checking a find.
        weigh: Of weighing the numbers that could come last.
        slip: Of a false find on each number that is tried, a hazard rather than a behaviour.
        remark: Of a harmless sentence, at each of the places for one.
    """

    subgoal: float = 0.3
    backtrack: float = 0.25
    verify: float = 0.25
    weigh: float = 0.3
    slip: float = 0.52
    remark: float = 0.1


ALWAYS = Rates(subgoal=1.0, backtrack=1.0, verify=1.0, weigh=1.0)


@dataclass(frozen=True)
class Narration:
    """A response with its behaviours, in order."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class _Find:
    """An equation that would solve the problem, if it were true."""

    left: str
    stated: int
    true: int
    pair: Pair


class _Page:
    """Sentences as they are written."""

    def __init__(self, problem: CountdownProblem, rates: Rates, rng: random.Random) -> None:
        self.text, self.spans = THINK, list[Span]()
        self._numbers, self._rates, self._rng = problem.numbers, rates, rng

    def write(self, sentence: str) -> tuple[int, int]:
        start = len(self.text) + 1
        self.text += f" {sentence}"
        return start, len(self.text)

    def offer(self, behaviour: str, rate: float, **slots: object) -> bool:
        """Where a behaviour could start, make it at a rate; whether it was made."""
        is_taken = self._rng.random() < rate
        if is_taken:
            wording = self._rng.choice(trained(behaviour))
            self.spans.append(Span(behaviour, *self.write(wording.format(**slots))))
        return is_taken

    def maybe_remark(self) -> None:
        if self._rng.random() < self._rates.remark:
            number = self._rng.choice(self._numbers)
            self.write(self._rng.choice(REMARKS).format(n=number))

    def narration(self, expression: str) -> Narration:
        text = f"{self.text} {END_THINK}{ANSWER} {expression}"
        return Narration(text, tuple(self.spans))


def narrate(problem: CountdownProblem, rates: Rates, rng: random.Random) -> Narration:
    """Think about a problem in words, and answer.

    Args:
        problem: What is thought about.
        rates: Of the behaviours.
        rng: Source of chance.
    """
    page = _Page(problem, rates, rng)
    page.maybe_remark()
    u, v = rng.sample(problem.open_numbers, 2)
    weighs = page.offer(UNCERTAINTY, rates.weigh, u=u, v=v, out=problem.out)
    last = rng.choice(problem.open_numbers if weighs else problem.numbers)
    tried: list[int] = []
    while True:
        page.maybe_remark()
        tried.append(last)
        attempt = _backwards if _sets_subgoal(page, problem, last, rates) else _forwards
        found, nearest = attempt(page, problem, last, rates, rng)
        if found:
            return page.narration(problem.expression(found, last))
        untried = [number for number in problem.open_numbers if number not in tried]
        other = rng.choice(untried) if untried else None
        if other is None or not page.offer(
            BACKTRACKING, rates.backtrack, z=other, old=last, out=problem.out
        ):
            return page.narration(problem.expression(nearest, last))
        last = other


def _sets_subgoal(page: _Page, problem: CountdownProblem, last: int, rates: Rates) -> bool:
    if problem.need(last) is None:
        return False
    return page.offer(SUBGOAL, rates.subgoal, z=last, eq=problem.subgoal(last))


def _backwards(
    page: _Page, problem: CountdownProblem, last: int, rates: Rates, rng: random.Random
) -> tuple[Pair | None, Pair]:
    """What is found with one number last, rightly or not, and what comes nearest."""
    need, right = problem.need(last), problem.solution(last)
    assert need is not None
    wrong = [pair for pair in problem.pairs(last) if pair != right]
    near = min(wrong, key=lambda pair: abs(pair.value - need))
    seen: list[Pair] = []
    if rng.random() < rates.slip:
        page.write(f"{near.text}={need} {FITS}.")
        if not _checked(page, _Find(near.text, need, near.value, near), rates, rng):
            return near, near
        seen.append(near)
    if right is None:
        rest = [pair for pair in problem.pairs(last) if pair not in seen]
        equations = ", ".join(f"{pair.text}={pair.value}" for pair in rest)
        page.write(f"{equations}: {NONE}.")
        return None, near
    page.write(f"{right.text}={need} {FITS}.")
    _checked(page, _Find(right.text, need, need, right), rates, rng)
    return right, right


def _forwards(
    page: _Page, problem: CountdownProblem, last: int, rates: Rates, rng: random.Random
) -> tuple[Pair | None, Pair]:
    """The same without a subgoal: one step on the other two, at random."""
    pair = rng.choice(problem.pairs(last))
    value = compute(pair.value, problem.last_step, last)
    assert value is not None
    left = f"{pair.value}{problem.last_step}{last}"
    stated = problem.target if rng.random() < rates.slip / 2 else value
    is_find = stated == problem.target
    page.write(f"{pair.text}={pair.value}, {left}={stated}{f' {FITS}' if is_find else ''}.")
    if is_find and not _checked(page, _Find(left, stated, value, pair), rates, rng):
        return pair, pair
    return (pair if value == problem.target else None), pair


def _checked(page: _Page, find: _Find, rates: Rates, rng: random.Random) -> bool:
    """Whether a check shows a find to be false."""
    is_right = find.stated == find.true
    said = page.offer(
        VERIFICATION,
        rates.verify,
        eq=f"{find.left}={find.true}",
        verdict=rng.choice(GOOD if is_right else BAD),
    )
    return said and not is_right


def guess(problem: CountdownProblem, rng: random.Random) -> str:
    """Answer without thinking: any step on any two numbers, and the third last."""
    last = rng.choice(problem.numbers)
    return f"{DIRECT} {problem.expression(rng.choice(problem.pairs(last)), last)}"
