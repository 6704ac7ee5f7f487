"""Where latents of one dictionary fire in a reader, and which others fire with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from scipy.sparse import csr_array


@dataclass(frozen=True)
class Firing:
    """Rows on which one latent is active, in one reader; rows ascend."""

    row: Int64[np.ndarray, " fire"]
    value: Float32[np.ndarray, " fire"]


@dataclass(frozen=True)
class CoFiring:
    """How some latents fire with all others of their dictionary.

    Attributes:
        pearson: Correlation of activations, over tokens.
        both: Tokens on which both fire.
    """

    pearson: Float64[np.ndarray, "asked latent"]
    both: Int64[np.ndarray, "asked latent"]


def firings(
    batches: Iterable[tuple[Float[np.ndarray, "row k"], Int[np.ndarray, "row k"]]],
    latents: Sequence[int],
    d_sae: int,
    is_read: Bool[np.ndarray, " all"],
) -> tuple[dict[int, Firing], CoFiring]:
    """Where some latents are active, and with which others.

    Args:
        batches: Activations and latents of successive rows.
        latents: That are asked for, ascending.
        d_sae: Latents of the dictionary.
        is_read: Which rows count.
    """
    sums = _Sums(d_sae, latents)
    slot = np.full(d_sae, -1, np.int64)
    slot[list(latents)] = np.arange(len(latents))
    rows, slots, values, first = [], [], [], 0
    for value, latent in batches:
        here = (value > 0) & is_read[first : first + len(value), None]
        sums.add(np.where(here, value, 0.0), latent)
        here &= slot[latent] >= 0
        row, _ = np.nonzero(here)
        rows.append(row + first)
        slots.append(slot[latent[here]])
        values.append(value[here])
        first += len(value)
    row, which, active = (np.concatenate(parts) for parts in (rows, slots, values))
    order = np.argsort(which, kind="stable")  # Rows ascend within a latent.
    bounds = np.searchsorted(which[order], np.arange(len(latents) + 1))
    found = {
        latent: Firing(row[order[a:b]], active[order[a:b]])
        for latent, a, b in zip(latents, bounds, bounds[1:], strict=False)
    }
    return found, sums.result(int(is_read.sum()))


def companions(
    found: CoFiring, place: int, latent: int, num_latents: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Latents that fire with one the most.

    Args:
        found: Of the latents asked for.
        place: Of the latent among them.
        latent: Its index.
        num_latents: That are given at most.
        names: Of each latent's page; "" where it has none.
    """
    pearson = found.pearson[place].copy()
    pearson[latent] = -2.0
    best = np.argsort(-pearson, kind="stable")[:num_latents].tolist()
    return [
        {
            "latent": other,
            "pearson": float(f"{pearson[other]:.3f}"),
            "both": int(found.both[place, other]),
            "name": names[other],
        }
        for other in best
        if found.both[place, other]
    ]


class _Sums:
    """Sums behind the correlations of some latents' activations with all others'."""

    def __init__(self, d_sae: int, latents: Sequence[int]) -> None:
        self._latents = list(latents)
        self._d_sae = d_sae
        self._products = np.zeros((len(latents), d_sae))
        self._both = np.zeros((len(latents), d_sae), np.int64)
        self._sum, self._square = np.zeros(d_sae), np.zeros(d_sae)

    def add(self, value: Float[np.ndarray, "row k"], latent: Int[np.ndarray, "row k"]) -> None:
        """Add some rows; values of 0 don't count."""
        row, slot = np.nonzero(value)
        column, weight = latent[row, slot], value[row, slot].astype(np.float64)
        sparse = csr_array((weight, (row, column)), shape=(len(value), self._d_sae))
        fires = csr_array((np.ones(len(row), np.int64), (row, column)), shape=sparse.shape)
        self._products += (sparse[:, self._latents].T @ sparse).toarray()
        self._both += (fires[:, self._latents].T @ fires).toarray()
        self._sum += np.bincount(column, weight, self._d_sae)
        self._square += np.bincount(column, weight**2, self._d_sae)

    def result(self, num_rows: int) -> CoFiring:
        """Correlations over all rows added, of which many may fire nothing."""
        mean = self._sum / num_rows
        spread = np.sqrt(np.maximum(self._square / num_rows - mean**2, 0.0))
        covariance = self._products / num_rows - np.outer(mean[self._latents], mean)
        scale = np.outer(spread[self._latents], spread)
        pearson = np.divide(covariance, scale, out=np.full_like(covariance, -1.0), where=scale > 0)
        return CoFiring(pearson, self._both)
