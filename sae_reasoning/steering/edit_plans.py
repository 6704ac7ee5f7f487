"""Which edits a config asks for, before it's known of which latents: one list a model."""

from collections.abc import Mapping

from sae_reasoning.config import AblateConfig
from sae_reasoning.steering.conditions import (
    ABLATE,
    ADD,
    CLAMP,
    ERROR,
    MATCHED,
    MEAN,
    OTHER,
    OWN,
    PERMUTED,
    RANDOM,
    RANDOM_POSITIONS,
    RESIDUAL,
    SCALE,
    SPAN,
    EditPlan,
)
from sae_reasoning.steering.positions import ALL, OPPORTUNITIES

MAIN_EDIT = {"base": CLAMP, "rl": ABLATE}
"""Sufficiency where the behaviours are rare, necessity where they are deployed."""


def num_conditions(
    own: AblateConfig, model: str, num_behaviours: int, *, is_single: bool = False
) -> int:
    """Conditions of one model at most: no edit, and each behaviour's edits with their controls.

    So many where every behaviour's list is as long as the largest set, and none holds another's
    latents.
    """
    plans = edit_plans(own, model, is_single=is_single)
    return 1 + num_behaviours * sum(1 + _num_beside(plan, num_behaviours) for plan in plans)


def _num_beside(plan: EditPlan, num_behaviours: int) -> int:
    """Controls, rivals and the like of one behaviour's edit."""
    draws = dict(plan.draws)
    if OTHER in draws:
        draws[OTHER] = num_behaviours - 1
    if plan.where != OPPORTUNITIES:
        draws.pop(RANDOM_POSITIONS, None)  # Where every token is edited, there are no others.
    return sum(draws.values())


def edit_plans(own: AblateConfig, model: str, *, is_single: bool = False) -> list[EditPlan]:
    """Edits of one model: the main one with all that it is compared with, then variations."""
    edit = MAIN_EDIT[model]
    if own.matches_of:
        beside = {MATCHED: own.controls, RANDOM: own.controls, OTHER: 1}
        beside |= {PERMUTED: own.permutations, OWN: 1}
        through = [
            _main(own, edit, num_latents=size, found_by=own.matches_of, draws=beside)
            for size in (0, *own.set_sizes)  # 0 is the main set.
        ]
        return list({_key(plan): plan for plan in through}.values())
    beside = {MATCHED: own.controls, RANDOM: own.controls, RANDOM_POSITIONS: 1, OTHER: 1, MEAN: 1}
    if own.recovery and edit == ABLATE:
        beside |= {ERROR: 1, RESIDUAL: 1, SPAN: own.controls}
    main = _main(own, edit)
    plans = {_key(main): _main(own, edit, draws=beside)}

    def also(plan: EditPlan) -> None:
        plans.setdefault(_key(plan), plan)

    told = {MATCHED: own.controls, RANDOM: own.controls}
    for size in own.set_sizes:
        also(_main(own, edit, num_latents=size, draws=told))
    if edit == CLAMP:
        for dose in own.doses:
            also(_main(own, edit, dose=dose, draws={MEAN: 1}))
    for name, values in ((SCALE, own.scales), (ADD, own.additions)):
        for dose in values:
            also(_main(own, name, num_latents=main.num_latents, dose=dose, draws=told))
    if own.everywhere:
        also(_main(own, edit, where=ALL, draws=told))
    if own.other_reader and not own.reviews and not is_single:  # Nobody reviewed those.
        also(_main(own, edit, found_by="base", draws=told))
    if own.both:
        other = next(e for e in (ABLATE, CLAMP) if e != edit)
        also(_main(own, other, draws=told))
    for first in range(own.singles):
        also(_main(own, edit, num_latents=1, first=first, draws=told))
    return list(plans.values())


def _main(
    own: AblateConfig,
    edit: str,
    *,
    num_latents: int = 0,
    dose: float | None = None,
    where: str = "",
    found_by: str = "rl",
    draws: Mapping[str, int] | None = None,
    first: int = 0,
) -> EditPlan:
    main_size = own.clamp_latents if edit == CLAMP else own.num_latents
    main_dose = own.clamp_multiple if edit == CLAMP else 0.0
    return EditPlan(
        edit,
        num_latents or main_size,
        main_dose if dose is None else dose,
        where or own.where,
        found_by,
        draws or {},
        first,
    )


def _key(plan: EditPlan) -> tuple[object, ...]:
    return plan.edit, plan.num_latents, plan.dose, plan.where, plan.found_by, plan.first
