"""Linear probes: on raw activations, and on a few latents.

A sparse probe says how many latents a behaviour takes: its latents are picked by orthogonal
matching pursuit on the logistic loss (Lozano et al. 2011), each the one that the loss of those
before falls with most steeply, so that a second latent for the same words isn't picked for its
AUROC alone. Both pick and fit on the select cell only.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.behaviours.streams import SparseMaxima

SPARSE_SIZES = (1, 2, 5, 20)
"""Latents of the sparse probes."""

_SCREENED = 128
"""Latents, the best by AUROC on the select cell, that the pursuit picks from."""


@dataclass(frozen=True)
class Probe:
    """A linear probe."""

    weights: Float[np.ndarray, " d_model"]
    bias: float

    def scores(self, features: Float[np.ndarray, "item d_model"]) -> Float[np.ndarray, " item"]:
        """Logits."""
        return features @ self.weights + self.bias


def fit_probe(
    features: Float[np.ndarray, "item d_model"],
    is_positive: Bool[np.ndarray, " item"],
    inverse_penalty: float = 1.0,
) -> Probe:
    """L2-penalised logistic regression on standardised features.

    Args:
        features: One row an item.
        is_positive: Its label.
        inverse_penalty: scikit-learn's C: sum of losses times it, plus half the squared weights.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x = torch.from_numpy((features - mean) / scale).double()
    y = torch.from_numpy(is_positive).double()
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
        total = fit + weights[:-1].square().sum() / (2 * inverse_penalty * len(y))
        total.backward()
        return total

    optimizer.step(loss)
    fitted = weights.detach().numpy()
    raw = fitted[:-1] / scale
    return Probe(raw, float(fitted[-1] - raw @ mean))


@dataclass
class SparseProbes:
    """Probes of one dictionary's maxima over spans and windows; the pursuit runs once a cell."""

    maxima: SparseMaxima
    _picked: dict[int, Int[np.ndarray, " latent"]] = field(default_factory=dict)

    def score(self, num_latents: int, select: int, report: int) -> Float[np.ndarray, " interval"]:
        """Logits over the report cell of a probe of so many latents, picked on the select cell."""
        latents = self._latents(select)[:num_latents]
        here = self.maxima.intervals.of_cell(select)
        probe = fit_probe(
            self.maxima.columns(select, latents), self.maxima.intervals.is_positive[here]
        )
        return probe.scores(self.maxima.columns(report, latents))

    def _latents(self, select: int) -> Int[np.ndarray, " latent"]:
        if select not in self._picked:
            gap = np.abs(np.nan_to_num(self.maxima.aurocs(select), nan=0.5) - 0.5)
            screened = np.argsort(-gap, kind="stable")[:_SCREENED]
            here = self.maxima.intervals.of_cell(select)
            order = pursue(
                self.maxima.columns(select, screened),
                self.maxima.intervals.is_positive[here],
                min(max(SPARSE_SIZES), len(screened)),
            )
            self._picked[select] = screened[order]
        return self._picked[select]


def pursue(
    features: Float[np.ndarray, "item feature"],
    is_positive: Bool[np.ndarray, " item"],
    num_features: int,
) -> Int[np.ndarray, " picked"]:
    """Features in the order in which matching pursuit picks them for a logistic probe."""
    standard = (features - features.mean(0)) / (features.std(0) + 1e-6)
    picked: list[int] = []
    residual = is_positive - is_positive.mean()
    for _ in range(num_features):
        slope = np.abs(residual @ standard)
        slope[picked] = -1.0
        picked.append(int(np.argmax(slope)))
        logits = fit_probe(features[:, picked], is_positive).scores(features[:, picked])
        residual = is_positive - 1 / (1 + np.exp(-logits))
    return np.array(picked)
