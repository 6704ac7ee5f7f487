"""Options of the stages of an experiment on one pair, one dataclass a stage."""

import re
from dataclasses import dataclass, field

from sae_reasoning.config.attacks import AttackConfig
from sae_reasoning.config.checks import one_of, positive, require


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
        one_of(f"{self.option}.dtype", self.dtype, ("float32", "bfloat16", "float16"))

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
        require(
            self.name == "???"  # Not set yet: the schema that overrides are checked against.
            # Brackets, commas and blanks come with lists, as in pair.name=mine${layers}.
            or (
                re.fullmatch(r"[\w.,[\] -]+", self.name) is not None and self.name.strip(". ") != ""
            ),
            f"pair.name={self.name} must be one folder name; use letters, digits, '_', '-', '.'",
        )
        self.base.option, self.rl.option = "pair.base", "pair.rl"


@dataclass
class TracesConfig:
    """Rollouts of both models on the same problems, or traces brought along.

    Attributes:
        source: `search` draws problems of the organisms' world; anything else is a file of
            annotated traces to import: JSON, JSON lines or Parquet, told apart by content (see
            README, "your own pair").
        base_source: File of the base's traces, where they stand apart; those of `source` are the RL
            model's then.
        writer: Who wrote imported traces that don't say: `base`, `rl`, or none, which refuses them.
        annotator: Who marks the moves: `grammar` (the organisms' world's own), `imported` takes
            them as they come, `cues` looks for words, `llm` asks a model; `auto` is the first or
            second where the source has it, else cues.
        second_annotator: Marks the same traces, to be compared (Cohen's kappa); none for nobody.
        annotator_endpoint: URL of the OpenAI-compatible server of `llm`; the key is read from
            OPENAI_API_KEY.
        annotator_model: Model to ask there.
        annotator_concurrency: Requests under way at once.
        annotator_attempts: Times a trace is asked about while answers can't be read.
        annotator_failures: Largest share of traces that may be left out as their answers can't be.
        cues: Words of each move, for `cues` (files of conf/behaviours).
        meanings: What each move is, for `llm`.
        jitter: Tokens by which spans' boundaries are moved at most, by lot: 0 but for seeing what
            hangs on them.
        num_problems: Problems drawn.
        min_edges: Shortest right path of a drawn problem, in edges.
        max_edges: Longest right path; the organisms were trained on 3 to 5.
        places: Names of places in drawn problems: `known`, or `new` ones that no organism met.
        remarks: Harmless sentences before drawn problems: `known`, or `new` ones.
        base_samples: Rollouts a problem of the base; more than of the other, as its moves are rare.
        rl_samples: Rollouts a problem of the RL model.
        report_share: Share of problems held for the report split.
        max_new_tokens: Tokens after which a rollout is cut.
        temperature: Of sampling.
        batch_size: Rollouts at once.
        seed: Of problems, split and sampling noise.
    """

    source: str = "search"
    base_source: str = ""
    writer: str = ""
    annotator: str = "auto"
    second_annotator: str = ""
    annotator_endpoint: str = ""
    annotator_model: str = ""
    annotator_concurrency: int = 8
    annotator_attempts: int = 3
    annotator_failures: float = 0.05
    cues: dict[str, list[str]] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)
    jitter: int = 0
    num_problems: int = 600
    min_edges: int = 3
    max_edges: int = 5
    places: str = "known"
    remarks: str = "known"
    base_samples: int = 8
    rl_samples: int = 2
    report_share: float = 0.5
    max_new_tokens: int = 280
    temperature: float = 1.0
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "traces", "num_problems", "base_samples", "rl_samples", "max_new_tokens")
        positive(self, "traces", "temperature", "batch_size")
        one_of("traces.writer", self.writer, ("", "base", "rl"))
        self._check_annotators()
        one_of("traces.places", self.places, ("known", "new"))
        one_of("traces.remarks", self.remarks, ("known", "new"))
        require(
            0 < self.report_share < 1,
            f"traces.report_share={self.report_share} must lie between 0 and 1; try 0.5",
        )
        require(
            1 <= self.min_edges <= self.max_edges <= 8,
            f"traces.min_edges={self.min_edges} and traces.max_edges={self.max_edges} must be in "
            "order between 1 and 8; try 3 and 5",
        )

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who is named to mark the moves."""
        return tuple(filter(None, (self.annotator, self.second_annotator)))

    def depends_on(self, option: str) -> bool:
        """Whether traces can differ with an option, as the others are set."""
        if option in ("annotator_endpoint", "annotator_concurrency"):
            return False
        if option == "cues":
            by_words = self.annotator == "auto" and self.source != "search"
            return "cues" in self.annotators or by_words
        if option in ("meanings", "annotator_model", "annotator_attempts", "annotator_failures"):
            return "llm" in self.annotators
        return True

    def _check_annotators(self) -> None:
        kinds = ("grammar", "cues", "llm", "imported")
        one_of("traces.annotator", self.annotator, ("auto", *kinds))
        one_of("traces.second_annotator", self.second_annotator, ("", *kinds))
        require(
            "grammar" not in self.annotators or self.source == "search",
            f"traces.source={self.source} isn't the organisms' world, which the grammar reads; set "
            "traces.annotator=cues, llm or imported",
        )
        require(
            "imported" not in self.annotators or self.source != "search",
            "traces.source=search draws problems, so no moves come with it; set "
            "traces.annotator=grammar",
        )
        url = self.annotator_endpoint
        require(
            "llm" not in self.annotators
            or (url.startswith(("http://", "https://")) and bool(self.annotator_model)),
            f"traces.annotator=llm needs an http(s) URL (traces.annotator_endpoint={url or '?'}) "
            f"and a model there (traces.annotator_model={self.annotator_model or '?'}); set both",
        )
        positive(self, "traces", "annotator_concurrency", "annotator_attempts")
        require(
            0 <= self.annotator_failures < 1,
            f"traces.annotator_failures={self.annotator_failures} must be a share; try 0.05",
        )
        require(self.jitter >= 0, f"traces.jitter={self.jitter} is negative; set 0 or more")


@dataclass
class ExportConfig:
    """Traces as span JSONL.

    Attributes:
        split: `select`, `report`, or `all` of them.
    """

    split: str = "all"

    def __post_init__(self) -> None:
        one_of("export.split", self.split, ("all", "select", "report"))


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
        one_of("cache.dtype", self.dtype, ("float16", "bfloat16", "float32"))
        one_of("cache.tokens", self.tokens, ("response", "all"))
        positive(self, "cache", "token_budget", "shard_tokens")


LAYER_FIELD = "{layer}"
"""What stands for the layer in the folder of SAEs brought along."""


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
        one_of(
            "train.sae.architecture",
            self.architecture,
            ("topk", "batchtopk", "jumprelu", "matryoshka_batchtopk", "standard"),
        )
        positive(self, "train.sae", "d_sae", "k")
        require(
            self.k <= self.d_sae,
            f"train.sae.k={self.k} exceeds train.sae.d_sae={self.d_sae}; lower k",
        )


@dataclass
class TrainConfig:
    """Training of one SAE a layer.

    Attributes:
        sae: Its architecture.
        readers: Whose activations: `base`, `rl` or `pooled` (both, half each batch); `crosscoder`
            makes one code of both with a decoder for each; `released` trains nothing and takes the
            SAEs of `released`.
        released: Folder of SAEs brought along, in sae-lens's format; `{layer}` in it stands for the
            layer.
        steps: Optimiser steps.
        batch_size: Tokens a step.
        lr: Peak learning rate of Adam.
        mixing_tokens: Rows held in memory to shuffle from; bounds the memory of a training.
        checkpoint_every: Steps between checkpoints.
        seed: Of weights and order.
        gate_fvu: Transfer gate: most of a reader's variance that may stay unexplained. SAEs that
            are used in earnest explain 70 % and more.
        gate_l0: Most active latents a token, over d_model; at 1/8 a code is still sparse beside the
            residual it stands for, while a denser one reconstructs whatever it's given.
        gate_dead_share: Most latents that never fire on the report split. What lives is what is
            ranked, so a dictionary may be mostly dead, but not one latent in ten is an accident.
        gate_ce_recovered: Least of the cross-entropy between mean and untouched residual that
            reconstructions recover: FVU counts all directions alike, the model doesn't.
        scaling_norm: Share of both decoder norms from which a crosscoder's latent is called one
            reader's own by norms alone; at 0.9 one row is nine times the other.
        scaling_error: Latent scaling upholds that only where the other reader's error holds surely
            less than this of the latent: with a row pruned to nothing, all that is left of a
            shared latent is there, so little is much.
        scaling_reconstruction: And its other latents write surely less than this of it; looser, as
            they also overlap with directions that have nothing to do with them.
        scaling_problems: Problems in which a latent must fire: intervals of fewer are too short.
        scaling_bootstrap: Resamples of problems.
    """

    sae: SaeConfig = field(default_factory=SaeConfig)
    readers: str = "pooled"
    released: str = ""
    steps: int = 2000
    batch_size: int = 2048
    lr: float = 1e-3
    mixing_tokens: int = 65536
    checkpoint_every: int = 1000
    seed: int = 0
    gate_fvu: float = 0.3
    gate_l0: float = 0.125
    gate_dead_share: float = 0.9
    gate_ce_recovered: float = 0.8
    scaling_norm: float = 0.9
    scaling_error: float = 0.2
    scaling_reconstruction: float = 0.5
    scaling_problems: int = 20
    scaling_bootstrap: int = 1000

    def __post_init__(self) -> None:
        one_of("train.readers", self.readers, ("base", "rl", "pooled", "crosscoder", "released"))
        require(
            bool(self.released) == (self.readers == "released"),
            f"train.released={self.released or '(empty)'} doesn't go with train.readers="
            f"{self.readers}; set both, train.readers=released and the folder, or neither",
        )
        require(
            self.readers != "crosscoder" or self.sae.architecture in ("topk", "batchtopk"),
            f"train.sae.architecture={self.sae.architecture} makes no crosscoder; choose "
            "sae=batchtopk or sae=topk",
        )
        positive(self, "train", "steps", "batch_size", "lr", "mixing_tokens", "checkpoint_every")
        positive(self, "train", "gate_fvu", "gate_l0", "gate_dead_share")
        positive(self, "train", "scaling_error", "scaling_reconstruction", "scaling_problems")
        positive(self, "train", "scaling_bootstrap")
        require(
            0.5 < self.scaling_norm < 1,
            f"train.scaling_norm={self.scaling_norm} must be between 0.5 and 1; try 0.9",
        )
        require(
            self.gate_ce_recovered <= 1,
            f"train.gate_ce_recovered={self.gate_ce_recovered} is more than all; set 1 or less",
        )


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
        attacks: What decides attacks on the shortlists (conf/attacks/).
        replicas: SAEs trained from other seeds, in which trackers are looked for too.
        paraphrase_endpoint: URL of an OpenAI-compatible server that puts moves in other words;
            empty for templates, which only the search world has.
        paraphrase_model: Model to ask there.
        gate: Whether a dictionary that fails the transfer gate (train.gate_*) on either reader is
            refused.
        only: One reader and layer, as `base/1`: that pass is made and kept for the run that makes
            the rest, so that passes can be made side by side; empty for all.
        seed: Of windows, resamples and baselines.
    """

    trackers: int = 10
    announcers: int = 20
    announce_by: str = "attribution"
    candidates: int = 25
    attribution_onsets: int = 256
    bootstrap: int = 1000
    random_directions: int = 512
    attacks: AttackConfig = field(default_factory=AttackConfig)
    replicas: int = 0
    paraphrase_endpoint: str = ""
    paraphrase_model: str = ""
    gate: bool = True
    only: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "rank", "trackers", "announcers", "candidates", "attribution_onsets")
        positive(self, "rank", "bootstrap", "random_directions")
        require(
            self.replicas >= 0,
            f"rank.replicas={self.replicas} is less than none; set 0, or 2 for three seeds in all",
        )
        require(
            not self.paraphrase_endpoint
            or (
                self.paraphrase_endpoint.startswith(("http://", "https://"))
                and bool(self.paraphrase_model)
            ),
            f"rank.paraphrase_endpoint={self.paraphrase_endpoint} must be an http(s) URL, and "
            f"rank.paraphrase_model={self.paraphrase_model} name its model; set both or neither",
        )
        one_of("rank.announce_by", self.announce_by, ("attribution", "onset_auroc"))


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
        one_of("tracker.kind", self.kind, ("wandb", "none"))
        one_of("tracker.mode", self.mode, ("auto", "online", "offline"))
