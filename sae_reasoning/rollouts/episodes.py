"""How a model writes while it is trained on its own rollouts, and while it is measured."""

from collections.abc import Callable, Sequence

import torch

from sae_reasoning.edges.lm.attach import Attachment
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.organisms.grpo import Episode, RollOut
from sae_reasoning.organisms.measure import Write
from sae_reasoning.rollouts.respond import Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.marks import MarkEnd

Continue = Callable[[Sequence[str], Sequence[str], Sequence[int]], list[str]]
"""Takes prompts, beginnings of responses and keys of noise; gives the rest of a sentence."""


def learner(lm: LanguageModel, sampling: Sampling, part: Attachment | None = None) -> RollOut:
    """Episodes of a model that learns, with the tokens that it read and wrote.

    Args:
        lm: The model; frozen where a part attached to it learns.
        sampling: How it writes.
        part: What it writes with.
    """

    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        prefixes = [
            prefix_of(lm, prompt, key, sample, begun=begun)
            for prompt, begun, (_, key, sample) in zip(
                prompts, beginnings, keys.tolist(), strict=True
            )
        ]
        return [
            Episode(
                [*one.prefix.prompt_ids, *one.prefix.begun_ids],
                [*one.token_ids, *([] if one.end_id is None else [one.end_id])],
                one.text,
                one.truncated,
            )
            for one in respond(lm, prefixes, sampling, part=part)
        ]

    return roll_out


def writer(lm: LanguageModel, stream: str, most: int, batch_size: int) -> Write:
    """Responses to prompts, at temperature 1.

    Args:
        lm: The model.
        stream: Of the noise.
        most: Tokens after which a response is cut.
        batch_size: Rows at once.
    """

    def write(
        prompts: Sequence[str], beginnings: Sequence[str], seed: int
    ) -> list[tuple[str, int, bool]]:
        prefixes = [
            prefix_of(lm, prompt, row, begun=begun)
            for row, (prompt, begun) in enumerate(zip(prompts, beginnings, strict=True))
        ]
        made = respond(lm, prefixes, Sampling(Noise(stream, seed), 1.0, most, batch_size))
        return [(one.text, len(one.token_ids), one.truncated) for one in made]

    return write


def continuer(lm: LanguageModel, sampling: Sampling) -> Continue:
    """What a model writes to the end of a sentence."""

    def continue_(
        prompts: Sequence[str], beginnings: Sequence[str], keys: Sequence[int]
    ) -> list[str]:
        prefixes = [
            prefix_of(lm, prompt, key, 1, begun=begun)
            for prompt, begun, key in zip(prompts, beginnings, keys, strict=True)
        ]
        return [one.added for one in respond(lm, prefixes, sampling, until=MarkEnd("."))]

    return continue_
