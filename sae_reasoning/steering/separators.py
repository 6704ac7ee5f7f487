"""Latents of a crosscoder that are active where a behaviour starts, not where it could have.

`rank` scores what one model reads. A crosscoder's code is of both models' residuals of a token, so
its latents are chosen here, by onset AUROC on the select split.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.records import MODELS, RL
from sae_reasoning.stats import auroc
from sae_reasoning.steering import places
from sae_reasoning.steering.conditions import LatentId
from sae_reasoning.steering.places import Code, Residuals, codes_at, places_of


def testable(table: pd.DataFrame) -> list[str]:
    """Behaviours with enough opportunities taken and not, as `opportunities_of` lists them."""
    counts = table.groupby("behaviour").taken.agg(["sum", "size"])
    enough = (counts["sum"] >= places.FEW) & (counts["size"] - counts["sum"] >= places.FEW)
    return list(counts.index[enough])


def separators(
    table: pd.DataFrame,
    behaviours: Sequence[str],
    layers: Mapping[int, tuple[Code, Sequence[Residuals]]],
    most: int,
) -> dict[str, list[LatentId]]:
    """Of each behaviour the latents most active where it started, the best first.

    Args:
        table: Opportunities.
        behaviours: Behaviours.
        layers: By layer, the code and the residuals that it reads.
        most: Latents of each behaviour.
    """
    every = places_of(table)
    own = {behaviour: table[table.behaviour == behaviour] for behaviour in behaviours}
    at = {
        behaviour: every.get_indexer(pd.MultiIndex.from_frame(one[["trace", "token"]]))
        for behaviour, one in own.items()
    }
    found: dict[str, list[tuple[float, LatentId]]] = {behaviour: [] for behaviour in behaviours}
    for layer, (code, residuals) in layers.items():
        for first, codes in _columns(residuals, every, code):
            for behaviour, scored in found.items():
                scores = auroc(codes[at[behaviour]], own[behaviour].taken.to_numpy(bool))
                scored += [
                    (float(s), LatentId(layer, j)) for j, s in enumerate(scores, first) if s > 0.5
                ]
    return {
        behaviour: [latent for _, latent in sorted(scored, key=lambda one: -one[0])][:most]
        for behaviour, scored in found.items()
    }


def _columns(
    residuals: Sequence[Residuals], every: pd.MultiIndex, code: Code
) -> Iterator[tuple[int, Float[np.ndarray, "place latent"]]]:
    """All places' activations of some latents at a time, with the first latent's number.

    Meanwhile only the active latents of each place are held.
    """
    parts, done = [], 0
    for codes in codes_at(residuals, every, code):
        active = codes.nonzero(as_tuple=True)
        at, which = (index.cpu().numpy() for index in active)
        parts.append((at + done, which, codes[active].cpu().double().numpy()))
        done += len(codes)
    if not parts:
        return
    place, latent, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(latent, kind="stable")
    place, latent, value = place[order], latent[order], value[order]
    width = max(places.MAX_CODES // max(done, 1), 1)
    for first in range(0, code.d_sae, width):
        size = min(width, code.d_sae - first)
        here = slice(*np.searchsorted(latent, [first, first + size]))
        dense = np.zeros((done, size))
        dense[place[here], latent[here] - first] = value[here]
        yield first, dense


def latent_sizes(
    batches: Iterable[tuple[Float[Tensor, "model row d_model"], Int[np.ndarray, " row"]]],
    chosen: Bool[np.ndarray, " trace"],
    code: Code,
    layer: int,
) -> pd.DataFrame:
    """How often and strongly each latent fires on some traces; rows as in `rank`'s table.

    Args:
        batches: Residuals that the code reads, and the trace of each row.
        chosen: Which traces count.
        code: Of the layer.
        layer: Its number.
    """
    fires, total, most = torch.zeros(3, code.d_sae, dtype=torch.float64, device=code.device)
    count = 0
    for activations, trace in batches:
        kept = torch.from_numpy(chosen[trace])
        if not kept.any():
            continue
        codes = code.encode(*activations[:, kept].to(code.device))
        fires += (codes > 0).sum(0)
        total += codes.sum(0, dtype=torch.float64)
        most = torch.maximum(most, codes.amax(0))
        count += len(codes)
    table = pd.DataFrame(
        {
            "layer": layer,
            "latent": np.arange(code.d_sae),
            "writer": RL,
            "firing_rate": (fires / max(count, 1)).cpu().numpy(),
            "mean_active": (total / fires.clamp_min(1)).cpu().numpy(),
            "max_active": most.cpu().numpy(),
        }
    )
    return pd.concat([table.assign(reader=reader) for reader in MODELS], ignore_index=True)
