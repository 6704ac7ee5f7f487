"""Edits that should do nothing, as large as the edit they control for.

*matched_latent*: the same edit on other latents of the same dictionaries, not shortlisted for the
behaviour, matched one to one in how often they fire and how strongly where the edit acts. Ablating
one then removes about as much, about as often; a clamp's size is made equal at each position
(`Intervention.norm_of`). *random_direction*: the size of the edit at each position, along a
direction drawn once. *random_span*: for what is projected out, a random subspace of as many
dimensions.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NUM_NEAR = 8
"""Matches are drawn among this many nearest latents, so that draws differ."""
CALIPER = float(np.log(2))
"""Of those, only among latents within this distance, a factor of two, if there are any."""


@dataclass(frozen=True)
class LatentSizes:
    """How often and how strongly each latent of one dictionary fires, where an edit acts.

    Attributes:
        firing_rate: Share of positions.
        mean_active: Mean norm of what it writes where it fires: its value, as decoder rows have
            norm 1; of a crosscoder, times the norm of the edited model's row.
        max_active: Largest value.
    """

    firing_rate: np.ndarray
    mean_active: np.ndarray
    max_active: np.ndarray


def match_latents(
    latents: Sequence[tuple[int, int]],
    sizes: Mapping[int, LatentSizes],
    excluded: Collection[tuple[int, int]],
    rng: np.random.Generator,
    used: Collection[tuple[int, int]] = (),
) -> list[tuple[int, int]]:
    """For each latent another of its layer, near in firing rate and mean active value.

    Distance is Euclidean in the logarithms of both, so a match is near in their product too. Each
    match is drawn among the `NUM_NEAR` nearest that are left and lie within `CALIPER`, unused ones
    if there are any, or else is the nearest, in random order of the latents. Latents that fire, but
    never there, are drawn only when no others are left.

    Args:
        latents: (layer, latent) to find matches for.
        sizes: By layer.
        excluded: (layer, latent) that may not be chosen.
        rng: Of the draw.
        used: (layer, latent) of earlier draws: draws that share latents tell little of how far
            draws differ.

    Raises:
        ValueError: A layer has too few latents that fire and aren't excluded.
    """
    free: dict[int, list[int]] = {}
    spare: dict[int, list[int]] = {}
    for layer in {layer for layer, _ in latents}:
        barred = {latent for l, latent in (*excluded, *latents) if l == layer}
        fires_there = sizes[layer].firing_rate > 0
        for pool, which in (
            (free, fires_there),
            (spare, ~fires_there & (sizes[layer].max_active > 0)),
        ):
            pool[layer] = [x for x in np.flatnonzero(which).tolist() if x not in barred]
    chosen: dict[tuple[int, int], int] = {}
    for index in rng.permutation(len(latents)):
        layer, latent = latents[index]
        if not free[layer]:
            free[layer], spare[layer] = spare[layer], []
        if not free[layer]:
            raise ValueError(f"layer {layer} has too few latents beside the shortlists")
        distance = np.hypot(
            *(
                np.log(np.maximum(values[free[layer]], 1e-9) / max(values[latent], 1e-9))
                for values in (sizes[layer].firing_rate, sizes[layer].mean_active)
            )
        )
        order = np.argsort(distance, kind="stable")
        within = order[distance[order] <= CALIPER]
        fresh = [i for i in within.tolist() if (layer, free[layer][i]) not in used]
        near = (fresh or within.tolist() or order[:1].tolist())[:NUM_NEAR]
        picked = rng.choice(near)
        chosen[layer, latent] = free[layer].pop(int(picked))
    return [(layer, chosen[layer, latent]) for layer, latent in latents]


def distinct_matches(
    latents: Sequence[tuple[int, int]],
    sizes: Mapping[int, LatentSizes],
    excluded: Collection[tuple[int, int]],
    rngs: Iterable[np.random.Generator],
) -> list[list[tuple[int, int]]]:
    """Matched sets that share as few latents as they can: shared ones would make draws look alike.

    Each is drawn as `match_latents` says, with unused latents where they match as well; where that
    gives a set that there is already, without the latents of earlier sets, so farther away. Where
    too few are left for that, there are fewer sets than draws.

    Args:
        latents: As for `match_latents`.
        sizes: Likewise.
        excluded: Likewise.
        rngs: Of each draw.

    Raises:
        ValueError: A layer has too few latents for one set.
    """
    sets: list[list[tuple[int, int]]] = []
    for rng in rngs:
        taken = {latent for one in sets for latent in one}
        drawn = match_latents(latents, sizes, excluded, rng, taken)
        if set(drawn) in map(set, sets):
            try:
                drawn = match_latents(latents, sizes, taken.union(excluded), rng)
            except ValueError:
                break
        sets.append(drawn)
    return sets


def random_direction(d_model: int, rng: np.random.Generator) -> Float[Tensor, " d_model"]:
    """A direction of unit norm, uniform on the sphere."""
    direction = torch.from_numpy(rng.standard_normal(d_model)).float()
    return direction / direction.norm()


def random_span(d_model: int, rank: int, rng: np.random.Generator) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows that span a subspace drawn uniformly."""
    rows = torch.from_numpy(rng.standard_normal((rank, d_model)))
    return torch.linalg.qr(rows.T).Q.T.contiguous().float()
