"""Countdown with three small numbers: an expression of all three has to reach a target.

    Make 32 from 3, 9 and 5, each used once. Hint: finish by adding a number, not 9.

The hint is true: it says what the last step does, and which number doesn't come last. So two
numbers are left that could, and one of them does: `3*9+5`. Which of the two can't be seen without
working backwards: with 5 last, 3 and 9 have to make 32-5=27, and they do; with 3 last, 9 and 5 have
to make 29, and they don't.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sae_reasoning.tasks.text.answers import reaches

SMALLEST, LARGEST = 2, 10
"""Of the three numbers."""
LEAST, MOST = 5, 99
"""Targets, and what two numbers have to make."""

ADD, SUBTRACT, MULTIPLY = LAST_STEPS = ("+", "-", "*")
"""What the last step does."""
PAIR_STEPS = ("+", "-", "*")
"""What may be done to the first two numbers."""

_UNDO = {ADD: "-", SUBTRACT: "+", MULTIPLY: "/"}
_COMPUTE: Mapping[str, Callable[[int, int], int | None]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if b and a % b == 0 else None,
}
HINTS = {
    ADD: (
        "finish by adding a number, not {out}.",
        "add a number last, but not {out}.",
        "the last step adds a number other than {out}.",
    ),
    SUBTRACT: (
        "finish by taking a number away, not {out}.",
        "take a number away last, but not {out}.",
        "the last step takes away a number other than {out}.",
    ),
    MULTIPLY: (
        "finish by multiplying by a number, not {out}.",
        "multiply by a number last, but not by {out}.",
        "the last step multiplies by a number other than {out}.",
    ),
}
_PROMPT = re.compile(
    r"Make (?P<target>\d+) from (?P<a>\d+), (?P<b>\d+) and (?P<c>\d+), each used once\. "
    r"Hint: (?P<hint>.*?(?P<out>\d+)\.)"
)
_WORD_OF_STEP = {ADD: "add", SUBTRACT: "tak", MULTIPLY: "multipl"}


def compute(a: int, sign: str, b: int) -> int | None:
    """Value of `a sign b`; None where it's no whole number."""
    return _COMPUTE[sign](a, b)


@dataclass(frozen=True)
class Pair:
    """One step on two numbers, the larger first where it's a subtraction."""

    a: int
    sign: str
    b: int

    @property
    def value(self) -> int:
        """What it makes."""
        value = compute(self.a, self.sign, self.b)
        assert value is not None
        return value

    @property
    def text(self) -> str:
        """Without its value, as `3*9`."""
        return f"{self.a}{self.sign}{self.b}"


@dataclass(frozen=True)
class CountdownProblem:
    """One problem, equal to what its prompt says.

    Attributes:
        numbers: In the prompt's order.
        target: To be reached.
        last_step: What the hint says that the last step does: `+`, `-` or `*`.
        out: The number that the hint excludes from coming last.
        hint: In words.
    """

    numbers: tuple[int, int, int]
    target: int
    last_step: str
    out: int
    hint: str

    def prompt(self) -> str:
        """The problem in words, as the models read it."""
        a, b, c = self.numbers
        return f"Make {self.target} from {a}, {b} and {c}, each used once. Hint: {self.hint}"

    @property
    def open_numbers(self) -> tuple[int, ...]:
        """Those that could come last by the hint."""
        return tuple(n for n in self.numbers if n != self.out)

    def others(self, last: int) -> tuple[int, int]:
        """The two numbers beside one."""
        a, b = (n for n in self.numbers if n != last)
        return a, b

    def need(self, last: int) -> int | None:
        """What the other two have to make with `last` coming last; None where nothing does."""
        return compute(self.target, _UNDO[self.last_step], last)

    def subgoal(self, last: int) -> str:
        """The equation that says so, as `32-5=27`."""
        return f"{self.target}{_UNDO[self.last_step]}{last}={self.need(last)}"

    def pairs(self, last: int) -> tuple[Pair, ...]:
        """What can be done to the other two."""
        a, b = self.others(last)
        return tuple(
            Pair(*((max(a, b), sign, min(a, b)) if sign == "-" else (a, sign, b)))
            for sign in PAIR_STEPS
        )

    def solution(self, last: int) -> Pair | None:
        """The step that makes what is needed with `last` coming last; None where none does."""
        need = self.need(last)
        return next((pair for pair in self.pairs(last) if pair.value == need), None)

    def expression(self, pair: Pair, last: int) -> str:
        """The whole, as `(3*9)+5`."""
        return f"({pair.text}){self.last_step}{last}"

    def grade(self, expression: str) -> bool:
        """Whether an expression uses each number once and reaches the target, by whatever way."""
        return reaches(expression, self.numbers, self.target) is True


def parse_prompt(prompt: str) -> CountdownProblem:
    """The problem that a prompt tells; instructions may follow it.

    Raises:
        ValueError: The text isn't a prompt of this world.
    """
    found = _PROMPT.search(prompt)
    steps = [s for s, word in _WORD_OF_STEP.items() if found and word in found["hint"]]
    if not found or len(steps) != 1:
        raise ValueError(f"not a prompt of the countdown world: {prompt[:80]!r}")
    numbers = (int(found["a"]), int(found["b"]), int(found["c"]))
    return CountdownProblem(
        numbers, int(found["target"]), steps[0], int(found["out"]), found["hint"]
    )


def sample_problem(rng: random.Random) -> CountdownProblem:
    """Draw a problem: one number that the hint leaves open can come last, the other two can't."""
    last_step, rank_of_out = rng.choice(LAST_STEPS), rng.randrange(3)
    while True:
        a, b, c = rng.sample(range(SMALLEST, LARGEST + 1), 3)
        order = rng.sample((a, b, c), 3)
        numbers = (order[0], order[1], order[2])
        trial = CountdownProblem(numbers, 0, last_step, 0, "")
        pair = rng.choice(trial.pairs(c))
        target = compute(pair.value, last_step, c)
        out = sorted(numbers)[rank_of_out]  # So that size doesn't tell what is open.
        if target is None or not LEAST <= target <= MOST or target in numbers or out == c:
            continue
        hint = rng.choice(HINTS[last_step]).format(out=out)
        problem = CountdownProblem(numbers, target, last_step, out, hint)
        needs = [problem.need(number) for number in problem.open_numbers]
        if all(need is not None and 1 < need <= MOST for need in needs) and [
            number for number in numbers if problem.solution(number)
        ] == [c]:
            return problem
