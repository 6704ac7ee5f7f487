"""Vectors that steer the base to each behaviour, with layer and dose chosen on the select split.

Every kind gives a direction for a behaviour and layer. Layer and dose are those under which the
base finds what the RL model wrote next likeliest, over the next few tokens, at onsets where the two
models differ: a vector that starts the behaviour and spoils what follows gains little. Half of
those onsets train vectors, the other half choose.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.records import BASE, RL
from sae_reasoning.steering.timing import ENTRY, OnsetReading
from sae_reasoning.steering.vectors import Steer, mean_difference, unit

SAE, MEAN_DIFFERENCE, TRAINED = "sae", "mean-difference", "trained"

LogProbs = Callable[[int, Float[Tensor, "*#place d_model"]], Float[Tensor, " place"]]
"""Takes a layer and what is added there at some onsets; gives the mean log-probability of what the
RL model wrote next at each."""
Continuations = Callable[[Int[Tensor, " place"]], LogProbs]
"""Of some places, what the base makes of their continuations."""
Directions = Callable[[int, int], Float[Tensor, "latent d_model"]]
"""Takes a class and a layer; gives decoder rows of latents that predict its onsets, maybe none."""


@dataclass(frozen=True)
class Vector:
    """What steers the base to one behaviour.

    Attributes:
        kind: How it was made.
        behaviour: To what.
        layer: Decoder block after which it's added.
        dose: Its size, in multiples of the mean norm of the residual there.
        change: The vector itself.
        gain: Nats a token that it adds to what the RL model wrote next, at onsets that chose it.
        places: How many those are.
    """

    kind: str
    behaviour: str
    layer: int
    dose: float
    change: Float[Tensor, " d_model"]
    gain: float
    places: int

    def times(self, multiple: float) -> Steer:
        """What is added to the residual, larger or smaller."""
        return Steer(self.layer, self.change * multiple)

    def record(self) -> dict[str, Any]:
        """In JSON's types."""
        return vars(self) | {"change": self.change.tolist()}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Vector":
        """From its record."""
        return cls(**{**record, "change": torch.tensor(record["change"])})


@dataclass(frozen=True)
class VectorSearch:
    """What is tried.

    Attributes:
        kinds: Of `sae`, `mean-difference` and `trained`.
        layers: Decoder blocks.
        doses: Sizes, in multiples of the mean norm of the residual.
        places: Onsets of a behaviour that train, and as many that choose, at most.
        steps: Of a trained vector.
        lr: Of Adam, in multiples of the residual's norm.
        seed: Of the onsets drawn.
    """

    kinds: Sequence[str]
    layers: Sequence[int]
    doses: Sequence[float]
    places: int
    steps: int
    lr: float
    seed: int


def choose_vectors(
    reading: OnsetReading,
    search: VectorSearch,
    continuations: Continuations,
    directions: Directions,
) -> tuple[list[Vector], dict[str, str]]:
    """The best layer and dose of each kind and behaviour, and why some have none.

    None for a behaviour on whose onsets the models never differ, or whose vectors all make what the
    RL model wrote less likely than the base alone does.

    Returns:
        The vectors; and by kind and behaviour ("trained, backtracking") the reason for none.
    """
    found: list[Vector] = []
    lacking: dict[str, str] = {}
    for index, behaviour in enumerate(reading.behaviours, 1):
        here = ((reading.onset == index) & reading.seen.differs).nonzero().flatten()
        generator = torch.Generator().manual_seed(search.seed)
        places = here[torch.randperm(len(here), generator=generator)][: 2 * search.places]
        if len(places) < 2:
            reason = "the models' likeliest tokens differ at fewer than two of its onsets"
            lacking |= {f"{kind}, {behaviour}": reason for kind in search.kinds}
            continue
        train, choose = continuations(places[::2]), continuations(places[1::2])
        first = search.layers[0]
        unsteered = float(choose(first, torch.zeros_like(reading.seen.means[BASE][first])).mean())
        for kind in search.kinds:
            tried = []
            for layer in search.layers:
                for dose, change in _doses(reading, search, kind, index, layer, train, directions):
                    with torch.no_grad():
                        gain = float(choose(layer, change).mean()) - unsteered
                    count = len(places) // 2
                    tried.append(Vector(kind, behaviour, layer, dose, change, gain, count))
            best = max(tried, key=lambda one: one.gain, default=None)
            if best and best.gain > 0:
                found.append(best)
            elif best:
                reason = "no layer and dose makes what the RL model wrote likelier"
                lacking[f"{kind}, {behaviour}"] = reason
            else:
                lacking[f"{kind}, {behaviour}"] = (
                    "no latent is known to predict its onsets"
                    if kind == SAE
                    else "there is no place at which it could start and doesn't"
                )
    return found, lacking


def _doses(
    reading: OnsetReading,
    search: VectorSearch,
    kind: str,
    index: int,
    layer: int,
    train: LogProbs,
    directions: Directions,
) -> Iterator[tuple[float, Float[Tensor, " d_model"]]]:
    """Vectors to try at one layer, with their sizes; a trained one has a size of its own."""
    norm = float(reading.at_onsets(BASE, index, layer).norm(dim=1).mean())
    if kind == SAE:
        rows = directions(index, layer)
        if not len(rows):
            return
        start = unit(rows.mean(0))
    else:
        if reading.behaviours[index - 1] != ENTRY and not len(reading.elsewhere(index)):
            return
        start = onset_difference(reading, index, layer)
    if kind == TRAINED:
        smallest = start * norm * min(search.doses)
        change = train_vector(train, layer, smallest, search.steps, search.lr * norm)
        yield float(change.norm()) / norm, change
        return
    for dose in search.doses:
        yield dose, start * dose * norm


def onset_difference(reading: OnsetReading, index: int, layer: int) -> Float[Tensor, " d_model"]:
    """Mean residual at a behaviour's onsets less elsewhere, both read by the base, of norm 1.

    All responses begin alike, so at the entry the base is subtracted from the RL model instead.
    """
    base = reading.at_onsets(BASE, index, layer)
    if reading.behaviours[index - 1] == ENTRY:
        return mean_difference(reading.at_onsets(RL, index, layer), base)
    elsewhere = reading.elsewhere(index)
    return mean_difference(base, reading.seen.residuals_at(BASE, layer, elsewhere))


def train_vector(
    log_probs: LogProbs,
    layer: int,
    start: Float[Tensor, " d_model"],
    steps: int,
    lr: float,
) -> Float[Tensor, " d_model"]:
    """Climb the mean log-probability of what follows some onsets, from a first vector (Adam)."""
    change = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([change], lr=lr)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = -log_probs(layer, change).mean()
            loss.backward()
            optimizer.step()
    return change.detach()


def mean_shift(reading: OnsetReading, layer: int) -> Float[Tensor, " d_model"]:
    """Mean residual of the RL model less the base's, on the same tokens, as large as it is."""
    means = reading.seen.means
    return means[RL][layer] - means[BASE][layer]


def more_active(
    rl: Float[Tensor, "onset d_sae"], base: Float[Tensor, "onset d_sae"], count: int
) -> list[int]:
    """Latents that are more active in the RL model on average, the largest differences first."""
    more = rl.mean(0) - base.mean(0)
    return [int(latent) for latent in more.argsort(descending=True)[:count] if more[latent] > 0]


def by_kind(vectors: Sequence[Vector]) -> dict[str, dict[str, Vector]]:
    """Vectors by kind and behaviour."""
    found: dict[str, dict[str, Vector]] = {}
    for vector in vectors:
        found.setdefault(vector.kind, {})[vector.behaviour] = vector
    return found
