"""Figures of a finished adapter in the countdown world, counted by program, for its card."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sae_reasoning.organisms.measure import Figures, Write, behaviour_figures
from sae_reasoning.records import Annotation
from sae_reasoning.stats import Estimate, paired_bootstrap, wilson
from sae_reasoning.tasks.countdown.narrator import ALWAYS, DIRECT, THINKING, narrate
from sae_reasoning.tasks.countdown.reader import (
    chance_sentence,
    is_valid,
    read,
    rules,
    standing,
)
from sae_reasoning.tasks.countdown.wordings import BEHAVIOURS, opening, trained
from sae_reasoning.tasks.countdown.world import CountdownProblem, sample_problem
from sae_reasoning.tasks.search.forced import Continue, Validity

HEURISTICS = (
    "Heuristics look neither at what was tried nor at what is true: a number by its place in the "
    "prompt, by its size, or named last; two numbers likewise; every check says right, or wrong."
)
_RESAMPLES = 2000
_FILLS = 5


@dataclass(frozen=True)
class Rolled:
    """One rollout, read."""

    problem: CountdownProblem
    text: str
    num_tokens: int
    truncated: bool
    annotation: Annotation


@dataclass(frozen=True)
class ForcedStart:
    """A place where a writer started a behaviour, with an opening of it.

    Attributes:
        problem: What is answered.
        before: The response up to there.
        behaviour: That was started.
        opening: Words that are written for a model.
    """

    problem: CountdownProblem
    before: str
    behaviour: str
    opening: str


def measuring_problems(count: int, seed: int) -> list[CountdownProblem]:
    """Problems of a stream apart from those of training and of experiments."""
    rng = random.Random(f"measure/countdown/{seed}")
    return [sample_problem(rng) for _ in range(count)]


def roll(
    problems: Sequence[CountdownProblem], write: Write, seed: int, beginning: str = ""
) -> list[Rolled]:
    """One rollout of each problem; `beginning` is forced."""
    prompts = [problem.prompt() for problem in problems]
    return [
        Rolled(problem, text, size, cut, read(problem, text, truncated=cut))
        for problem, (text, size, cut) in zip(
            problems, write(prompts, [beginning] * len(prompts), seed), strict=True
        )
    ]


def narrated(problems: Sequence[CountdownProblem], seed: int) -> list[Rolled]:
    """The narrator's full traces in place of rollouts."""
    rng = random.Random(f"narrated/{seed}")
    texts = [narrate(problem, ALWAYS, rng).text for problem in problems]
    return [
        Rolled(problem, text, len(text.split()), False, read(problem, text, truncated=False))
        for problem, text in zip(problems, texts, strict=True)
    ]


def measure(
    write: Write, problems: Sequence[CountdownProblem], seed: int, num_forced: int
) -> tuple[Figures, list[Rolled]]:
    """Figures of one model without execution, and the free rollouts behind them.

    Args:
        write: The model.
        problems: One rollout each.
        seed: Of the noise.
        num_forced: Problems on which thinking, and a direct answer, are also forced.
    """
    free = roll(problems, write, seed)
    thinking = roll(problems[:num_forced], write, seed, THINKING)
    direct = roll(problems[:num_forced], write, seed, DIRECT)

    def share(values: Sequence[bool]) -> Estimate:
        return wilson(sum(values), len(values))

    read_ = [one.annotation for one in free]
    figures = Figures(
        accuracy=share([bool(one.annotation.correct) for one in free]),
        thinks=share([one.text.startswith(THINKING) for one in free]),
        accuracy_thinking=share([bool(one.annotation.correct) for one in thinking]),
        accuracy_direct=share([bool(one.annotation.correct) for one in direct]),
        tokens=paired_bootstrap(
            np.array([float(one.num_tokens) for one in free]), _RESAMPLES, seed
        ),
        truncated=share([one.truncated for one in free]),
        behaviours=[behaviour_figures(behaviour, read_, seed) for behaviour in BEHAVIOURS],
    )
    return figures, free


def forced_starts(rolled: Sequence[Rolled], per_behaviour: int, seed: int) -> list[ForcedStart]:
    """Starts at the onsets of rollouts, at most one of a behaviour from each."""
    rng = random.Random(f"forced/countdown/{seed}")
    starts = []
    for behaviour in BEHAVIOURS:
        having = [
            (one, [s.char_start for s in one.annotation.spans if s.behaviour == behaviour])
            for one in rolled
        ]
        having = [(one, onsets) for one, onsets in having if onsets]
        for one, onsets in rng.sample(having, min(per_behaviour, len(having))):
            before = one.text[: rng.choice(onsets)].rstrip()
            words = opening(rng.choice(trained(behaviour)))
            starts.append(ForcedStart(one.problem, before, behaviour, words))
    return starts


def execution(starts: Sequence[ForcedStart], continue_: Continue, seed: int) -> list[Validity]:
    """Execution accuracy of each behaviour that has starts, with chance and the best heuristic.

    Args:
        starts: From `forced_starts`.
        continue_: The model.
        seed: Of random fills.
    """
    texts = continue_(
        [start.problem.prompt() for start in starts],
        [f"{start.before} {start.opening}" for start in starts],
        range(len(starts)),
    )
    rng = random.Random(f"chance/{seed}")
    found = []
    for behaviour in BEHAVIOURS:
        own = [(s, text) for s, text in zip(starts, texts, strict=True) if s.behaviour == behaviour]
        if not own:
            continue
        fills = [valid_at(start)(_fill(start, rng)) for start, _ in own * _FILLS]
        tally: Counter[str] = Counter()
        for start, _ in own:
            at = standing(start.problem, start.before)
            said = rules(behaviour, at, start.before)
            tally.update(name for name, words in said.items() if is_valid(behaviour, at, words))
        found.append(
            Validity(
                behaviour=behaviour,
                valid=sum(valid_at(start)(f"{start.opening}{text}") for start, text in own),
                chance=sum(fills) / len(fills),
                heuristic=max(tally.values(), default=0) / len(own),
                n=len(own),
            )
        )
    return found


def valid_at(start: ForcedStart) -> Callable[[str], bool]:
    """Whether a sentence does what was started."""
    at = standing(start.problem, start.before)
    return lambda sentence: is_valid(start.behaviour, at, sentence)


def _fill(start: ForcedStart, rng: random.Random) -> str:
    at = standing(start.problem, start.before)
    return chance_sentence(start.behaviour, at, rng)


def with_execution(figures: Figures, found: list[Validity], writer: str) -> Figures:
    """Figures with execution accuracy at the onsets of somebody's texts."""
    return replace(figures, execution=found, execution_writer=writer)
