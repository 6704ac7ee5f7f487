"""Problems of the search world, drawn apart from those that its models were trained on."""

import random
from collections.abc import Sequence

from sae_reasoning.tasks.problems import Problem, in_splits
from sae_reasoning.tasks.search.grammar import REMARKS
from sae_reasoning.tasks.search.world import PLACES, TRAINED, Difficulty, sample_problem


def draw_problems(
    num_problems: int,
    report_share: float,
    seed: int,
    difficulty: Difficulty = TRAINED,
    places: Sequence[str] = PLACES,
    remarks: Sequence[str] = REMARKS,
) -> list[Problem]:
    """Different problems, `select` first, in the order of their ids.

    The seed's stream is apart from those that the organisms were trained on.
    """
    rng = random.Random(f"traces/{seed}")
    prompts: dict[str, None] = {}
    while len(prompts) < num_problems:
        prompts[sample_problem(rng, difficulty, remarks, places).prompt()] = None
    return in_splits([Problem("", "", prompt) for prompt in prompts], report_share)
