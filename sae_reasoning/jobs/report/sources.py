"""What there is to show: each stage that the config asks for, or why it isn't there."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, MissingInput, require_stage

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
    """

    folder: Path
    manifests: dict[str, Manifest]
    missing: dict[str, str]
    calibration: Path | None

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of everything that is read."""
        found = {name: manifest.fingerprint for name, manifest in self.manifests.items()}
        if self.calibration:
            content = self.calibration.read_bytes()
            found[CALIBRATION] = hashlib.sha256(content).hexdigest()[:16]
        return found

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
    return Sources(cfg.folder, manifests, missing, path if path.exists() else None)
