"""Edits and what stands beside them."""

from typing import Any

import numpy as np
import pytest
import torch

from sae_reasoning.config import AblateConfig
from sae_reasoning.steering.conditions import (
    ABLATE,
    ADD,
    CLAMP,
    EDIT,
    ERROR,
    MATCHED,
    MEAN,
    NONE,
    OTHER,
    OWN,
    PERMUTED,
    RANDOM,
    RANDOM_POSITIONS,
    RESIDUAL,
    SCALE,
    SPAN,
    EditPlan,
    LatentId,
    Material,
    plan_conditions,
)
from sae_reasoning.steering.controls import LatentSizes
from sae_reasoning.steering.edit_plans import edit_plans, num_conditions
from sae_reasoning.steering.positions import ALL, OPPORTUNITIES

D_MODEL = 8
MOVES = ("backtracking", "verification")


def sizes_of(num_latents: int, seed: int = 0) -> LatentSizes:
    rate, mean = np.random.default_rng(seed).lognormal((-4.0, 0.0), size=(num_latents, 2)).T
    return LatentSizes(rate, mean, 3 * mean)


SIZES = {0: sizes_of(60), 1: sizes_of(60, 1)}


def material(**changed: object) -> Material:
    generator = torch.Generator().manual_seed(0)
    decoders = {x: torch.randn(60, D_MODEL, generator=generator) for x in (0, 1)}
    decoders = {x: rows / rows.norm(dim=1, keepdim=True) for x, rows in decoders.items()}
    ranked = {
        "backtracking": [LatentId(0, 4), LatentId(1, 2)],
        "verification": [LatentId(1, 9), LatentId(1, 2), LatentId(0, 7)],
    }
    own = {
        "ranked": {"rl": ranked},
        "sizes": dict.fromkeys(MOVES, SIZES),
        "overall": SIZES,
        "barred": {behaviour: {LatentId(0, 1)} for behaviour in MOVES},
        "decoders": decoders,
        "centres": {x: torch.zeros(D_MODEL) for x in (0, 1)},
        "vectors": {behaviour: {x: torch.eye(D_MODEL)[x] for x in (0, 1)} for behaviour in MOVES},
        "untaken": {behaviour: {x: torch.ones(D_MODEL) for x in (0, 1)} for behaviour in MOVES},
        "shares": {"backtracking": 0.02, "verification": 0.03},
    }
    return Material(**(own | changed))


def plan(*plans: EditPlan, **changed: object):
    return plan_conditions(plans, material(**changed), seed=0)


def one(conditions, kind: str, behaviour: str = "backtracking"):
    return [c for c in conditions if c.kind == kind and c.behaviour == behaviour]


def edit_plan(edit: str, num_latents: int = 2, **options) -> EditPlan:
    return EditPlan(edit, num_latents, **{"found_by": "rl"} | options)


def test_every_edit_has_its_controls_and_all_share_one_condition_without():
    conditions = plan(
        edit_plan(ABLATE, draws={MATCHED: 2, RANDOM: 2}),
        edit_plan(CLAMP, 1, dose=0.5, draws={MATCHED: 1, RANDOM: 1}),
    )
    assert [c.kind for c in conditions] == [NONE] + 2 * [
        *[EDIT, MATCHED, MATCHED, RANDOM, RANDOM],
        *[EDIT, MATCHED, RANDOM],
    ]
    assert [c.edit for c in conditions] == [NONE] + 2 * (5 * [ABLATE] + 3 * [CLAMP])
    assert [c.dose for c in conditions] == [0.0] + 2 * (5 * [0.0] + 3 * [0.5])
    assert conditions[1].layers == "0+1"
    assert conditions[1].latent_names == "0:4 1:2"
    assert conditions[6].latent_names == "0:4"  # clamps behaviour fewer latents here
    assert {c.set_size for c in conditions} == {0, 1, 2}


def test_a_list_that_is_too_short_for_a_larger_set_is_edited_once():
    conditions = plan(*(edit_plan(ABLATE, size) for size in (1, 2, 5)))
    assert [c.set_size for c in one(conditions, EDIT)] == [1, 2]
    assert [c.set_size for c in one(conditions, EDIT, "verification")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("edit", "gain", "offset"),
    [(ABLATE, -1.0, 0.0), (CLAMP, -1.0, 1.5), (ADD, 0.0, 1.5), (SCALE, -0.5, 0.0)],
)
def test_doses_are_multiples_of_the_maximum_and_factors(edit, gain, offset):
    (made,) = one(plan(edit_plan(edit, dose=0.5)), EDIT)
    change = made.intervention.changes[0]
    assert (change.latents, change.gains) == ((4,), (gain,))
    assert change.offsets == pytest.approx((offset * SIZES[0].mean_active[4],))


def test_only_what_can_be_made_as_large_as_the_edit_is():
    for edit, is_fitted in ((ABLATE, False), (SCALE, False), (CLAMP, True), (ADD, True)):
        conditions = plan(edit_plan(edit, dose=1.0, draws={MATCHED: 1, OTHER: 1, RANDOM: 1}))
        for kind in (MATCHED, OTHER):
            assert bool(one(conditions, kind)[0].intervention.norm_of) == is_fitted
        assert one(conditions, RANDOM)[0].intervention.norm_of


def test_each_other_behaviour_stands_beside_in_the_layers_of_the_edit():
    ranked = {
        "backtracking": [LatentId(0, 4)],
        "weighing": [],
        "verification": [LatentId(1, 9), LatentId(0, 7)],
        "deduction": [LatentId(0, 8)],
        "initializing": [LatentId(0, 4), LatentId(0, 9)],
    }
    made = plan(
        edit_plan(ABLATE, 1, draws={OTHER: 1}),
        ranked={"rl": ranked},
        sizes=dict.fromkeys(ranked, SIZES),
        barred={behaviour: set() for behaviour in ranked},
    )
    assert [c.latent_names for c in one(made, OTHER)] == ["0:7", "0:8", "0:9"]


def test_controls_are_matched_where_the_edit_acts():
    everywhere = {
        x: LatentSizes(s.firing_rate[::-1], s.mean_active, s.max_active) for x, s in SIZES.items()
    }
    for where, sizes in ((ALL, everywhere[0]), (OPPORTUNITIES, SIZES[0])):
        made = plan(edit_plan(ABLATE, 1, where=where, draws={MATCHED: 3}), overall=everywhere)
        for control in one(made, MATCHED):
            ((_, latent),) = control.latents
            assert 0.4 < sizes.firing_rate[latent] / sizes.firing_rate[4] < 2.5


def test_draws_of_one_kind_are_no_draws_of_another():
    pool = [LatentId(0, i) for i in range(60)]
    made = plan(edit_plan(ABLATE, 1, draws={MATCHED: 3, PERMUTED: 3}), pool={"rl": pool})
    matched, permuted = ([c.latents for c in one(made, kind)] for kind in (MATCHED, PERMUTED))
    assert matched != permuted


def test_this_runs_own_latents_of_the_behaviour_are_no_permuted_matches():
    own = {LatentId(0, i) for i in range(50)}
    pool = [LatentId(0, i) for i in range(60)]
    made = plan(
        edit_plan(ABLATE, 1, draws={PERMUTED: 3}),
        pool={"rl": pool},
        barred=dict.fromkeys(MOVES, own),
    )
    assert one(made, PERMUTED)
    assert not {c.latents[0] for c in one(made, PERMUTED)} & own


def test_where_a_layer_has_no_other_matches_there_is_no_null():
    made = plan(edit_plan(ABLATE, draws={PERMUTED: 3}), pool={"rl": [LatentId(0, 30)]})
    assert one(made, EDIT)
    assert not one(made, PERMUTED)


def test_another_behaviours_latents_leave_out_what_both_share():
    (other,) = one(plan(edit_plan(ABLATE, draws={OTHER: 3})), OTHER)
    assert other.latents == (LatentId(1, 9), LatentId(0, 7))
    assert other.behaviour == "backtracking"


def test_the_same_edit_at_random_positions_takes_the_share_of_opportunities():
    at = edit_plan(ABLATE, where=OPPORTUNITIES, draws={RANDOM_POSITIONS: 1})
    conditions = plan(at)
    (edit,), (anywhere,) = one(conditions, EDIT), one(conditions, RANDOM_POSITIONS)
    assert (edit.positions.kind, edit.positions.behaviour) == (OPPORTUNITIES, "backtracking")
    assert (anywhere.positions.kind, anywhere.positions.share) == (RANDOM_POSITIONS, 0.02)
    assert anywhere.intervention.changes == edit.intervention.changes
    assert anywhere.where == OPPORTUNITIES  # what it stands beside
    assert (
        one(plan(edit_plan(ABLATE, where=ALL, draws={RANDOM_POSITIONS: 1})), RANDOM_POSITIONS) == []
    )


def test_the_mean_difference_is_added_as_large_as_a_clamp_or_projected_out():
    (added,) = one(plan(edit_plan(CLAMP, dose=1.0, draws={MEAN: 1})), MEAN)
    assert set(added.intervention.along) == set(added.intervention.norm_of) == {0, 1}
    (removed,) = one(plan(edit_plan(ABLATE, draws={MEAN: 1})), MEAN)
    removal = removed.intervention.removals[0]
    assert torch.equal(removal.basis, torch.eye(D_MODEL)[:1])
    assert torch.equal(removal.centre, torch.ones(D_MODEL))


def test_other_paths_remove_the_span_from_the_error_or_from_everything():
    conditions = plan(edit_plan(ABLATE, draws={ERROR: 1, RESIDUAL: 1, SPAN: 2}))
    (error,), (whole,) = one(conditions, ERROR), one(conditions, RESIDUAL)
    assert error.intervention.changes
    assert error.intervention.removals[0].of_error
    assert not whole.intervention.changes
    assert not whole.intervention.removals[0].of_error
    direction = material().decoders[0][4]
    assert abs(float(whole.intervention.removals[0].basis[0] @ direction)) == pytest.approx(1)
    spans = one(conditions, SPAN)
    assert [s.intervention.removals[0].basis.shape for s in spans] == [(1, D_MODEL)] * 2


def test_permuted_matches_are_other_matched_latents_in_the_same_layers_that_fire_as_much():
    sizes = SIZES[0]
    alike = [x for x in range(20, 60) if 0.5 < sizes.firing_rate[x] / sizes.firing_rate[4] < 2]
    pool = [LatentId(0, 4), LatentId(1, 2), *(LatentId(x, i) for x in (0, 1) for i in alike)]
    unlike = LatentId(0, int(sizes.firing_rate.argmin()))
    conditions = plan(edit_plan(ABLATE, draws={PERMUTED: 4}), pool={"rl": [*pool, unlike]})
    drawn = one(conditions, PERMUTED)
    assert len({permuted.latents for permuted in drawn}) == 4
    for permuted in drawn:
        assert permuted.layers == "0+1"
        assert set(permuted.latents) <= set(pool[2:])


def test_other_latents_of_the_behaviours_list_are_no_permuted_matches():
    ranked = material().ranked | {"other/run": {"backtracking": [LatentId(0, 4), LatentId(0, 30)]}}
    pool = [LatentId(0, 30), LatentId(0, 31)]
    plan_of_one = edit_plan(ABLATE, 1, draws={PERMUTED: 3}, found_by="other/run")
    conditions = plan(plan_of_one, ranked=ranked, pool={"other/run": pool})
    # There is one, so there is one draw of it.
    assert [c.latent_names for c in one(conditions, PERMUTED)] == ["0:31"]


def test_own_latents_stand_beside_those_found_through_another_run():
    ranked = material().ranked | {"other/run": {"backtracking": [LatentId(0, 30)]}}
    conditions = plan(edit_plan(ABLATE, 1, draws={OWN: 1}, found_by="other/run"), ranked=ranked)
    (own,) = one(conditions, OWN)
    assert (own.latent_names, own.found_by) == ("0:4", "other/run")
    assert own.intervention.changes[0].latents == (4,)
    assert not one(conditions, EDIT, "verification")  # The other run has none.


def test_single_latents_are_told_by_their_place():
    conditions = plan(*(edit_plan(ABLATE, 1, first=first) for first in (0, 1, 2)))
    assert [(c.first, c.latent_names) for c in one(conditions, EDIT, "verification")] == [
        (0, "1:9"),
        (1, "1:2"),
        (2, "0:7"),
    ]
    assert len(one(conditions, EDIT)) == 2  # The other behaviour has but two.


def test_the_plan_is_the_same_each_time():
    plans = [edit_plan(ABLATE, draws={MATCHED: 2, RANDOM: 2, SPAN: 2})]
    once, again = plan(*plans), plan(*plans)
    assert [c.latents for c in once] == [c.latents for c in again]
    for a, b in zip(once, again, strict=True):
        for layer, along in a.intervention.along.items():
            assert torch.equal(along, b.intervention.along[layer])
        for layer, removal in a.intervention.removals.items():
            assert torch.equal(removal.basis, b.intervention.removals[layer].basis)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"everywhere": True, "both": True, "singles": 2, "scales": [0.5], "additions": [2.0]},
        {"where": "all", "set_sizes": [1, 2, 3], "recovery": False},
        {"recovery": True},
        {"other_reader": True, "doses": [1.0], "controls": 5},
    ],
)
@pytest.mark.parametrize("model", ["base", "rl"])
def test_as_many_conditions_are_planned_for_as_are_made_of_full_lists(
    options: dict[str, Any], model: str
):
    own = AblateConfig(**options)
    behaviours = ("backtracking", "verification", "weighing")
    most = max(own.num_latents, own.clamp_latents, *own.set_sizes)
    lists = {m: [LatentId(0, most * n + i) for i in range(most)] for n, m in enumerate(behaviours)}
    sizes = {0: sizes_of(20 * most)}
    given = material(
        ranked={"rl": lists, "base": lists},
        sizes=dict.fromkeys(behaviours, sizes),
        overall=sizes,
        barred={behaviour: set(found) for behaviour, found in lists.items()},
        decoders={0: torch.eye(20 * most)[:, : 2 * most]},
        centres={0: torch.zeros(2 * most)},
        vectors={behaviour: {0: torch.eye(2 * most)[0]} for behaviour in behaviours},
        untaken={behaviour: {0: torch.ones(2 * most)} for behaviour in behaviours},
        shares=dict.fromkeys(behaviours, 0.02),
    )
    made = plan_conditions(edit_plans(own, model), given, seed=0)
    assert len(made) == num_conditions(own, model, len(behaviours))
