"""Where a row is edited: at every generated token, at opportunities of a behaviour, or at random.

An edit at position t changes the residual stream of a token that was read and so what follows it.
An opportunity is a position after which the behaviour could start (onset-1), so whether a position
is one has to be known as soon as its token is chosen: `Timing` follows the sampler, hears each
row's text sentence by sentence, and is asked by `RowEdits` before each edit.

Random positions are a control: as many of them, anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.steering.noise import keyed_uniform

ALL, OPPORTUNITIES, LOT = "all", "opportunities", "random_positions"

Hear = Callable[[str], frozenset[str] | None]
"""Takes a response by pieces; gives the behaviours that could start after a piece; None where the
piece isn't a whole number of sentences."""
Sample = Callable[[Tensor, Tensor, int], Tensor]
"""Picks tokens [batch] by logits [batch, vocab], rows [batch] and step."""

_INNER = frozenset(":;,#+-=/&%@~|<([{")
"""Signs that no sentence, nor a mark such as <think>, ends with; tokens that end with them, or with
a letter or digit, aren't worth hearing."""


@dataclass(frozen=True)
class Positions:
    """Where a row is edited.

    Attributes:
        kind: `all`, `opportunities` or `random_positions`.
        behaviour: Behaviour whose opportunities are meant.
        share: Of positions drawn at random.
    """

    kind: str = ALL
    behaviour: str = ""
    share: float = 0.0


@dataclass
class _Row:
    """A row that is listened to."""

    hear: Hear
    behaviour: str
    unheard: list[int] = field(default_factory=list)


class Timing:
    """Says of each row of one generation whether it's edited at its present position.

        timing = Timing(positions, keys, hear, text_of)
        edits = RowEdits(..., when=timing)
        generate(..., sampler=timing.following(sampler), edits=edits.by_layer)

    The first position is the last of the prompt, before anything is chosen.
    """

    def __init__(
        self,
        positions: Sequence[Positions],
        keys: Int[Tensor, "row key"],
        listeners: Mapping[int, Hear],
        text_of: Callable[[list[int]], str],
        begun: str = "",
    ) -> None:
        """Start before the first token.

        Args:
            positions: Of each row.
            keys: Of each row's noise.
            listeners: By row, who hears it; needed for rows edited at opportunities.
            text_of: Text of token ids.
            begun: Beginning of every response that stands in the prompts already; where there's
                none, a behaviour may be heard to start at the very beginning.
        """
        self._keys = keys
        self._text_of = text_of
        self._is_end: dict[int, bool] = {}
        self._shares = torch.tensor([p.share for p in positions], dtype=torch.float64).to(
            keys.device
        )
        self._is_lot = torch.tensor([p.kind == LOT for p in positions], device=keys.device)
        self._any_lot = bool(self._is_lot.any())
        self._now = torch.tensor([p.kind == ALL for p in positions], device=keys.device)
        self._heard = {
            row: _Row(listeners[row], p.behaviour)
            for row, p in enumerate(positions)
            if p.kind == OPPORTUNITIES
        }
        self._open: set[int] = set()
        self._note(
            [row for row, own in self._heard.items() if own.behaviour in (own.hear(begun) or ())]
        )
        if self._any_lot:
            self._draw(torch.arange(len(positions), device=keys.device), -1)

    def __call__(self, rows: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Whether each row is edited now."""
        return self._now[rows]

    def following(self, sampler: Sample) -> Sample:
        """The sampler, heard at each step."""

        def sample(
            logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, " batch"], step: int
        ) -> Int[Tensor, " batch"]:
            chosen = sampler(logits, rows, step)
            if self._heard:
                self._listen(chosen.tolist(), rows.tolist())
            if self._any_lot:
                self._draw(rows, step)
            return chosen

        return sample

    def _listen(self, tokens: Sequence[int], rows: Sequence[int]) -> None:
        opened = []
        for row, token in zip(rows, tokens, strict=True):
            own = self._heard.get(row)
            if own is None:
                continue
            own.unheard.append(token)
            if not self._may_end(token):
                continue
            behaviours = own.hear(self._text_of(own.unheard))
            if behaviours is not None:
                own.unheard.clear()
                if own.behaviour in behaviours:
                    opened.append(row)
        self._note(opened)

    def _note(self, opened: Sequence[int]) -> None:
        """Mark the rows that stand at an opportunity now; those that did have moved on."""
        for rows, is_open in ((self._open, False), (opened, True)):
            if rows:
                self._now[torch.tensor(sorted(rows), device=self._now.device)] = is_open
        self._open = set(opened)

    def _may_end(self, token: int) -> bool:
        if token not in self._is_end:
            last = self._text_of([token])[-1:]
            self._is_end[token] = not (last.isalnum() or last in _INNER)
        return self._is_end[token]

    def _draw(self, rows: Int[Tensor, " batch"], step: int) -> None:
        drawn = keyed_uniform(self._keys[rows], step) < self._shares[rows]
        self._now[rows] = torch.where(self._is_lot[rows], drawn, self._now[rows])
