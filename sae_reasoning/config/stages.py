"""Options of the stages of an experiment on one pair, one dataclass a stage."""

from dataclasses import dataclass, field

from sae_reasoning.config.attacks import AttackConfig
from sae_reasoning.config.cache import NORM_MULTIPLE
from sae_reasoning.config.checks import one_of, positive, require

LAYER_FIELD = "{layer}"
"""What stands for the layer in the folder of SAEs brought along."""


def _norm_multiple(option: str, multiple: float) -> None:
    require(
        multiple == 0 or multiple > 1,
        f"{option}={multiple:g} would leave out half of all tokens or more; set more than 1, say "
        "10, or 0 for no limit",
    )


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
        release: Release of trained SAEs in sae-lens's registry, taken instead of training any;
            empty for none.
        id: Of the SAE in that release; `{layer}` in it stands for the layer.
    """

    architecture: str = "topk"
    d_sae: int = 512
    k: int = 16
    l0_coefficient: float = 1.0
    l1_coefficient: float = 1.0
    matryoshka_widths: list[int] = field(default_factory=list)
    aux_loss_coefficient: float = 1.0
    release: str = ""
    id: str = ""

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
        require(
            bool(self.release) == bool(self.id),
            f"train.sae.release={self.release or '(empty)'} doesn't go with train.sae.id="
            f"{self.id or '(empty)'}; set both, or neither",
        )


@dataclass
class TrainConfig:
    """Training of one SAE a layer.

    Attributes:
        sae: Its architecture.
        readers: Whose activations: `base`, `rl` or `pooled` (both, half each batch); `crosscoder`
            makes one code of both with a decoder for each; `released` trains nothing and takes the
            SAEs of `released` or `sae.release`.
        released: Folder of SAEs brought along, in sae-lens's format; `{layer}` in it stands for the
            layer.
        steps: Optimiser steps.
        batch_size: Tokens a step.
        lr: Peak learning rate of Adam.
        mixing_tokens: Rows held in memory to shuffle from; bounds the memory of a training.
        max_norm_multiple: Tokens whose residual is longer than this, in multiples of the median
            norm of the select split, by reader and layer, are left out of training and of the
            transfer gate's figures; 0 leaves out none. Where attention rests, some models have
            residuals that are a hundred times as long as others.
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
        gate_tokens: Tokens of the report split's traces that it's measured on, at most; where the
            vocabulary is large, each takes long.
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
    max_norm_multiple: float = NORM_MULTIPLE
    checkpoint_every: int = 1000
    seed: int = 0
    gate_fvu: float = 0.3
    gate_l0: float = 0.125
    gate_dead_share: float = 0.9
    gate_ce_recovered: float = 0.8
    gate_tokens: int = 1_000_000
    scaling_norm: float = 0.9
    scaling_error: float = 0.2
    scaling_reconstruction: float = 0.5
    scaling_problems: int = 20
    scaling_bootstrap: int = 1000

    def __post_init__(self) -> None:
        one_of("train.readers", self.readers, ("base", "rl", "pooled", "crosscoder", "released"))
        if self.sae.release and self.readers == "pooled":
            self.readers = "released"
        require(
            not (self.released and self.sae.release),
            f"train.released={self.released} and train.sae.release={self.sae.release} both bring "
            "SAEs; set one of them",
        )
        require(
            bool(self.released or self.sae.release) == (self.readers == "released"),
            f"train.released={self.released or '(empty)'} doesn't go with train.readers="
            f"{self.readers}; set both, train.readers=released and the folder (or "
            "train.sae.release and train.sae.id), or neither",
        )
        require(
            self.readers != "crosscoder" or self.sae.architecture in ("topk", "batchtopk"),
            f"train.sae.architecture={self.sae.architecture} makes no crosscoder; choose "
            "sae=batchtopk or sae=topk",
        )
        positive(self, "train", "steps", "batch_size", "lr", "mixing_tokens", "checkpoint_every")
        _norm_multiple("train.max_norm_multiple", self.max_norm_multiple)
        positive(self, "train", "gate_fvu", "gate_l0", "gate_dead_share", "gate_tokens")
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
        span_detectors: Latents a behaviour on the shortlist by span AUROC.
        onset_predictors: Latents a behaviour on the shortlist of what starts a behaviour.
        onset_predictors_by: What picks onset predictors: `attribution` of the onset logit, or
            `onset_auroc`.
        candidates: Latents a behaviour, reader and writer that get intervals and q.
        attribution_onsets: Opportunities a behaviour on which the onset logit is attributed.
        attribution_tokens: Tokens before an onset that are read for its attribution, at most: the
            text's first, and its last ones; 0 for all of them.
        bootstrap: Resamples of problems.
        random_directions: Directions in the random-direction baseline.
        random_traces: Traces with behaviours, per writer and split, that the randomly initialised
            reader reads, and learns its SAE on.
        injection_texts: Texts of each kind on the report split that a latent's own words are put
            into, at up to three places each (of the select split a quarter as many).
        injection_tokens: Tokens of a prompt or response, from its beginning, among which words are
            put; 0 for all.
        attacks: What decides attacks on the shortlists (conf/attacks/).
        replicas: SAEs trained from other seeds, in which span detectors are looked for too.
        paraphrase_endpoint: URL of an OpenAI-compatible server that puts behaviours in other words;
            empty for templates, which only the search world has.
        paraphrase_model: Model to ask there.
        max_norm_multiple: Tokens whose residual is longer than this, in multiples of the median
            norm of the select split, by reader and layer, count as silent where latents and
            baselines are scored; 0 counts all.
        gate: Whether a dictionary that fails the transfer gate (train.gate_*) on either reader is
            refused.
        only: One reader and layer, as `base/1`: that pass is made and kept for the run that makes
            the rest, so that passes can be made side by side; empty for all.
        seed: Of windows, resamples and baselines.
    """

    span_detectors: int = 10
    onset_predictors: int = 20
    onset_predictors_by: str = "attribution"
    candidates: int = 25
    attribution_onsets: int = 256
    attribution_tokens: int = 0
    bootstrap: int = 1000
    random_directions: int = 512
    random_traces: int = 150
    injection_texts: int = 20
    injection_tokens: int = 0
    attacks: AttackConfig = field(default_factory=AttackConfig)
    replicas: int = 0
    paraphrase_endpoint: str = ""
    paraphrase_model: str = ""
    max_norm_multiple: float = 0.0
    gate: bool = True
    only: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        positive(
            self, "rank", "span_detectors", "onset_predictors", "candidates", "attribution_onsets"
        )
        positive(self, "rank", "bootstrap", "random_directions", "random_traces")
        positive(self, "rank", "injection_texts")
        for name in ("attribution_tokens", "injection_tokens"):
            require(
                getattr(self, name) >= 0,
                f"rank.{name}={getattr(self, name)} is negative; set 0 for all",
            )
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
        _norm_multiple("rank.max_norm_multiple", self.max_norm_multiple)
        one_of("rank.onset_predictors_by", self.onset_predictors_by, ("attribution", "onset_auroc"))


@dataclass
class TrackerConfig:
    """Where results are logged beside the files.

    Attributes:
        kind: `wandb` or `none`.
        project: W&B project.
        entity: W&B user or team; empty for whoever is logged in.
        mode: `auto` is online when an API key is set, else offline; or `online`, `offline`.
        latents: Latents in W&B's table with a page of evidence each, the best of each list first.
        texts: Whether what models read and wrote goes up: `always`, and then reviewers' names and
            notes too, `never`, or `auto`, only of models that this project made, on problems that
            it posed.
        weights: Whether weights of dictionaries go up.
    """

    kind: str = "wandb"
    project: str = "sae_reasoning"
    entity: str = ""
    mode: str = "auto"
    latents: int = 50
    texts: str = "auto"
    weights: bool = False

    def __post_init__(self) -> None:
        require(
            self.latents >= 0,
            f"tracker.latents={self.latents} is less than none; set 0, or 50",
        )
        one_of("tracker.texts", self.texts, ("auto", "always", "never"))
        one_of("tracker.kind", self.kind, ("wandb", "none"))
        one_of("tracker.mode", self.mode, ("auto", "online", "offline"))
