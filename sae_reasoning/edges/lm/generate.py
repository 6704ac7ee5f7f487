"""Batched sampling with a KV cache; each row may carry its own edits and its own noise.

Prompts are padded on the left, so every row's next token is predicted at the last position; those
of a like length share a batch, since a padded key is read at every step like any other. Rows that
have ended leave the batch once a quarter of it is done, so a few long rollouts don't pay for many
short ones. Where prompts repeat within a batch, each is read once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.lm.kv_cache import roomy_cache
from sae_reasoning.edges.lm.load import LanguageModel, decoder_blocks

ResidualEdit = Callable[
    [Float[Tensor, "batch d_model"], Int[Tensor, "batch"]], Float[Tensor, "batch d_model"]
]
Sampler = Callable[[Float[Tensor, "batch vocab"], Int[Tensor, "batch"], int], Int[Tensor, "batch"]]


@dataclass(frozen=True)
class Rollout:
    """One generated response.

    Attributes:
        row: Index of its prompt.
        token_ids: Generated tokens, without EOS; with the token of `stop_ids` that ended it.
        truncated: Whether it was cut at `max_new_tokens`.
    """

    row: int
    token_ids: tuple[int, ...]
    truncated: bool


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Sampler,
    max_new_tokens: int,
    batch_size: int,
    edits: Mapping[int, ResidualEdit] | None = None,
    stop_ids: Sequence[int] = (),
) -> Iterator[Rollout]:
    """Roll out every prompt, in batches; rollouts come as they end, not in order.

    Args:
        lm: Model to run.
        prompts: Token ids of each prompt, BOS included.
        sampler: Picks the next token from (logits, rows, step); rows index `prompts`.
        max_new_tokens: Tokens after which a rollout is cut.
        batch_size: Rows at once.
        edits: By decoder block: called with the residual stream after the block at each position
            that predicts a generated token (the last of the prompt, then each generated token),
            and the rows it belongs to; what it returns takes its place.
        stop_ids: Tokens that end a rollout beside EOS.

    Raises:
        ConfigError: A logit is NaN; text sampled from it would look like any other.
    """
    ordered = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(prompts), batch_size):
        rows = ordered[start : start + batch_size]
        yield from _generate_batch(
            lm, prompts, rows, sampler, max_new_tokens, edits or {}, stop_ids
        )


def _generate_batch(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    batch: Sequence[int],
    sampler: Sampler,
    max_new_tokens: int,
    edits: Mapping[int, ResidualEdit],
    stop_ids: Sequence[int],
) -> Iterator[Rollout]:
    eos_id, pad_id = lm.tokenizer.eos_token_id, lm.tokenizer.pad_token_id or 0
    stops = torch.tensor([eos_id, *stop_ids], device=lm.device)
    width = max(len(prompts[row]) for row in batch)
    token_ids = torch.full((len(batch), width), pad_id)
    mask = torch.zeros(len(batch), width + max_new_tokens, dtype=torch.long)
    for index, row in enumerate(batch):
        prompt = torch.tensor(prompts[row])
        token_ids[index, width - len(prompt) :] = prompt
        mask[index, width - len(prompt) : width] = 1
    token_ids, mask = token_ids.to(lm.device), mask.to(lm.device)
    rows = torch.tensor(batch, device=lm.device)
    written = torch.full((len(batch), max_new_tokens), pad_id, device=lm.device)
    alive = torch.ones(len(batch), dtype=torch.bool, device=lm.device)
    cache = roomy_cache(lm.model.config)
    position = mask[:, :width].cumsum(1).sub(1).clamp_min(0)
    if width > 1 and _read_once(lm, token_ids, mask[:, : width - 1], position, cache):
        token_ids, position = token_ids[:, -1:], position[:, -1:]
    for step in range(max_new_tokens):
        with _edited(lm, edits, rows):
            out = lm.model(
                input_ids=token_ids,
                attention_mask=mask[:, : width + step],
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits = out.logits[:, -1].float()
        if logits[alive].isnan().any():
            remedy = "lower the edits' dose, " if edits else "mend its weights, "
            raise ConfigError(
                f"{lm.facts.name} predicts NaN {step} tokens after the prompt; {remedy}"
                "or widen its dtype"
            )
        chosen = sampler(logits, rows, step)
        written[:, step] = chosen
        mask[:, width + step] = 1
        ended = alive & torch.isin(chosen, stops)
        for index in ended.nonzero().flatten().tolist():
            end = step + int(chosen[index] != eos_id)
            yield Rollout(int(rows[index]), tuple(written[index, :end].tolist()), truncated=False)
        alive &= ~ended
        if not alive.any():
            return
        token_ids, position = chosen[:, None], position[:, -1:] + 1
        if alive.sum() <= 0.75 * len(alive):
            kept = alive.nonzero().flatten()
            rows, written, mask = rows[kept], written[kept], mask[kept]
            token_ids, position = token_ids[kept], position[kept]
            cache.batch_select_indices(kept)
            alive = torch.ones_like(kept, dtype=torch.bool)
    for index in alive.nonzero().flatten().tolist():
        yield Rollout(int(rows[index]), tuple(written[index].tolist()), truncated=True)


def _read_once(
    lm: LanguageModel,
    token_ids: Int[Tensor, "batch width"],
    mask: Int[Tensor, "batch prefix"],
    position: Int[Tensor, "batch width"],
    cache: DynamicCache,
) -> bool:
    """Fill the cache with all but the last token, each different prompt read once.

    False, with nothing read, where too few repeat to be worth it.
    """
    prefix = mask.shape[1]
    _, place = torch.cat([token_ids[:, :prefix], mask], dim=1).unique(dim=0, return_inverse=True)
    count = int(place.max()) + 1
    if count > len(token_ids) / 2:
        return False
    first = torch.full((count,), len(place), device=place.device)
    first.scatter_reduce_(0, place, torch.arange(len(place), device=place.device), "amin")
    lm.model(
        input_ids=token_ids[first, :prefix],
        attention_mask=mask[first],
        position_ids=position[first, :prefix],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(place)
    return True


def _edited(
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
            edited = resid.clone()
            edited[:, -1] = edit(resid[:, -1], rows)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        handle = blocks[layer].register_forward_hook(hook)
        stack.callback(handle.remove)
    return stack
