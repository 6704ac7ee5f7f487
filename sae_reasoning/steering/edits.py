"""Edits of the residual stream through the latents of an SAE.

An edit changes latents and adds the difference, so whatever the SAE can't explain (its error term)
stays as it was: with latent activations f and decoder rows d,

    ablate   adds (0 - f) d            clamp   adds (target - f) d
    scale    adds (factor - 1) f d     add     adds norm * direction

All of them are `f -> (1 + gain) f + offset`. `RowEdits` holds gains and offsets of many
interventions, so that rows of one batch can each undergo their own at the cost of one. A bare
direction is added (`Intervention.along`) or projected out (`Removal`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.records import Additions

Encode = Callable[..., tuple[Tensor, Tensor]]
"""Residuals [row, d_model] to the active latents: values [row, k] and indices [row, k].

A code of two models is asked with those of the edited model, then with those of the other."""

Others = Callable[[int], Float[Tensor, "batch d_model"]]
"""By layer, another model's residuals of the position that is edited, for every row there."""

When = Callable[[Tensor], Tensor]
"""Rows that are about to be edited [batch] to whether each is, at its present position [batch]."""


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

    @classmethod
    def add(cls, latents: Sequence[int], values: Sequence[float]) -> Self:
        """To each its value, whatever is there."""
        if len(values) != len(latents):
            raise ValueError(f"{len(latents)} latents need as many values, not {len(values)}")
        return cls(tuple(latents), (0.0,) * len(latents), tuple(values))


@dataclass(frozen=True, eq=False)
class Removal:
    """A subspace that is projected out of a residual, or of what the SAE leaves of it.

    With basis B, residual x, centre b, latents f and decoder rows d it adds `- (y B^T) B`, where y
    is `x - b`, or the error `x - b - f d`.

    Attributes:
        basis: Orthonormal rows.
        centre: Where nothing of the subspace is left.
        of_error: Whether only the error loses it.
    """

    basis: Float[Tensor, "rank d_model"]
    centre: Float[Tensor, " d_model"]
    of_error: bool

    @classmethod
    def span(
        cls,
        directions: Float[Tensor, "direction d_model"],
        centre: Float[Tensor, " d_model"],
        *,
        of_error: bool,
    ) -> Self:
        """Remove what some directions span."""
        _, sizes, rows = torch.linalg.svd(directions.double(), full_matrices=False)
        kept = sizes > 1e-6 * sizes.max()
        return cls(rows[kept].to(directions.dtype), centre, of_error)


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is done to one row, at every edited position.

    Attributes:
        changes: Latents that are moved, by layer.
        norm_of: By layer, the change whose norm this intervention takes at each position instead of
            its own; a control is thereby as large as what it controls for, wherever that acts.
        along: By layer, a vector that is added, beside decoder rows or instead of them.
        removals: By layer, what is projected out; as large as it is, whatever `norm_of` says.
    """

    changes: Mapping[int, LatentChange] = field(default_factory=dict)
    norm_of: Mapping[int, LatentChange] = field(default_factory=dict)
    along: Mapping[int, Float[Tensor, " d_model"]] = field(default_factory=dict)
    removals: Mapping[int, Removal] = field(default_factory=dict)

    @property
    def layers(self) -> frozenset[int]:
        """Layers it acts on."""
        return frozenset(self.changes) | frozenset(self.along) | frozenset(self.removals)


NO_EDIT = Intervention()


class RowEdits:
    """Interventions on the rows of one generation, as one edit a layer.

        edits = RowEdits(interventions, intervention_of_row, {layer: (encode, decoder)}, when=…)
        generate(..., edits=edits.by_layer)

    Latents are encoded once a step and layer, on the residual stream as it arrives there, and only
    for rows that are edited there. Rows are indices into the prompts of that generation.
    """

    def __init__(
        self,
        interventions: Sequence[Intervention],
        intervention_of_row: Int[Tensor, " row"],
        dictionaries: Mapping[int, tuple[Encode, Float[Tensor, "d_sae d_model"]]],
        when: When | None = None,
        others: Others | None = None,
    ) -> None:
        """Lay out gains and offsets.

        Args:
            interventions: What can happen to a row.
            intervention_of_row: For each row, which of them does.
            dictionaries: By layer, how to encode, and the decoder rows (unit norm; of a code of two
                models the edited one's).
            when: Asked before each layer's edit which rows are edited at their present position;
                all are where it's left out.
            others: Another model's residuals, where the code is of two models.
        """
        layers = sorted(frozenset().union(*(i.layers for i in interventions)))
        self._intervention_of_row = intervention_of_row
        self._layers = {
            layer: _LayerEdit(
                layer, interventions, intervention_of_row, *dictionaries[layer], when, others
            )
            for layer in layers
        }

    @property
    def by_layer(self) -> dict[int, Callable[[Tensor, Tensor], Tensor]]:
        """The edit of each edited layer, as `generate` takes it."""
        return dict(self._layers)

    def additions(self, num_positions: Mapping[int, int]) -> dict[int, Additions]:
        """What was added to rows, and where.

        Args:
            num_positions: By row, how many of its positions count, from its first: a batch goes on
                editing rows that have ended for a while.
        """
        size = len(self._intervention_of_row)
        most = torch.zeros(size, dtype=torch.int64)
        most[list(num_positions)] = torch.tensor(list(num_positions.values()))
        total, count = torch.zeros(size), torch.zeros(size, dtype=torch.int64)
        places: dict[int, set[int]] = {row: set() for row in num_positions}
        for edit in self._layers.values():
            first = edit.first_call.cpu()
            for call, rows, norms in ((c, r.cpu(), n.cpu().float()) for c, r, n in edit.log):
                position = call - first[rows]
                norms = torch.where(position < most[rows], norms, 0.0)
                total[rows] += norms
                count[rows] += norms > 0
                for row, place in torch.stack([rows, position], 1)[norms > 0].tolist():
                    places[row].add(place)
        return {
            row: Additions(float(total[row]), int(count[row]), tuple(sorted(own)))
            for row, own in places.items()
        }


class _LayerEdit:
    """All rows' edits of one layer; callable on the rows that are still generating."""

    def __init__(
        self,
        layer: int,
        interventions: Sequence[Intervention],
        intervention_of_row: Tensor,
        encode: Encode,
        decoder: Tensor,
        when: When | None,
        others: Others | None,
    ) -> None:
        self._encode, self._decoder, self._when = encode, decoder, when
        self._layer, self._others = layer, others
        device = decoder.device
        like = torch.zeros((), dtype=torch.promote_types(decoder.dtype, torch.float32)).to(device)
        changes = [i.changes.get(layer) for i in interventions]
        norms = [i.norm_of.get(layer) for i in interventions]
        moved = sorted({n for c in (*changes, *norms) if c is not None for n in c.latents})
        column = {latent: index for index, latent in enumerate(moved)}
        self._directions = decoder[torch.tensor(moved, dtype=torch.int64, device=device)].to(like)
        # Latents that nothing changes share one more column, which is dropped.
        self._column_of = torch.full((len(decoder),), len(moved), device=device)
        self._column_of[torch.tensor(moved, dtype=torch.int64)] = torch.arange(
            len(moved), device=device
        )
        self._gains, self._offsets = _tables(changes, column, like)
        self._norm_gains, self._norm_offsets = _tables(norms, column, like)
        self._takes_norm = torch.tensor([n is not None for n in norms], device=device)
        self._along = like.new_zeros(len(interventions), decoder.shape[1])
        for index, intervention in enumerate(interventions):
            if (direction := intervention.along.get(layer)) is not None:
                self._along[index] = direction.to(self._along)
        acts = torch.tensor([layer in i.layers for i in interventions], device=device)
        self._intervention = intervention_of_row.to(device)
        self._is_edited = acts[self._intervention]
        self._any_norm = bool(self._takes_norm[self._intervention].any())
        self._any_along = any(layer in i.along for i in interventions)
        self._removals = _RemovalTable([i.removals.get(layer) for i in interventions], like)
        self._calls = 0
        self._rows: Tensor | None = None
        self._edited_here = self._rows_here = torch.empty(0)
        self._own_here: _Own
        self.first_call = torch.full_like(self._intervention, -1)
        self.log: list[tuple[int, Tensor, Tensor]] = []

    def __call__(
        self, resid: Float[Tensor, "batch d_model"], rows: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch d_model"]:
        if rows is not self._rows:
            self._meet(rows)
        self._calls += 1
        edited = self._edited_here
        if self._when is not None and len(edited):
            edited = edited[self._when(rows[edited])]
        if not len(edited):
            return resid
        rows = self._rows_here if self._when is None else rows[edited]
        own = self._own_here if self._when is None else self._of(rows)
        is_every = len(edited) == len(resid)
        before = resid if is_every else resid[edited]
        read = [before] if self._others is None else [before, self._others(self._layer)[edited]]
        change, norm = self._changes(read, own)
        self.log.append((self._calls - 1, rows, norm))
        after = before + change.to(resid.dtype)
        return after if is_every else resid.index_copy(0, edited, after)

    def _meet(self, rows: Tensor) -> None:
        """Note which of the rows are edited at all, until others take their place."""
        self._rows = rows
        self._edited_here = self._is_edited[rows].nonzero().squeeze(1)
        self._rows_here = rows[self._edited_here]
        self._own_here = self._of(self._rows_here)
        new = rows[self.first_call[rows] < 0]
        self.first_call[new] = self._calls

    def _of(self, rows: Tensor) -> "_Own":
        """What is done to some rows, which is the same at each of their positions."""
        which = self._intervention[rows]
        return _Own(
            which,
            self._gains[which],
            self._offsets[which],
            self._along[which] if self._any_along else None,
            self._norm_gains[which] if self._any_norm else None,
            self._norm_offsets[which] if self._any_norm else None,
            self._takes_norm[which] if self._any_norm else None,
            self._removals.acting(which),
        )

    def _changes(self, read: Sequence[Tensor], own: "_Own") -> tuple[Tensor, Tensor]:
        """What is added to rows, by intervention, and its norm."""
        before = read[0]
        values, active = self._encode(*read)
        values = values.to(self._gains.dtype)
        table = values.new_zeros((len(values), len(self._directions) + 1))
        latents = table.scatter_(1, self._column_of[active], values)[:, :-1]
        change = torch.addcmul(own.offsets, own.gains, latents) @ self._directions
        if own.along is not None:
            change = change + own.along
        norm = change.norm(dim=1)
        if own.takes_norm is not None:
            assert own.norm_gains is not None and own.norm_offsets is not None
            wanted = torch.addcmul(own.norm_offsets, own.norm_gains, latents) @ self._directions
            # Where a control changes nothing there is no direction to lengthen; it stays still.
            factor = wanted.norm(dim=1) / norm.clamp_min(torch.finfo(norm.dtype).tiny)
            factor = torch.where(norm > 0, factor, 0.0)
            factor = torch.where(own.takes_norm, factor, 1.0)
            change, norm = change * factor[:, None], norm * factor
        if len(removed := own.removed):
            explained = values[removed, None, :] @ self._decoder[active[removed]].to(values)
            change[removed] -= self._removals.part(
                before[removed], explained.squeeze(1), own.which[removed]
            )
            norm = change.norm(dim=1)
        return change, norm


class _Own(NamedTuple):
    """Of each edited row, its intervention and what that is; none where no row has any."""

    which: Tensor
    gains: Tensor
    offsets: Tensor
    along: Tensor | None
    norm_gains: Tensor | None
    norm_offsets: Tensor | None
    takes_norm: Tensor | None
    removed: Tensor


class _RemovalTable:
    """What each intervention projects out; bases of lower rank are filled up with zeros."""

    def __init__(self, removals: Sequence[Removal | None], like: Tensor) -> None:
        present = [r for r in removals if r is not None]
        self._any = bool(present)
        if not present:
            return
        rank, width = max(len(r.basis) for r in present), present[0].basis.shape[1]
        self._bases = like.new_zeros(len(removals), rank, width)
        self._centres = like.new_zeros(len(removals), width)
        self._of_error = torch.zeros(len(removals), dtype=torch.bool, device=like.device)
        for index, removal in enumerate(removals):
            if removal is not None:
                self._bases[index, : len(removal.basis)] = removal.basis.to(like)
                self._centres[index] = removal.centre.to(like)
                self._of_error[index] = removal.of_error
        self._acts = torch.tensor([r is not None for r in removals], device=like.device)

    def acting(self, which: Int[Tensor, " batch"]) -> Int[Tensor, " acting"]:
        """Places of the rows that lose something."""
        return self._acts[which].nonzero().squeeze(1) if self._any else which[:0]

    def part(
        self,
        resid: Float[Tensor, "batch d_model"],
        explained: Float[Tensor, "batch d_model"],
        which: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch d_model"]:
        """What lies in the subspace of each row."""
        left = resid.to(self._bases) - self._centres[which]
        left = torch.where(self._of_error[which, None], left - explained, left)
        bases = self._bases[which]
        return ((left[:, None] @ bases.mT) @ bases).squeeze(1)


def _tables(
    changes: Sequence[LatentChange | None], column: Mapping[int, int], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Gains and offsets [intervention, latent], 0 where nothing is moved."""
    gains, offsets = like.new_zeros(2, len(changes), len(column))
    for row, change in enumerate(changes):
        if change is None:
            continue
        for latent, gain, offset in zip(change.latents, change.gains, change.offsets, strict=True):
            gains[row, column[latent]] += gain
            offsets[row, column[latent]] += offset
    return gains, offsets
