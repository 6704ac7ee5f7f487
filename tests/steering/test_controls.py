"""Matched latents and random directions, and the conditions made of them."""

import numpy as np
import pytest
import torch

from sae_reasoning.steering.conditions import (
    ABLATE,
    CLAMP,
    EDIT,
    MATCHED,
    NONE,
    RANDOM,
    EditPlan,
    LatentId,
    plan_conditions,
)
from sae_reasoning.steering.controls import LatentSizes, match_latents, random_direction


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
    # Only one is as small, so draws reach further; a latent that never fires matches nothing.
    assert not {(2, 5), (2, 6), (2, 3)} & {match for (match,) in near}


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


def test_random_directions_have_unit_norm_and_differ_by_draw():
    one, other = (random_direction(64, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.norm().item() == pytest.approx(1)
    assert abs(float(one @ other)) < 0.5


def plan():
    chosen = {
        "backtracking": [LatentId(0, 4), LatentId(1, 2)],
        "verification": [LatentId(1, 9)],
    }
    shortlisted = {LatentId(0, 4), LatentId(1, 2), LatentId(1, 9), LatentId(0, 1)}
    return plan_conditions(
        chosen,
        [EditPlan(ABLATE, 2, 2), EditPlan(CLAMP, 1, 1, dose=0.5)],
        sizes={0: sizes_of(60), 1: sizes_of(60, 1)},
        shortlisted=shortlisted,
        d_model=8,
        seed=0,
    )


def test_every_edit_has_its_controls_and_all_share_one_condition_without():
    conditions = plan()
    assert [c.kind for c in conditions] == [NONE] + 2 * [
        *[EDIT, MATCHED, MATCHED, RANDOM, RANDOM],
        *[EDIT, MATCHED, RANDOM],
    ]
    assert [c.edit for c in conditions] == [NONE] + 2 * (5 * [ABLATE] + 3 * [CLAMP])
    assert [c.dose for c in conditions] == [0.0] + 2 * (5 * [0.0] + 3 * [0.5])
    assert conditions[1].layers == "0+1"
    assert conditions[1].latent_names == "0:4 1:2"
    assert conditions[6].latent_names == "0:4"  # clamps move fewer latents here


def test_clamps_aim_at_a_multiple_of_the_maximum():
    clamped = next(c for c in plan() if c.edit == CLAMP)
    change = clamped.intervention.changes[0]
    assert change.latents == (4,)
    assert change.offsets == (pytest.approx(0.5 * sizes_of(60).max_active[4]),)


def test_the_plan_is_the_same_each_time():
    once, again = plan(), plan()
    assert [c.latents for c in once] == [c.latents for c in again]
    for a, b in zip(once, again, strict=True):
        assert all(
            torch.equal(a.intervention.along[k], b.intervention.along[k])
            for k in a.intervention.along
        )
