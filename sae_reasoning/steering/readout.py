"""What a few latents say about which behaviour starts next: a softmax of their activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.steering.edits import Encode

_MAX_ROWS = 20_000


@dataclass(frozen=True)
class LatentReader:
    """Chosen latents of some layers' dictionaries, side by side.

    Attributes:
        encoders: Of each layer's dictionary, with how many latents it has.
        chosen: Latents of each layer, in the order in which they're given.
    """

    encoders: Mapping[int, tuple[Encode, int]]
    chosen: Mapping[int, Sequence[int]]

    def __call__(
        self, residuals: Mapping[int, Float[Tensor, "batch d_model"]]
    ) -> Float[Tensor, "batch latent"]:
        """Activations, 0 where a latent is silent."""
        found = []
        for layer, latents in self.chosen.items():
            encode, num_latents = self.encoders[layer]
            values, active = encode(residuals[layer].float())
            dense = values.new_zeros(len(values), num_latents).scatter_(1, active, values)
            found.append(dense[:, list(latents)])
        return torch.cat(found, dim=1)


@dataclass(frozen=True)
class Readout:
    """Log-probabilities of which behaviour starts next; the first class is none.

    Attributes:
        weights: Of the latents.
        bias: Of the classes.
    """

    weights: Float[Tensor, "latent behaviour"]
    bias: Float[Tensor, " behaviour"]

    def __call__(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch behaviour"]:
        """Log-probabilities of the classes."""
        return (latents.to(self.weights) @ self.weights + self.bias).log_softmax(-1)

    def record(self) -> dict[str, Any]:
        """In JSON's types, exactly."""
        return {"weights": self.weights.tolist(), "bias": self.bias.tolist()}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Readout":
        """From its record."""
        return cls(torch.tensor(record["weights"]), torch.tensor(record["bias"]))


def fit_readout(
    latents: Float[Tensor, "place latent"],
    behaviour: Int[Tensor, " place"],
    num_behaviours: int,
    seed: int,
    penalty: float = 1.0,
) -> Readout:
    """Softmax regression of the behaviour on latents, each divided by its deviation.

    Places where nothing starts are many and alike: at most `_MAX_ROWS` of them count, at random,
    and the bias makes up for the rest.

    Args:
        latents: Of each place.
        behaviour: What starts next there, 0 for nothing.
        num_behaviours: Classes, nothing included.
        seed: Of what is drawn.
        penalty: Of half the squared weights, against the sum of losses.
    """
    starts, nothing = (behaviour > 0).nonzero().flatten(), (behaviour == 0).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    drawn = nothing[torch.randperm(len(nothing), generator=generator)[:_MAX_ROWS]]
    kept = torch.cat([starts, drawn])
    scale = latents.double().std(0, correction=0).clamp_min(1e-6)
    x, y = latents[kept].double() / scale, behaviour[kept]
    weights = torch.zeros(x.shape[1] + 1, num_behaviours, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = torch.nn.functional.cross_entropy(x @ weights[:-1] + weights[-1], y)
        total = fit + penalty * weights[:-1].square().sum() / (2 * len(y))
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    fitted = weights.detach()
    bias = fitted[-1].clone()
    if len(drawn):
        bias[0] += torch.log(torch.tensor(len(nothing) / len(drawn), dtype=torch.float64))
    return Readout((fitted[:-1] / scale[:, None]).float(), bias.float())


@dataclass(frozen=True)
class OnsetClassifier:
    """One model's latents, and what they say of which behaviour starts next."""

    reader: LatentReader
    readout: Readout

    def __call__(
        self, residuals: Mapping[int, Float[Tensor, "batch d_model"]]
    ) -> Float[Tensor, "batch behaviour"]:
        """Log-probabilities of the classes."""
        return self.readout(self.reader(residuals))


class Foreseen(NamedTuple):
    """What one model's latents say of another model's reading of the same place."""

    behaviours: Float[Tensor, "batch behaviour"]
    divergence: Float[Tensor, " batch"]


@dataclass(frozen=True)
class Foresight:
    """Where two models would go apart and to which behaviour, from the latents of one of them.

    Attributes:
        reader: Its latents.
        readout: Says which behaviour the other model would be followed to, if to any.
        weights: Of the latents in the divergence foreseen.
        bias: Of it.
    """

    reader: LatentReader
    readout: Readout
    weights: Float[Tensor, " latent"]
    bias: float

    def __call__(self, residuals: Mapping[int, Float[Tensor, "batch d_model"]]) -> Foreseen:
        """Log-probabilities of the classes, and the divergence in nats."""
        return self.of_latents(self.reader(residuals))

    def of_latents(self, latents: Float[Tensor, "batch latent"]) -> Foreseen:
        """The same from what the reader has found."""
        return Foreseen(self.readout(latents), latents.to(self.weights) @ self.weights + self.bias)


def fit_divergence(
    latents: Float[Tensor, "place latent"],
    divergence: Float[Tensor, " place"],
    penalty: float = 1.0,
) -> tuple[Float[Tensor, " latent"], float]:
    """Ridge regression of the divergence on latents, each over its deviation; weights and bias.

    Of no places, none is foreseen: zeros.
    """
    if not len(divergence):
        return torch.zeros(latents.shape[1]), 0.0
    scale = latents.double().std(0, correction=0).clamp_min(1e-6)
    x = latents.double() / scale
    mean, level = x.mean(0), divergence.double().mean()
    centred = x - mean
    gram = centred.T @ centred + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, centred.T @ (divergence.double() - level))
    return (weights / scale).float(), float(level - mean @ weights)


ClassifyOnsets = Callable[
    [Mapping[int, Float[Tensor, "batch d_model"]]], Float[Tensor, "batch behaviour"]
]
"""From residuals by layer to log-probabilities of which behaviour starts next, 0 for none."""
Foresee = Callable[[Mapping[int, Float[Tensor, "batch d_model"]]], Foreseen]
"""From residuals by layer to the same, with the divergence foreseen."""
