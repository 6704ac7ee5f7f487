"""Internal triggers: directions that, pushed once at onset-1, make the base carry a move out.

No word is written. The direction, its layer and its size are chosen on the select split by how
often the base then carries the move out; on the report split the choice is compared, start by start
and with common random numbers, with no push, with random directions and those that permuted labels
give (at its layer, each with the dose that is best for it on the select split), and with what was
chosen for the other moves. What is compared is valid executions less what slots filled by lot would
earn wherever the move starts: a push that only writes the opening gains nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.contrast.execution import Start, chances, judge_free
from sae_reasoning.contrast.measures import BASE, Measure, Resampling, difference, share, skill
from sae_reasoning.steering.controls import random_direction
from sae_reasoning.steering.triggers import RANDOM, Direction, Push

Pushed = Callable[[Sequence[Start], Sequence[Push]], list[str]]
"""Lets the base go on from each start, pushed once; the same noise at a place whatever the push."""

TRIGGER, NONE, OTHER = "trigger", "none", "trigger of"
STARTED, VALID, SKILL, OVER = (
    "trigger/started",
    "trigger/valid",
    "trigger/skill",
    "trigger/skill_over",
)


@dataclass(frozen=True)
class Chosen:
    """What the select split chose for one move.

    Attributes:
        behaviour: The move.
        kind: How the direction was found.
        layer: Decoder block.
        dose: Size, in multiples of the mean norm of the residual there.
        size: The same in units of the residual.
        select_valid: Share of select starts at which the move was made validly.
        select_beyond_chance: The same, less what lots would earn where it started.
        direction: The direction itself [d_model].
    """

    behaviour: str
    kind: str
    layer: int
    dose: float
    size: float
    select_valid: float
    select_beyond_chance: float
    direction: Float[Tensor, " d_model"]

    def push(self) -> Push:
        """What is added to a row."""
        return Push(self.layer, self.direction * self.size)


def choose(
    starts: Sequence[Start],
    directions: Sequence[Direction],
    norms: Mapping[int, float],
    doses: Sequence[float],
    pushed: Pushed,
    seed: int,
) -> list[Chosen]:
    """Each direction with the dose that most often makes the base carry the move out, best first.

    Args:
        starts: Of one move, on the select split.
        directions: Candidates.
        norms: Mean norm of the residual at onset-1, by layer.
        doses: Sizes to try, in multiples of it.
        pushed: Lets the base go on.
        seed: Of the lots that chance is counted by.
    """
    if not starts or not directions:
        return []
    tried = [(direction, dose) for direction in directions for dose in doses]
    pushes = [
        Push(direction.layer, direction.vector * dose * norms[direction.layer])
        for direction, dose in tried
    ]
    judged = _judged(starts, pushes, pushed)
    beyond = _beyond_chance(judged, chances(starts, 1, seed)).mean(1)
    found = []
    for number, direction in enumerate(directions):
        own = beyond[number * len(doses) : (number + 1) * len(doses)]
        best = int(own.argmax())
        found.append(
            Chosen(
                behaviour=starts[0].behaviour,
                kind=direction.kind,
                layer=direction.layer,
                dose=doses[best],
                size=doses[best] * norms[direction.layer],
                select_valid=float(judged[number * len(doses) + best, :, 1].mean()),
                select_beyond_chance=float(own[best]),
                direction=direction.vector,
            )
        )
    return sorted(found, key=lambda one: -one.select_beyond_chance)


def compare(
    starts: Sequence[Start],
    chosen: Chosen,
    controls: Sequence[Chosen],
    others: Sequence[Chosen],
    pushed: Pushed,
    how: Resampling,
) -> list[Measure]:
    """The chosen trigger against its controls, on the report split.

    Args:
        starts: Of the same move.
        chosen: Its trigger.
        controls: Random and permuted directions, each with its best dose.
        others: Triggers of the other moves; each is pushed at its own layer, with its own size.
        pushed: Lets the base go on.
        how: Makes intervals.
    """
    conditions = {TRIGGER: chosen.push(), NONE: Push(-1, torch.zeros_like(chosen.direction))}
    for number, control in enumerate(controls, 1):
        conditions[f"{control.kind} {number}"] = control.push()
    for other in others:
        conditions[f"{OTHER} {other.behaviour}"] = other.push()
    judged = _judged(starts, list(conditions.values()), pushed)
    chance = chances(starts, 1, how.seed)
    beyond = _beyond_chance(judged, chance)
    problems = [start.problem_id for start in starts]
    found = []
    for name, own, gain in zip(conditions, judged, beyond, strict=True):
        for measure, column in ((STARTED, 0), (VALID, 1)):
            found.append(
                share(how, chosen.behaviour, measure, BASE, name, own[:, column], problems)
            )
        found.append(
            skill(how, chosen.behaviour, SKILL, BASE, name, own[:, 1], chance, problems, own[:, 0])
        )
        if name != TRIGGER:
            found.append(
                difference(how, chosen.behaviour, OVER, BASE, name, beyond[0], gain, problems)
            )
    return found


def random_directions(
    layer: int, d_model: int, count: int, rng: np.random.Generator
) -> list[Direction]:
    """Directions of one layer by lot."""
    return [Direction(RANDOM, layer, random_direction(d_model, rng)) for _ in range(count)]


def _beyond_chance(
    judged: Float[np.ndarray, "push start 2"], chance: Float[np.ndarray, " start"]
) -> Float[np.ndarray, "push start"]:
    """Valid executions, less what lots would earn where the move started."""
    return judged[:, :, 1] - chance * judged[:, :, 0]


def _judged(
    starts: Sequence[Start], pushes: Sequence[Push], pushed: Pushed
) -> Float[np.ndarray, "push start 2"]:
    """Whether the move was started, and carried out, at every start after every push."""
    # All pushes at one start side by side: what they share is read once.
    rows = [start for start in starts for _ in pushes]
    texts = pushed(rows, list(pushes) * len(starts))
    found = [judge_free(start, text) for start, text in zip(rows, texts, strict=True)]
    return np.array(found, float).reshape(len(starts), len(pushes), 2).swapaxes(0, 1)
