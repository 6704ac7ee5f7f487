"""Trainings of which one is chosen, and a part that is reinforced on right answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sae_reasoning.config import ElicitConfig, GrpoConfig
from sae_reasoning.organisms.grpo import Episode, RollOut, reinforce
from sae_reasoning.organisms.pretrain import Read, Run
from sae_reasoning.records import BASE
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Task

WARMUP = 5
"""Steps over which the learning rate rises."""


@dataclass(frozen=True)
class Learner:
    """What is trained, and how it's read.

    Attributes:
        module: Holds the parameters that are trained.
        reader: Makes of a module what gives logits of token ids.
        pad_id: Token that fills batches.
        state_path: Where a training keeps its state; a killed one takes seconds and begins anew.
    """

    module: nn.Module
    reader: Callable[[nn.Module], Read]
    pad_id: int
    state_path: Path

    def run(self, seed: int) -> Run:
        """A training from its first step."""
        self.state_path.unlink(missing_ok=True)
        return Run(seed, self.reader, self.pad_id, self.state_path)


@dataclass(frozen=True)
class Asked:
    """A problem, as training poses it."""

    problem: Problem

    def prompt(self) -> str:
        """The problem in words."""
        return self.problem.prompt


@dataclass(frozen=True)
class Tried:
    """One training and what came of it on the problems on which it's chosen.

    Attributes:
        rate: Learning rate.
        steps: Gradient steps.
        select_accuracy: Share of right answers.
        tokens: Read or rolled out by it.
        reward: Mean of each step, where it's reinforced.
    """

    rate: float
    steps: int
    select_accuracy: float
    tokens: int
    reward: tuple[float, ...] = ()

    def record(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


def best_of(tried: Sequence[Tried]) -> Tried:
    """What got most right; the first of equals."""
    return max(tried, key=lambda one: one.select_accuracy)


def reinforce_part(
    learner: Learner,
    own: ElicitConfig,
    rate: float,
    steps: int,
    task: Task,
    problems: Sequence[Problem],
    roll_out: RollOut,
) -> Iterator[tuple[float, int]]:
    """GRPO on right answers; mean reward and tokens rolled out so far, after every step.

    An answer that nothing can grade earns nothing.

    Args:
        learner: The part that is trained, in place; the model it's attached to is frozen.
        own: Options.
        rate: Learning rate.
        steps: Of the training.
        task: Grades, and knows the base's format.
        problems: To draw from.
        roll_out: Lets the model answer with the part attached.
    """
    num_tokens = 0

    def counted(prompts: Sequence[str], beginnings: Sequence[str], keys: Tensor) -> list[Episode]:
        nonlocal num_tokens
        found = roll_out(prompts, beginnings, keys)
        num_tokens += sum(len(one.prompt_ids) + len(one.response_ids) for one in found)
        return found

    def reward(asked: Asked, one: Episode) -> float:
        grade = task.grade(asked.problem, one.text, truncated=one.truncated, model=BASE)
        return float(bool(grade))

    config = GrpoConfig(
        steps=steps,
        prompts=own.rl_prompts,
        samples=own.rl_samples,
        lr=rate,
        kl=0.0,
        warmup=WARMUP,
        checkpoint_every=steps,
    )
    for progress in reinforce(
        learner.module,
        config,
        lambda rng: Asked(rng.choice(problems)),
        learner.run(own.seed),
        roll_out=counted,
        reward=reward,
        form=task.formats[BASE],
    ):
        yield progress.metrics["reward"], num_tokens
    learner.state_path.unlink(missing_ok=True)
