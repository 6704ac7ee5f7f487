"""Inputs of the report: each stage that was run with the config's options, or why it is missing."""

from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, read_json
from sae_reasoning.edges.inputs import calibration_file, of_report, outside_inputs, shown_in_report
from sae_reasoning.report.reviews import Review, read_reviews


@dataclass(frozen=True)
class Sources:
    """Inputs of the report.

    Attributes:
        folder: Of the experiment on the pair.
        manifests: Of the stages that are current.
        missing: Of the other optional stages, why, with the target that makes them.
        calibration: File of the verdict's calibration; None where there is none.
        inputs: Fingerprints of all of them, and of reviewers' files.
    """

    folder: Path
    manifests: dict[str, Manifest]
    missing: dict[str, str]
    calibration: Path | None
    inputs: dict[str, str]

    def has(self, *stages: str) -> bool:
        """Whether all of these stages are current."""
        return all(stage in self.manifests for stage in stages)


def look(cfg: Config) -> Sources:
    """Find the stages that were run.

    Raises:
        MissingInput: The contrast, on which the verdict rests, is missing.
    """
    now = outside_inputs(cfg)
    manifests, missing = shown_in_report(cfg, now)
    inputs = of_report(cfg, now, manifests)
    return Sources(cfg.folder, manifests, missing, calibration_file(cfg), inputs)


def reviews_of(cfg: Config, sources: Sources) -> list[Review]:
    """Reviewers' labels of these latents.

    Raises:
        ConfigError: A file is missing, is no export, or reviews other shortlists.
    """
    rank = sources.manifests["rank"].fingerprint if sources.has("rank") else ""
    return read_reviews("report.reviews", cfg.report.reviews, rank, read_json)
