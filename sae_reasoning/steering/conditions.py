"""What is done to a model, and with which controls: the conditions of an experiment on it."""

from collections.abc import Collection, Mapping, Sequence
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


UNEDITED = Condition("", NONE, 0.0, NONE, 0, (), NO_EDIT)


def plan_conditions(
    chosen: Mapping[str, Sequence[LatentId]],
    num_draws: Mapping[str, int],
    *,
    sizes: Mapping[int, LatentSizes],
    shortlisted: Collection[LatentId],
    clamp_multiple: float,
    d_model: int,
    seed: int,
) -> list[Condition]:
    """Every edit of every move's latents with its controls, after the one without an edit.

    Args:
        chosen: Latents to edit together, by move.
        num_draws: Edits to make (`ablate`, `clamp`), and how many draws of each control to make.
        sizes: By layer; clamps aim at `clamp_multiple` of `max_active`.
        shortlisted: Latents that may not serve as controls.
        clamp_multiple: Dose of clamps.
        d_model: Width of the residual stream.
        seed: Of the draws.

    Raises:
        ValueError: A layer has too few latents to serve as controls.
    """
    conditions = [UNEDITED]
    most = max(num_draws.values())
    for number, (behaviour, latents) in enumerate(chosen.items()):
        generators = [np.random.default_rng([seed, number, draw]) for draw in range(most)]
        matches = [match_latents(latents, sizes, shortlisted, rng) for rng in generators]
        layers = sorted({latent.layer for latent in latents})
        randoms = [
            {layer: random_direction(d_model, rng) for layer in layers} for rng in generators
        ]
        for edit, draws in num_draws.items():
            dose = clamp_multiple if edit == CLAMP else 0.0
            changes = _changes(latents, edit, dose, sizes)
            conditions.append(
                Condition(behaviour, edit, dose, EDIT, 0, tuple(latents), Intervention(changes))
            )
            for draw, match in enumerate(matches[:draws]):
                # An ablation takes what is there; only a clamp can be made as large as another.
                control = Intervention(
                    _changes(match, edit, dose, sizes), changes if edit == CLAMP else {}
                )
                ids = tuple(LatentId(*latent) for latent in match)
                conditions.append(Condition(behaviour, edit, dose, MATCHED, draw, ids, control))
            for draw, along in enumerate(randoms[:draws]):
                control = Intervention(norm_of=changes, along=along)
                conditions.append(
                    Condition(behaviour, edit, dose, RANDOM, draw, tuple(latents), control)
                )
    return conditions


def _changes(
    latents: Sequence[tuple[int, int]],
    edit: str,
    dose: float,
    sizes: Mapping[int, LatentSizes],
) -> dict[int, LatentChange]:
    """The change of each layer; ablation is a clamp to 0."""
    changes = {}
    for layer in sorted({layer for layer, _ in latents}):
        indices = [latent for l, latent in latents if l == layer]
        values = [dose * float(sizes[layer].max_active[i]) for i in indices]
        changes[layer] = (
            LatentChange.ablate(indices) if edit == ABLATE else LatentChange.clamp(indices, values)
        )
    return changes
