"""Generation by one model while another reads along, and a policy that decides at every token.

Both models keep their own cache over the same tokens. A step, for the position t that predicts the
next token:

1. the writer reads position t as it is; so does the other model;
2. the policy sees both models' logits and residuals at t, and decides for each row: nothing; a
   steering vector on the writer's residual after one block, or its length alone; the other model's
   logits instead of the writer's; or a token that is written whatever anybody predicts;
3. rows that are steered are read once more at t, from the first block on, with their vector: their
   keys and values at t are replaced, so all that comes later sees the steered state and no other;
4. the same sampler as in `generate` picks the next token.

Steering can thus depend on what the writer would have said without it. It costs one pass of the
steered rows over one position, and a copy of their keys and values; a step in which nobody is
steered costs the passes of the two models.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.generate import (
    Reader,
    Reading,
    Rollout,
    Sampler,
    batches,
    check_prompts,
    edited,
    padded_left,
    roll_out,
)
from sae_reasoning.edges.lm.kv_cache import last_again
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.read import watched
from sae_reasoning.edges.lm.same_tokens import differing_tokens


@dataclass(frozen=True)
class View:
    """What one model makes of the present position, unedited.

    Attributes:
        logits: Of the next token, over the tokens that both models have.
        residuals: By layer, after the block.
    """

    logits: Float[Tensor, "batch vocab"]
    residuals: dict[int, Float[Tensor, "batch d_model"]]


@runtime_checkable
class Decision(Protocol):
    """What is done at the present position of each row.

    Attributes:
        layer: Decoder block of the writer after which its residual is steered; -1 for none.
        change: What is added there.
        is_scaled: Whether only the length that this gives the residual counts, not its direction.
        is_swapped: Whether the other model's logits count instead.
        token: The token that is written next; -1 where it's sampled.
    """

    @property
    def layer(self) -> Int[Tensor, " batch"]: ...  # noqa: D102
    @property
    def change(self) -> Float[Tensor, "batch d_model"]: ...  # noqa: D102
    @property
    def is_scaled(self) -> Bool[Tensor, " batch"]: ...  # noqa: D102
    @property
    def is_swapped(self) -> Bool[Tensor, " batch"]: ...  # noqa: D102
    @property
    def token(self) -> Int[Tensor, " batch"]: ...  # noqa: D102


Policy = Callable[[Int[Tensor, " batch"], int, View, View], Decision]
"""From the rows, the step, and what the writer and the other model see; rows index the prompts.

It's called once a step and row, in order of the steps; rows that have ended may be among them.
"""


@torch.inference_mode()
def lockstep(
    writer: LanguageModel,
    other: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    policy: Policy,
    layers: Sequence[int],
    sampler: Sampler,
    max_new_tokens: int,
    batch_size: int,
    other_prompts: Sequence[Sequence[int]] | None = None,
) -> Iterator[Rollout]:
    """Roll out every prompt in lockstep, in batches; rollouts come as they end, not in order.

    Args:
        writer: Model that generates.
        other: Model that reads along.
        prompts: Token ids of each prompt, BOS included.
        policy: Decides at every token.
        layers: Decoder blocks whose residuals it sees.
        sampler: Picks the next token from (logits, rows, step); rows index `prompts`.
        max_new_tokens: Tokens after which a rollout is cut.
        batch_size: Rows at once.
        other_prompts: What the other model reads in the place of each prompt, as its own template
            writes it; None for the same.

    So many parameters because both models, what each reads, and how is sampled are all told here.

    Raises:
        ConfigError: The models don't share a tokenizer, one of them lacks a layer, the writer
            attends to a window only or can't read the prompts, or a logit is NaN.
    """
    if writer.facts.tokenizer_fingerprint != other.facts.tokenizer_fingerprint and (
        differing_tokens(writer.tokenizer, other.tokenizer) is None
    ):
        raise ConfigError(
            f"pair: {writer.facts.name} and {other.facts.name} have different tokenizers, so one "
            "can't read the other's tokens; name two models that share one"
        )
    most = [max_new_tokens] * len(prompts)
    own_prompts = prompts if other_prompts is None else other_prompts
    for lm, read in ((writer, prompts), (other, own_prompts)):
        check_layers(layers, lm.facts.num_layers, lm.facts.name)
        check_prompts(lm, read, most)
    for batch in batches(prompts, batch_size):
        apart = None
        if other_prompts is not None:
            apart = _Apart(other, [other_prompts[row] for row in batch], max_new_tokens)
        both = _Lockstep(Reader(writer), Reader(other), policy, layers, apart)
        yield from roll_out(both, prompts, batch, sampler, most)


class _Apart:
    """What a model reads that has prompts of its own, of one batch: these, then the same tokens."""

    def __init__(self, lm: LanguageModel, prompts: Sequence[Sequence[int]], room: int) -> None:
        self._token_ids, self._mask = padded_left(lm, prompts, room)
        self._width = self._token_ids.shape[1]
        self._position = self._mask[:, : self._width].cumsum(1).sub(1).clamp_min(0)
        self._is_new = True
        self._num_read = self._width

    def prompt(self) -> Reading:
        """All of the prompts."""
        return Reading(self._token_ids, self._mask[:, : self._width], self._position)

    def has_read_once(self) -> None:
        """All but the last token of the prompts is read."""
        self._token_ids, self._position = self._token_ids[:, -1:], self._position[:, -1:]

    def reading(self, read: Reading) -> Reading:
        """What comes next: what is left of the prompts, else the token that was written."""
        if self._is_new:
            self._is_new = False
            return self.prompt()
        self._mask[:, self._num_read] = 1
        self._num_read += 1
        self._position = self._position[:, -1:] + 1
        return Reading(read.token_ids, self._mask[:, : self._num_read], self._position)

    def keep(self, kept: Int[Tensor, " kept"]) -> None:
        """Go on with some places of the batch."""
        self._token_ids, self._mask = self._token_ids[kept], self._mask[kept]
        self._position = self._position[kept]


class _Lockstep:
    """Both models over one batch."""

    remedy = "lower hybrid.doses or hybrid.multiples (say hybrid.doses=[0.5,1]), "

    def __init__(
        self,
        writer: Reader,
        other: Reader,
        policy: Policy,
        layers: Sequence[int],
        apart: _Apart | None,
    ) -> None:
        self.lm = writer.lm
        self._apart = apart
        self._writer, self._other, self._policy = writer, other, policy
        self._layers = layers
        writer.require_full_attention()

    def read_once(self, read: Reading) -> bool:
        if self._apart:
            if self._other.read_once(self._apart.prompt()):
                self._apart.has_read_once()
            return self._writer.read_once(read)
        # What is worth it for one is for the other: the tokens are the same.
        own, others = (reader.read_once(read) for reader in (self._writer, self._other))
        return own and others

    def keep(self, kept: Int[Tensor, " kept"]) -> None:
        for reader in (self._writer, self._other):
            reader.keep(kept)
        if self._apart:
            self._apart.keep(kept)

    def predict(
        self, read: Reading, rows: Int[Tensor, "batch"], step: int
    ) -> Float[Tensor, "batch vocab"]:
        own = self._view(self._writer, read)
        others = self._view(self._other, self._apart.reading(read) if self._apart else read)
        size = min(own.logits.shape[1], others.logits.shape[1])
        own, others = (View(view.logits[:, :size], view.residuals) for view in (own, others))
        decision = self._policy(rows, step, own, others)
        logits = torch.where(decision.is_swapped[:, None], others.logits, own.logits)
        steered = (decision.layer >= 0).nonzero().flatten()
        if len(steered):
            again = self._steered(read, steered, decision)[:, :size]
            logits = logits.index_copy(0, steered, again)
        if (decision.token >= 0).any():
            forced = torch.full_like(logits, -torch.inf)
            forced.scatter_(1, decision.token.clamp_min(0)[:, None], 0.0)
            logits = torch.where((decision.token >= 0)[:, None], forced, logits)
        return logits

    def _view(self, reader: Reader, read: Reading) -> View:
        seen: dict[int, Tensor] = {}
        with watched(reader.lm, self._layers, seen):
            logits = reader.read(read)
        return View(logits, {layer: resid[:, -1] for layer, resid in seen.items()})

    def _steered(self, read: Reading, places: Tensor, decision: Decision) -> Tensor:
        """Logits of some rows with their vectors, which their keys and values henceforth hold."""
        last = Reading(read.token_ids[:, -1:], read.mask, read.position[:, -1:]).of(places)
        layer, change = decision.layer[places], decision.change[places]
        is_scaled = decision.is_scaled[places][:, None]

        def steer(number: int) -> Callable[[Tensor, Tensor], Tensor]:
            def add(resid: Tensor, _rows: Tensor) -> Tensor:
                changed = resid + change.to(resid)
                length, before = (x.norm(dim=-1, keepdim=True) for x in (changed, resid))
                changed = torch.where(is_scaled, resid * (length / before), changed)
                return torch.where((layer == number)[:, None], changed, resid)

            return add

        edits = {number: steer(number) for number in layer.unique().tolist()}
        with edited(self.lm, edits, places):
            return self._writer.read(last, last_again(self._writer.cache, places))
