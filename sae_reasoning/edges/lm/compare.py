"""Two models that share a tokenizer, on the same texts: where they'd go apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.read import pack, padded_right, watched


@dataclass(frozen=True)
class Compared:
    """Both models at every position that predicts a token of the responses, text by text.

    Attributes:
        sequence: Which text.
        token: Index of the position in it; it predicts the token after it.
        differs: Whether the two models disagree there.
        divergence: By how much.
        residuals: By model and layer.
    """

    sequence: Int[Tensor, " place"]
    token: Int[Tensor, " place"]
    differs: Bool[Tensor, " place"]
    divergence: Float[Tensor, " place"]
    residuals: dict[str, dict[int, Float[Tensor, "place d_model"]]]


Disagree = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From both models' logits [place, vocab]: whether they differ, and by how much."""


@torch.no_grad()
def compare(
    models: Mapping[str, LanguageModel],
    sequences: Sequence[Sequence[int]],
    response_from: Sequence[int],
    layers: Sequence[int],
    token_budget: int,
    disagree: Disagree,
) -> Compared:
    """Read texts with two models.

    Args:
        models: The writer, then the other, by name.
        sequences: Token ids, BOS included.
        response_from: First token of each response; what predicts it is the first place.
        layers: Decoder blocks whose residuals are kept.
        token_budget: Tokens of one pass, padding included.
        disagree: Compares their predictions.
    """
    writer, other = models
    parts: dict[int, Compared] = {}
    for rows in pack([len(sequence) for sequence in sequences], token_budget):
        logits, seen = {}, {}
        for name, lm in models.items():
            token_ids, _ = padded_right(lm, [sequences[row] for row in rows])
            residuals: dict[int, Tensor] = {}
            with watched(lm, layers, residuals):
                logits[name] = lm.model(input_ids=token_ids, use_cache=False).logits.float()
            seen[name] = residuals
        for place, row in enumerate(rows):
            here = slice(response_from[row] - 1, len(sequences[row]) - 1)
            own, its = logits[writer][place, here], logits[other][place, here]
            size = min(own.shape[1], its.shape[1])
            differs, divergence = disagree(own[:, :size], its[:, :size])
            parts[row] = Compared(
                torch.full((len(own),), row),
                torch.arange(here.start, here.stop),
                differs.cpu(),
                divergence.cpu(),
                {
                    name: {layer: seen[name][layer][place, here].float().cpu() for layer in layers}
                    for name in models
                },
            )
    ordered = [parts[row] for row in range(len(sequences))]
    return Compared(
        torch.cat([part.sequence for part in ordered]),
        torch.cat([part.token for part in ordered]),
        torch.cat([part.differs for part in ordered]),
        torch.cat([part.divergence for part in ordered]),
        {
            name: {
                layer: torch.cat([part.residuals[name][layer] for part in ordered])
                for layer in layers
            }
            for name in models
        },
    )
