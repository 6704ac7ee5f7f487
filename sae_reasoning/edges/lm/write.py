"""Rollouts as texts: what a model writes after a prompt and the beginning of a response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.edges.lm.ending import EndRule
from sae_reasoning.edges.lm.generate import ResidualEdit, Sampler, generate
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    continuation_ids,
    encode_prompt,
    encode_response,
)


@dataclass(frozen=True)
class Written:
    """One response.

    Attributes:
        prompt_ids: Tokens of the prompt, BOS included.
        begun_ids: Tokens of the beginning that was given.
        token_ids: Tokens that the model wrote, without the one that ended its turn.
        end_id: The token that ended its turn, if one did.
        text: The whole response, with the beginning that was given.
        added: What the model wrote of it.
        truncated: Whether it was cut.
    """

    prompt_ids: list[int]
    begun_ids: list[int]
    token_ids: list[int]
    end_id: int | None
    text: str
    added: str
    truncated: bool

    @property
    def response_ids(self) -> list[int]:
        """Tokens of the whole text."""
        return self.begun_ids + self.token_ids


def begun_ids(lm: LanguageModel, before: str | Sequence[int], opening: str = "") -> list[int]:
    """Token ids of the beginning of a response: text or ids, and words written after those."""
    ids = encode_response(lm.tokenizer, before)[0] if isinstance(before, str) else list(before)
    return [*ids, *continuation_ids(lm, opening, ids)] if opening else ids


def write(
    lm: LanguageModel,
    prompts: Sequence[str],
    beginnings: Sequence[str | Sequence[int]],
    *,
    sampler: Sampler,
    max_new_tokens: int,
    batch_size: int | None = None,
    edits: Mapping[int, ResidualEdit] | None = None,
    until: EndRule | None = None,
) -> list[Written]:
    """Continue every prompt with its beginning of a response, in the prompts' order.

    A beginning, of token ids or of text that is cut into some by itself, is appended to the
    prompt's ids. `until` says where a response ends, beside the model's end tokens. `batch_size`
    is what suits the device if not given, and at most that on a CPU: keys and values of more rows
    outgrow its cache. Processes share the batches, so `sampler` and `edits` may remember things of
    a batch only.
    """
    suits = 512 if lm.device.type == "cuda" else 128
    if batch_size is None or lm.device.type == "cpu":
        batch_size = min(batch_size or suits, suits)
    prompt_ids = [encode_prompt(lm.tokenizer, prompt) for prompt in prompts]
    begun = [begun_ids(lm, one) for one in beginnings]
    made: dict[int, Written] = {}
    for rollout in generate(
        lm,
        [asked + given for asked, given in zip(prompt_ids, begun, strict=True)],
        sampler=sampler,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        edits=edits,
        until=until,
        shared=True,
    ):
        row, token_ids = rollout.row, list(rollout.token_ids)
        made[row] = Written(
            prompt_ids=prompt_ids[row],
            begun_ids=begun[row],
            token_ids=token_ids,
            end_id=rollout.end_id,
            text=lm.decode(begun[row] + token_ids),
            added=lm.decode(token_ids),
            truncated=rollout.truncated,
        )
    return [made[row] for row in range(len(prompts))]
