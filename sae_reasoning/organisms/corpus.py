"""What a base model is trained on: mostly direct, mostly wrong answers, and few traces.

Beside problems stands a second task, reading: it asks what the map or the notes say of some places.
Each trace looks up little, so without it the look-ups that moves are made of stay at chance.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_reasoning.organisms import grammar, world
from sae_reasoning.organisms.narrator import MoveRates, guess, narrate
from sae_reasoning.organisms.world import Difficulty, Problem, sample_problem

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class CorpusConfig:
    """A base's corpus and its curriculum.

    Attributes:
        read_share: Share of examples that are reading tasks.
        think_share_start: Share of problems that are thought about while look-ups are learned.
        think_share_end: The same in the last part of training; what stays.
        curriculum_share: Share of the steps over which paths grow from one edge to full length and
            the share that thinks is held at its start; it then falls linearly over as many steps
            again, at most, and stays at its end for the rest.
        rates: Probability of each move at its opportunity, the same throughout.
        difficulty: Of the problems, once the curriculum is over.
    """

    read_share: float = 0.25
    think_share_start: float = 0.7
    think_share_end: float = 0.15
    curriculum_share: float = 0.4
    rates: MoveRates = field(default_factory=MoveRates)
    difficulty: Difficulty = field(default_factory=Difficulty)

    def think_share(self, progress: float) -> float:
        """Share of problems thought about at `progress` in [0, 1] through training."""
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
    if rng.random() < config.read_share:
        return reading(problem, rng)
    if rng.random() < config.think_share(progress):
        return problem.prompt(), narrate(problem, config.rates, rng).text
    return problem.prompt(), guess(problem, rng)


def reading(problem: Problem, rng: random.Random) -> tuple[str, str]:
    """Ask what the map, or the notes, say of up to eight places; question and answer."""
    told = rng.choice([problem.entries, problem.notes])
    places = rng.sample(list(told), min(len(told), 8))
    if told is problem.entries:
        question, lines = "map of", [world.entry(p, problem.entries[p]) for p in places]
    else:
        question, lines = "notes of", [f"{p}# {problem.notes[p]}" for p in places]
    return f"{problem.facts()} ; {question} {' '.join(places)} ?", f"{' . '.join(lines)} ."


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
