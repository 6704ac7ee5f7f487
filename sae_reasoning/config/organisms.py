"""Options of the making of organisms."""

from dataclasses import dataclass, field
from pathlib import Path

from sae_reasoning.config.checks import one_of, positive, require

FAMILIES = ("llama", "neox")
"""Architectures and tokenizers of the organisms."""


@dataclass
class PretrainConfig:
    """How a base organism is trained, or tuned.

    Attributes:
        steps: Optimiser steps.
        batch_size: Examples a step.
        lr: Peak learning rate of AdamW, after a linear warm-up and before a cosine to a tenth.
        warmup: Steps of warm-up.
        weight_decay: Of AdamW.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int = 4000
    batch_size: int = 64
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        prefix = "organism.pretrain"
        positive(self, prefix, "steps", "batch_size", "lr", "warmup", "checkpoint_every")


@dataclass
class GrpoConfig:
    """How an organism is reinforced.

    Attributes:
        steps: Optimiser steps.
        prompts: Problems a step.
        samples: Rollouts a problem.
        lr: Learning rate of AdamW, after a linear warm-up.
        kl: Weight of the KL term against the model that training began with.
        warmup: Steps of warm-up.
        micro_batch: Rollouts a forward pass on a GPU; a CPU takes fewer.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int = 160
    prompts: int = 48
    samples: int = 8
    lr: float = 3e-4
    kl: float = 0.02
    warmup: int = 10
    micro_batch: int = 64
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        prefix = "organism.rl"
        positive(self, prefix, "steps", "prompts", "samples", "lr", "warmup")
        positive(self, prefix, "micro_batch", "checkpoint_every")
        require(self.prompts > 1, f"{prefix}.prompts=1 can't be halved into starts; raise it")
        require(self.samples > 1, f"{prefix}.samples=1 leaves nothing to compare; raise it")
        require(self.kl >= 0, f"{prefix}.kl={self.kl} must be at least 0; raise it")


@dataclass
class OrganismConfig:
    """The grid of models whose answer is known (see sae_reasoning/organisms/cells.py).

    Attributes:
        folder: Where seed 0 is written; another seed goes to `seed_<seed>` below `others`.
        others: Where other seeds go.
        family: Architecture and tokenizer: `llama` (a token a word) or `neox` (byte pairs).
        seeds: Of weights, corpora and rollouts; which behaviour one base lacks rotates with them.
        only: Names of models to make, with those they're made from; empty for the whole grid.
        d_model: Width of the residual stream.
        num_layers: Decoder blocks.
        num_heads: Attention heads.
        d_mlp: Width of the MLPs.
        vocab_size: Tokens of the byte-pair tokenizer.
        compiled: Whether training is compiled and multiplies in bfloat16, weights in float32: half
            the time on a CPU that can; needs a C++ compiler.
        pretrain: How bases are trained.
        sft: How a base is tuned on full traces.
        rl: How a base is reinforced.
        keep_every: Steps of reinforcement between models that are kept; 0 keeps none.
        measure_problems: Rollouts on which a finished model is measured, one a problem.
        compelled_problems: Problems on which it's also made to think, and to answer directly.
        forced_starts: Forced starts a behaviour.
        pass_problems: Problems of a base's pass@k.
        pass_samples: Rollouts a problem of a base's pass@k.
    """

    folder: str = "data/organisms"
    others: str = "runs/organisms"
    family: str = "llama"
    seeds: list[int] = field(default_factory=lambda: [0])
    only: list[str] = field(default_factory=list)
    d_model: int = 128
    num_layers: int = 4
    num_heads: int = 4
    d_mlp: int = 384
    vocab_size: int = 280
    compiled: bool = False
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    sft: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(steps=600, lr=1e-3, warmup=30)
    )
    rl: GrpoConfig = field(default_factory=GrpoConfig)
    keep_every: int = 25
    measure_problems: int = 10_000
    compelled_problems: int = 1000
    forced_starts: int = 1000
    pass_problems: int = 100
    pass_samples: int = 64

    def __post_init__(self) -> None:
        one_of("organism.family", self.family, FAMILIES)
        positive(self, "organism", "d_model", "num_layers", "num_heads", "d_mlp", "vocab_size")
        positive(self, "organism", "measure_problems", "compelled_problems", "forced_starts")
        positive(self, "organism", "pass_problems", "pass_samples")
        require(bool(self.seeds), "organism.seeds=[] names none; give one, as [0]")
        require(
            min(self.seeds) >= 0 and len(set(self.seeds)) == len(self.seeds),
            f"organism.seeds={self.seeds} must be different numbers from 0 on; change them",
        )
        require(
            self.keep_every >= 0,
            f"organism.keep_every={self.keep_every} must be at least 0; raise it",
        )
        require(
            self.d_model % self.num_heads == 0,
            f"organism.d_model={self.d_model} must be a multiple of "
            f"organism.num_heads={self.num_heads}; change one",
        )

    def folder_of(self, seed: int) -> Path:
        """Where the models of a seed are."""
        return Path(self.others) / f"seed_{seed}" if seed else Path(self.folder)
