"""Linear probes: on raw activations, and on a few latents.

A sparse probe says how many latents a behaviour takes: its latents are picked by orthogonal
matching pursuit on the logistic loss (Lozano et al. 2011), each the one that the loss of those
before falls with most steeply, so that a second latent for the same words isn't picked for its
AUROC alone. Both pick and fit on the select cell only.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import expit

from sae_reasoning.behaviours.streams import SparseMaxima

SPARSE_SIZES = (1, 2, 5, 20)
"""Latents of the sparse probes."""

_CONVERGED = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-8}
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
    x = ((features - mean) / scale).astype(np.float64)
    penalty = 1 / (inverse_penalty * len(x))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = x @ weights[:-1] + weights[-1]
        fit = (np.logaddexp(0.0, logits) - is_positive * logits).mean()
        residual = (expit(logits) - is_positive) / len(x)
        gradient = np.append(residual @ x + penalty * weights[:-1], residual.sum())
        return fit + penalty * (weights[:-1] @ weights[:-1]) / 2, gradient

    start = np.zeros(x.shape[1] + 1)
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options=_CONVERGED).x
    raw = fitted[:-1] / scale
    return Probe(raw, float(fitted[-1] - raw @ mean))


@dataclass
class SparseProbes:
    """Probes of one dictionary's maxima over spans and windows; each cell's are fitted once."""

    maxima: SparseMaxima
    _picked: dict[int, Int[np.ndarray, " latent"]] = field(default_factory=dict)
    _fitted: dict[tuple[int, int], Probe] = field(default_factory=dict)

    def score(self, num_latents: int, select: int, report: int) -> Float[np.ndarray, " interval"]:
        """Logits over the report cell of a probe of so many latents, picked on the select cell."""
        latents = self._latents(select)[:num_latents]
        if (select, num_latents) not in self._fitted:
            here = self.maxima.intervals.of_cell(select)
            self._fitted[select, num_latents] = fit_probe(
                self.maxima.columns(select, latents), self.maxima.intervals.is_positive[here]
            )
        return self._fitted[select, num_latents].scores(self.maxima.columns(report, latents))

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
