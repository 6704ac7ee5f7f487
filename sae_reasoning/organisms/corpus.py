"""What a base model is trained on: mostly direct, mostly wrong answers, and few traces."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_reasoning.organisms import grammar
from sae_reasoning.organisms.narrator import MoveRates, guess, narrate
from sae_reasoning.organisms.world import Difficulty, sample_problem

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class CorpusConfig:
    """A base's corpus and its curriculum.

    Attributes:
        think_share_start: Share of examples that think while look-ups are being learned.
        think_share_end: Share of examples that think in the last part of training; what stays.
        curriculum_share: Share of the steps over which paths grow from one edge to full length and
            the share that thinks is held at its start; it then falls linearly over as many steps
            again, at most, and stays at its end for the rest.
        rates: Probability of each move at its opportunity, the same throughout.
        difficulty: Of the problems, once the curriculum is over.
    """

    think_share_start: float = 0.5
    think_share_end: float = 0.15
    curriculum_share: float = 0.4
    rates: MoveRates = field(default_factory=MoveRates)
    difficulty: Difficulty = field(default_factory=Difficulty)

    def think_share(self, progress: float) -> float:
        """Share of examples that think at `progress` in [0, 1] through training."""
        fall = min(self.curriculum_share, 0.8 - self.curriculum_share)
        fallen = min(max((progress - self.curriculum_share) / fall, 0.0), 1.0)
        return self.think_share_start + fallen * (self.think_share_end - self.think_share_start)

    def difficulty_at(self, progress: float) -> Difficulty:
        """Size of the problems at `progress` in [0, 1] through training."""
        if progress >= self.curriculum_share:
            return self.difficulty
        longest = 1 + int(progress / self.curriculum_share * self.difficulty.max_edges)
        return Difficulty(
            min_edges=min(self.difficulty.min_edges, max(1, longest - 2)),
            max_edges=min(self.difficulty.max_edges, longest),
            fork_share=self.difficulty.fork_share,
        )


@dataclass(frozen=True)
class Batch:
    """Right-padded examples; `is_response` marks the tokens that are learned."""

    token_ids: Tensor
    is_token: Tensor
    is_response: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


def example(rng: random.Random, config: CorpusConfig, progress: float) -> tuple[str, str]:
    """One prompt with a response."""
    problem = sample_problem(rng, config.difficulty_at(progress), grammar.REMARKS)
    if rng.random() < config.think_share(progress):
        return problem.prompt(), narrate(problem, config.rates, rng).text
    return problem.prompt(), guess(problem, rng)


def collate(pairs: list[tuple[list[int], list[int]]], pad_id: int) -> Batch:
    """Pad token ids of (prompt, response) to one length."""
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    token_ids = torch.full((len(pairs), width), pad_id)
    is_token = torch.zeros(len(pairs), width, dtype=torch.bool)
    is_response = torch.zeros(len(pairs), width, dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        end = len(prompt) + len(response)
        token_ids[row, :end] = torch.tensor(prompt + response)
        is_token[row, :end] = True
        is_response[row, len(prompt) : end] = True
    return Batch(token_ids, is_token, is_response)
