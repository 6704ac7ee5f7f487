"""What can be set, one dataclass a stage; checked before any model is loaded.

`conf/config.yaml` composes a `Config`; every stage reads its own part, and ranges and cross-checks
stand in each part's `__post_init__`, so a wrong value is one line that names option, value and
remedy.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_reasoning.config.checks import ConfigError, require
from sae_reasoning.config.contrast import (
    CalibrateConfig,
    ContrastConfig,
    CourseConfig,
    ReportConfig,
)
from sae_reasoning.config.organisms import (
    GrpoConfig,
    OrganismConfig,
    PretrainConfig,
)
from sae_reasoning.config.stages import (
    LAYER_FIELD,
    AblateConfig,
    CacheConfig,
    ModelConfig,
    PairConfig,
    RankConfig,
    SaeConfig,
    TracesConfig,
    TrackerConfig,
    TrainConfig,
)

__all__ = [
    "LAYER_FIELD",
    "AblateConfig",
    "CacheConfig",
    "CalibrateConfig",
    "Config",
    "ConfigError",
    "ContrastConfig",
    "CourseConfig",
    "GrpoConfig",
    "ModelConfig",
    "OrganismConfig",
    "PairConfig",
    "PretrainConfig",
    "RankConfig",
    "ReportConfig",
    "SaeConfig",
    "TracesConfig",
    "TrackerConfig",
    "TrainConfig",
]


_VERSIONS = {"rank": 4, "contrast": 2}
"""Of stages whose result has changed while their options haven't; an older result is stale."""


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
        contrast: When and how.
        course: When and how, along a training.
        report: The verdict.
        calibrate: The verdict's calibration.
        organism: The making of models whose answer is known.
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
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    course: CourseConfig = field(default_factory=CourseConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    organism: OrganismConfig = field(default_factory=OrganismConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    experiment: str = "default"
    runs: str = "runs"
    device: str = "auto"
    threads: int = 0

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
        require(bool(self.behaviours), "behaviours=[] is empty; choose behaviours=search_moves")
        runs = Path(self.runs).resolve()
        require(
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
            "contrast": layers | behaviours | dtypes | {"source": self.traces.source},
            "course": {},
            "report": {},
        }
        version = {"version": _VERSIONS[stage]} if stage in _VERSIONS else {}
        return {stage: getattr(self, stage)} | shared[stage] | version
