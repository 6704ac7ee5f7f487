"""The corpus of a base: in the end mostly direct, mostly wrong answers, and few traces.

Beside problems it holds a second task, reading, which asks for entries of the map or the notes. A
trace looks up a note or two, so without reading the look-ups of behaviours stay at chance.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sae_reasoning.tasks.search import grammar, world
from sae_reasoning.tasks.search.narrator import ALWAYS, BehaviourRates, guess, narrate, parroted
from sae_reasoning.tasks.search.world import Difficulty, SearchProblem, sample_problem

Encode = Callable[[str], list[int]]
_TOKENIZER_EXAMPLES = 1500


@dataclass(frozen=True)
class Share:
    """A share of the examples that changes once during training.

    Attributes:
        first: Until `hold`.
        last: From `settle` on; in between it changes linearly.
        hold: Progress in [0, 1] at which it begins to change.
        settle: Progress in [0, 1] at which it stays.
    """

    first: float
    last: float
    hold: float
    settle: float

    def __post_init__(self) -> None:
        if not 0 <= self.hold < self.settle <= 1:
            raise ValueError(f"hold={self.hold} and settle={self.settle} aren't in order in [0, 1]")

    def at(self, progress: float) -> float:
        """The share at `progress` in [0, 1] through training."""
        changed = min(max((progress - self.hold) / (self.settle - self.hold), 0.0), 1.0)
        return self.first + changed * (self.last - self.first)


@dataclass(frozen=True)
class CorpusConfig:
    """A base's corpus, which first teaches to read, then to think, then to think rarely.

    Attributes:
        reading: Share of examples that are reading tasks.
        thinking: Share of problems whose response has a chain of thought.
        rates: Probability of each behaviour at its opportunity, the same throughout.
        difficulty: Of the problems, the same throughout.
        reworded: Whether behaviours begin with other openings (`grammar.REWORDED`).
    """

    reading: Share = Share(first=0.6, last=0.2, hold=0.15, settle=0.3)
    thinking: Share = Share(first=0.7, last=0.15, hold=0.55, settle=0.75)
    rates: BehaviourRates = field(default_factory=BehaviourRates)
    difficulty: Difficulty = field(default_factory=Difficulty)
    reworded: bool = False


@dataclass(frozen=True)
class ParrotCorpus(CorpusConfig):
    """Traces in which verifications stand at random places and nothing acts on them.

    Attributes:
        parrot_rate: Probability of one after each sentence of a chain of thought.
    """

    parrot_rate: float = 0.12


def parroting_traces() -> ParrotCorpus:
    """Full traces but for verification, which is said at random places: SFT of a parrot."""
    full = full_traces()
    return ParrotCorpus(
        reading=full.reading, thinking=full.thinking, rates=replace(full.rates, verify=0.0)
    )


def full_traces(reworded: bool = False) -> CorpusConfig:
    """Traces with every behaviour at each of its opportunities: the corpus of SFT."""
    return CorpusConfig(
        reading=Share(0.0, 0.0, hold=0.0, settle=1.0),
        thinking=Share(1.0, 1.0, hold=0.0, settle=1.0),
        rates=ALWAYS,
        reworded=reworded,
    )


@dataclass(frozen=True)
class Mixture:
    """Shares of the examples of a whole training, by kind."""

    traces: float
    direct: float
    readings: float


def mixture(config: CorpusConfig, steps: int) -> Mixture:
    """Expected shares of the examples of a training of `steps` steps."""
    readings = [config.reading.at(step / steps) for step in range(steps)]
    traces = [(1 - read) * config.thinking.at(step / steps) for step, read in enumerate(readings)]
    read, think = sum(readings) / steps, sum(traces) / steps
    return Mixture(traces=think, direct=1 - read - think, readings=read)


def excerpt(config: CorpusConfig, seed: int, size: int = 90) -> list[tuple[str, str]]:
    """Some examples from the start, the middle and the end: they change with the world's code."""
    rng = random.Random(f"excerpt/{seed}")
    return [example(rng, config, index % 3 / 2) for index in range(size)]


def tokenizer_texts() -> Iterator[str]:
    """Texts of every kind and wording, the same for every seed, so that bases share token ids."""
    rng = random.Random("tokenizer")
    corpus = CorpusConfig(rates=full_traces().rates)
    for index in range(_TOKENIZER_EXAMPLES):
        yield from example(rng, corpus, index % 3 / 2)


@dataclass(frozen=True)
class Batch:
    """Right-padded examples; `is_response` marks the tokens that are trained on."""

    token_ids: Tensor
    is_token: Tensor
    is_response: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


def example(rng: random.Random, config: CorpusConfig, progress: float) -> tuple[str, str]:
    """One prompt with a response."""
    problem = sample_problem(rng, config.difficulty, grammar.REMARKS)
    if rng.random() < config.reading.at(progress):
        return reading(problem, rng)
    if rng.random() < config.thinking.at(progress):
        openings = grammar.REWORDED if config.reworded else grammar.OPENINGS
        text = narrate(problem, config.rates, rng, openings).text
        if isinstance(config, ParrotCorpus):
            text = parroted(problem, text, config.parrot_rate, rng)
        return problem.prompt(), text
    return problem.prompt(), guess(problem, rng)


def reading(problem: SearchProblem, rng: random.Random) -> tuple[str, str]:
    """A question for the entries of up to eight places on the map or in the notes; its answer."""
    if rng.random() < 0.5:
        places = rng.sample(list(problem.entries), min(len(problem.entries), 8))
        lines = [world.entry(place, problem.entries[place]) for place in places]
        question = "map"
    else:
        places = rng.sample(list(problem.notes), min(len(problem.notes), 8))
        lines = [f"{place}# {problem.notes[place]}" for place in places]
        question = "notes"
    return f"{problem.facts()} ; {question} of {' '.join(places)} ?", f"{' . '.join(lines)} ."


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
