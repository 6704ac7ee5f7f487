"""What is done to a model, and with which controls: the conditions of an experiment on it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sae_reasoning.steering.controls import LatentSizes, match_latents, random_direction
from sae_reasoning.steering.edits import NO_EDIT, Intervention, LatentChange

NONE, EDIT, MATCHED, RANDOM = "none", "edit", "matched_latent", "random_direction"
ABLATE, CLAMP = "ablate", "clamp"


class LatentId(NamedTuple):
    """A latent of the one dictionary of its layer."""

    layer: int
    latent: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.latent}"


@dataclass(frozen=True, eq=False)
class Condition:
    """One way to treat a model's rollouts.

    Attributes:
        behaviour: Move whose latents are edited; empty where nothing is.
        edit: `ablate`, `clamp`, or `none`.
        dose: Target in multiples of the latents' maximum; 0 for ablation.
        kind: `edit`, one of its controls (`matched_latent`, `random_direction`), or `none`.
        draw: Which draw of the control; 0 otherwise.
        latents: What is moved (for a random direction: whose edit it is as large as).
        intervention: What happens to a row.
    """

    behaviour: str
    edit: str
    dose: float
    kind: str
    draw: int
    latents: tuple[LatentId, ...]
    intervention: Intervention

    @property
    def layers(self) -> str:
        """Edited layers, as `1+2`."""
        return "+".join(str(layer) for layer in sorted({latent.layer for latent in self.latents}))

    @property
    def latent_names(self) -> str:
        """Latents as `layer:latent`, space-separated."""
        return " ".join(map(str, self.latents))


@dataclass(frozen=True)
class EditPlan:
    """One kind of edit of every move, in one model.

    Attributes:
        edit: `ablate` or `clamp`.
        num_latents: The best of a move's latents are edited together, this many.
        num_draws: Draws of each control.
        dose: Target in multiples of the latents' maximum; 0 for ablation.
    """

    edit: str
    num_latents: int
    num_draws: int
    dose: float = 0.0


UNEDITED = Condition("", NONE, 0.0, NONE, 0, (), NO_EDIT)


def plan_conditions(
    ranked: Mapping[str, Sequence[LatentId]],
    plans: Sequence[EditPlan],
    *,
    sizes: Mapping[int, LatentSizes],
    shortlisted: Collection[LatentId],
    d_model: int,
    seed: int,
) -> list[Condition]:
    """Every edit of every move's latents with its controls, after the one without an edit.

    Args:
        ranked: Latents of each move, the best first.
        plans: Edits to make.
        sizes: By layer; clamps aim at multiples of `max_active`.
        shortlisted: Latents that may not serve as controls.
        d_model: Width of the residual stream.
        seed: Of the draws.

    Raises:
        ValueError: A layer has too few latents to serve as controls.
    """
    conditions = [UNEDITED]
    for number, (behaviour, best) in enumerate(ranked.items()):
        for plan in plans:
            latents = tuple(best[: plan.num_latents])
            conditions += [
                Condition(behaviour, plan.edit, plan.dose, kind, draw, moved, intervention)
                for kind, draw, moved, intervention in _edit_and_controls(
                    latents, plan, sizes, shortlisted, d_model, [seed, number]
                )
            ]
    return conditions


def _edit_and_controls(
    latents: tuple[LatentId, ...],
    plan: EditPlan,
    sizes: Mapping[int, LatentSizes],
    shortlisted: Collection[LatentId],
    d_model: int,
    seed: Sequence[int],
) -> Iterator[tuple[str, int, tuple[LatentId, ...], Intervention]]:
    """Kind, draw, latents that are moved, and what is done, of one edit and of its controls."""
    changes = _changes(latents, plan, sizes)
    generators = [np.random.default_rng([*seed, draw]) for draw in range(plan.num_draws)]
    yield EDIT, 0, latents, Intervention(changes)
    for draw, rng in enumerate(generators):
        match = tuple(LatentId(*m) for m in match_latents(latents, sizes, shortlisted, rng))
        # An ablation takes what is there; only a clamp can be made as large as another.
        as_large_as = changes if plan.edit == CLAMP else {}
        yield MATCHED, draw, match, Intervention(_changes(match, plan, sizes), as_large_as)
    for draw, rng in enumerate(generators):
        along = {layer: random_direction(d_model, rng) for layer in changes}
        yield RANDOM, draw, latents, Intervention(norm_of=changes, along=along)


def _changes(
    latents: Sequence[LatentId], plan: EditPlan, sizes: Mapping[int, LatentSizes]
) -> dict[int, LatentChange]:
    """The change of each layer; ablation is a clamp to 0."""
    changes = {}
    for layer in sorted({layer for layer, _ in latents}):
        indices = [latent for l, latent in latents if l == layer]
        if plan.edit == ABLATE:
            changes[layer] = LatentChange.ablate(indices)
        else:
            values = [plan.dose * float(sizes[layer].max_active[i]) for i in indices]
            changes[layer] = LatentChange.clamp(indices, values)
    return changes
