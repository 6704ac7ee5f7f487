"""Responses that may not begin with some tokens."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.edges.lm.generate import Sampler


def not_beginning(banned: Sequence[Sequence[int]]) -> Callable[[Sampler], Sampler]:
    """Wraps a sampler so that no response begins with what is banned for it.

    Args:
        banned: Token ids, by row; what comes after a row's first token is free.
    """

    def wrap(sample: Sampler) -> Sampler:
        def wrapped(
            logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, "batch"], step: int
        ) -> Int[Tensor, "batch"]:
            if step == 0:
                logits = logits.clone()
                for place, row in enumerate(rows.tolist()):
                    logits[place, torch.tensor(list(banned[row]), dtype=torch.long)] = -torch.inf
            return sample(logits, rows, step)

        return wrapped

    return wrap
