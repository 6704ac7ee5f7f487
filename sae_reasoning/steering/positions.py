"""Where a row is edited: at every generated token, at opportunities of a behaviour, or at random.

An edit at position t changes the residual stream of a token that was read and so what follows it.
An opportunity is a position after which the behaviour could start (onset-1), so whether a position
is one has to be known as soon as its token is chosen: `Timing` follows the sampler, gives each
row's text to a streaming annotator sentence by sentence, and is asked by `RowEdits` before each
edit.

Random positions are a control: as many of them, anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.steering.noise import keyed_uniform
from sae_reasoning.tasks.protocol import Listen

ALL, OPPORTUNITIES, RANDOM_POSITIONS = "all", "opportunities", "random_positions"

Sample = Callable[[Tensor, Tensor, int], Tensor]
"""Picks tokens [batch] by logits [batch, vocab], rows [batch] and step."""

_INNER = frozenset(":;,#+-=/&%@~|<([{")
"""Signs that no sentence, nor a mark such as <think>, ends with; after tokens that end with one, or
with a letter or digit, the annotator isn't asked."""


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


def may_end(text: str) -> bool:
    """Whether a sentence, or a mark such as <think>, may end with a text."""
    return not (text[-1:].isalnum() or text[-1:] in _INNER)


def open_after(listen: Listen, pieces: Sequence[str]) -> list[frozenset[str]]:
    """Of each position of a written response, the behaviours that could start there.

    Args:
        listen: Streaming annotator of the response.
        pieces: Text of each token.

    Returns:
        One more than pieces: the first position stands before them.
    """
    found, unread = [listen("") or frozenset()], ""
    for piece in pieces:
        unread += piece
        could_start = listen(unread) if may_end(piece) else None
        if could_start is not None:
            unread = ""
        found.append(could_start or frozenset())
    return found


@dataclass
class _Row:
    """A row whose text is annotated while it is written."""

    listen: Listen
    behaviour: str
    unread: list[int] = field(default_factory=list)


class Timing:
    """Says of each row of one generation whether it's edited at its present position.

        timing = Timing(positions, keys, listeners, text_of)
        edits = RowEdits(..., when=timing)
        generate(..., sampler=timing.following(sampler), edits=edits.by_layer)

    The first position is the last of the prompt, before anything is chosen.
    """

    def __init__(
        self,
        positions: Sequence[Positions],
        keys: Int[Tensor, "row key"],
        listeners: Mapping[int, Listen],
        text_of: Callable[[list[int]], str],
        begun: str = "",
    ) -> None:
        """Start before the first token.

        Args:
            positions: Of each row.
            keys: Of each row's noise.
            listeners: By row, its streaming annotator; of rows edited at opportunities that are
                generated.
            text_of: Text of token ids.
            begun: Beginning of every response that stands in the prompts already; where there's
                none, a behaviour may start at the very beginning.
        """
        self._keys = keys
        self._text_of = text_of
        self._is_end: dict[int, bool] = {}
        self._shares = torch.tensor([p.share for p in positions], dtype=torch.float64).to(
            keys.device
        )
        is_random = [p.kind == RANDOM_POSITIONS for p in positions]
        self._is_random = torch.tensor(is_random, device=keys.device)
        self._any_random = any(is_random)
        self._now = torch.tensor([p.kind == ALL for p in positions], device=keys.device)
        self._rows = {
            row: _Row(listen, positions[row].behaviour) for row, listen in listeners.items()
        }
        self._open: set[int] = set()
        self._note(
            [row for row, own in self._rows.items() if own.behaviour in (own.listen(begun) or ())]
        )
        if self._any_random:
            self._draw(torch.arange(len(positions), device=keys.device), -1)

    def __call__(self, rows: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Whether each row is edited now."""
        return self._now[rows]

    def following(self, sampler: Sample) -> Sample:
        """The sampler, whose choices are followed at each step."""

        def sample(
            logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, " batch"], step: int
        ) -> Int[Tensor, " batch"]:
            chosen = sampler(logits, rows, step)
            if self._rows:
                self._read(chosen.tolist(), rows.tolist())
            if self._any_random:
                self._draw(rows, step)
            return chosen

        return sample

    def _read(self, tokens: Sequence[int], rows: Sequence[int]) -> None:
        opened = []
        for row, token in zip(rows, tokens, strict=True):
            own = self._rows.get(row)
            if own is None:
                continue
            own.unread.append(token)
            if not self._may_end(token):
                continue
            behaviours = own.listen(self._text_of(own.unread))
            if behaviours is not None:
                own.unread.clear()
                if own.behaviour in behaviours:
                    opened.append(row)
        self._note(opened)

    def _note(self, opened: Sequence[int]) -> None:
        """Mark the rows that stand at an opportunity now, and no longer those that did."""
        for rows, is_open in ((self._open, False), (opened, True)):
            if rows:
                self._now[torch.tensor(sorted(rows), device=self._now.device)] = is_open
        self._open = set(opened)

    def _may_end(self, token: int) -> bool:
        if token not in self._is_end:
            self._is_end[token] = may_end(self._text_of([token]))
        return self._is_end[token]

    def _draw(self, rows: Int[Tensor, " batch"], step: int) -> None:
        drawn = keyed_uniform(self._keys[rows], step) < self._shares[rows]
        self._now[rows] = torch.where(self._is_random[rows], drawn, self._now[rows])
