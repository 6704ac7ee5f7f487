"""What a latent's direction says by itself: nearest directions, and output tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.texts import MAX_PIECE, shown

_NUM_TOKENS, _NUM_BINS = 10, 24


def neighbours(
    directions: Float[Tensor, "latent d_model"], latent: int, num_latents: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Latents of a dictionary whose directions are nearest to one's.

    Args:
        directions: Decoder rows, unit norm.
        latent: Whose neighbours.
        num_latents: That are given at most.
        names: Of each latent's page; "" where it has none.
    """
    cosines = directions @ directions[latent]
    cosines[latent] = -2.0
    best = cosines.topk(min(num_latents, len(cosines) - 1))
    return [
        {"latent": other, "cosine": float(f"{cosine:.3f}"), "name": names[other]}
        for cosine, other in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def output_tokens(logits: Float[Tensor, " vocab"], text_of: Callable[[int], str]) -> dict[str, Any]:
    """Tokens that a direction makes more and less likely, and a histogram of its logits.

    Args:
        logits: Direct effect of the direction, less the mean over the vocabulary.
        text_of: Text of a token.
    """
    count = min(_NUM_TOKENS, len(logits) // 2)

    def named(best: torch.return_types.topk) -> list[tuple[str, float]]:
        return [
            (shown(text_of(token), MAX_PIECE), float(f"{value:.4g}"))
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    counts, edges = np.histogram(logits.cpu().numpy(), _NUM_BINS)
    return {
        "top": named(logits.topk(count)),
        "bottom": named(logits.topk(count, largest=False)),
        "counts": counts.tolist(),
        "edges": [float(f"{edge:.4g}") for edge in edges],
    }
