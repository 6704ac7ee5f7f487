"""Options that every stage has whose models write."""

from dataclasses import dataclass

from sae_reasoning.config.checks import positive


@dataclass
class SamplingConfig:
    """How a stage's rollouts are drawn, and how its figures are resampled.

    Attributes:
        max_new_tokens: Tokens after which a rollout is cut.
        temperature: Of sampling.
        batch_size: Rows at once; `contrast` takes at most 128 on a CPU, where processes share them.
        bootstrap: Resamples of problems.
        seed: Of sampling noise, and of all else that is drawn at random.
    """

    max_new_tokens: int = 280
    temperature: float = 1.0
    batch_size: int = 256
    bootstrap: int = 2000
    seed: int = 0

    def check_sampling(self, stage: str) -> None:
        """Refuse what isn't above 0; messages name the stage's options."""
        positive(self, stage, "max_new_tokens", "temperature", "batch_size", "bootstrap")
