"""Problems of the countdown world for any pair, drawn apart from those that adapters learn on."""

import json
import random

from sae_reasoning.tasks.countdown.world import sample_problem
from sae_reasoning.tasks.problems import Problem, in_splits
from sae_reasoning.tasks.text.grading import COUNTDOWN


def draw_problems(
    num_problems: int, report_share: float, seed: int, instruction: str = ""
) -> list[Problem]:
    """Different problems, `select` first, in the order of their ids.

    Args:
        num_problems: How many.
        report_share: Share of them to report on.
        seed: Of the draw; its stream is apart from those of training and of cards.
        instruction: Put behind each question, after an empty line.
    """
    rng = random.Random(f"traces/countdown/{seed}")
    posed: dict[str, Problem] = {}
    while len(posed) < num_problems:
        one = sample_problem(rng)
        prompt = f"{one.prompt()}\n\n{instruction}" if instruction else one.prompt()
        reference = json.dumps({"numbers": one.numbers, "target": one.target})
        posed[prompt] = Problem("", "", prompt, reference, COUNTDOWN)
    return in_splits(list(posed.values()), report_share)
