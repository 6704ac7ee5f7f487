"""Reads a chain of thought about a problem from its equations and the numbers that it names.

No grammar is needed: an equation that joins the target with a number tries that number as the last
one; a number counts as named unless the words before or behind it turn it down; and a check says
what its words of praise or blame say. So other words than the narrator's are read as well.
"""

import random
import re
from dataclasses import dataclass, field

from sae_reasoning.records import Annotation, Opportunity, Span
from sae_reasoning.tasks.countdown.wordings import (
    BACKTRACKING,
    BEHAVIOURS,
    SUBGOAL,
    UNCERTAINTY,
    VERIFICATION,
    behaviour_of,
)
from sae_reasoning.tasks.countdown.world import CountdownProblem, compute
from sae_reasoning.tasks.text.sentences import sentences
from sae_reasoning.tasks.text.task import ANSWER, END_THINK, THINK

_SIGNS = {"×": "*", "x": "*", "·": "*", "÷": "/", "−": "-", "–": "-"}
_EQUATION = re.compile(r"(?<![\d.])(\d+)\s*([-+*/×x·÷−–])\s*(\d+)\s*=\s*([-−]?\d+)(?![\d.]\d)")
_NUMBER = re.compile(r"(?<![\d.])\d+(?!\.?\d)")
_TURNED_DOWN = re.compile(
    r"\b(?:not|neither|nor|never|without|no more|no luck with|drop|undo|except|leave|instead of"
    r"|rather than)\s+(?P<behind>\d+)"
    r"|(?P<before>\d+)\s+(?:fails?|failed|is out|won't|can't|doesn't)\b",
    re.IGNORECASE,
)
_BLAME = re.compile(
    r"\b(?:wrong|false|bad|no|not|fails?|failed|incorrect|off|mistake|error|untrue)\b|n't\b", re.I
)
_PRAISE = re.compile(
    r"\b(?:right|true|good|correct|holds?|yes|fits?|fine|works?|agrees?|ok|okay)\b", re.I
)


@dataclass(frozen=True)
class Equation:
    """One step, and what it is said to make."""

    a: int
    sign: str
    b: int
    stated: int

    @property
    def true(self) -> int | None:
        """What it makes; None where that is no whole number."""
        return compute(self.a, self.sign, self.b)

    @property
    def is_true(self) -> bool:
        """Whether it makes what is said."""
        return self.stated == self.true

    @property
    def step(self) -> tuple[str, frozenset[int]] | tuple[int, str, int]:
        """Its left side, the same whichever number of a sum or product comes first."""
        if self.sign in "+*":
            return self.sign, frozenset((self.a, self.b))
        return self.a, self.sign, self.b


def equations(text: str) -> list[Equation]:
    """Equations of two numbers, in order."""
    return [
        Equation(int(a), _SIGNS.get(sign, sign), int(b), int(stated.replace("−", "-")))
        for a, sign, b, stated in _EQUATION.findall(text)
    ]


@dataclass
class Standing:
    """Where a chain of thought stands.

    Attributes:
        problem: What is thought about.
        tried: Numbers that were tried as the last, in order.
        claim: The latest equation, if it seems to solve the problem.
        has_failed: Whether the latest number was tried and nothing was found.
    """

    problem: CountdownProblem
    tried: list[int] = field(default_factory=list)
    claim: Equation | None = None
    has_failed: bool = False

    @property
    def open_numbers(self) -> set[int]:
        """Numbers that could still come last."""
        return set(self.problem.open_numbers) - set(self.tried)

    def hear(self, sentence: str) -> None:
        """Read one more sentence."""
        found = equations(sentence)
        if not found:
            return
        problem, before = self.problem, None
        is_check = behaviour_of(sentence) == VERIFICATION
        sets_subgoal = False
        for equation in found:
            number = None
            if equation.a == problem.target and equation.b in problem.numbers:
                number, sets_subgoal = equation.b, True
            elif before and equation.a == before.stated and equation.b in problem.numbers:
                number = equation.b if equation.b not in (before.a, before.b) else None
            if number is not None and (not self.tried or self.tried[-1] != number):
                self.tried.append(number)
            before = equation
        last = found[-1]
        need = problem.need(self.tried[-1]) if self.tried else None
        solves = not sets_subgoal and last.stated in (need, problem.target)
        self.claim = last if solves and not is_check else None
        self.has_failed = bool(self.tried) and not sets_subgoal and not solves and not is_check


def standing(problem: CountdownProblem, before: str) -> Standing:
    """Where the beginning of a response stands."""
    found = Standing(problem)
    for start, end in sentences(before):
        found.hear(before[start:end])
    return found


@dataclass(frozen=True)
class Named:
    """Numbers of a problem that a sentence names outside its equations."""

    meant: frozenset[int]
    turned_down: frozenset[int]


def named(problem: CountdownProblem, sentence: str) -> Named:
    """Numbers that a sentence means, and those that it turns down."""
    plain = _EQUATION.sub(" ", sentence)
    down = {int(one["behind"] or one["before"]) for one in _TURNED_DOWN.finditer(plain)}
    every = {int(number) for number in _NUMBER.findall(plain)} & set(problem.numbers)
    return Named(frozenset(every - down), frozenset(every & down))


def has_form(behaviour: str, problem: CountdownProblem, sentence: str) -> bool:
    """Whether a sentence holds what a behaviour needs, rightly or not."""
    if behaviour == SUBGOAL:
        return any(problem.target in (one.a, one.b) for one in equations(sentence))
    if behaviour == VERIFICATION:
        return bool(equations(sentence)) and _verdict(sentence) is not None
    return len(named(problem, sentence).meant) >= (2 if behaviour == UNCERTAINTY else 1)


def is_valid(behaviour: str, at: Standing, sentence: str) -> bool:
    """Whether a sentence does what a behaviour is for, where the chain of thought stands.

    * subgoal-setting: a true equation says what is needed, with a number last that could be and
      wasn't tried;
    * backtracking: the one number that it means could come last and wasn't tried;
    * verification: the step that was claimed, with its true value, and a verdict that agrees;
    * uncertainty-estimation: it means those numbers, and no other, that could come last.
    """
    problem = at.problem
    if not has_form(behaviour, problem, sentence):
        return False
    if behaviour == SUBGOAL:
        return any(
            one.is_true and one.a == problem.target and _is_subgoal(at, one)
            for one in equations(sentence)
        )
    if behaviour == VERIFICATION:
        return _agrees(at, sentence)
    said = named(problem, sentence)
    if said.turned_down & at.open_numbers:
        return False
    if behaviour == BACKTRACKING:
        return len(said.meant) == 1 and said.meant <= at.open_numbers
    return said.meant == at.open_numbers


def _is_subgoal(at: Standing, one: Equation) -> bool:
    return one.b in at.open_numbers and one.stated == at.problem.need(one.b)


def _agrees(at: Standing, sentence: str) -> bool:
    claim = at.claim
    if claim is None:
        return False
    found = equations(sentence)
    if not all(one.is_true for one in found):
        return False
    return any(one.step == claim.step for one in found) and _verdict(sentence) == claim.is_true


def _verdict(sentence: str) -> bool | None:
    """What a check says; None where it says nothing."""
    if _BLAME.search(sentence):
        return False
    return True if _PRAISE.search(sentence) else None


def read(problem: CountdownProblem, response: str, *, truncated: bool) -> Annotation:
    """Behaviours of a response, where they could start, and whether each was carried out rightly.

    A behaviour could start before anything is tried (uncertainty-estimation, subgoal-setting),
    after another number is taken (subgoal-setting), after a find (verification), and where a number
    was tried in vain (backtracking).

    Args:
        problem: What was asked.
        response: The response.
        truncated: Whether it was cut; a sentence that was cut is no behaviour.
    """
    thought = response.partition(END_THINK)[0]
    is_thinking = response.lstrip().startswith(THINK)
    spans: list[Span] = []
    opportunities: list[Opportunity] = []
    right: list[bool] = []
    at = Standing(problem)
    last: str | None = None
    for start, end in sentences(thought) if is_thinking else ():
        sentence = thought[start:end]
        if not sentence.startswith(THINK) and sentence.strip():
            found = None
            if sentence.endswith(".") or not truncated:
                found = behaviour_of(sentence)
            possible = _possible(at, last) | ({found} if found else set())
            opportunities += [
                Opportunity(one, start - 1, one == found) for one in BEHAVIOURS if one in possible
            ]
            if found:
                spans.append(Span(found, start, end))
                right.append(is_valid(found, at, sentence))
            if found or equations(sentence):  # A remark changes nothing.
                last = found
        at.hear(sentence)
    if is_thinking and END_THINK in response:
        place = len(thought.rstrip())
        opportunities += [Opportunity(one, place, False) for one in sorted(_possible(at, last))]
    is_right = not truncated and problem.grade(answered(response))
    return Annotation(tuple(spans), tuple(opportunities), is_right, tuple(right))


def _possible(at: Standing, last: str | None) -> set[str]:
    """Behaviours that could start now, after one that has just been made."""
    if at.claim:
        return {VERIFICATION}
    if at.has_failed:
        return {SUBGOAL} if last == BACKTRACKING else {BACKTRACKING}
    if at.tried:
        return set()
    return {SUBGOAL} if last == UNCERTAINTY else {SUBGOAL, UNCERTAINTY}


def answered(response: str) -> str:
    """The expression that a response gives as its answer; "" where it gives none."""
    _, mark, answer = response.rpartition(ANSWER.strip())
    return answer.strip() if mark else ""


def rules(behaviour: str, at: Standing, before: str) -> dict[str, str]:
    """Sentences by rules that look neither at what was tried nor at what is true, by name.

    Equations of subgoals are true, as if the rule could compute.

    Args:
        behaviour: That is started.
        at: Where the chain of thought stands.
        before: The response up to here.
    """
    problem = at.problem
    if behaviour == VERIFICATION:
        claim = at.claim or Equation(problem.numbers[0], "+", problem.numbers[1], 0)
        left = f"{claim.a}{claim.sign}{claim.b}"
        return {
            "what was said is right": f"Check: {left}={claim.stated}, right.",
            "it is right": f"Check: {left}={claim.true}, right.",
            "it is wrong": f"Check: {left}={claim.true}, wrong.",
        }
    places = _places(problem, before)
    if behaviour == UNCERTAINTY:
        a, b, c = problem.numbers
        small, middle, large = sorted(problem.numbers)
        pairs = {
            "the first two": (a, b),
            "the last two": (b, c),
            "the first and the last": (a, c),
            "the smaller two": (small, middle),
            "the larger two": (middle, large),
        }
        return {name: f"Maybe {u} or {v}." for name, (u, v) in pairs.items()}
    if behaviour == SUBGOAL:
        return {
            name: f"Suppose {number} comes last: {problem.subgoal(number)}."
            for name, number in places.items()
        }
    return {name: f"So use {number}." for name, number in places.items()}


def _places(problem: CountdownProblem, before: str) -> dict[str, int]:
    """Numbers of a problem by where they stand."""
    a, b, c = problem.numbers
    found = {
        "the first": a,
        "the second": b,
        "the third": c,
        "the smallest": min(problem.numbers),
        "the largest": max(problem.numbers),
    }
    heard = [int(one) for one in _NUMBER.findall(before) if int(one) in problem.numbers]
    if heard:
        found["the one named last"] = heard[-1]
        found["the one named before that"] = next(
            (one for one in reversed(heard) if one != heard[-1]), heard[-1]
        )
        index = problem.numbers.index(heard[-1])
        found["the next in the prompt"] = problem.numbers[(index + 1) % 3]
    said = [before[start:end] for start, end in sentences(before)]
    latest = [int(one) for one in _NUMBER.findall(said[-1] if said else "")]
    own = [one for one in latest if one in problem.numbers]
    for place, one in zip(("first", "second"), own, strict=False):
        found[f"the {place} of the last sentence"] = one
    tried = standing(problem, before).tried
    if tried:
        index = problem.numbers.index(tried[-1])
        found["the one after the last tried"] = problem.numbers[(index + 1) % 3]
        found["the one before the last tried"] = problem.numbers[(index - 1) % 3]
    return found


def chance_sentence(behaviour: str, at: Standing, rng: random.Random) -> str:
    """A behaviour with its slots filled at random.

    Args:
        behaviour: That is started.
        at: Where the chain of thought stands.
        rng: Source of chance.
    """
    problem = at.problem
    z, old = rng.sample(problem.numbers, 2)
    if behaviour == SUBGOAL:
        sign, need = rng.choice("+-/"), rng.randint(2, 99)
        return f"Suppose {z} comes last: {problem.target}{sign}{z}={need}."
    if behaviour == BACKTRACKING:
        return f"So use {z}."
    if behaviour == UNCERTAINTY:
        return f"Maybe {z} or {old}."
    claim = at.claim
    if claim is None:
        return "Check."
    value = rng.choice((claim.true, claim.stated))
    return f"Check: {claim.a}{claim.sign}{claim.b}={value}, {rng.choice(('right', 'wrong'))}."
