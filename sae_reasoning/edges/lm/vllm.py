"""Rollouts by vLLM, where it's installed: faster on a GPU, without edits and with its own noise."""

import importlib
from collections.abc import Iterator, Sequence

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.artifacts import fingerprint
from sae_reasoning.edges.lm.commits import commit_of
from sae_reasoning.edges.lm.ending import find_end_ids
from sae_reasoning.edges.lm.generate import Rollout
from sae_reasoning.edges.lm.load import decode, describe, load_tokenizer, said_configs


class VllmWriter:
    """A model that vLLM has loaded.

    Args:
        config: The model.

    Raises:
        ConfigError: vLLM isn't installed.
    """

    def __init__(self, config: ModelConfig) -> None:
        try:
            self._vllm = importlib.import_module("vllm")
        except ImportError as error:
            raise ConfigError(
                f"traces.engine=vllm needs vLLM ({error}); pip install 'sae_reasoning[vllm]' on a "
                "machine with a GPU, or set traces.engine=transformers"
            ) from error
        self.facts = describe(config)
        self.tokenizer = load_tokenizer(config)
        self.end_ids = find_end_ids(self.tokenizer, *said_configs(config))
        self._engine = self._vllm.LLM(
            model=config.path,
            revision=commit_of(config.path, "config.json", config.revision),
            dtype=config.dtype,
            trust_remote_code=config.trust_remote_code,
        )

    def decode(self, token_ids: list[int]) -> str:
        """Text of a response, without special tokens."""
        return decode(self.tokenizer, token_ids)

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[tuple[int, ...]],
        *,
        temperature: float,
        max_new_tokens: int,
    ) -> Iterator[Rollout]:
        """Roll out every prompt once.

        Args:
            prompts: Token ids of each, BOS included.
            keys: Of each prompt's noise.
            temperature: Of sampling.
            max_new_tokens: Tokens after which a rollout is cut.
        """
        sampling = [
            self._vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                stop_token_ids=list(self.end_ids),
                seed=int(fingerprint(list(key)), 16) % 2**31,
            )
            for key in keys
        ]
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        for row, answer in enumerate(self._engine.generate(asked, sampling)):
            (found,) = answer.outputs
            ids = tuple(found.token_ids)
            is_cut = found.finish_reason == "length"
            # Whether the token that ended it is among its ids has changed with versions.
            ended = not is_cut and bool(ids) and ids[-1] in self.end_ids
            end_id = ids[-1] if ended else found.stop_reason
            if not isinstance(end_id, int):
                end_id = self.tokenizer.eos_token_id
            yield Rollout(row, ids[:-1] if ended else ids, is_cut, None if is_cut else end_id)
