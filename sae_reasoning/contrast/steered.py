"""Steering vectors that, added once at onset-1, make the base carry a behaviour out.

No word is written. The vector, its layer and its size are chosen on the select split by how often
the base then carries the behaviour out; on the report split the choice is compared, start by start
and with common random numbers, with no steering, with random directions and those that permuted
labels give (at its layer, each with the dose that is best for it on the select split), and with
what was chosen for the other behaviours. What is compared is valid executions less what a random
fill would earn wherever the behaviour starts: a vector that only makes the opening gains nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.contrast.measures import Measure, Recorder, Resampling
from sae_reasoning.records import BASE
from sae_reasoning.steering.controls import random_direction
from sae_reasoning.steering.vectors import RANDOM, Direction, Steer
from sae_reasoning.tasks.protocol import Start, Task

Steered = Callable[[Sequence[Start], Sequence[Steer]], list[str]]
"""Lets the base go on from each start, steered once; what is added doesn't change the noise."""

VECTOR, NONE, OTHER = "steering vector", "none", "steering vector of"
STARTED, VALID, CORRECTED, OVER = (
    "steered/started",
    "steered/valid",
    "steered/chance_corrected",
    "steered/chance_corrected_over",
)


@dataclass(frozen=True)
class Chosen:
    """What the select split chose for one behaviour.

    Attributes:
        behaviour: What it is for.
        kind: How the direction was found.
        layer: Decoder block.
        dose: Size, in multiples of the mean norm of the residual there.
        size: The same in units of the residual.
        select_valid: Share of select starts at which the behaviour was made validly.
        select_beyond_chance: The same, less what a random fill would earn where it started.
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

    def steer(self) -> Steer:
        """What is added to a row."""
        return Steer(self.layer, self.direction * self.size)


def choose(
    starts: Sequence[Start],
    directions: Sequence[Direction],
    norms: Mapping[int, float],
    doses: Sequence[float],
    steered: Steered,
    task: Task,
    seed: int,
) -> list[Chosen]:
    """Each direction with the dose that most often makes the base carry the behaviour out.

    The best comes first.

    Args:
        starts: Of one behaviour, on the select split.
        directions: Candidates.
        norms: Mean norm of the residual at onset-1, by layer.
        doses: Sizes to try, in multiples of it.
        steered: Lets the base go on.
        task: With a judge and its null.
        seed: Of the random fills that chance is counted by.
    """
    if not starts or not directions:
        return []
    tried = [(direction, dose) for direction in directions for dose in doses]
    steers = [
        Steer(direction.layer, direction.vector * dose * norms[direction.layer])
        for direction, dose in tried
    ]
    assert task.null is not None
    judged = _judged(starts, steers, steered, task)
    beyond = _beyond_chance(judged, task.null.chance(starts, 1, seed)).mean(1)
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
    steered: Steered,
    task: Task,
    resampling: Resampling,
) -> list[Measure]:
    """The chosen steering vector against its controls, on the report split.

    Args:
        starts: Of the same behaviour.
        chosen: Its steering vector.
        controls: Random and permuted directions, each with its best dose.
        others: Vectors of the other behaviours; each is added at its own layer, with its own size.
        steered: Lets the base go on.
        task: With a judge and its null.
        resampling: Makes intervals.
    """
    conditions = {VECTOR: chosen.steer(), NONE: Steer(-1, torch.zeros_like(chosen.direction))}
    for number, control in enumerate(controls, 1):
        conditions[f"{control.kind} {number}"] = control.steer()
    for other in others:
        conditions[f"{OTHER} {other.behaviour}"] = other.steer()
    assert task.null is not None
    judged = _judged(starts, list(conditions.values()), steered, task)
    chance = task.null.chance(starts, 1, resampling.seed)
    beyond = _beyond_chance(judged, chance)
    problems = [start.problem.problem_id for start in starts]
    record = Recorder(resampling, chosen.behaviour, problems)
    found = []
    for name, own, gain in zip(conditions, judged, beyond, strict=True):
        for measure, column in ((STARTED, 0), (VALID, 1)):
            found.append(record.share(measure, BASE, name, own[:, column]))
        found.append(record.beyond_chance(CORRECTED, BASE, name, own[:, 1], chance, own[:, 0]))
        if name != VECTOR:
            found.append(record.difference(OVER, BASE, name, beyond[0], gain))
    return found


def random_directions(
    layer: int, d_model: int, count: int, rng: np.random.Generator
) -> list[Direction]:
    """Random directions of one layer."""
    return [Direction(RANDOM, layer, random_direction(d_model, rng)) for _ in range(count)]


def _beyond_chance(
    judged: Float[np.ndarray, "vector start 2"], chance: Float[np.ndarray, " start"]
) -> Float[np.ndarray, "vector start"]:
    """Valid executions, less what a random fill would earn where the behaviour started."""
    return judged[:, :, 1] - chance * judged[:, :, 0]


def _judged(
    starts: Sequence[Start], steers: Sequence[Steer], steered: Steered, task: Task
) -> Float[np.ndarray, "vector start 2"]:
    """Whether the behaviour was started, and carried out, at every start under every vector."""
    # All vectors at one start side by side: what they share is read once.
    rows = [start for start in starts for _ in steers]
    texts = steered(rows, list(steers) * len(starts))
    assert task.judge is not None
    judged = task.judge.judge_free(rows, texts)
    found = [(one.is_formed, bool(one.is_valid)) for one in judged]
    return np.array(found, float).reshape(len(starts), len(steers), 2).swapaxes(0, 1)
