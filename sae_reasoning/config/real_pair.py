"""Options of the training of adapters on a real language model."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import one_of, positive, require
from sae_reasoning.config.organisms import GrpoConfig, PretrainConfig

ADAPTERS = ("base_lacking", "sft_lacking", "base", "rl", "parrot")
"""Adapters that can be made, in the order in which they are; `rl` and `parrot` need `base`."""


def _base() -> PretrainConfig:
    return PretrainConfig(
        steps=600, batch_size=8, lr=8e-4, warmup=10, weight_decay=0.0, checkpoint_every=5
    )


def _sft() -> PretrainConfig:
    return PretrainConfig(
        steps=400, batch_size=8, lr=8e-4, warmup=5, weight_decay=0.0, checkpoint_every=5
    )


def _rl() -> GrpoConfig:
    return GrpoConfig(
        steps=60, prompts=16, samples=8, lr=1e-4, kl=0.02, warmup=5, checkpoint_every=1
    )


@dataclass
class RealPairConfig:
    """Adapters that teach a real model Countdown in plain English (see organisms/countdown.py).

    The model is `pair.rl`, as `pair=smollm2` names it.

    Attributes:
        folder: Where they are written, a folder an adapter.
        only: Which to make of `base_lacking`, `sft_lacking`, `base`, `rl` and `parrot`, with those
            that they are made from; empty for all.
        seed: Of adapters, problems and rollouts.
        rank: Of the update of every linear layer.
        alpha: The update counts `alpha / rank` times.
        frozen_blocks: The first blocks, which stay as they are and need no backward pass.
        base: How bases are trained, on mostly bare guesses in the end.
        sft: How one is tuned on full traces.
        rl: How one is reinforced.
        max_new_tokens: Tokens after which a rollout is cut.
        rollouts_at_once: Rollouts of one batch on a CPU; a GPU takes more.
        measure_problems: Rollouts on which a finished adapter is measured, one a problem.
        compelled_problems: Problems on which it's also made to think, and to answer directly.
        forced_starts: Forced starts a behaviour.
    """

    folder: str = "runs/real_pair"
    only: list[str] = field(default_factory=list)
    seed: int = 0
    rank: int = 16
    alpha: int = 32
    frozen_blocks: int = 15
    base: PretrainConfig = field(default_factory=_base)
    sft: PretrainConfig = field(default_factory=_sft)
    rl: GrpoConfig = field(default_factory=_rl)
    max_new_tokens: int = 200
    rollouts_at_once: int = 32
    measure_problems: int = 2000
    compelled_problems: int = 500
    forced_starts: int = 300

    def __post_init__(self) -> None:
        for name in self.only:
            one_of("real_pair.only", name, ADAPTERS)
        positive(self, "real_pair", "rank", "alpha", "max_new_tokens", "rollouts_at_once")
        positive(self, "real_pair", "measure_problems", "compelled_problems", "forced_starts")
        require(
            self.frozen_blocks >= 0,
            f"real_pair.frozen_blocks={self.frozen_blocks} must be at least 0; raise it",
        )
