"""Edits of the residual stream through the latents of an SAE.

An edit moves latents and adds what that changes, so whatever the SAE can't explain (its error term)
stays as it was: with latent activations f and decoder rows d,

    ablate   adds (0 - f) d            clamp   adds (target - f) d
    scale    adds (factor - 1) f d     add     adds norm * direction

All of them are `f -> (1 + gain) f + offset`. `RowEdits` holds gains and offsets of many
interventions, so that rows of one batch can each undergo their own at the cost of one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Residuals [row, d_model] to the active latents: values [row, k] and indices [row, k]."""


def ablate(
    resid: Float[Tensor, "*batch d_model"],
    latents: Float[Tensor, "*batch latent"],
    directions: Float[Tensor, "latent d_model"],
) -> Float[Tensor, "*batch d_model"]:
    """Remove exactly what the chosen latents contribute.

    Args:
        resid: Residual stream after the edited block.
        latents: Their present activations.
        directions: Their decoder rows.
    """
    return _add_change(resid, -latents, directions)


def clamp(
    resid: Float[Tensor, "*batch d_model"],
    latents: Float[Tensor, "*batch latent"],
    directions: Float[Tensor, "latent d_model"],
    target: float | Float[Tensor, "*#batch latent"],
) -> Float[Tensor, "*batch d_model"]:
    """Move each chosen latent to `target`; 0 ablates."""
    return _add_change(resid, target - latents, directions)


def scale(
    resid: Float[Tensor, "*batch d_model"],
    latents: Float[Tensor, "*batch latent"],
    directions: Float[Tensor, "latent d_model"],
    factor: float,
) -> Float[Tensor, "*batch d_model"]:
    """Multiply the chosen latents by `factor`; 1 changes nothing."""
    return _add_change(resid, (factor - 1) * latents, directions)


def add(
    resid: Float[Tensor, "*batch d_model"],
    direction: Float[Tensor, " d_model"],
    norm: float | Float[Tensor, "*batch 1"],
) -> Float[Tensor, "*batch d_model"]:
    """Add a direction of unit norm, `norm` times."""
    return resid + (norm * direction).to(resid.dtype)


def _add_change(resid: Tensor, change: Tensor, directions: Tensor) -> Tensor:
    return resid + (change @ directions.to(change.dtype)).to(resid.dtype)


@dataclass(frozen=True)
class LatentChange:
    """What happens to a set of latents of one layer: f becomes (1 + gain) f + offset.

    Attributes:
        latents: Indices in the layer's dictionary.
        gains: One a latent; -1 removes what is there.
        offsets: One a latent.
    """

    latents: tuple[int, ...]
    gains: tuple[float, ...]
    offsets: tuple[float, ...]

    @classmethod
    def ablate(cls, latents: Sequence[int]) -> Self:
        """All to 0."""
        return cls.clamp(latents, [0.0] * len(latents))

    @classmethod
    def clamp(cls, latents: Sequence[int], values: Sequence[float]) -> Self:
        """Each to its value."""
        if len(values) != len(latents):
            raise ValueError(f"{len(latents)} latents need as many values, not {len(values)}")
        return cls(tuple(latents), (-1.0,) * len(latents), tuple(values))

    @classmethod
    def scale(cls, latents: Sequence[int], factor: float) -> Self:
        """All multiplied by `factor`."""
        return cls(tuple(latents), (factor - 1.0,) * len(latents), (0.0,) * len(latents))


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is done to one row, at every edited position.

    Attributes:
        changes: Latents that are moved, by layer.
        norm_of: By layer, the change whose norm this intervention takes at each position instead of
            its own; a control is thereby as large as what it controls for, wherever that acts.
        along: By layer, the direction of unit norm to go along instead of decoder rows; needs
            `norm_of` for its size.
    """

    changes: Mapping[int, LatentChange] = field(default_factory=dict)
    norm_of: Mapping[int, LatentChange] = field(default_factory=dict)
    along: Mapping[int, Float[Tensor, " d_model"]] = field(default_factory=dict)

    @property
    def layers(self) -> frozenset[int]:
        """Layers it acts on."""
        return frozenset(self.changes) | frozenset(self.along)


NO_EDIT = Intervention()


class RowEdits:
    """Interventions on the rows of one generation, as one edit a layer.

        edits = RowEdits(interventions, intervention_of_row, {layer: (encode, decoder)})
        generate(..., edits=edits.by_layer)

    Latents are encoded once a step and layer, on the residual stream as it arrives there, and only
    for rows that are edited. Rows are indices into the prompts of that generation.
    """

    def __init__(
        self,
        interventions: Sequence[Intervention],
        intervention_of_row: Int[Tensor, " row"],
        dictionaries: Mapping[int, tuple[Encode, Float[Tensor, "d_sae d_model"]]],
    ) -> None:
        """Lay out gains and offsets.

        Args:
            interventions: What can happen to a row.
            intervention_of_row: For each row, which of them does.
            dictionaries: By layer, how to encode, and the decoder rows (unit norm).
        """
        layers = sorted(frozenset().union(*(i.layers for i in interventions)))
        self._layers = {
            layer: _LayerEdit(layer, interventions, intervention_of_row, *dictionaries[layer])
            for layer in layers
        }

    @property
    def by_layer(self) -> dict[int, Callable[[Tensor, Tensor], Tensor]]:
        """The edit of each edited layer, as `generate` takes it."""
        return dict(self._layers)

    def norms(
        self, num_positions: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
        """Summed norm of what was added to each row, and how often; every layer counts.

        Args:
            num_positions: Positions of each row that count, from its first: a batch goes on editing
                rows that have ended for a while.
        """
        total = torch.zeros(len(num_positions))
        count = torch.zeros(len(num_positions), dtype=torch.int64)
        for edit in self._layers.values():
            seen = torch.zeros_like(num_positions)
            for rows, norms in ((rows.cpu(), norms.cpu()) for rows, norms in edit.log):
                norms = torch.where(seen[rows] < num_positions[rows], norms, 0.0)
                total[rows] += norms
                count[rows] += norms > 0
                seen[rows] += 1
        return total, count


class _LayerEdit:
    """All rows' edits of one layer; callable on the rows that are still generating."""

    def __init__(
        self,
        layer: int,
        interventions: Sequence[Intervention],
        intervention_of_row: Tensor,
        encode: Encode,
        decoder: Tensor,
    ) -> None:
        self._encode = encode
        device = decoder.device
        changes = [i.changes.get(layer) for i in interventions]
        norms = [i.norm_of.get(layer) for i in interventions]
        moved = sorted({n for c in (*changes, *norms) if c is not None for n in c.latents})
        column = {latent: index for index, latent in enumerate(moved)}
        self._directions = decoder[torch.tensor(moved, dtype=torch.int64, device=device)].float()
        # Latents that nothing moves share one more column, which is dropped.
        self._column_of = torch.full((len(decoder),), len(moved), device=device)
        self._column_of[torch.tensor(moved, dtype=torch.int64)] = torch.arange(
            len(moved), device=device
        )
        self._gains, self._offsets = _tables(changes, column, device)
        self._norm_gains, self._norm_offsets = _tables(norms, column, device)
        self._takes_norm = torch.tensor([n is not None for n in norms], device=device)
        self._along = torch.zeros(len(interventions), decoder.shape[1], device=device)
        for index, intervention in enumerate(interventions):
            if (direction := intervention.along.get(layer)) is not None:
                self._along[index] = direction.to(self._along)
        acts = torch.tensor([layer in i.layers for i in interventions], device=device)
        self._intervention = intervention_of_row.to(device)
        self._is_edited = acts[self._intervention]
        self._any_norm = bool(self._takes_norm[self._intervention].any())
        self._any_along = any(layer in i.along for i in interventions)
        self.log: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, resid: Float[Tensor, "batch d_model"], rows: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch d_model"]:
        edited = self._is_edited[rows].nonzero().squeeze(1)
        if not len(edited):
            return resid
        rows, before = rows[edited], resid[edited]
        which = self._intervention[rows]
        values, active = self._encode(before)
        table = values.new_zeros((len(values), len(self._directions) + 1), dtype=torch.float32)
        latents = table.scatter_(1, self._column_of[active], values.float())[:, :-1]
        change = self._change(latents, self._gains[which], self._offsets[which])
        if self._any_along:
            change = change + self._along[which]
        norm = change.norm(dim=1)
        if self._any_norm:
            wanted = self._change(latents, self._norm_gains[which], self._norm_offsets[which])
            # Where a control moves nothing there is no direction to lengthen; it stays still.
            factor = wanted.norm(dim=1) / norm.clamp_min(torch.finfo(norm.dtype).tiny)
            factor = torch.where(norm > 0, factor, 0.0)
            factor = torch.where(self._takes_norm[which], factor, 1.0)
            change, norm = change * factor[:, None], norm * factor
        self.log.append((rows, norm))
        return resid.index_copy(0, edited, before + change.to(resid.dtype))

    def _change(self, latents: Tensor, gains: Tensor, offsets: Tensor) -> Tensor:
        return torch.addcmul(offsets, gains, latents) @ self._directions


def _tables(
    changes: Sequence[LatentChange | None], column: Mapping[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Gains and offsets [intervention, latent], 0 where nothing is moved."""
    gains, offsets = torch.zeros(2, len(changes), len(column), device=device)
    for row, change in enumerate(changes):
        if change is None:
            continue
        for latent, gain, offset in zip(change.latents, change.gains, change.offsets, strict=True):
            gains[row, column[latent]] += gain
            offsets[row, column[latent]] += offset
    return gains, offsets
