"""Both readers' activations of the same tokens, row by row, for what reads the two at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32
from torch import Tensor

from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows


@dataclass(frozen=True)
class PairBatch:
    """Rows of several stores that are the same tokens.

    Attributes:
        activations: Row i of each reader has read the same text up to the same token.
        trace_index: Trace of each row, as row of the table of traces.
    """

    activations: Float32[Tensor, "reader row d_model"]
    trace_index: Int32[np.ndarray, " row"]


def paired_batches(
    stores: Sequence[ActivationStore],
    rows: range,
    size: int,
    kept: Bool[np.ndarray, " row"] | None = None,
) -> Iterator[PairBatch]:
    """Rows in order, `size` at a time; without those that aren't `kept`.

    Raises:
        BrokenArtifact: The stores are of different traces or keep different tokens.
    """
    check_same_rows(*stores)
    for parts in zip(*(store.batches(rows, size, kept) for store in stores), strict=True):
        yield PairBatch(torch.stack([part.activations for part in parts]), parts[0].trace_index)


def shuffled_pairs(
    stores: Sequence[ActivationStore],
    batch_size: int,
    *,
    seed: int,
    rows: range,
    mixing_tokens: int,
    skip_batches: int = 0,
    kept: Bool[np.ndarray, " row"] | None = None,
) -> Iterator[Float32[Tensor, "reader batch d_model"]]:
    """Endless shuffled batches, in one order for all stores.

    A store's order follows from seed, rows and the size of the mixing buffer alone, so the same
    three draw the same rows from each; stores that are trained on apart take a seed each.

    Args:
        stores: Of one layer, a reader each.
        batch_size: Rows of a batch, of each store.
        seed: Of the order.
        rows: Which rows take part.
        mixing_tokens: Rows of all mixing buffers together, which bounds memory.
        skip_batches: Batches to leave out at the start.
        kept: Of each row, whether it takes part; none for all.

    Raises:
        BrokenArtifact: The stores are of different traces or keep different tokens.
    """
    check_same_rows(*stores)
    streams = [
        store.shuffled_batches(
            batch_size,
            seed,
            rows,
            mixing_tokens=max(mixing_tokens // len(stores), batch_size),
            skip_batches=skip_batches,
            kept=kept,
        )
        for store in stores
    ]
    return map(torch.stack, zip(*streams, strict=True))
