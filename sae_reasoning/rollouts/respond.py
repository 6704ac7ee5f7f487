"""Responses of a model to prefixes of token ids, plain or edited.

A prefix is the prompt as the model's own template writes it, and the ids of what stands at the
beginning of the response. Nothing is decoded and encoded again: what was sampled is what is judged,
cached and continued.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from sae_reasoning.edges.lm.attach import Attachment
from sae_reasoning.edges.lm.generate import (
    Beside,
    EditsOfBatch,
    ResidualEdit,
    Sampler,
    generate,
)
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    continuation_ids,
    encode_prompt,
    encode_response,
)
from sae_reasoning.records import Additions, SentenceEnd
from sae_reasoning.steering.noise import Noise, keyed_sampler


@dataclass(frozen=True)
class Prefix:
    """What a model goes on from.

    Attributes:
        prompt_ids: Tokens of the prompt, BOS included.
        begun_ids: Tokens of the response that are given.
        key: Of the sampling noise: its problem's or its start's.
        sample: Number of the sample among those of the same key.
        room: Tokens after which its response is truncated, where they are fewer than others have.
    """

    prompt_ids: tuple[int, ...]
    begun_ids: tuple[int, ...]
    key: int
    sample: int = 0
    room: int | None = None

    def of(self, key: int, sample: int) -> "Prefix":
        """The same tokens under other noise."""
        return replace(self, key=key, sample=sample)


@dataclass(frozen=True)
class Response:
    """What a model made of a prefix.

    Attributes:
        prefix: What it went on from.
        token_ids: Tokens that the model wrote, without the one that ended its turn.
        end_id: The token that ended its turn, if one did.
        text: The whole response, with the beginning that was given.
        added: What the model wrote of it.
        truncated: Whether it was cut.
        edited: What edits added, where they were made for each batch.
    """

    prefix: Prefix
    token_ids: tuple[int, ...]
    end_id: int | None
    text: str
    added: str
    truncated: bool
    edited: Additions | None = None

    @property
    def response_ids(self) -> list[int]:
        """Tokens of the whole text."""
        return [*self.prefix.begun_ids, *self.token_ids]


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        noise: Stream of the noise.
        temperature: Positive.
        max_new_tokens: Tokens after which a response is truncated.
        batch_size: Rows at once at most; on a CPU no more than fit its cache.
    """

    noise: Noise
    temperature: float
    max_new_tokens: int
    batch_size: int | None = None


def prefix_of(
    lm: LanguageModel,
    prompt: str,
    key: int,
    sample: int = 0,
    *,
    begun: str | Sequence[int] = (),
    opening: str = "",
) -> Prefix:
    """A prompt in a model's own template, with the beginning of a response.

    Args:
        lm: Whose template.
        prompt: What is asked.
        key: Of the noise.
        sample: Of those with the same key.
        begun: Beginning of the response: ids as they were sampled, or text.
        opening: Words that are written after it.
    """
    ids = encode_response(lm.tokenizer, begun)[0] if isinstance(begun, str) else list(begun)
    if opening:
        ids = [*ids, *continuation_ids(lm, opening, ids)]
    return Prefix(tuple(encode_prompt(lm.tokenizer, prompt)), tuple(ids), key, sample)


def noise_keys(noise: Noise, prefixes: Sequence[Prefix]) -> Int[Tensor, "row 3"]:
    """Keys of the noise of each prefix's response."""
    return noise.keys([(prefix.key, prefix.sample) for prefix in prefixes])


def respond(
    lm: LanguageModel,
    prefixes: Sequence[Prefix],
    sampling: Sampling,
    *,
    until: SentenceEnd | None = None,
    edits: Mapping[int, ResidualEdit] | EditsOfBatch | None = None,
    sampler: Callable[[Sampler], Sampler] | None = None,
    beside: Beside | None = None,
    part: Attachment | None = None,
) -> list[Response]:
    """Continue every prefix, in their order.

    Processes share the batches, so `edits` and what `sampler` makes may remember things of a batch
    only. Edits that have to say what they did are made for each batch.

    Args:
        lm: The model.
        prefixes: What it goes on from.
        sampling: How.
        until: What ends a response beside the model's own end tokens.
        edits: By decoder block, of the residual stream; or what makes them for the rows of a batch
            (see `generate`). Rows are places in `prefixes`.
        sampler: Wraps the keyed sampler.
        beside: Another model that reads along, for edits of a code of two models.
        part: Attached to the model while it writes; responses have the prompts that it makes.
    """
    most = 512 if lm.device.type == "cuda" else 128
    batch_size = sampling.batch_size or most
    if lm.device.type == "cpu":
        batch_size = min(batch_size, most)
    most_new = sampling.max_new_tokens
    keyed = keyed_sampler(noise_keys(sampling.noise, prefixes), sampling.temperature)
    if part:
        prefixes = [replace(one, prompt_ids=tuple(part.prompt(one.prompt_ids))) for one in prefixes]
    made: dict[int, Response] = {}
    with part.attach() if part else ExitStack():
        for rollout in generate(
            lm,
            [[*prefix.prompt_ids, *prefix.begun_ids] for prefix in prefixes],
            sampler=sampler(keyed) if sampler else keyed,
            max_new_tokens=[min(one.room or most_new, most_new) for one in prefixes],
            batch_size=batch_size,
            edits=edits,
            until=until,
            beside=beside,
            shared=True,
        ):
            prefix = prefixes[rollout.row]
            made[rollout.row] = Response(
                prefix=prefix,
                token_ids=tuple(rollout.token_ids),
                end_id=rollout.end_id,
                text=lm.decode([*prefix.begun_ids, *rollout.token_ids]),
                added=lm.decode(list(rollout.token_ids)),
                truncated=rollout.truncated,
                edited=rollout.added,
            )
    return [made[row] for row in range(len(prefixes))]
