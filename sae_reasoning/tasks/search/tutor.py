"""Lessons on one problem: attempts of the base, each with its chain of thought mended.

After critique fine-tuning on one problem (Wang et al. 2506.03295): many attempts at a single
problem, each with a critique. Here the critic is the narrator: it follows an attempt's path, and
estimates uncertainty, verifies and backtracks wherever that is called for.
"""

import random
from collections.abc import Callable, Sequence

from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Attempt
from sae_reasoning.tasks.search.grammar import (
    BACKTRACKING,
    END_THINK,
    THINK,
    UNCERTAINTY,
    VERIFICATION,
    answer,
    answered_path,
)
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.world import SearchProblem, parse_prompt

CRITIQUES, DIRECT, SHUFFLED = "critiques", "direct answers", "shuffled critiques"
_TAUGHT = {UNCERTAINTY, BACKTRACKING, VERIFICATION}


class SearchTutor:
    """Writes critiques, and as controls right direct answers and critiques in another order."""

    kinds: tuple[str, ...] = (CRITIQUES, DIRECT, SHUFFLED)
    need_attempts = frozenset({CRITIQUES, SHUFFLED})

    def choose(
        self,
        problems: Sequence[Problem],
        attempts: Callable[[Problem], Sequence[Attempt]],
        seed: int,
    ) -> Problem | None:
        """The first problem whose full trace needs every behaviour that pays; else the first.

        Attempts are not looked at: the narrator mends any.
        """
        for problem in problems:
            narration = narrate(parse_prompt(problem.prompt), ALWAYS, random.Random(seed))
            if {span.behaviour for span in narration.spans} >= _TAUGHT:
                return problem
        return problems[0] if problems else None

    def lesson(
        self, problem: Problem, attempts: Sequence[Attempt], kind: str, rng: random.Random
    ) -> str:
        """One example response.

        Args:
            problem: The problem.
            attempts: Responses to it, right and wrong.
            kind: One of `kinds`.
            rng: Draws the attempt and the words.
        """
        posed = parse_prompt(problem.prompt)
        paths = [answered_path(one.text) for one in attempts] or [[]]
        text = narrate(posed, ALWAYS, rng, attempt=rng.choice(paths)).text
        if kind == SHUFFLED:
            return _shuffled(text, rng)
        return _direct(posed) if kind == DIRECT else text


def _direct(problem: SearchProblem) -> str:
    """The right answer, without a chain of thought."""

    def find(path: list[str]) -> list[str]:
        if problem.grade(path):
            return path
        for child in problem.children(path[-1]):
            if child not in path and (found := find([*path, child])):
                return found
        return []

    return answer(find([problem.start]))


def _shuffled(text: str, rng: random.Random) -> str:
    thought, _, rest = text.removeprefix(f"{THINK} ").partition(f" {END_THINK}")
    sentences = thought.removesuffix(" .").split(" . ")
    rng.shuffle(sentences)
    return f"{THINK} {' . '.join(sentences)} . {END_THINK}{rest}"
