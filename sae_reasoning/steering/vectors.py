"""Steering vectors that may start a behaviour when they are added to the residual at onset-1.

* `mean-difference`: mean at the RL model's onsets less the mean at other ends of sentences, both
  read by the base;
* `gradient`: mean gradient of the log onset probability, openings summed, in the base;
* `ascent`: the same followed uphill, with the vector that it has become in place, since a gradient
  says little of a change as large as the residual itself;
* `onset-predictors`: decoder rows of the shortlisted onset predictors, the first few, averaged.

They are made and chosen on the select split.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

MEAN_DIFFERENCE, GRADIENT, ASCENT, ONSET_PREDICTORS = (
    "mean-difference",
    "gradient",
    "ascent",
    "onset-predictors",
)
KINDS = (MEAN_DIFFERENCE, GRADIENT, ASCENT, ONSET_PREDICTORS)
PERMUTED, RANDOM = "permuted labels", "random direction"
"""Kinds of controls."""
TURNS = 8
"""Of an ascent."""


@dataclass(frozen=True)
class Direction:
    """A unit direction at one layer.

    Attributes:
        kind: How it was found.
        layer: Decoder block after which it's added.
        vector: The direction [d_model], of norm 1.
    """

    kind: str
    layer: int
    vector: Float[Tensor, " d_model"]


@dataclass(frozen=True)
class Steer:
    """What is added to one row.

    Attributes:
        layer: Decoder block; -1 adds nothing.
        change: What is added [d_model], in units of the residual.
    """

    layer: int
    change: Float[Tensor, " d_model"]


def unit(vector: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """The same direction with norm 1; zero stays."""
    return vector / vector.norm().clamp_min(1e-12)


def mean_difference(
    at_onsets: Float[Tensor, "onset d_model"], elsewhere: Float[Tensor, "place d_model"]
) -> Float[Tensor, " d_model"]:
    """From the mean elsewhere to the mean at onsets, as a unit direction."""
    return unit(at_onsets.mean(0) - elsewhere.mean(0))


def ascend(
    start: Float[Tensor, " d_model"],
    size: float,
    slope: Callable[[Float[Tensor, " d_model"]], Float[Tensor, " d_model"]],
    steps: int = TURNS,
) -> Float[Tensor, " d_model"]:
    """A direction of norm 1 along which a change of a given size does more than along `start`.

    Each step turns it towards the slope where the change has led, by less and less.

    Args:
        start: Where to begin, of norm 1.
        size: Norm of the steer.
        slope: Gradient of what is to rise, under a steer.
        steps: Turns.
    """
    direction = start
    for step in range(steps):
        direction = unit(direction + unit(slope(direction * size)) / (1 + step) ** 0.5)
    return direction


@dataclass(frozen=True)
class Candidates:
    """Directions of one layer, found at the RL model's onsets.

    Attributes:
        directions: To be tried.
        norm: Mean norm of the residual at onsets.
        permuted: Mean differences that permuted labels give.
    """

    directions: list[Direction]
    norm: float
    permuted: list[Direction]


def candidates(
    kinds: Sequence[str],
    layer: int,
    residuals: Float[Tensor, "place d_model"],
    gradients: Float[Tensor, "place d_model"],
    num_onsets: int,
    num_permuted: int,
    key: str,
) -> Candidates:
    """Directions of the kinds asked for that one layer gives.

    Args:
        kinds: Of `KINDS`; onset predictors come from a shortlist, not from here.
        layer: Decoder block.
        residuals: The base's, at onsets first, then elsewhere.
        gradients: Of the log onset probability, at the same places.
        num_onsets: How many are onsets.
        num_permuted: Permutations of the labels; none where too few places are known to divide.
            Each side gets as many onsets as the other, or what's left of the true difference would
            be the direction itself.
        key: Of the permutations: another seed, behaviour or layer has others.
    """
    found, num_elsewhere = [], len(residuals) - num_onsets
    if MEAN_DIFFERENCE in kinds and num_elsewhere:
        vector = mean_difference(residuals[:num_onsets], residuals[num_onsets:])
        found.append(Direction(MEAN_DIFFERENCE, layer, vector))
    if GRADIENT in kinds:
        found.append(Direction(GRADIENT, layer, unit(gradients[:num_onsets].mean(0))))
    generator = torch.Generator().manual_seed(
        random.Random(f"permuted/{key}/{layer}").getrandbits(63)
    )
    permuted = []
    for _ in range(num_permuted if num_onsets // 2 + num_elsewhere // 2 else 0):
        sides: list[list[Tensor]] = [[], []]
        for rows in (residuals[:num_onsets], residuals[num_onsets:]):
            mixed = rows[torch.randperm(len(rows), generator=generator)]
            sides[0].append(mixed[: len(rows) // 2])
            sides[1].append(mixed[len(rows) // 2 :])
        one, other = (torch.cat(side) for side in sides)
        permuted.append(Direction(PERMUTED, layer, mean_difference(one, other)))
    return Candidates(
        directions=found,
        norm=float(residuals[:num_onsets].norm(dim=1).mean()),
        permuted=permuted,
    )


def steer_once(steers: Sequence[Steer]) -> "dict[int, _LayerSteer]":
    """Residual edits by layer that steer each row where its first token is predicted, never after.

    Everything a row does later is its own. Rows index `steers`; the edits serve one generation.
    """
    layers = sorted({steer.layer for steer in steers if steer.layer >= 0})
    return {layer: _LayerSteer(layer, steers) for layer in layers}


class _LayerSteer:
    """What one layer adds; they wait where the model is until their rows come by."""

    def __init__(self, layer: int, steers: Sequence[Steer]) -> None:
        own = [row for row, steer in enumerate(steers) if steer.layer == layer]
        self._changes = torch.stack([steers[row].change for row in own])
        # Of each row the place of its change, -1 where none is due.
        self._due = torch.full((len(steers),), -1)
        self._due[own] = torch.arange(len(own))
        self._rows: Tensor | None = None
        self._num_due = len(own)

    def __call__(
        self, resid: Float[Tensor, "batch d_model"], rows: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch d_model"]:
        if rows is self._rows or not self._num_due:
            return resid  # Rows that were met; asking the device which would make it wait.
        self._rows = rows
        self._due, self._changes = self._due.to(rows.device), self._changes.to(resid)
        due = self._due[rows]
        places = (due >= 0).nonzero().squeeze(1)
        if not len(places):
            return resid
        self._due[rows[places]] = -1
        self._num_due -= len(places)
        return resid.index_add(0, places, self._changes[due[places]])
