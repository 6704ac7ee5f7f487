"""Lessons on one problem: attempts of the base, each thought through with its slips mended.

After critique fine-tuning on one problem (Wang et al. 2506.03295): many attempts at a single
problem, each with a critique. Here the critic is the narrator: it follows an attempt's path, and
weighs, verifies and turns back wherever that is called for.
"""

import random
from collections.abc import Sequence

from sae_reasoning.organisms.cells import JUDGED
from sae_reasoning.organisms.pretrain import Draw
from sae_reasoning.tasks.search.grammar import END_THINK, THINK, answer, answered_path
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.world import SearchProblem, parse_prompt

CRITIQUES, DIRECT, SHUFFLED = "critiques", "direct answers", "shuffled critiques"
KINDS = (CRITIQUES, DIRECT, SHUFFLED)


def problem_of_lesson(prompts: Sequence[str], seed: int) -> str:
    """The first prompt whose full trace needs every judged move; else the first.

    Raises:
        IndexError: There is no prompt.
    """
    for prompt in prompts:
        narration = narrate(parse_prompt(prompt), ALWAYS, random.Random(seed))
        if set(JUDGED) <= {span.behaviour for span in narration.spans}:
            return prompt
    return prompts[0]


def lesson(prompt: str, attempts: Sequence[str], kind: str) -> Draw:
    """Examples on one problem.

    Args:
        prompt: The problem.
        attempts: Responses to it, right and wrong.
        kind: `critiques`, or a control: right `direct answers`, or `shuffled critiques`, whose
            sentences stand in another order.
    """
    problem = parse_prompt(prompt)
    paths = [answered_path(text) for text in attempts] or [[]]

    def draw(rng: random.Random, _progress: float) -> tuple[str, str]:
        text = narrate(problem, ALWAYS, rng, attempt=rng.choice(paths)).text
        if kind == SHUFFLED:
            return prompt, _shuffled(text, rng)
        return prompt, _direct(problem) if kind == DIRECT else text

    return draw


def _direct(problem: SearchProblem) -> str:
    """The right answer, without a thought."""

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
