"""What can be set, one dataclass a stage; checked before any model is loaded.

`conf/config.yaml` composes a `Config`; every stage reads its own part, and ranges and cross-checks
stand in each part's `__post_init__`, so a wrong value is one line that names option, value and
remedy.
"""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sae_reasoning.config.ablate import AblateConfig
from sae_reasoning.config.attacks import AttackConfig
from sae_reasoning.config.cache import CacheConfig
from sae_reasoning.config.checks import ConfigError, require
from sae_reasoning.config.contrast import (
    CalibrateConfig,
    ContrastConfig,
    CourseConfig,
    ReportConfig,
)
from sae_reasoning.config.elicit import ElicitConfig
from sae_reasoning.config.fetch import FETCHED, FetchConfig
from sae_reasoning.config.findings import FindingsConfig
from sae_reasoning.config.hybrid import HybridConfig
from sae_reasoning.config.match import MatchConfig
from sae_reasoning.config.organisms import (
    GrpoConfig,
    OrganismConfig,
    PretrainConfig,
)
from sae_reasoning.config.pair import QUESTION, ModelConfig, PairConfig
from sae_reasoning.config.plan import PlanConfig
from sae_reasoning.config.real_pair import RealPairConfig
from sae_reasoning.config.stages import (
    LAYER_FIELD,
    RankConfig,
    SaeConfig,
    TrackerConfig,
    TrainConfig,
)
from sae_reasoning.config.task import TaskConfig
from sae_reasoning.config.traces import (
    COUNTDOWN3,
    DATASET_NAMES,
    OFFSET_UNITS,
    ExportConfig,
    TracesConfig,
    require_file,
)
from sae_reasoning.config.transfer import TransferConfig

__all__ = [
    "COUNTDOWN3",
    "DATASET_NAMES",
    "FETCHED",
    "LAYER_FIELD",
    "OFFSET_UNITS",
    "PARTIAL",
    "QUESTION",
    "VERSIONS",
    "AblateConfig",
    "AttackConfig",
    "CacheConfig",
    "CalibrateConfig",
    "Config",
    "ConfigError",
    "ContrastConfig",
    "CourseConfig",
    "ElicitConfig",
    "ExportConfig",
    "FetchConfig",
    "FindingsConfig",
    "GrpoConfig",
    "HybridConfig",
    "MatchConfig",
    "ModelConfig",
    "OrganismConfig",
    "PairConfig",
    "PlanConfig",
    "PretrainConfig",
    "RankConfig",
    "RealPairConfig",
    "ReportConfig",
    "SaeConfig",
    "TaskConfig",
    "TracesConfig",
    "TrackerConfig",
    "TrainConfig",
    "TransferConfig",
    "require_file",
]


VERSIONS = {
    "traces": 4,
    "export": 1,
    "cache": 1,
    "train": 3,
    "rank": 19,
    "match": 3,
    "ablate": 11,
    "transfer": 2,
    "contrast": 12,
    "course": 4,
    "hybrid": 7,
    "elicit": 4,
    "report": 10,
    "organisms": 1,
    "real_pair": 1,
}
"""Of every stage that makes a folder: raised when its result changes while its options haven't, so
that an older result is stale. tests/versions.json holds each version's tables against it."""

_RULES = {"sentences": 2, "grading": 5, "answers": 2}
"""Versions of the rules by which natural text is read: sentences, cues and imports; what grades;
what becomes of a judge's answers. Traces made by older ones are stale."""

_NOISE = 2
"""Version of the noise that tokens of large vocabularies are drawn by, which the search world's
models don't have."""

PARTIAL = frozenset({"cache.shard", "cache.only", "rank.only"})
"""Options that choose a part of a stage to make, as `stage.option`; all parts gather in the stage's
partial folder, so these enter no fingerprint, and processes may make different parts at once."""

_CUTS = frozenset({"cache.num_shards"})
"""Options that say how a stage is cut into parts; they enter no fingerprint, either."""


@dataclass
class Config:
    """One experiment on one pair.

    Attributes:
        pair: The two models.
        behaviours: Behaviours to track; the first annotator's labels.
        layers: Decoder blocks whose output is read, 0 the first.
        task: Kind of text.
        traces: Rollouts.
        export: Traces as span JSONL.
        cache: Activations.
        train: SAEs.
        rank: Scores.
        match: Matched latents in another run's dictionary.
        ablate: Edits.
        transfer: Edits of one pair's latents in another, joined.
        hybrid: A base steered at times that a policy chooses.
        contrast: When and how.
        course: When and how, along a training.
        elicit: Cheap interventions beside RL.
        report: The verdict.
        calibrate: The verdict's calibration.
        findings: Tables of the pages of findings.
        fetch: Weights out of the package index.
        plan: What the estimate of costs assumes.
        organism: The making of models whose answer is known.
        real_pair: The training of adapters on a real model, whose answer is known.
        tracker: Logging.
        experiment: Names the folder of results.
        runs: Where experiments are kept.
        device: `cpu`, `cuda` or, of several, `cuda:1`; `auto` is cuda where there is one, else cpu.
        threads: CPU threads, and processes where these share work; 0 leaves PyTorch's default.
        verbose: Whether stages print every table; else they print what fits on a screen, and the
            rest is in their files.
    """

    pair: PairConfig = field(default_factory=PairConfig)
    behaviours: list[str] = field(default_factory=list)
    layers: list[int] = field(default_factory=lambda: [1, 2])
    task: TaskConfig = field(default_factory=TaskConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    ablate: AblateConfig = field(default_factory=AblateConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    course: CourseConfig = field(default_factory=CourseConfig)
    elicit: ElicitConfig = field(default_factory=ElicitConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    findings: FindingsConfig = field(default_factory=FindingsConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    organism: OrganismConfig = field(default_factory=OrganismConfig)
    real_pair: RealPairConfig = field(default_factory=RealPairConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    experiment: str = "default"
    runs: str = "runs"
    device: str = "auto"
    threads: int = 0
    verbose: bool = False

    def __post_init__(self) -> None:
        require(bool(self.layers), "layers=[] is empty; name at least one decoder block")
        require(
            sorted(set(self.layers)) == sorted(self.layers) and min(self.layers) >= 0,
            f"layers={self.layers} must be different blocks, 0 the first",
        )
        self.layers = sorted(self.layers)
        require(
            not self.train.released or len(self.layers) == 1 or LAYER_FIELD in self.train.released,
            f"train.released={self.train.released} is one folder for layers={self.layers}; put "
            f"{LAYER_FIELD} into it where the layer stands, or name one layer",
        )
        sae_id = self.train.sae.id
        require(
            not sae_id or len(self.layers) == 1 or LAYER_FIELD in sae_id,
            f"train.sae.id={sae_id} is one SAE for layers={self.layers}; put {LAYER_FIELD} into it "
            "where the layer stands, or name one layer",
        )
        require(
            self.task.kind != "search" or self.traces.kind == "search",
            f"task=search reads problems of the search world, not traces.source="
            f"{self.traces.source}; set task=auto or text",
        )
        require(bool(self.behaviours), "behaviours=[] is empty; choose behaviours=search_moves")
        readers = list(self.pair.readers)
        require(
            not self.pair.is_single or self.train.readers in ("pooled", "rl", "released"),
            f"train.readers={self.train.readers} needs two models, but pair={self.pair.name} has "
            "one; set train.readers=pooled, or pair.base.path",
        )
        passes = [f"{reader}/{layer}" for reader in readers for layer in self.layers]
        require(
            self.rank.only in ("", *passes),
            f"rank.only={self.rank.only} is no pass; choose of {', '.join(passes)}, or leave it "
            "empty for all",
        )
        require(
            re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is not None,
            f"device={self.device} is unknown; choose one of auto, cpu, cuda, or one GPU of "
            "several as cuda:0",
        )
        runs = Path(self.runs).resolve()
        require(
            (runs / self.experiment).resolve().parent == runs,
            f"experiment={self.experiment} leaves runs={self.runs}; use one folder name",
        )

    @property
    def task_kind(self) -> str:
        """`search` or `text`."""
        if self.task.kind != "auto":
            return self.task.kind
        return "search" if self.traces.kind == "search" else "text"

    @property
    def folder(self) -> Path:
        """Where this experiment on this pair keeps its stages."""
        return Path(self.runs) / self.experiment / self.pair.name

    @property
    def calibration(self) -> str:
        """The experiment of calibrating runs: apart from others, unless it has a name."""
        return self.experiment if self.experiment != "default" else "calibration"

    def place(self, stage: str) -> Path:
        """Folder that a stage of the experiment writes; what joins pairs stands beside them."""
        if stage == "ablate":
            parts = ["ablate"]
            if self.ablate.matches_of:
                parts.append(f"from_{self.ablate.matches_of.replace('/', '_')}")
            if self.ablate.reviews:
                parts.append("reviewed")
            if self.ablate.split != "report":
                parts.append(self.ablate.split)
            return self.folder / "_".join(parts)
        if stage == "transfer":
            return Path(self.runs) / self.experiment / stage
        return self.folder / stage

    @property
    def files(self) -> dict[str, Path]:
        """Files and folders, beside models, that options name to be read; by option."""
        traces, named = self.traces, {}
        if traces.kind == "file":
            named["traces.source"] = traces.source
        elif traces.kind == "dataset":
            named["traces.source"] = traces.source.partition(":")[2]
        named["traces.base_source"] = traces.base_source
        if "fitted" in traces.annotators:
            named["traces.fitted_on"] = traces.fitted_on
        for layer in self.layers:
            released = self.train.released.replace(LAYER_FIELD, str(layer))
            named[f"train.released of layer {layer}"] = released
        for stage in ("ablate", "report"):
            named |= {f"{stage}.reviews {name}": name for name in getattr(self, stage).reviews}
        return {option: Path(name) for option, name in named.items() if name}

    def writes(self, stage: str) -> dict[Path, Any]:
        """Where a stage writes, each place with what decides on its content."""
        organism, pair = self.organism, self.pair
        if stage == "organisms":
            made_by = asdict(organism)
            made_by |= {"seeds": None, "only": None}
            return {organism.folder_of(seed) / organism.family: made_by for seed in organism.seeds}
        if stage == "real_pair":
            return {Path(self.real_pair.folder): [asdict(self.real_pair), asdict(pair.rl)]}
        if stage == "calibrate":
            pairs = [self.layers, asdict(self.traces), asdict(self.contrast), asdict(self.report)]
            return {
                Path(self.runs) / self.calibration: pairs,
                Path(self.calibrate.output): [pairs, asdict(self.calibrate), organism.others],
            }
        if stage == "fetch":
            return {Path(self.fetch.folder) / name: [] for name in self.fetch.models}
        if stage in ("dashboard", "plan"):
            return {}
        if stage == "findings":
            return {Path(name): [] for name in self.findings.pages}
        if stage == "bench":
            return {Path("bench.json"): [self.device, self.threads]}
        models = [asdict(model) for model in (pair.base, pair.rl)]
        return {self.place(stage): [self.settings(stage), models]}

    def is_partial(self, stage: str) -> bool:
        """Whether only a part of a stage is asked for."""
        options = [option.rpartition(".") for option in PARTIAL]
        return any(
            getattr(getattr(self, part), o) not in (None, "")
            for part, _, o in options
            if part == stage
        )

    def settings(self, stage: str) -> dict[str, Any]:
        """The part of the config that a stage reads, and is fingerprinted by."""
        layers: dict[str, Any] = {"layers": self.layers}
        behaviours: dict[str, Any] = {"behaviours": self.behaviours}
        reading = self.pair.reading
        source = {"source": self.traces.source, "task": self.task_kind}
        task = {"task": asdict(self.task) | {"kind": self.task_kind}}
        shared = {
            "traces": behaviours | reading | task,
            "export": {},
            "cache": layers | reading,
            "train": layers,
            "rank": layers | behaviours | reading,
            "match": layers | behaviours | reading,
            "ablate": layers | behaviours | reading | source,
            "transfer": {},
            "hybrid": layers | behaviours | reading | source,
            "contrast": layers | behaviours | reading | source,
            "course": {name: getattr(self.report, name) for name in ("min_problems", "min_starts")},
            "elicit": behaviours | reading | source,
            "report": {},
        }
        if self.task_kind != "search":  # Marked by words, and asked for by meanings.
            shared["ablate"] = shared["ablate"] | {"cues": self.traces.cues}
            words = {"cues": self.traces.cues, "meanings": self.traces.meanings}
            shared["elicit"] = shared["elicit"] | words
            for name in ("traces", "ablate", "contrast", "hybrid", "elicit"):
                shared[name] = shared[name] | {"noise": _NOISE}
        if stage == "traces" and self.task_kind != "search":
            shared["traces"] = shared["traces"] | {"rules": dict(_RULES)}
        part = getattr(self, stage)
        own = {k: v for k, v in asdict(part).items() if f"{stage}.{k}" not in PARTIAL | _CUTS}
        if stage == "traces":
            by_cues = self.task.kind == "text" and self.traces.annotator == "auto"
            own = {
                name: value
                for name, value in own.items()
                if part.depends_on(name) or (name == "cues" and by_cues)
            }
        return {stage: own} | shared[stage] | {"version": VERSIONS[stage]}
