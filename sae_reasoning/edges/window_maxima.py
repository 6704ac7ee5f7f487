"""Largest activations of a dictionary's latents over windows of texts, read by a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.read import ReadBatch, read_continuations
from sae_reasoning.edges.sae_checkpoint import Dictionary


@runtime_checkable
class Windowed(Protocol):
    """Token ids, windows of them, and how many come before all windows."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """To be read."""
        ...

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """First token and one past the last of each."""
        ...

    @property
    def prefix(self) -> int:
        """Tokens, before all windows, that texts read together share."""
        ...


def window_maxima(
    lm: LanguageModel,
    texts: Sequence[Windowed],
    dictionaries: Mapping[int, Dictionary],
    latents: Mapping[int, Sequence[int]],
    token_budget: int,
) -> dict[int, list[Float[np.ndarray, "window latent"]]]:
    """Largest activation of some latents over each window of each text, by layer.

    Texts that begin with the same prefix are read together, the prefix once.
    """
    found: dict[int, list[np.ndarray]] = {layer: [np.empty(0)] * len(texts) for layer in latents}
    for first, batch in _read(lm, texts, sorted(latents), token_budget):
        place: list[int] = []
        position: list[int] = []
        window: list[int] = []
        sizes = [len(texts[index].windows) for index in batch.rows]
        number = 0
        for row, index in enumerate(batch.rows):
            for start, stop in texts[index].windows:
                place += [row] * (stop - start)
                position += range(start - first, stop - first)
                window += [number] * (stop - start)
                number += 1
        for layer, chosen in latents.items():
            resid = batch.residuals[layer][torch.tensor(place), torch.tensor(position)]
            dictionary = dictionaries[layer]
            sparse = dictionary.encode_sparse(resid.float().to(dictionary.device))
            values, active = sparse.numpy()
            column = np.full(dictionary.d_sae, -1)
            column[chosen] = np.arange(len(chosen))
            own = column[active]
            row_of, slot = np.nonzero((own >= 0) & (values > 0))
            maxima = np.zeros((number, len(chosen)), np.float32)
            np.maximum.at(
                maxima, (np.array(window)[row_of], own[row_of, slot]), values[row_of, slot]
            )
            for index, part in zip(
                batch.rows, np.split(maxima, np.cumsum(sizes)[:-1]), strict=True
            ):
                found[layer][index] = part
    return found


def _read(
    lm: LanguageModel, texts: Sequence[Windowed], layers: Sequence[int], token_budget: int
) -> Iterator[tuple[int, ReadBatch]]:
    """Batches of texts, each with the token from which on there are residuals."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text.token_ids[: text.prefix], []).append(index)
    for prefix, own in groups.items():
        continuations = [texts[index].token_ids[len(prefix) :] for index in own]
        for batch in read_continuations(lm, prefix, continuations, layers, token_budget):
            yield len(prefix), replace(batch, rows=[own[row] for row in batch.rows])
