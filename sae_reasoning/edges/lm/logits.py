"""Logits where they are wanted, a bounded number at a time.

At each position the head makes as many numbers as there are tokens in the vocabulary, often more
than all blocks hold. So a pass ends before the head, and the head reads the wanted positions alone,
in pieces. Whatever a model does to its logits afterwards (scale them, cap them) it does to these:
a piece takes the place of what the head would have read in a pass over a single token.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_reasoning.edges.lm.anatomy import vocabulary_size
from sae_reasoning.edges.lm.load import LanguageModel

MAX_LOGITS = 1 << 28
"""Of one piece: 1 GiB as float32."""


class _AtHead(Exception):  # noqa: N818
    """No error: what the head would read is there, and the forward pass ends early."""


def head_inputs(
    lm: LanguageModel,
    inputs: Mapping[str, Tensor],
    rows: Int[Tensor, " place"],
    positions: Int[Tensor, " place"],
) -> Float[Tensor, "place d_head"]:
    """What the head reads at some positions of a batch; it makes no logits.

    Args:
        lm: Reader.
        inputs: What the model is called with.
        rows: Of each wanted place, its row in the batch.
        positions: And its position there.
    """
    held: list[Tensor] = []

    def take(read: Tensor) -> Tensor:
        held.append(read[rows.to(read.device), positions.to(read.device)])
        raise _AtHead

    try:
        with _before_head(lm, take):
            lm.model(**inputs, use_cache=False)
    except _AtHead:
        return held[0]
    raise AssertionError(f"the head of {lm.facts.name} was never called")


def logits_of(
    lm: LanguageModel, read: Float[Tensor, "place d_head"], at_once: int = 0
) -> Iterator[Float[Tensor, "piece vocab"]]:
    """Logits of what the head reads, in order, `at_once` places at a time.

    Args:
        lm: Reader.
        read: From `head_inputs`.
        at_once: Places of a piece; 0 for as many as `MAX_LOGITS` allows.
    """
    one = torch.zeros(1, 1, dtype=torch.long, device=lm.device)
    for piece in read.split(at_once or most_places(lm)):

        def give(_read: Tensor, piece: Tensor = piece) -> Tensor:
            return piece[None]

        with _before_head(lm, give):
            logits = lm.model(input_ids=one, use_cache=False).logits[0]
        yield logits.to(lm.device).float()


def log_probs_of(
    lm: LanguageModel, read: Float[Tensor, "place d_head"], tokens: Int[Tensor, " place"]
) -> Float[Tensor, " place"]:
    """Log-probability in nats of one token at each place.

    Args:
        lm: Reader.
        read: From `head_inputs`.
        tokens: Of each place.
    """
    left = tokens.to(lm.device)
    found = []
    for logits in logits_of(lm, read):
        here, left = left[: len(logits)], left[len(logits) :]
        found.append(logits.log_softmax(-1).gather(1, here[:, None])[:, 0])
    return torch.cat(found)


def most_places(lm: LanguageModel) -> int:
    """Places of which a model makes logits at once."""
    return max(MAX_LOGITS // vocabulary_size(lm.model), 1)


@contextmanager
def _before_head(lm: LanguageModel, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def hook(_head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(args[0]), *args[1:])

    handle = lm.model.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
