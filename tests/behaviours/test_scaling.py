"""Latent scaling where the truth is known: what is one model's own, and what only seems so."""

import numpy as np
import pandas as pd
import pytest
import torch

from sae_reasoning.behaviours.scaling import ScalingSums, ScalingThresholds, scaling_summary

NUM_PROBLEMS, TOKENS, D_MODEL = 40, 50, 32
BASE_ONLY, RL_ONLY, SHARED, SHRUNK, DECOUPLED_RL, DECOUPLED_BASE = range(6)
BARS = ScalingThresholds(
    norm=0.9, error=0.2, reconstruction=0.5, problems=20, resamples=300, seed=0
)


def _scaled(seed: int = 0, noise: float = 0.1) -> pd.DataFrame:
    """Both models write what they truly write; the crosscoder's decoders say less or otherwise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(D_MODEL, 6, generator=generator)).Q.T
    directions[DECOUPLED_BASE] = directions[DECOUPLED_RL]
    truly = torch.stack([directions, directions])
    truly[1, BASE_ONLY] = truly[0, RL_ONLY] = 0
    truly[1, DECOUPLED_BASE] = truly[0, DECOUPLED_RL] = 0
    decoders = truly.clone()
    decoders[0, SHRUNK] = 0  # The base holds it, and the crosscoder's row of it is pruned.
    sums = ScalingSums(decoders, ("base", "rl"), NUM_PROBLEMS)
    for problem in range(NUM_PROBLEMS):
        codes = torch.rand(TOKENS, 6, generator=generator) + 0.5
        codes *= torch.rand(TOKENS, 6, generator=generator) < 0.5
        codes[:, DECOUPLED_BASE] = codes[:, DECOUPLED_RL]  # One concept under two numbers.
        reconstructions = codes @ decoders
        x = codes @ truly + noise * torch.randn(2, TOKENS, D_MODEL, generator=generator)
        latents = torch.arange(6).expand(TOKENS, 6)
        numbers = np.full(TOKENS, problem)
        sums.add(numbers, codes, latents, x - reconstructions, reconstructions)
    return sums.result(BARS).set_index("latent")


@pytest.fixture(scope="module")
def scaled() -> pd.DataFrame:
    return _scaled()


def test_what_one_model_alone_holds_is_called_its_own(scaled: pd.DataFrame) -> None:
    assert scaled.by_norms[BASE_ONLY] == scaled.status[BASE_ONLY] == "base-specific"
    assert scaled.by_norms[RL_ONLY] == scaled.status[RL_ONLY] == "rl-specific"
    assert scaled.status[SHARED] == "shared"
    assert scaled.norm_share[SHARED] == pytest.approx(0.5)
    assert abs(scaled.nu_error[RL_ONLY]) < 0.1
    assert not scaled.complete_shrinkage[[BASE_ONLY, RL_ONLY]].any()


def test_a_pruned_row_is_found_in_the_error_and_the_latent_is_shared(scaled: pd.DataFrame) -> None:
    own = scaled.loc[SHRUNK]
    assert own.by_norms == "rl-specific"
    assert own.status == "shared"
    assert own.complete_shrinkage
    assert not own.latent_decoupling
    assert own.nu_error == pytest.approx(1.0, abs=0.05)
    assert own.nu_error_low > 0.9


def test_a_concept_under_two_numbers_is_found_in_the_reconstruction(scaled: pd.DataFrame) -> None:
    for latent, which in ((DECOUPLED_RL, "rl-specific"), (DECOUPLED_BASE, "base-specific")):
        own = scaled.loc[latent]
        assert own.by_norms == which
        assert own.status == "shared"
        assert own.latent_decoupling
        assert own.nu_reconstruction == pytest.approx(1.0, abs=0.1)


def test_shared_rows_that_point_apart_are_counted(scaled: pd.DataFrame) -> None:
    turned = scaled.copy()
    turned.loc[SHARED, "decoder_cosine"] = -0.3
    for table, opposed in ((scaled, 0), (turned, 1)):
        found = scaling_summary(table, ("base", "rl")).set_index("by_norms")
        assert found.opposed.tolist() == [0, 0, opposed]


def test_the_slope_is_the_least_squares_one(scaled: pd.DataFrame) -> None:
    """The stronger model writes each latent as it is, so its slope is 1 by construction."""
    own = scaled.loc[RL_ONLY]
    assert own.beta_error_rl == pytest.approx(1.0, abs=0.02)
    assert own.beta_error_low < own.beta_error_rl < own.beta_error_high
    assert own.num_problems == NUM_PROBLEMS


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(30):
        own = _scaled(seed + 1, noise=0.6).loc[SHRUNK]
        held += own.nu_error_low <= 1.0 <= own.nu_error_high
    assert held >= 25
