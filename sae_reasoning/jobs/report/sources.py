"""What there is to show: each stage that the config asks for, or why it isn't there."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, MissingInput, read_json, require_stage
from sae_reasoning.report.reviews import Review, read_review

OPTIONAL = ("traces", "cache", "train", "rank", "match", "hybrid")
"""Stages that pages show where they're there, beside the contrast."""
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Sources:
    """What the report is made from.

    Attributes:
        folder: Of the experiment on the pair.
        manifests: Of the stages that are there and current.
        missing: Of the other optional stages, why not, with the target that makes them.
        calibration: File of the verdict's calibration; none where there is none.
        reviews: Fingerprints of the reviewers' files, by name.
    """

    folder: Path
    manifests: dict[str, Manifest]
    missing: dict[str, str]
    calibration: Path | None
    reviews: dict[str, str]

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of everything that is read."""
        found = {name: manifest.fingerprint for name, manifest in self.manifests.items()}
        if self.calibration:
            found[CALIBRATION] = _digest(self.calibration)
        return found | self.reviews

    def has(self, *stages: str) -> bool:
        """Whether all of these stages are there."""
        return all(stage in self.manifests for stage in stages)


def look(cfg: Config, models: Mapping[str, str]) -> Sources:
    """Find what there is.

    Raises:
        MissingInput: The contrast isn't there, which the verdict rests on.
    """
    manifests = {
        "contrast": require_stage(cfg.folder, "contrast", cfg.settings("contrast"), models)
    }
    missing = {}
    for name in OPTIONAL:
        if not (cfg.folder / name).exists():
            missing[name] = f"Not made yet: `make {name}`, then `make report` again."
            continue
        try:
            manifests[name] = require_stage(cfg.folder, name, cfg.settings(name), models)
        except MissingInput as error:
            reason = str(error).removeprefix(str(cfg.folder / name)).strip()
            missing[name] = f"Left out: what is there {reason}."
    path = Path(cfg.calibrate.output)
    calibration = path if path.exists() else None
    reviews = {f"review {name}": _digest(Path(name)) for name in cfg.report.reviews}
    return Sources(cfg.folder, manifests, missing, calibration, reviews)


def read_reviews(cfg: Config, sources: Sources) -> list[Review]:
    """What reviewers called these latents.

    Raises:
        ConfigError: A file isn't there, isn't an export, or reviews other shortlists.
    """
    found = []
    for name in cfg.report.reviews:
        try:
            one = read_review(read_json(Path(name)))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"report.reviews={name} can't be read ({error}); name files that the page of "
                "latents exports"
            ) from error
        if not sources.has("rank") or one.rank != sources.manifests["rank"].fingerprint:
            raise ConfigError(
                f"report.reviews={name} reviews other shortlists than there are now; leave it out, "
                "or review latents.html anew"
            )
        found.append(one)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
