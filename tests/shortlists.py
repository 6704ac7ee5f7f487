"""Entries of shortlists by hand: tested latents with the same figures, but for what is asked."""

from dataclasses import replace
from typing import Any

from sae_reasoning.records import OnsetPredictorEntry, ShortlistEntry

_ENTRY: dict[str, Any] = {
    **{"reader": "rl", "writer": "rl", "status": "tested"},
    **{"span_auroc": 0.9, "span_auroc_low": 0.8, "span_auroc_high": 0.95},
    **{"select_span_auroc": 0.9, "q": 0.01, "n_pos": 30, "n_neg": 30},
    **{"firing_rate": 0.1, "mean_active": 1.0, "max_active": 2.0},
}
_ONSET = {"onset_auroc": 0.9, "onset_auroc_low": 0.8, "onset_auroc_high": 0.95}


def span_detector(layer: int, latent: int, **changes: Any) -> ShortlistEntry:
    """One of the span detectors."""
    named = ShortlistEntry(dictionary=f"pooled/layer_{layer}", layer=layer, latent=latent, **_ENTRY)
    return replace(named, **changes)


def onset_predictor(layer: int, latent: int, **changes: Any) -> OnsetPredictorEntry:
    """One of the onset predictors."""
    named = OnsetPredictorEntry(
        dictionary=f"pooled/layer_{layer}",
        layer=layer,
        latent=latent,
        select_onset_auroc=0.9,
        onset_attribution=0.1,
        **_ENTRY,
        **_ONSET,
    )
    return replace(named, **changes)
