"""Batched sampling with a KV cache; each row may carry its own edits and its own noise.

Prompts are padded on the left, so every row's next token is predicted at the last position; those
of a like length share a batch, since a padded key is read at every step like any other. Rows that
have ended leave the batch once a quarter of it is done, so a few long rollouts don't pay for many
short ones. Where prompts repeat within a batch, each is read once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.attention import is_quick_for_one_query, quick_for_one_query
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.ending import TextEnd
from sae_reasoning.edges.lm.kv_cache import is_plain, keep_rows, roomy_cache
from sae_reasoning.edges.lm.limits import require_context, require_embeddings
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.read import watched
from sae_reasoning.edges.workers import num_workers, shared_out
from sae_reasoning.records import Additions, SentenceEnd

ResidualEdit = Callable[
    [Float[Tensor, "batch d_model"], Int[Tensor, "batch"]], Float[Tensor, "batch d_model"]
]
Sampler = Callable[[Float[Tensor, "batch vocab"], Int[Tensor, "batch"], int], Int[Tensor, "batch"]]

_WORTH_A_PROCESS = 8
"""Prompts: fewer take less time than a process to begin."""


@dataclass(frozen=True)
class Rollout:
    """One generated response.

    Attributes:
        row: Index of its prompt.
        token_ids: Generated tokens, without the one that ended the turn.
        truncated: Whether it was cut at `max_new_tokens`.
        end_id: The token that ended the turn; None where it was cut, or its text came to an end.
        added: What edits added, where they were made for each batch and say so.
    """

    row: int
    token_ids: tuple[int, ...]
    truncated: bool
    end_id: int | None = None
    added: Additions | None = None


@dataclass(frozen=True)
class BatchEdits:
    """Edits of one batch, which may remember what they did in it.

    Attributes:
        by_layer: The edit after each decoder block.
        following: Wraps the sampler, so that the edits know what is written.
        additions: Takes, by row, how many positions count, and says what was added there.
    """

    by_layer: Mapping[int, ResidualEdit]
    following: Callable[[Sampler], Sampler]
    additions: Callable[[Mapping[int, int]], Mapping[int, Additions]]


EditsOfBatch = Callable[[Sequence[int]], BatchEdits]
"""Makes the edits of the rows that are one batch."""


@runtime_checkable
class Predictor(Protocol):
    """Predicts the next tokens of a batch, one position at a time, and remembers what it read.

    Attributes:
        lm: The model whose tokens are written.
        remedy: What may help where it predicts NaN.
    """

    lm: LanguageModel
    remedy: str

    def read_once(self, read: "Reading") -> bool:
        """Read all but the last position, where that is worth it; otherwise False."""

    def predict(
        self, read: "Reading", rows: Int[Tensor, "batch"], step: int
    ) -> Float[Tensor, "batch vocab"]:
        """Logits of the next token, having read the tokens that are new."""

    def keep(self, kept: Int[Tensor, " kept"]) -> None:
        """Go on with some places of the batch."""


@dataclass(frozen=True)
class Reading:
    """What is read next.

    Attributes:
        token_ids: New tokens.
        mask: Which of all tokens so far are tokens, not padding.
        position: Position of each new token.
    """

    token_ids: Int[Tensor, "batch new"]
    mask: Int[Tensor, "batch token"]
    position: Int[Tensor, "batch new"]

    def of(self, places: Int[Tensor, " kept"]) -> "Reading":
        """The same for some places of the batch."""
        return Reading(self.token_ids[places], self.mask[places], self.position[places])


class Reader:
    """One model that reads a batch as it grows."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._is_quick = is_quick_for_one_query(lm.model)
        self.cache = roomy_cache(lm.model.config, whole=self._is_quick)

    def read(
        self, read: Reading, cache: DynamicCache | None = None
    ) -> Float[Tensor, "batch vocab"]:
        """Logits after the last position."""
        with quick_for_one_query(self.lm.model) if self._is_quick else nullcontext():
            out = self.lm.model(
                input_ids=read.token_ids,
                attention_mask=read.mask,
                position_ids=read.position,
                past_key_values=self.cache if cache is None else cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return out.logits[:, -1].float()

    def read_once(self, read: Reading) -> bool:
        """Fill the cache with all but the last token, each different prompt read once.

        False, with nothing read, where too few repeat to be worth it.
        """
        prefix = read.token_ids.shape[1] - 1
        if not prefix:
            return False
        token_ids, mask = read.token_ids[:, :prefix], read.mask[:, :prefix]
        _, place = torch.cat([token_ids, mask], dim=1).unique(dim=0, return_inverse=True)
        count = int(place.max()) + 1
        if count > len(token_ids) / 2:
            return False
        first = torch.full((count,), len(place), device=place.device)
        first.scatter_reduce_(0, place, torch.arange(len(place), device=place.device), "amin")
        self.read(Reading(token_ids, mask, read.position[:, :prefix]).of(first))
        keep_rows(self.cache, place)
        return True

    def require_full_attention(self) -> None:
        """Refuse a model of which some blocks attend to a window only.

        Raises:
            ConfigError: It does; what has left the window can't be read on from or read again.
        """
        if not is_plain(self.cache):
            raise ConfigError(
                f"{self.lm.facts.name} attends to a sliding window in some blocks, and what has "
                "left it can't be read again; use a model with full attention"
            )

    def keep(self, kept: Int[Tensor, " kept"]) -> None:
        """Go on with some places of the batch."""
        keep_rows(self.cache, kept)


class Beside:
    """Another model that reads along, unedited, for edits that depend on what it makes of a token.

    Attributes:
        lm: The model; its tokens are those of the model that writes.
        layers: Decoder blocks whose residuals are kept.
    """

    def __init__(self, lm: LanguageModel, layers: Sequence[int]) -> None:
        check_layers(layers, lm.facts.num_layers, lm.facts.name)
        self.lm, self.layers = lm, layers
        self._residuals: dict[int, Float[Tensor, "batch d_model"]] = {}

    def residuals_at(self, layer: int) -> Float[Tensor, "batch d_model"]:
        """After a block, at the position that is being read, of the rows that are generating."""
        return self._residuals[layer]

    def look(self, reader: Reader, read: Reading) -> None:
        """Read on, and keep the residuals."""
        seen: dict[int, Tensor] = {}
        with watched(self.lm, self.layers, seen):
            reader.read(read)
        self._residuals = {layer: resid[:, -1] for layer, resid in seen.items()}


class _Edited(Reader):
    """A model whose residual is edited where it predicts, and another that may read along."""

    def __init__(
        self, lm: LanguageModel, edits: Mapping[int, ResidualEdit], beside: Beside | None
    ) -> None:
        super().__init__(lm)
        self._edits, self._beside = edits, beside
        self._other = Reader(beside.lm) if beside else None
        self.remedy = "lower the edits' dose, " if edits else "mend its weights, "

    def read_once(self, read: Reading) -> bool:
        if self._other is not None:
            self._other.read_once(read)  # The tokens are the same, so both read or neither does.
        return super().read_once(read)

    def predict(
        self, read: Reading, rows: Int[Tensor, "batch"], step: int
    ) -> Float[Tensor, "batch vocab"]:
        if self._beside is not None and self._other is not None:
            self._beside.look(self._other, read)
        with edited(self.lm, self._edits, rows):
            return self.read(read)

    def keep(self, kept: Int[Tensor, " kept"]) -> None:
        super().keep(kept)
        if self._other is not None:
            self._other.keep(kept)


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Sampler,
    max_new_tokens: int | Sequence[int],
    batch_size: int,
    edits: Mapping[int, ResidualEdit] | EditsOfBatch | None = None,
    until: SentenceEnd | None = None,
    beside: Beside | None = None,
    shared: bool = False,
) -> Iterator[Rollout]:
    """Roll out every prompt, in batches; rollouts come as they end, not in order.

    So many parameters because each is one choice of a rollout that its callers make on their own.

    Args:
        lm: Model to run.
        prompts: Token ids of each prompt, BOS included.
        sampler: Picks the next token from (logits, rows, step); rows index `prompts`.
        max_new_tokens: Tokens after which a rollout is cut: every one, or that of each prompt.
        batch_size: Rows at once.
        edits: By decoder block: called with the residual stream after the block at each position
            that predicts a generated token (the last of the prompt, then each generated token),
            and the rows it belongs to; what it returns takes its place. Or what makes such edits
            for the rows of each batch; a batch's rollouts then come together, with what was added.
        until: Says where a rollout ends beside the model's own end tokens.
        beside: Another model that reads each position before the edits of it are made.
        shared: Whether processes may share the batches (see `shared_out`), which are made as small
            as gives each process as many as any other: rollouts come batch by batch then, the
            longest prompts first, and what sampler and edits remember of a batch is lost after it.

    Raises:
        ConfigError: A logit is NaN; text sampled from it would look like any other. Or the model
            can't read a prompt and what may be written after it.
    """
    most = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens

    def rolled(batch: list[int]) -> Iterator[Rollout]:
        if not callable(edits):
            predictor = _Edited(lm, edits or {}, beside)
            yield from roll_out(predictor, prompts, batch, sampler, most, until)
            return
        own = edits(batch)
        predictor, follow = _Edited(lm, own.by_layer, beside), own.following(sampler)
        made = list(roll_out(predictor, prompts, batch, follow, most, until))
        # The token that ends a rollout is predicted from an edited position too.
        added = own.additions({one.row: len(one.token_ids) + (not one.truncated) for one in made})
        yield from (replace(one, added=added[one.row]) for one in made)

    def all_of(batch: list[int]) -> list[Rollout]:
        with torch.inference_mode():
            return list(rolled(batch))

    check_prompts(lm, prompts, most)
    if shared and prompts:
        batch_size = even_batch_size(len(prompts), batch_size, lm.device)
    every = list(batches(prompts, batch_size))
    found = shared_out(all_of, every[::-1], lm.device) if shared else map(rolled, every)
    for rollouts in found:
        yield from rollouts


def check_prompts(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int]
) -> None:
    """Refuse prompts that a model can't read, or that leave no room for what may be written.

    Args:
        lm: The model.
        prompts: Token ids of each.
        max_new_tokens: How many may be written after each.

    Raises:
        ConfigError: One is too long, or holds a token without an embedding.
    """
    sizes = zip(map(len, prompts), max_new_tokens, strict=True)
    longest, new = max(sizes, key=sum, default=(0, 0))
    require_context(lm.facts.context, lm.facts.name, longest, new)
    embed: Any = lm.model.get_input_embeddings()
    if not embed._forward_pre_hooks:  # A part that is attached may have tokens of its own.
        texts = [("a prompt", prompt) for prompt in prompts]
        require_embeddings(lm.tokenizer, embed.weight.shape[0], lm.facts.name, texts)


def even_batch_size(num_prompts: int, most: int, device: torch.device) -> int:
    """Prompts a batch, at most `most`, so that processes that share them end together."""
    processes = num_workers(device, num_prompts // _WORTH_A_PROCESS)
    return -(-num_prompts // (processes * -(-num_prompts // (processes * most))))


def batches(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Rows of prompts of a like length."""
    ordered = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(prompts), batch_size):
        yield ordered[start : start + batch_size]


def padded_left(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], room: int = 0
) -> tuple[Int[Tensor, "batch width"], Int[Tensor, "batch token"]]:
    """Token ids that end together, and a mask of tokens with `room` for more."""
    width = max(map(len, prompts))
    token_ids = torch.full((len(prompts), width), lm.tokenizer.pad_token_id or 0)
    mask = torch.zeros(len(prompts), width + room, dtype=torch.long)
    for index, prompt in enumerate(prompts):
        token_ids[index, width - len(prompt) :] = torch.tensor(prompt)
        mask[index, width - len(prompt) : width] = 1
    return token_ids.to(lm.device), mask.to(lm.device)


def roll_out(
    predictor: Predictor,
    prompts: Sequence[Sequence[int]],
    batch: Sequence[int],
    sampler: Sampler,
    max_new_tokens: Sequence[int],
    until: SentenceEnd | None = None,
) -> Iterator[Rollout]:
    """Roll out one batch of prompts, as `generate` says."""
    lm = predictor.lm
    limits = torch.tensor([max_new_tokens[row] for row in batch], device=lm.device)
    most = int(limits.max())
    pad_id = lm.tokenizer.pad_token_id or 0
    ends = torch.tensor(lm.end_ids, dtype=torch.long, device=lm.device)
    text_end = TextEnd(lm.decode, until) if until is not None else None
    said: dict[int, list[int]] = {row: [] for row in batch}
    token_ids, mask = padded_left(lm, [prompts[row] for row in batch], most)
    width = token_ids.shape[1]
    rows = torch.tensor(batch, device=lm.device)
    written = torch.full((len(batch), most), pad_id, device=lm.device)
    alive = torch.ones(len(batch), dtype=torch.bool, device=lm.device)
    position = mask[:, :width].cumsum(1).sub(1).clamp_min(0)
    if predictor.read_once(Reading(token_ids, mask[:, :width], position)):
        token_ids, position = token_ids[:, -1:], position[:, -1:]
    for step in range(most):
        logits = predictor.predict(
            Reading(token_ids, mask[:, : width + step], position), rows, step
        )
        if logits[alive].isnan().any():
            raise ConfigError(
                f"{lm.facts.name} predicts NaN {step} tokens after the prompt; {predictor.remedy}"
                "or widen its dtype"
            )
        chosen = sampler(logits, rows, step)
        written[:, step] = chosen
        mask[:, width + step] = 1
        ended = alive & torch.isin(chosen, ends)
        for index in ended.nonzero().flatten().tolist():
            own = tuple(written[index, :step].tolist())
            yield Rollout(int(rows[index]), own, truncated=False, end_id=int(chosen[index]))
        cut = alive & ~ended & (limits == step + 1)
        if text_end is not None:
            for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
                said[row].append(token)
            for index in (alive & ~ended).nonzero().flatten().tolist():
                row = int(rows[index])
                size = text_end.num_kept(said[row], is_last=bool(cut[index]))
                if size is not None:
                    ended[index] = True
                    yield Rollout(row, tuple(said[row][:size]), truncated=False)
        for index in (cut & ~ended).nonzero().flatten().tolist():
            yield Rollout(
                int(rows[index]), tuple(written[index, : step + 1].tolist()), truncated=True
            )
        alive &= ~ended & ~cut
        if not alive.any():
            return
        token_ids, position = chosen[:, None], position[:, -1:] + 1
        if alive.sum() <= 0.75 * len(alive):
            kept = alive.nonzero().flatten()
            rows, written, mask = rows[kept], written[kept], mask[kept]
            token_ids, position, limits = token_ids[kept], position[kept], limits[kept]
            predictor.keep(kept)
            alive = torch.ones_like(kept, dtype=torch.bool)


def edited(
    lm: LanguageModel, edits: Mapping[int, ResidualEdit], rows: Int[Tensor, "batch"]
) -> ExitStack:
    """Hooks that edit the last position after each edited block, for one forward pass."""
    stack = ExitStack()
    blocks = decoder_blocks(lm.model)
    for layer, edit in edits.items():

        def hook(
            _module: object, _args: object, output: object, edit: ResidualEdit = edit
        ) -> object:
            resid = output[0] if isinstance(output, tuple) else output
            assert isinstance(resid, Tensor)
            before = resid[:, -1].to(lm.device)
            after = edit(before, rows)
            if after is before:
                return output
            changed = after.to(resid)[:, None]
            if resid.shape[1] > 1:
                changed = torch.cat([resid[:, :-1], changed], dim=1)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = blocks[layer].register_forward_hook(hook)
        stack.callback(handle.remove)
    return stack
