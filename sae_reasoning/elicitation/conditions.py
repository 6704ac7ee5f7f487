"""What an intervention changes of how the base answers, and what came of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from sae_reasoning.records import BASE, RL
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import ResponseFormat, Task

INTERVENTION, CONTROL, END = "intervention", "control", "end"
"""Roles of a condition; ends are those of the gap."""

Choose = Callable[[Problem, int, frozenset[str], str], str | None]
"""Takes a problem, the sample, the behaviours that could start, and the response up to the end of a
sentence; gives the words that are written there, if any."""


@dataclass(frozen=True)
class Cost:
    """What an intervention costs before it answers anything.

    Attributes:
        training_tokens: Read or rolled out by the training that was chosen, prompts included;
            trials of other rates and lengths aren't counted, of no intervention.
        gradient_steps: Steps.
        trained_values: Numbers that were trained.
    """

    training_tokens: float = 0.0
    gradient_steps: float = 0.0
    trained_values: float = 0.0


UNKNOWN = Cost(math.nan, math.nan, math.nan)
"""What nobody has counted."""


def as_posed(problem: Problem) -> str:
    """The prompt of a problem, unchanged."""
    return problem.prompt


@dataclass(frozen=True)
class Prompting:
    """What a model is given to answer with.

    Attributes:
        prompt: Of a problem.
        beginning: Words that its response begins with.
        openings: Chooses openings that are written for it at the ends of sentences; None for none.
    """

    prompt: Callable[[Problem], str] = as_posed
    beginning: str = ""
    openings: Choose | None = None


@dataclass(frozen=True)
class Condition:
    """One variant of an intervention, or its control, rolled out.

    Attributes:
        intervention: Its name.
        name: Of the variant.
        role: `intervention`, `control` or `end`.
        rollouts: One row each, with the cost of the intervention.
    """

    intervention: str
    name: str
    role: str
    rollouts: pd.DataFrame = field(repr=False)


Made = tuple[pd.DataFrame, Cost]
"""Rollouts of a condition, and what it costs."""


@dataclass(frozen=True)
class Planned:
    """A condition that is to be rolled out, unless it lacks something.

    Attributes:
        intervention: Its name.
        name: Of the condition.
        role: `intervention` or `control`.
        make: Rolls out.
        lacks: What it needs and isn't there.
    """

    intervention: str
    name: str
    role: str
    make: Callable[[], Made]
    lacks: tuple[str, ...] = ()


def thinking_prefix(task: Task) -> str:
    """What makes the base think: its own prefix, else the RL model's; "" where there is none.

    Where the base's prompt opens the chain of thought nothing is left to force.
    """
    base, rl = task.formats[BASE], task.formats[RL]
    if base.is_opened_by_prompt:
        return ""
    return base.thinking_prefix or rl.thinking_prefix


def thinking_format(task: Task) -> ResponseFormat:
    """The layout of a base's response that begins with the thinking prefix."""
    base, rl = task.formats[BASE], task.formats[RL]
    return base if base.thinking_suffix or not rl.thinking_prefix else rl


def direct_beginning(form: ResponseFormat) -> str:
    """What makes a model answer without a chain of thought.

    Where the prompt opens one it is closed first.
    """
    closing = form.thinking_suffix if form.is_opened_by_prompt else ""
    return f"{closing}{form.answer_prefix}"
