"""Matched latents, random directions and subspaces."""

import numpy as np
import pytest
import torch

from sae_reasoning.steering.controls import (
    LatentSizes,
    distinct_matches,
    match_latents,
    random_direction,
    random_span,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def sizes_of(num_latents: int, seed: int = 0) -> LatentSizes:
    rng = np.random.default_rng(seed)
    rate, mean = rng.lognormal((-4.0, 0.0), size=(num_latents, 2)).T
    return LatentSizes(rate, mean, 3 * mean)


def test_a_latent_of_the_same_size_is_its_match():
    rate, mean = np.full(40, 0.5), np.full(40, 8.0)
    rate[[3, 17]], mean[[3, 17]] = 0.01, 1.0
    rate[[5, 6]] = 0.0
    sizes = {2: LatentSizes(rate, mean, mean)}
    rng = np.random.default_rng(0)
    near = [match_latents([(2, 3)], sizes, {(2, i) for i in range(20, 40)}, rng) for _ in range(30)]
    assert (2, 17) in {match for (match,) in near}
    # Only one is as small, and the others lie outside the caliper.
    assert {match for (match,) in near} == {(2, 17)}


def test_outside_the_caliper_the_nearest_is_taken_and_never_one_that_is_silent():
    rate, mean = np.geomspace(0.001, 1.0, 20), np.ones(20)
    rate[[1, 2]] = 0.0
    (match,) = match_latents([(0, 0)], {0: LatentSizes(rate, mean, mean)}, (), rng())
    assert match == (0, 3)


def test_who_never_fires_there_is_drawn_last_and_who_never_fires_is_not():
    rate = np.array([0.2, 0.1, 0.0, 0.0, 0.0])
    sizes = {0: LatentSizes(rate, np.ones(5), np.array([1, 1, 0, 1, 1]))}
    matches = match_latents([(0, 0), (0, 4)], sizes, (), rng())
    assert set(matches) == {(0, 1), (0, 3)}
    with pytest.raises(ValueError, match="too few"):
        match_latents([(0, 0), (0, 3), (0, 4)], sizes, (), rng())


def test_matches_are_distinct_near_and_not_shortlisted():
    sizes = {0: sizes_of(300), 1: sizes_of(300, 1)}
    latents = [(layer, latent) for layer in (0, 1) for latent in range(8)]
    excluded = {(layer, latent) for layer in (0, 1) for latent in range(30)}
    matches = match_latents(latents, sizes, excluded, np.random.default_rng(0))
    assert len(set(matches)) == len(latents)
    assert not set(matches) & excluded
    for (layer, latent), (same_layer, match) in zip(latents, matches, strict=True):
        assert layer == same_layer
        assert 1 / 4 < sizes[layer].firing_rate[match] / sizes[layer].firing_rate[latent] < 4
        assert 1 / 4 < sizes[layer].mean_active[match] / sizes[layer].mean_active[latent] < 4


def test_too_few_latents_for_a_control_is_an_error():
    with pytest.raises(ValueError, match="layer 0 has too few latents"):
        match_latents(
            [(0, 0)], {0: sizes_of(4)}, {(0, 1), (0, 2), (0, 3)}, np.random.default_rng(0)
        )


def test_no_two_matched_sets_are_the_same_while_there_are_others():
    rate = np.full(12, 0.1)
    rate[4:] = 0.9  # Three are within the caliper of the first.
    sizes = {0: LatentSizes(rate, np.ones(12), np.ones(12))}

    def sets_of(num_draws: int, excluded: set[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        rngs = (np.random.default_rng(draw) for draw in range(num_draws))
        return distinct_matches([(0, 0)], sizes, excluded, rngs)

    drawn = [match for (match,) in sets_of(5, set())]
    assert len(set(drawn)) == 5
    assert set(drawn[:3]) == {(0, 1), (0, 2), (0, 3)}
    wide = {0: LatentSizes(np.full(60, 0.1), np.ones(60), np.ones(60))}
    rngs = (np.random.default_rng(draw) for draw in range(5))
    apart = distinct_matches([(0, i) for i in range(5)], wide, set(), rngs)
    assert len({latent for one in apart for latent in one}) == 5 * 5
    few = sets_of(5, {(0, i) for i in range(3, 12)})
    assert sorted(match for (match,) in few) == [(0, 1), (0, 2)]


def test_random_directions_have_unit_norm_and_differ_by_draw():
    one, other = (random_direction(64, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.norm().item() == pytest.approx(1)
    assert abs(float(one @ other)) < 0.5


def test_a_random_span_is_orthonormal_and_drawn_anew():
    one, other = (random_span(16, 3, np.random.default_rng(seed)) for seed in (0, 1))
    torch.testing.assert_close(one @ one.T, torch.eye(3))
    assert float((one @ other.T).norm()) < 2
