"""How well a dictionary explains one reader: the transfer gate's figures."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.read import Transform, splice_losses
from sae_reasoning.edges.sae_checkpoint import Dictionary

MAX_L0_SHARE = 1 / 8
"""A dictionary passes only with at most this many active latents a token, over d_model."""


@dataclass(frozen=True)
class Fit:
    """Reconstruction of one reader's activations.

    Attributes:
        num_tokens: Rows measured.
        fvu: Fraction of variance unexplained.
        l0: Active latents a token.
        dead_share: Share of latents never active on these rows.
        passes: Whether L0 is at most d_model/8.
        mean: Of the activations.
    """

    num_tokens: int
    fvu: float
    l0: float
    dead_share: float
    passes: bool
    mean: Float[Tensor, " d_in"]


@dataclass(frozen=True)
class Recovery:
    """What the reader loses when it has to go on from reconstructions.

    Attributes:
        num_traces: Traces read.
        num_tokens: Response tokens predicted.
        cross_entropy: Untouched, in nats a token.
        spliced: With the residual reconstructed.
        mean_ablated: With the residual replaced by its mean.
    """

    num_traces: int
    num_tokens: int
    cross_entropy: float
    spliced: float
    mean_ablated: float

    @property
    def recovered(self) -> float:
        """(mean-ablated - spliced) / (mean-ablated - untouched); 1 is perfect."""
        return (self.mean_ablated - self.spliced) / (self.mean_ablated - self.cross_entropy)


@dataclass(frozen=True)
class CrossEntropyProbe:
    """Traces on which one reader's next-token loss is measured.

    Attributes:
        lm: The reader.
        sequences: Token ids.
        keep_from: First position of each whose residual is replaced.
        response_from: First response token of each.
        token_budget: Tokens of one pass.
    """

    lm: LanguageModel
    sequences: Sequence[Sequence[int]]
    keep_from: Sequence[int]
    response_from: Sequence[int]
    token_budget: int

    def loss(self, layer: int, transform: Transform | None) -> tuple[float, int]:
        """Nats a response token with residuals after `layer` transformed, and the tokens."""
        losses = splice_losses(
            self.lm,
            self.sequences,
            layer=layer,
            transform=transform,
            keep_from=self.keep_from,
            response_from=self.response_from,
            token_budget=self.token_budget,
        )
        num_tokens = int(losses.num_targets.sum())
        return float(losses.summed.sum()) / max(num_tokens, 1), num_tokens


def measure_fit(dictionary: Dictionary, batches: Iterable[Float[Tensor, "_ d_in"]]) -> Fit:
    """Stream over raw activations; sums in float64, around `b_dec` so that nothing cancels."""
    num_tokens, active = 0, 0
    error = squares = 0.0
    total = torch.zeros(dictionary.d_in, dtype=torch.float64, device=dictionary.device)
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool, device=dictionary.device)
    for batch in batches:
        x = batch.to(dictionary.device)
        sparse = dictionary.encode_sparse(x)
        error += (x - dictionary.decode_sparse(sparse)).square().sum(dtype=torch.float64).item()
        centred = x - dictionary.b_dec
        total += centred.sum(0, dtype=torch.float64)
        squares += centred.square().sum(dtype=torch.float64).item()
        latents = sparse.latents[sparse.values > 0]
        active += len(latents)
        fired[latents] = True
        num_tokens += len(x)
    mean = total / max(num_tokens, 1)
    variance = squares - num_tokens * mean.square().sum().item()
    l0 = active / max(num_tokens, 1)
    return Fit(
        num_tokens=num_tokens,
        fvu=error / variance if variance > 0 else float("nan"),
        l0=l0,
        dead_share=1 - fired.float().mean().item(),
        passes=l0 <= dictionary.d_in * MAX_L0_SHARE,
        mean=(mean + dictionary.b_dec).float(),
    )


def measure_recovery(
    dictionary: Dictionary, probe: CrossEntropyProbe, mean: Float[Tensor, " d_in"]
) -> Recovery:
    """Cross-entropy recovered by a dictionary's reconstructions."""

    def reconstruct(resid: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        return dictionary.decode(dictionary.encode(resid))

    def forget(resid: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        return mean.to(resid.device).expand_as(resid)

    cross_entropy, num_tokens = probe.loss(dictionary.layer, None)
    return Recovery(
        num_traces=len(probe.sequences),
        num_tokens=num_tokens,
        cross_entropy=cross_entropy,
        spliced=probe.loss(dictionary.layer, reconstruct)[0],
        mean_ablated=probe.loss(dictionary.layer, forget)[0],
    )


def describe_quality(fit: Fit, recovery: Recovery) -> dict[str, Any]:
    """One reader's part of `quality.json`."""
    figures = {name: value for name, value in vars(fit).items() if name != "mean"}
    return figures | {
        "ce_recovered": recovery.recovered,
        "ce": asdict(recovery),
    }
