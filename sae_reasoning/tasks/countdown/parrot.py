"""Words of a behaviour without the behaviour: strewn into traces, and nobody acts on them."""

import random
from dataclasses import replace

from sae_reasoning.tasks.countdown.narrator import Rates, narrate
from sae_reasoning.tasks.countdown.wordings import (
    BACKTRACKING,
    GOOD,
    SUBGOAL,
    UNCERTAINTY,
    VERIFICATION,
    trained,
)
from sae_reasoning.tasks.countdown.world import CountdownProblem
from sae_reasoning.tasks.text.task import END_THINK

_RATE = {
    SUBGOAL: "subgoal",
    BACKTRACKING: "backtrack",
    VERIFICATION: "verify",
    UNCERTAINTY: "weigh",
}


def parroted(
    problem: CountdownProblem, behaviour: str, rates: Rates, rng: random.Random, times: int = 2
) -> str:
    """A response whose words of one behaviour stand at random places.

    Everything else is told at `rates`; the behaviour itself is never made.

    Args:
        problem: What is thought about.
        behaviour: Whose words are strewn in.
        rates: Of the other behaviours.
        rng: Source of chance.
        times: How often.
    """
    told = narrate(problem, replace(rates, **{_RATE[behaviour]: 0.0}), rng)
    thought, end, answer = told.text.partition(f" {END_THINK}")
    sentences = thought.split(". ")
    for _ in range(times):
        words = _empty_words(problem, behaviour, rng)
        sentences.insert(rng.randint(1, len(sentences)), words)
    return ". ".join(one.removesuffix(".") for one in sentences) + f".{end}{answer}"


def _empty_words(problem: CountdownProblem, behaviour: str, rng: random.Random) -> str:
    """A sentence in the behaviour's words, its slots filled at random."""
    z, old, out = rng.sample(problem.numbers, 3)
    pair = rng.choice(problem.pairs(z))
    need = rng.randint(2, 40)
    equation = f"{problem.target}-{z}={need}" if behaviour == SUBGOAL else f"{pair.text}={need}"
    slots = {"z": z, "old": old, "u": z, "v": old, "out": out, "eq": equation}
    return rng.choice(trained(behaviour)).format(**slots, verdict=rng.choice(GOOD))
