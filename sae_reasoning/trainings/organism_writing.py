"""How organisms write while they are trained and measured: noise, beginnings, contexts outgrown."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.organisms.grpo import RollOut
from sae_reasoning.organisms.measure import Write
from sae_reasoning.rollouts.episodes import learner
from sae_reasoning.rollouts.respond import Prefix, Response, Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.marks import MarkEnd
from sae_reasoning.tasks.search.forced import Continue

_MAX_NEW_TOKENS = 400
_BEHAVIOUR_TOKENS = 30


class _OwnKeys(Noise):
    """Noise keyed by seed, problem and sample alone, by which the models that ship were made."""

    def keys(self, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
        return torch.tensor([[self.seed, key, sample] for key, sample in rows]).reshape(-1, 3)


def _respond(
    lm: LanguageModel, prefixes: Sequence[Prefix], seed: int, most: int, until: str = ""
) -> list[Response]:
    """Responses that may outgrow the model's context, as its rotary positions go on.

    A response that is begun midway through a chain of thought is as long as that and a whole new
    one.
    """
    end = MarkEnd(until) if until else None
    return respond(_unbounded(lm), prefixes, _sampling(seed, most), until=end)


def _sampling(seed: int, most: int) -> Sampling:
    return Sampling(_OwnKeys("organisms", seed), 1.0, most)


def _unbounded(lm: LanguageModel) -> LanguageModel:
    return replace(lm, facts=replace(lm.facts, context=None))


def roller(lm: LanguageModel, seed: int) -> RollOut:
    """Rolls out episodes of a learner, each with noise of its own."""
    return learner(_unbounded(lm), _sampling(seed, _MAX_NEW_TOKENS))


def writer(lm: LanguageModel) -> Write:
    """Writes responses from what they begin with."""

    def write(
        prompts: Sequence[str], beginnings: Sequence[str], seed: int
    ) -> list[tuple[str, int, bool]]:
        prefixes = [
            prefix_of(lm, prompt, row, begun=begun)
            for row, (prompt, begun) in enumerate(zip(prompts, beginnings, strict=True))
        ]
        made = _respond(lm, prefixes, seed, _MAX_NEW_TOKENS)
        return [(one.text, len(one.token_ids), one.truncated) for one in made]

    return write


def continuer(lm: LanguageModel, seed: int) -> Continue:
    """Goes on with a text to the end of its sentence."""

    def continue_(
        prompts: Sequence[str], beginnings: Sequence[str], keys: Sequence[int]
    ) -> list[str]:
        prefixes = [
            prefix_of(lm, prompt, key, 1, begun=begun)
            for prompt, begun, key in zip(prompts, beginnings, keys, strict=True)
        ]
        made = _respond(lm, prefixes, seed, _BEHAVIOUR_TOKENS, until=".")
        return [one.added for one in made]

    return continue_
