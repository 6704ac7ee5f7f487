"""Tokens whose residual is many times as long as others': where attention rests, mostly.

Some models have a few beyond a hundred times the median. An SAE that is trained on them learns
little else, and they make up nearly all of a variance. They are told by the median norm over the
rows that are trained on, of one reader after one layer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.lm.read import Transform


@dataclass(frozen=True)
class Norms:
    """Norms of one reader's residuals after one layer.

    Attributes:
        of_row: Of every row of the store.
        median: Over the rows that are trained on.
    """

    of_row: Float32[np.ndarray, " row"]
    median: float

    @classmethod
    def of(cls, store: ActivationStore, trained_on: range) -> "Norms":
        """Of a store; of all its rows, where none are trained on."""
        norms = store.norm
        chosen = norms[trained_on.start : trained_on.stop] if len(trained_on) else norms
        return cls(norms, float(np.median(chosen)))

    @property
    def largest(self) -> float:
        """In multiples of the median."""
        return float(self.of_row.max()) / self.median if self.median else 0.0

    def limit(self, multiple: float) -> float:
        """Norm beyond which tokens are outlying; no norm is, where the multiple is 0."""
        return multiple * self.median or math.inf

    def is_kept(self, multiple: float) -> Bool[np.ndarray, " row"]:
        """Of each row, whether it isn't outlying."""
        return self.of_row <= self.limit(multiple)

    def num_beyond(self, multiple: float, rows: range | None = None) -> int:
        """How many of some rows, or of all, are outlying."""
        beyond = ~self.is_kept(multiple)
        return int((beyond if rows is None else beyond[rows.start : rows.stop]).sum())


def outlying(
    stores: Mapping[str, ActivationStore], trained_on: range, multiple: float
) -> dict[str, dict[str, float]]:
    """Tokens beyond a multiple of the median norm, of each store."""
    found = {}
    for name, store in stores.items():
        norms = Norms.of(store, trained_on)
        beyond = norms.num_beyond(multiple)
        found[name] = {
            "median_norm": norms.median,
            "largest_multiple": norms.largest,
            "tokens": beyond,
            "share": beyond / store.num_tokens,
        }
    return found


def outlying_in_words(beyond: Mapping[str, Mapping[str, float]], multiple: float) -> str:
    """Where tokens have outlying norms, most of all first; `beyond` as `outlying` gives it."""
    some = {name: one for name, one in beyond.items() if one["tokens"]}
    most = sorted(some, key=lambda name: -some[name]["tokens"])[:2]
    said = "; ".join(
        f"{some[name]['tokens']:,} of {name} ({some[name]['share']:.2%}), up to "
        f"{some[name]['largest_multiple']:.0f} times"
        for name in most
    )
    more = f"; and in {len(some) - 2} more" if len(some) > 2 else ""
    return f"Tokens with a norm of more than {multiple:g} times the median: {said}{more}."


def kept_of_all(
    norms: Sequence[Norms], multiple: float, rows: range
) -> Bool[np.ndarray, " row"] | None:
    """Rows that are outlying in none of several readers; none where that's all of `rows`."""
    kept = np.logical_and.reduce([one.is_kept(multiple) for one in norms])
    return None if kept[rows.start : rows.stop].all() else kept


def sparing(transform: Transform, limit: float) -> Transform:
    """A transform that leaves residuals of a norm beyond the limit as they are."""
    if math.isinf(limit):
        return transform

    def spare(resid: Float[Tensor, "row d_model"], *beside: Tensor) -> Float[Tensor, "row d_model"]:
        made = transform(resid, *beside)
        is_beyond = resid.float().norm(dim=1, keepdim=True) > limit
        return torch.where(is_beyond, resid.to(made), made)

    return spare
