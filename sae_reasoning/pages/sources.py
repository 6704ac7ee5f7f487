"""Inputs of the report: each stage that was run with the config's options, or why it is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, MissingInput, digest, read_json, require_stage
from sae_reasoning.edges.inputs import files_in
from sae_reasoning.report.reviews import Review, read_reviews

OPTIONAL = ("traces", "cache", "train", "rank", "match", "ablate", "hybrid")
"""Stages that pages show where they were run, besides the contrast."""
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Sources:
    """Inputs of the report.

    Attributes:
        folder: Of the experiment on the pair.
        manifests: Of the stages that are current.
        missing: Of the other optional stages, why, with the target that makes them.
        calibration: File of the verdict's calibration; None where there is none.
        reviews: Fingerprints of the reviewers' files, by option and name.
    """

    folder: Path
    manifests: dict[str, Manifest]
    missing: dict[str, str]
    calibration: Path | None
    reviews: dict[str, str]

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of all inputs."""
        found = {name: manifest.fingerprint for name, manifest in self.manifests.items()}
        if self.calibration:
            found[CALIBRATION] = digest(self.calibration)
        return found | self.reviews

    def has(self, *stages: str) -> bool:
        """Whether all of these stages are current."""
        return all(stage in self.manifests for stage in stages)


def look(cfg: Config, now: Mapping[str, str]) -> Sources:
    """Find the stages that were run.

    Raises:
        MissingInput: The contrast, on which the verdict rests, is missing.
    """
    manifests = {"contrast": require_stage(cfg.folder, "contrast", cfg.settings("contrast"), now)}
    missing = {}
    for name in OPTIONAL:
        place = cfg.place(name)
        if not place.exists():
            missing[name] = f"Not made yet: `make {name}`, then `make report` again."
            continue
        try:
            manifests[name] = require_stage(cfg.folder, place.name, cfg.settings(name), now)
        except MissingInput as error:
            reason = str(error).removeprefix(str(place)).strip()
            missing[name] = f"Left out: its folder {reason}."
    path = Path(cfg.calibrate.output)
    calibration = path if path.exists() else None
    return Sources(cfg.folder, manifests, missing, calibration, files_in(now, "report"))


def reviews_of(cfg: Config, sources: Sources) -> list[Review]:
    """Reviewers' labels of these latents.

    Raises:
        ConfigError: A file is missing, is no export, or reviews other shortlists.
    """
    rank = sources.manifests["rank"].fingerprint if sources.has("rank") else ""
    return read_reviews("report.reviews", cfg.report.reviews, rank, read_json)
