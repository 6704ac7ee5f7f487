"""How far two models' predictions are apart at each token of a response, and where they disagree.

Each model reads the response after its own prompt. Logits are made in pieces, of both models at
once, so that memory doesn't grow with the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.logits import head_inputs, logits_of, most_places
from sae_reasoning.edges.lm.read import pack, padded_right
from sae_reasoning.edges.workers import shared_out

_HELD = 4
"""Arrays of the size of a piece that are there at once, beside the first model's logits."""


@dataclass(frozen=True)
class Divergence:
    """Two models before each token of one response.

    Attributes:
        nats: KL(first‖second) of what they predict.
        differs: Whether their likeliest tokens differ.
    """

    nats: Float[np.ndarray, " token"]
    differs: Bool[np.ndarray, " token"]


def token_divergences(
    models: tuple[LanguageModel, LanguageModel],
    prompts: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    responses: Sequence[Sequence[int]],
    token_budget: int,
) -> list[Divergence]:
    """Divergence of the second model from the first, over every response.

    Where one vocabulary is longer, as padded ones are, its other tokens are left out.

    Args:
        models: They share a tokenizer.
        prompts: Of each model, token ids of each response's prompt, BOS included.
        responses: Token ids.
        token_budget: Tokens of one pass, padding included.
    """
    lengths = [
        max(len(own[row]) for own in prompts) + len(ids) for row, ids in enumerate(responses)
    ]
    batches = list(pack(lengths, token_budget))

    def read(rows: Sequence[int]) -> list[Divergence]:
        with torch.inference_mode():
            return _read(
                models,
                [[own[row] for row in rows] for own in prompts],
                [responses[row] for row in rows],
            )

    found: dict[int, Divergence] = {}
    for rows, made in zip(batches, shared_out(read, batches, models[0].device), strict=True):
        found |= dict(zip(rows, made, strict=True))
    return [found[row] for row in range(len(responses))]


def _read(
    models: tuple[LanguageModel, LanguageModel],
    prompts: Sequence[Sequence[Sequence[int]]],
    responses: Sequence[Sequence[int]],
) -> list[Divergence]:
    sizes = [len(ids) for ids in responses]
    at_once = max(min(map(most_places, models)) // _HELD, 1)
    pieces = []
    for lm, own in zip(models, prompts, strict=True):
        token_ids, _ = padded_right(
            lm, [[*prompt, *ids] for prompt, ids in zip(own, responses, strict=True)]
        )
        rows = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        places = torch.cat(
            [torch.arange(size) + len(prompt) - 1 for prompt, size in zip(own, sizes, strict=True)]
        )
        read = head_inputs(lm, {"input_ids": token_ids}, rows, places)
        pieces.append(logits_of(lm, read, at_once))
    nats, differs = [], []
    for one, other in zip(*pieces, strict=True):
        size = min(one.shape[1], other.shape[1])
        first, second = one[:, :size], other[:, :size].to(one.device)
        nats.append(_kl(first, second).cpu())
        differs.append((first.argmax(-1) != second.argmax(-1)).cpu())
    if not nats:
        return [Divergence(np.zeros(0), np.zeros(0, bool)) for _ in sizes]
    split_nats, split_differs = torch.cat(nats).split(sizes), torch.cat(differs).split(sizes)
    return [
        Divergence(own.double().numpy(), others.numpy())
        for own, others in zip(split_nats, split_differs, strict=True)
    ]


def _kl(
    first: Float[Tensor, "place vocab"], second: Float[Tensor, "place vocab"]
) -> Float[Tensor, " place"]:
    """KL(first‖second) of two rows of logits, in nats; never below 0."""
    own, other = first.log_softmax(-1), second.log_softmax(-1)
    return (own.exp() * (own - other)).sum(-1).clamp_min(0.0)
