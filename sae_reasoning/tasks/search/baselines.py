"""What needs no reading of the map's notes: random walks, and randomly filled continuations."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.stats import pass_at
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start
from sae_reasoning.tasks.search.forced import (
    ForcedStart,
    fixed_rules,
    is_valid,
    random_continuation,
)
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS
from sae_reasoning.tasks.search.world import SHUT, SearchProblem, parse_prompt

RANDOM_WALK, OPEN_WALK = "random walk", "random walk, open places"
_FILLS = 16
"""Randomly filled continuations a start, at least."""


def walk_odds(problem: SearchProblem, *, keeps_off_shut: bool) -> float:
    """Probability that a walk from the start to a leaf, any way at random at each fork, is right.

    Args:
        problem: The map.
        keeps_off_shut: Whether it takes no way to a place that is shut, where there is another.
    """

    def onwards(path: tuple[str, ...]) -> float:
        ways = problem.children(path[-1])
        if not ways:
            return float(problem.grade(path))
        if keeps_off_shut:
            ways = tuple(way for way in ways if problem.notes.get(way) != SHUT) or ways
        return sum(onwards((*path, way)) for way in ways) / len(ways)

    return onwards((problem.start,))


def _walk(keeps_off_shut: bool) -> Callable[[Problem], float]:
    return lambda problem: walk_odds(parse_prompt(problem.prompt), keeps_off_shut=keeps_off_shut)


RANDOM_WALKS = {RANDOM_WALK: _walk(False), OPEN_WALK: _walk(True)}
"""By name, the probability that a walk answers a problem."""


def forced_at(start: Start, opening: str = "") -> ForcedStart:
    """A start with an opening written in; with the behaviour's first where none is given."""
    first = opening or ALL_OPENINGS[start.behaviour][0]
    return ForcedStart(start.problem.prompt, start.text, first, start.behaviour)


def fill_noise(start: Start, seed: int) -> random.Random:
    """Draws the random fills at a start: the same whatever other starts are chosen."""
    return random.Random(f"fills/{seed}/{start.key}")


class SearchNull:
    """Continuations of the right shape whose slots are filled at random, and simple rules."""

    def chance(self, starts: Sequence[Start], tries: int, seed: int) -> Float[np.ndarray, " start"]:
        """Probability that the best of `tries` randomly filled continuations is valid; unbiased."""
        found, size = [], max(_FILLS, tries)
        for start in starts:
            rng, forced = fill_noise(start, seed), forced_at(start)
            right = sum(is_valid(forced, random_continuation(forced, rng)) for _ in range(size))
            found.append(pass_at(right, size, tries))
        return np.array(found)

    def heuristics(self, starts: Sequence[Start]) -> Mapping[str, Float[np.ndarray, " start"]]:
        """Where rules that read no note and don't keep in mind what was tried are right, by name.

        Args:
            starts: Of one behaviour.
        """
        found: dict[str, list[float]] = {}
        for forced in map(forced_at, starts):
            for rule, continuation in fixed_rules(forced).items():
                found.setdefault(rule, []).append(float(is_valid(forced, continuation)))
        return {rule: np.array(values) for rule, values in found.items()}
