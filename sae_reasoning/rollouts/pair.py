"""Both models of a pair, each loaded when it is first asked for."""

from functools import cached_property

from sae_reasoning.config import ModelConfig, PairConfig
from sae_reasoning.edges.lm.load import LanguageModel, load
from sae_reasoning.edges.lm.lora import LoraLearner, LoraShape, lora_learner
from sae_reasoning.records import BASE, RL


class LoadedPair:
    """The models of a pair on one device."""

    def __init__(self, pair: PairConfig, device: str) -> None:
        self._pair, self._device = pair, device

    def __getitem__(self, model: str) -> LanguageModel:
        """`base` or `rl`."""
        return self.base if model == BASE else self.rl

    def anew(self, model: str) -> LanguageModel:
        """A copy of its own, to be trained, or let go of as soon as it has answered."""
        return load(self._config(model), self._device)

    def adapted(self, model: str, rank: int, seed: int) -> LoraLearner:
        """A copy of its own with a new adapter on all blocks; alpha is twice the rank.

        Args:
            model: `base` or `rl`.
            rank: Of the adapter.
            seed: Of its weights.
        """
        return lora_learner(self._config(model), LoraShape(rank, 2 * rank), seed, self._device)

    def _config(self, model: str) -> ModelConfig:
        return self._pair.base if model == BASE else self._pair.rl

    @cached_property
    def base(self) -> LanguageModel:
        """The base model."""
        return self.anew(BASE)

    @cached_property
    def rl(self) -> LanguageModel:
        """The RL model."""
        return self.anew(RL)
