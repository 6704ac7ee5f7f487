"""What can be set, one dataclass a stage; checked before any model is loaded.

`conf/config.yaml` composes a `Config`; every stage reads its own part, and ranges and cross-checks
stand in each part's `__post_init__`, so a wrong value is one line that names option, value and
remedy.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A wrong value in the config; the message names option, value and remedy."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _positive(section: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        _require(value > 0, f"{prefix}.{name}={value} must be positive; raise it")


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{option}={value} is unknown; choose one of {', '.join(choices)}")


@dataclass
class ModelConfig:
    """A causal language model: a local folder or a hub id.

    Attributes:
        path: Folder with config.json, weights and a fast tokenizer, or a hub id.
        revision: Hub revision; none for a folder.
        dtype: Floating-point type of the weights in memory: float32, bfloat16 or float16.
        trust_remote_code: Whether code that comes with the model may run.
    """

    option = "model"  # what messages call it; no field, so it can't be set

    path: str = "???"
    revision: str | None = None
    dtype: str = "float32"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _one_of(f"{self.option}.dtype", self.dtype, ("float32", "bfloat16", "float16"))

    @property
    def named(self) -> str:
        """Option and value, for messages."""
        return f"{self.option}.path={self.path}"


@dataclass
class PairConfig:
    """A base model and the model that training made of it.

    Attributes:
        name: Names the run's folder.
        arm: How the second model was made (`rl`, `distill`, ...): a label for people; no measure
            reads it.
        base: The model before.
        rl: The model after.
    """

    name: str = "???"
    arm: str = "rl"
    base: ModelConfig = field(default_factory=ModelConfig)
    rl: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        _require(
            self.name == "???"  # Not set yet: the schema that overrides are checked against.
            or (re.fullmatch(r"[\w.-]+", self.name) is not None and self.name.strip(".") != ""),
            f"pair.name={self.name} must be one folder name; use letters, digits, '_', '-', '.'",
        )
        self.base.option, self.rl.option = "pair.base", "pair.rl"


@dataclass
class TracesConfig:
    """Rollouts of both models on the same problems, or traces brought along.

    Attributes:
        source: `search` draws problems of the organisms' world; anything else is a JSON-lines file
            of annotated traces to import (see README, "your own pair").
        num_problems: Problems drawn.
        base_samples: Rollouts a problem of the base; more than of the other, as its moves are rare.
        rl_samples: Rollouts a problem of the RL model.
        report_share: Share of problems held for the report split.
        max_new_tokens: Tokens after which a rollout is cut.
        temperature: Of sampling.
        batch_size: Rollouts at once.
        seed: Of problems, split and sampling noise.
    """

    source: str = "search"
    num_problems: int = 600
    base_samples: int = 8
    rl_samples: int = 2
    report_share: float = 0.5
    max_new_tokens: int = 280
    temperature: float = 1.0
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(self, "traces", "num_problems", "base_samples", "rl_samples", "max_new_tokens")
        _positive(self, "traces", "temperature", "batch_size")
        _require(
            0 < self.report_share < 1,
            f"traces.report_share={self.report_share} must lie between 0 and 1; try 0.5",
        )


@dataclass
class CacheConfig:
    """Activations of both readers on all traces.

    Attributes:
        dtype: On disk: float16, bfloat16 or float32.
        tokens: `response` keeps the last prompt position and what follows; `all` keeps every
            position but BOS.
        token_budget: Tokens, padding included, of one forward pass; small ones stay in a CPU's
            cache, a GPU wants ten times as many.
        shard_tokens: Rows of one HDF5 shard.
    """

    dtype: str = "float16"
    tokens: str = "response"
    token_budget: int = 2048
    shard_tokens: int = 65536

    def __post_init__(self) -> None:
        _one_of("cache.dtype", self.dtype, ("float16", "bfloat16", "float32"))
        _one_of("cache.tokens", self.tokens, ("response", "all"))
        _positive(self, "cache", "token_budget", "shard_tokens")


@dataclass
class SaeConfig:
    """One sparse autoencoder; the names are sae-lens's.

    Attributes:
        architecture: topk, batchtopk, jumprelu, matryoshka_batchtopk or standard.
        d_sae: Latents.
        k: Latents active a token (topk, batchtopk, matryoshka).
        l0_coefficient: Sparsity weight of jumprelu.
        l1_coefficient: Sparsity weight of standard.
        matryoshka_widths: Sizes of the nested dictionaries, the last one d_sae.
        aux_loss_coefficient: Weight of the loss that revives dead latents.
    """

    architecture: str = "topk"
    d_sae: int = 512
    k: int = 16
    l0_coefficient: float = 1.0
    l1_coefficient: float = 1.0
    matryoshka_widths: list[int] = field(default_factory=list)
    aux_loss_coefficient: float = 1.0

    def __post_init__(self) -> None:
        _one_of(
            "train.sae.architecture",
            self.architecture,
            ("topk", "batchtopk", "jumprelu", "matryoshka_batchtopk", "standard"),
        )
        _positive(self, "train.sae", "d_sae", "k")
        _require(
            self.k <= self.d_sae,
            f"train.sae.k={self.k} exceeds train.sae.d_sae={self.d_sae}; lower k",
        )


@dataclass
class TrainConfig:
    """Training of one SAE a layer.

    Attributes:
        sae: Its architecture.
        readers: Whose activations: `base`, `rl` or `pooled` (both, half each batch).
        steps: Optimiser steps.
        batch_size: Tokens a step.
        lr: Peak learning rate of Adam.
        mixing_tokens: Rows held in memory to shuffle from; bounds the memory of a training.
        checkpoint_every: Steps between checkpoints.
        seed: Of weights and order.
    """

    sae: SaeConfig = field(default_factory=SaeConfig)
    readers: str = "pooled"
    steps: int = 2000
    batch_size: int = 2048
    lr: float = 1e-3
    mixing_tokens: int = 65536
    checkpoint_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("train.readers", self.readers, ("base", "rl", "pooled"))
        _positive(self, "train", "steps", "batch_size", "lr", "mixing_tokens", "checkpoint_every")


@dataclass
class RankConfig:
    """Scores of every latent for every behaviour, and the two shortlists.

    Attributes:
        trackers: Latents a behaviour on the shortlist by span AUROC.
        announcers: Latents a behaviour on the shortlist of what starts a move.
        announce_by: What picks announcers: `attribution` of the onset logit, or `onset_auroc`.
        candidates: Latents a behaviour, reader and writer that get intervals and q.
        attribution_onsets: Opportunities a behaviour on which the onset logit is attributed.
        bootstrap: Resamples of problems.
        random_directions: Directions in the random-direction baseline.
        seed: Of windows, resamples and baselines.
    """

    trackers: int = 10
    announcers: int = 20
    announce_by: str = "attribution"
    candidates: int = 25
    attribution_onsets: int = 256
    bootstrap: int = 1000
    random_directions: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(self, "rank", "trackers", "announcers", "candidates", "attribution_onsets")
        _positive(self, "rank", "bootstrap", "random_directions")
        _one_of("rank.announce_by", self.announce_by, ("attribution", "onset_auroc"))


@dataclass
class AblateConfig:
    """Edits of the shortlist, with controls, on both models.

    Attributes:
        behaviours: Moves whose latents are edited; empty for all that are shortlisted.
        shortlist: `announcers` or `trackers`.
        num_latents: Latents ablated together, the best first, over all layers.
        clamp_latents: Latents clamped together, likewise.
        clamp_multiple: Clamp value, in multiples of the latent's maximum on the select split.
        controls: Matched-latent sets and random directions, each this many draws.
        split: Whose problems: `report`; or `select`, to choose doses and sizes on.
        num_problems: Problems generated on.
        samples: Rollouts a problem and condition.
        base_samples: Rollouts a problem and condition of the base.
        max_new_tokens: Tokens after which a rollout is cut.
        temperature: Of sampling.
        batch_size: Rows at once; rows of one batch may carry different edits.
        bootstrap: Resamples of problems.
        seed: Of controls and sampling noise.
    """

    behaviours: list[str] = field(default_factory=list)
    shortlist: str = "announcers"
    num_latents: int = 20
    clamp_latents: int = 3
    clamp_multiple: float = 0.3
    controls: int = 3
    split: str = "report"
    num_problems: int = 100
    samples: int = 1
    base_samples: int = 4
    max_new_tokens: int = 280
    temperature: float = 1.0
    batch_size: int = 256
    bootstrap: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("ablate.split", self.split, ("report", "select"))
        _one_of("ablate.shortlist", self.shortlist, ("announcers", "trackers"))
        _positive(self, "ablate", "num_latents", "clamp_latents", "clamp_multiple", "controls")
        _positive(self, "ablate", "num_problems", "samples")
        _positive(self, "ablate", "base_samples", "max_new_tokens", "temperature", "batch_size")
        _positive(self, "ablate", "bootstrap")


@dataclass
class TrackerConfig:
    """Where results are logged beside the files.

    Attributes:
        kind: `wandb` or `none`.
        project: W&B project.
        mode: `auto` is online when an API key is set, else offline; or `online`, `offline`.
    """

    kind: str = "wandb"
    project: str = "sae_reasoning"
    mode: str = "auto"

    def __post_init__(self) -> None:
        _one_of("tracker.kind", self.kind, ("wandb", "none"))
        _one_of("tracker.mode", self.mode, ("auto", "online", "offline"))


@dataclass
class PretrainConfig:
    """How a base organism is trained.

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
        _positive(self, prefix, "steps", "batch_size", "lr", "warmup", "checkpoint_every")


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
        micro_batch: Rollouts a forward pass.
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
        _positive(self, prefix, "steps", "prompts", "samples", "lr", "warmup")
        _positive(self, prefix, "micro_batch", "checkpoint_every")
        _require(self.prompts > 1, f"{prefix}.prompts=1 can't be halved into starts; raise it")
        _require(self.samples > 1, f"{prefix}.samples=1 leaves nothing to compare; raise it")
        _require(self.kl >= 0, f"{prefix}.kl={self.kl} must be at least 0; raise it")


@dataclass
class OrganismConfig:
    """The embedded pair: a base that has every move but makes it rarely, and what RL makes of it.

    Attributes:
        folder: Where `search_base_llama` and `search_rl_llama` are written.
        seed: Of weights, corpus and rollouts.
        d_model: Width of the residual stream.
        num_layers: Decoder blocks.
        num_heads: Attention heads.
        d_mlp: Width of the MLPs.
        pretrain: How the base is trained.
        rl: How the base is reinforced.
        measure_problems: Problems on which a finished model is measured.
        forced_starts: Forced starts a move.
        pass_problems: Problems of the base's pass@k.
        pass_samples: Rollouts a problem of the base's pass@k.
    """

    folder: str = "data/organisms"
    seed: int = 0
    d_model: int = 128
    num_layers: int = 4
    num_heads: int = 4
    d_mlp: int = 384
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    rl: GrpoConfig = field(default_factory=GrpoConfig)
    measure_problems: int = 1000
    forced_starts: int = 300
    pass_problems: int = 100
    pass_samples: int = 64

    def __post_init__(self) -> None:
        _positive(self, "organism", "d_model", "num_layers", "num_heads", "d_mlp")
        _positive(self, "organism", "measure_problems", "forced_starts")
        _positive(self, "organism", "pass_problems", "pass_samples")
        _require(
            self.d_model % self.num_heads == 0,
            f"organism.d_model={self.d_model} must be a multiple of "
            f"organism.num_heads={self.num_heads}; change one",
        )


@dataclass
class Config:
    """One experiment on one pair.

    Attributes:
        pair: The two models.
        behaviours: Moves to track; the first annotator's labels.
        layers: Decoder blocks whose output is read, 0 the first.
        traces: Rollouts.
        cache: Activations.
        train: SAEs.
        rank: Scores.
        ablate: Edits.
        organism: The embedded pair's making.
        tracker: Logging.
        experiment: Names the folder of results.
        runs: Where experiments are kept.
        device: `auto` is cuda where there is one, else cpu.
        threads: CPU threads; 0 leaves PyTorch's default.
    """

    pair: PairConfig = field(default_factory=PairConfig)
    behaviours: list[str] = field(default_factory=list)
    layers: list[int] = field(default_factory=lambda: [1, 2])
    traces: TracesConfig = field(default_factory=TracesConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    ablate: AblateConfig = field(default_factory=AblateConfig)
    organism: OrganismConfig = field(default_factory=OrganismConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    experiment: str = "default"
    runs: str = "runs"
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.layers), "layers=[] is empty; name at least one decoder block")
        _require(
            sorted(set(self.layers)) == sorted(self.layers) and min(self.layers) >= 0,
            f"layers={self.layers} must be different blocks, 0 the first",
        )
        self.layers = sorted(self.layers)
        _require(bool(self.behaviours), "behaviours=[] is empty; choose behaviours=search_moves")
        runs = Path(self.runs).resolve()
        _require(
            (runs / self.experiment).resolve().parent == runs,
            f"experiment={self.experiment} leaves runs={self.runs}; use one folder name",
        )

    @property
    def folder(self) -> Path:
        """Where this experiment on this pair keeps its stages."""
        return Path(self.runs) / self.experiment / self.pair.name

    def settings(self, stage: str) -> dict[str, Any]:
        """The part of the config that a stage reads, and is fingerprinted by."""
        layers: dict[str, Any] = {"layers": self.layers}
        behaviours: dict[str, Any] = {"behaviours": self.behaviours}
        dtypes = {"dtypes": {"base": self.pair.base.dtype, "rl": self.pair.rl.dtype}}
        shared = {
            "traces": behaviours | dtypes,
            "cache": layers | dtypes,
            "train": layers,
            "rank": layers | behaviours | dtypes,
            "ablate": layers | behaviours | dtypes | {"source": self.traces.source},
        }
        return {stage: getattr(self, stage)} | shared[stage]
