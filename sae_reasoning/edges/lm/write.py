"""Rollouts as texts: what a model writes after a prompt and the beginning of a response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.edges.lm.generate import ResidualEdit, Sampler, generate
from sae_reasoning.edges.lm.load import LanguageModel, continuation_ids, encode_prompt


@dataclass(frozen=True)
class Written:
    """One response.

    Attributes:
        prompt_ids: Tokens that the model was given, BOS included.
        token_ids: Tokens that it wrote, without EOS.
        text: The whole response, with the beginning that was given.
        added: What the model wrote of it.
        truncated: Whether it was cut.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    added: str
    truncated: bool


def write(
    lm: LanguageModel,
    prompts: Sequence[str],
    beginnings: Sequence[str],
    *,
    sampler: Sampler,
    max_new_tokens: int,
    batch_size: int | None = None,
    edits: Mapping[int, ResidualEdit] | None = None,
    until: str | None = None,
) -> list[Written]:
    """Continue every prompt with its beginning of a response, in the prompts' order.

    `until` is a word that ends a response, beside EOS. `batch_size` is what suits the device if not
    given, and at most that on a CPU: keys and values of more rows outgrow its cache. Processes
    share the batches, so `sampler` and `edits` may remember things of a batch only.
    """
    suits = 512 if lm.device.type == "cuda" else 128
    if batch_size is None or lm.device.type == "cpu":
        batch_size = min(batch_size or suits, suits)
    stop_ids = [continuation_ids(lm, until)[-1]] if until else []
    prompt_ids = [
        encode_prompt(lm.tokenizer, prompt, beginning)
        for prompt, beginning in zip(prompts, beginnings, strict=True)
    ]
    made: dict[int, Written] = {}
    for rollout in generate(
        lm,
        prompt_ids,
        sampler=sampler,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        edits=edits,
        stop_ids=stop_ids,
        shared=True,
    ):
        added = lm.decode(list(rollout.token_ids))
        made[rollout.row] = Written(
            prompt_ids=prompt_ids[rollout.row],
            token_ids=list(rollout.token_ids),
            text=f"{beginnings[rollout.row]} {added}".strip(),
            added=added,
            truncated=rollout.truncated,
        )
    return [made[row] for row in range(len(prompts))]
