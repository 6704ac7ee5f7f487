"""What is done to a model, and beside what: the conditions of an experiment on it.

An edit acts on a set of a behaviour's latents. Beside it, in the same place and size as far as can
be:

* controls, which should do nothing: `matched_latent`, `random_direction` (see controls.py),
  `random_positions` (the same edit, as often, anywhere), `other_behaviour` (another behaviour's
  latents);
* rivals, other ways to the same end: `mean_difference`, the vector from where the behaviour could
  have started to where it did; it is added in a clamp's size, or projected out;
* other paths, by which what was ablated may come back: `latents_and_error` takes the span of the
  decoder rows from the SAE's error too, `whole_residual` from all of the residual (with a
  `random_span` as its control);
* for latents that were found through another run's: `permuted_match`, matched latents of its other
  latents (a control: any match would do), matched like `matched_latent` so that they fire as much
  where the edit acts, and `own_latents`, the best that this run itself found (what could be had).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.steering.controls import (
    LatentSizes,
    distinct_matches,
    random_direction,
    random_span,
)
from sae_reasoning.steering.edits import NO_EDIT, Intervention, LatentChange, Removal
from sae_reasoning.steering.positions import ALL, OPPORTUNITIES, RANDOM_POSITIONS, Positions

NONE, EDIT = "none", "edit"
MATCHED, RANDOM, OTHER = "matched_latent", "random_direction", "other_behaviour"
MEAN, SPAN = "mean_difference", "random_span"
PERMUTED, OWN = "permuted_match", "own_latents"
ERROR, RESIDUAL = "latents_and_error", "whole_residual"
ABLATE, CLAMP, SCALE, ADD = "ablate", "clamp", "scale", "add"
OWN_READER = "rl"
"""Whose list holds this run's own latents, beside which those of another run stand."""


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
        behaviour: Behaviour whose latents are edited; empty where nothing is.
        edit: `ablate`, `clamp`, `scale`, `add`, or `none`.
        dose: Target in multiples of the latents' maximum (clamp, add), factor (scale); 0 for
            ablation.
        kind: `edit`, what it is compared with, or `none`.
        draw: Which draw of the control; 0 otherwise.
        latents: What is moved (for a bare direction: whose edit it is as large as).
        intervention: What happens to a row.
        positions: Where it happens.
        set_size: Latents of the edit.
        where: `all` or `opportunities`: where the edit acts that this is, or stands beside.
        found_by: The reader, or the other run, in which the edit's latents were found.
        first: Place of the edit's first latent in the behaviour's list.
    """

    behaviour: str
    edit: str
    dose: float
    kind: str
    draw: int
    latents: tuple[LatentId, ...]
    intervention: Intervention
    positions: Positions = field(default_factory=Positions)
    set_size: int = 0
    where: str = ALL
    found_by: str = ""
    first: int = 0

    @property
    def layers(self) -> str:
        """Edited layers, as `1+2`."""
        return "+".join(str(layer) for layer in sorted({latent.layer for latent in self.latents}))

    @property
    def latent_names(self) -> str:
        """Latents as `layer:latent`, space-separated."""
        return " ".join(map(str, self.latents))

    def record(self) -> dict[str, object]:
        """Its columns of the table of generations."""
        return {
            "layer": self.layers,
            "latents": self.latent_names,
            "edit": self.edit,
            "dose": self.dose,
            "set_size": self.set_size,
            "first": self.first,
            "where": self.where,
            "found_by": self.found_by,
            "condition": self.kind,
            "draw": self.draw,
            "behaviour": self.behaviour,
        }


@dataclass(frozen=True)
class EditPlan:
    """One edit of every behaviour, in one model.

    Attributes:
        edit: `ablate`, `clamp`, `scale` or `add`.
        num_latents: The best of a behaviour's latents are edited together, this many.
        dose: As a condition's.
        where: `all` or `opportunities`.
        found_by: Whose latents.
        draws: By kind of what it is compared with, how many draws; each of other behaviours, if
            any.
        first: Place of the first latent in the list; others than 0 for single latents.
    """

    edit: str
    num_latents: int
    dose: float = 0.0
    where: str = ALL
    found_by: str = ""
    draws: Mapping[str, int] = field(default_factory=dict)
    first: int = 0


@dataclass(frozen=True)
class Material:
    """What edits of one model are made of.

    Attributes:
        ranked: Latents of each behaviour, the best first; by who found them. This run's own are
            `rl`'s.
        sizes: By behaviour and layer, at the behaviour's opportunities; clamps aim at multiples of
            `max_active`.
        overall: By layer, at all tokens.
        barred: By behaviour, latents that may not serve as matched ones.
        decoders: Decoder rows by layer.
        centres: By layer, the residual of which no latent is active.
        vectors: By behaviour and layer, from the mean residual where the behaviour didn't start to
            that where it did, of norm 1.
        untaken: By behaviour and layer, the mean residual where it didn't start.
        shares: By behaviour, opportunities among generated tokens.
        pool: Latents among which permuted matches are drawn; by who found them.
    """

    ranked: Mapping[str, Mapping[str, Sequence[LatentId]]]
    sizes: Mapping[str, Mapping[int, LatentSizes]]
    overall: Mapping[int, LatentSizes]
    barred: Mapping[str, Collection[LatentId]]
    decoders: Mapping[int, Float[Tensor, "d_sae d_model"]]
    centres: Mapping[int, Float[Tensor, " d_model"]]
    vectors: Mapping[str, Mapping[int, Float[Tensor, " d_model"]]] = field(default_factory=dict)
    untaken: Mapping[str, Mapping[int, Float[Tensor, " d_model"]]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    pool: Mapping[str, Sequence[LatentId]] = field(default_factory=dict)


UNEDITED = Condition("", NONE, 0.0, NONE, 0, (), NO_EDIT)


def plan_conditions(plans: Sequence[EditPlan], material: Material, *, seed: int) -> list[Condition]:
    """Every edit of every behaviour's latents with what it is compared with, after the one without.

    Args:
        plans: Edits to make.
        material: Of the model.
        seed: Of the draws.

    Raises:
        ValueError: A layer has too few latents to serve as controls.
    """
    conditions = [UNEDITED]
    behaviours = list(
        dict.fromkeys(behaviour for ranked in material.ranked.values() for behaviour in ranked)
    )
    for number, behaviour in enumerate(behaviours):
        made_before = set()
        for plan in plans:
            ranked = material.ranked[plan.found_by].get(behaviour, ())
            latents = tuple(ranked[plan.first : plan.first + plan.num_latents])
            # A short list gives a larger set the latents of a smaller one.
            key = (latents, plan.edit, plan.dose, plan.where, plan.found_by, plan.first)
            if not latents or key in made_before:
                continue
            made_before.add(key)
            beside = _Beside(behaviour, latents, plan, material, [seed, number])
            conditions += [
                Condition(
                    behaviour,
                    plan.edit,
                    plan.dose,
                    made.kind,
                    made.draw,
                    made.latents,
                    made.intervention,
                    beside.positions if made.kind != RANDOM_POSITIONS else beside.at_random,
                    len(latents),
                    plan.where,
                    plan.found_by,
                    plan.first,
                )
                for made in beside.all()
            ]
    return conditions


class _Made(NamedTuple):
    kind: str
    draw: int
    latents: tuple[LatentId, ...]
    intervention: Intervention


class _Beside:
    """An edit of one behaviour's latents, and what it is compared with."""

    def __init__(
        self,
        behaviour: str,
        latents: tuple[LatentId, ...],
        plan: EditPlan,
        material: Material,
        seed: Sequence[int],
    ) -> None:
        self._behaviour, self._latents = behaviour, latents
        self._plan, self._material, self._seed = plan, material, seed
        is_local = plan.where == OPPORTUNITIES
        self._sizes = material.sizes[behaviour] if is_local else material.overall
        self._changes = self._changes_of(latents)
        self.positions = Positions(plan.where, behaviour) if is_local else Positions()
        self.at_random = Positions(RANDOM_POSITIONS, behaviour, material.shares.get(behaviour, 0.0))

    def all(self) -> Iterator[_Made]:
        """The edit first."""
        makers: dict[str, Callable[[], Iterator[_Made]]] = {
            MATCHED: self._matched,
            RANDOM: self._random,
            RANDOM_POSITIONS: self._at_random,
            OTHER: self._other_behaviours,
            MEAN: self._mean_difference,
            ERROR: self._without_error,
            RESIDUAL: self._without_residual,
            SPAN: self._random_spans,
            PERMUTED: self._permuted,
            OWN: self._own,
        }
        yield _Made(EDIT, 0, self._latents, Intervention(self._changes))
        for kind, make in makers.items():
            if self._plan.draws.get(kind):
                yield from make()

    def _generators(self, kind: str) -> Iterator[tuple[int, np.random.Generator]]:
        for draw in range(self._plan.draws[kind]):
            yield draw, np.random.default_rng([*self._seed, draw, *kind.encode()])

    @property
    def _as_large(self) -> dict[int, LatentChange]:
        """An ablation takes what is there; other edits can be made as large as another."""
        return self._changes if self._plan.edit in (CLAMP, ADD) else {}

    def _moved(self, kind: str, draw: int, latents: Sequence[LatentId]) -> _Made:
        """The same edit on other latents."""
        chosen = tuple(latents)
        return _Made(kind, draw, chosen, Intervention(self._changes_of(chosen), self._as_large))

    def _matched(self) -> Iterator[_Made]:
        yield from self._as_big(MATCHED, self._material.barred[self._behaviour])

    def _as_big(self, kind: str, barred: Collection[LatentId]) -> Iterator[_Made]:
        """The same edit on other latents that fire as much."""
        rngs = [rng for _, rng in self._generators(kind)]
        sets = distinct_matches(self._latents, self._sizes, barred, rngs)
        for draw, chosen in enumerate(sets):
            yield self._moved(kind, draw, [LatentId(*latent) for latent in chosen])

    def _random(self) -> Iterator[_Made]:
        for draw, rng in self._generators(RANDOM):
            along = {x: random_direction(self._width, rng) for x in self._changes}
            yield _Made(
                RANDOM, draw, self._latents, Intervention(norm_of=self._changes, along=along)
            )

    def _at_random(self) -> Iterator[_Made]:
        # With no share it would edit nothing, so that any edit would beat it.
        if self.positions.kind == OPPORTUNITIES and self.at_random.share > 0:
            yield _Made(RANDOM_POSITIONS, 0, self._latents, Intervention(self._changes))

    def _other_behaviours(self) -> Iterator[_Made]:
        """As many latents in the same layers, without those that both behaviours share."""
        own = set(self._latents)
        others = [
            [x for x in ranked if x not in own and x.layer in self._changes][: len(self._latents)]
            for behaviour, ranked in self._material.ranked[self._plan.found_by].items()
            if behaviour != self._behaviour
        ]
        for draw, latents in enumerate(filter(None, others)):
            yield self._moved(OTHER, draw, latents)

    def _mean_difference(self) -> Iterator[_Made]:
        vectors = self._material.vectors.get(self._behaviour, {})
        along = {layer: vectors[layer] for layer in self._changes if layer in vectors}
        if not along:
            return
        if self._plan.edit in (CLAMP, ADD):
            made = Intervention(norm_of=self._changes, along=along)
        else:
            untaken = self._material.untaken[self._behaviour]
            made = Intervention(
                removals={
                    x: Removal(vector[None], untaken[x], of_error=False)
                    for x, vector in along.items()
                }
            )
        yield _Made(MEAN, 0, self._latents, made)

    def _spans(self, *, of_error: bool) -> dict[int, Removal]:
        return {
            layer: Removal.span(
                self._material.decoders[layer][list(change.latents)].cpu(),
                self._material.centres[layer],
                of_error=of_error,
            )
            for layer, change in self._changes.items()
        }

    def _without_error(self) -> Iterator[_Made]:
        spans = self._spans(of_error=True)
        yield _Made(ERROR, 0, self._latents, Intervention(self._changes, removals=spans))

    def _without_residual(self) -> Iterator[_Made]:
        spans = self._spans(of_error=False)
        yield _Made(RESIDUAL, 0, self._latents, Intervention(removals=spans))

    def _random_spans(self) -> Iterator[_Made]:
        for draw, rng in self._generators(SPAN):
            removals = {
                layer: Removal(
                    random_span(self._width, len(own.basis), rng), own.centre, of_error=False
                )
                for layer, own in self._spans(of_error=False).items()
            }
            yield _Made(SPAN, draw, self._latents, Intervention(removals=removals))

    def _permuted(self) -> Iterator[_Made]:
        found_by = self._plan.found_by
        own = self._material.ranked[found_by][self._behaviour]
        pool = set(self._material.pool[found_by]).difference(own)
        pool = pool.difference(self._material.barred[self._behaviour])
        every = (
            LatentId(layer, latent)
            for layer, sizes in self._sizes.items()
            for latent in range(len(sizes.firing_rate))
        )
        try:
            yield from self._as_big(PERMUTED, [latent for latent in every if latent not in pool])
        except ValueError:
            return  # Too few matched latents in one of the layers: what they'd do isn't known.

    def _own(self) -> Iterator[_Made]:
        own = self._material.ranked[OWN_READER].get(self._behaviour, ())
        if latents := tuple(own[: self._plan.num_latents]):
            yield _Made(OWN, 0, latents, Intervention(self._changes_of(latents)))

    @property
    def _width(self) -> int:
        return int(next(iter(self._material.centres.values())).shape[0])

    def _changes_of(self, latents: Sequence[LatentId]) -> dict[int, LatentChange]:
        """The change of each layer; ablation is a clamp to 0."""
        edit, dose = self._plan.edit, self._plan.dose
        changes = {}
        for layer in sorted({layer for layer, _ in latents}):
            indices = [latent for l, latent in latents if l == layer]
            values = [dose * float(self._sizes[layer].max_active[i]) for i in indices]
            if edit == ABLATE:
                changes[layer] = LatentChange.ablate(indices)
            elif edit == SCALE:
                changes[layer] = LatentChange.scale(indices, dose)
            else:
                change = LatentChange.clamp if edit == CLAMP else LatentChange.add
                changes[layer] = change(indices, values)
        return changes
