"""RL in the search world: problems, their rewards, and where groups begin.

Half of the groups begin at the prompt, the other half within a chain of thought of the learner's
own, cut at the end of a random sentence. Rollouts of such a group differ only from there on, so the
effect of a decision isn't drowned by what came before.
"""

import hashlib
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from sae_reasoning.organisms.grpo import Episode, Pose, RollOut
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import answered_path
from sae_reasoning.tasks.search.world import Difficulty, SearchProblem, sample_problem


def any_of(difficulty: Difficulty) -> Pose[SearchProblem]:
    """New problems of a difficulty."""
    return lambda rng: sample_problem(rng, difficulty, grammar.REMARKS)


def right_answer(problem: SearchProblem, episode: Episode) -> float:
    """1 for a right answer, else 0."""
    return float(problem.grade(answered_path(episode.text)))


def random_reward(problem: SearchProblem, episode: Episode) -> float:
    """0 or 1 at random, the same for the same response to a problem."""
    drawn = hashlib.sha256(f"{problem.prompt()}\n{episode.text}".encode()).digest()
    return float(drawn[0] % 2)


def midway(
    prompts: Sequence[str], roll_out: RollOut, keys: Tensor, rng: random.Random
) -> list[str]:
    """What each group's responses begin with: nothing, or a chain of thought cut somewhere.

    Args:
        prompts: Of the groups.
        roll_out: Lets the learner write chains of thought, for the first half of them.
        keys: Of each group's noise.
        rng: Draws the sentence after which a chain is cut.
    """
    half = len(prompts) // 2
    keys = torch.cat([keys[:half, :2], torch.full((half, 1), -1)], dim=1)
    chains = roll_out(prompts[:half], [grammar.THINK] * half, keys)
    starts = [""] * len(prompts)
    for index, episode in enumerate(chains):
        cot = episode.text.split(grammar.END_THINK)[0].split()
        ends = [i + 1 for i, word in enumerate(cot) if word in (".", grammar.THINK)]
        # A model that babbles may go on within the word that opens its CoT.
        starts[index] = " ".join(cot[: rng.choice(ends)]) if ends else grammar.THINK
    return starts
