"""Internal triggers: directions that, pushed once at onset-1, make the base carry a move out.

No word is written. The direction, its layer and its size are chosen on the select split by how
often the base then makes the move validly; on the report split the choice is compared, start by
start and with common random numbers, with no push, with random directions of the same size, with
the direction that permuted labels give, and with what was chosen for the other moves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.contrast.execution import Start, judge_free
from sae_reasoning.contrast.measures import BASE, Measure, Resampling, difference, share
from sae_reasoning.steering.controls import random_direction
from sae_reasoning.steering.triggers import Direction, Push

Pushed = Callable[[Sequence[Start], Sequence[Push]], list[str]]
"""Lets the base go on from each start, pushed once; the same noise at a place whatever the push."""

TRIGGER, NONE, PERMUTED, RANDOM, OTHER = (
    "trigger",
    "none",
    "permuted labels",
    "random direction",
    "trigger of",
)
STARTED, VALID, OVER = "trigger/started", "trigger/valid", "trigger/valid_over"
CONTROLS = (NONE, PERMUTED, RANDOM, OTHER)


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
        direction: The direction itself [d_model].
    """

    behaviour: str
    kind: str
    layer: int
    dose: float
    size: float
    select_valid: float
    direction: Float[Tensor, " d_model"]

    def push(self, direction: Float[Tensor, " d_model"] | None = None) -> Push:
        """A push of this size along `direction`, its own by default."""
        return Push(self.layer, (self.direction if direction is None else direction) * self.size)


def choose(
    starts: Sequence[Start],
    directions: Sequence[Direction],
    norms: Mapping[int, float],
    doses: Sequence[float],
    pushed: Pushed,
) -> Chosen | None:
    """The direction and dose that most often make the base carry the move out.

    Args:
        starts: Of one move, on the select split.
        directions: Candidates.
        norms: Mean norm of the residual at onset-1, by layer.
        doses: Sizes to try, in multiples of it.
        pushed: Lets the base go on.
    """
    if not starts or not directions:
        return None
    tried = [(direction, dose) for direction in directions for dose in doses]
    pushes = [
        Push(direction.layer, direction.vector * dose * norms[direction.layer])
        for direction, dose in tried
    ]
    valid = _judged(starts, pushes, pushed)[:, :, 1]
    best = int(valid.mean(1).argmax())
    direction, dose = tried[best]
    return Chosen(
        behaviour=starts[0].behaviour,
        kind=direction.kind,
        layer=direction.layer,
        dose=dose,
        size=dose * norms[direction.layer],
        select_valid=float(valid[best].mean()),
        direction=direction.vector,
    )


def compare(
    starts: Sequence[Start],
    chosen: Chosen,
    permuted: Float[Tensor, " d_model"] | None,
    others: Sequence[Chosen],
    pushed: Pushed,
    *,
    num_random: int,
    how: Resampling,
) -> list[Measure]:
    """The chosen trigger against its controls, on the report split.

    Args:
        starts: Of the same move.
        chosen: Its trigger.
        permuted: The direction that permuted labels give at its layer.
        others: Triggers of the other moves; each is pushed at its own layer, with its own size.
        pushed: Lets the base go on.
        num_random: Random directions.
        how: Makes intervals; its seed also draws directions.
    """
    rng = np.random.default_rng((how.seed, 23))
    conditions = {TRIGGER: chosen.push(), NONE: Push(-1, torch.zeros_like(chosen.direction))}
    if permuted is not None:
        conditions[PERMUTED] = chosen.push(permuted)
    for number in range(num_random):
        drawn = random_direction(len(chosen.direction), rng)
        conditions[f"{RANDOM} {number + 1}"] = chosen.push(torch.as_tensor(drawn).float())
    for other in others:
        conditions[f"{OTHER} {other.behaviour}"] = other.push()
    judged = _judged(starts, list(conditions.values()), pushed)
    problems = [start.problem_id for start in starts]
    found = []
    for name, own in zip(conditions, judged, strict=True):
        for measure, column in ((STARTED, 0), (VALID, 1)):
            found.append(
                share(how, chosen.behaviour, measure, BASE, name, own[:, column], problems)
            )
        if name != TRIGGER:
            found.append(
                difference(
                    how, chosen.behaviour, OVER, BASE, name, judged[0, :, 1], own[:, 1], problems
                )
            )
    return found


def _judged(
    starts: Sequence[Start], pushes: Sequence[Push], pushed: Pushed
) -> Float[np.ndarray, "push start 2"]:
    """Whether the move was started, and carried out, at every start after every push."""
    # All pushes at one start side by side: what they share is read once.
    rows = [start for start in starts for _ in pushes]
    texts = pushed(rows, list(pushes) * len(starts))
    found = [judge_free(start, text) for start, text in zip(rows, texts, strict=True)]
    return np.array(found, float).reshape(len(starts), len(pushes), 2).swapaxes(0, 1)
