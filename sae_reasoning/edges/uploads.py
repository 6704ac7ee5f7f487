"""What of a stage goes up to W&B: figures always, texts and weights only where that's asked for.

Texts are of two kinds. Those of models that this project made, on problems that it posed, go up
unless that's refused. What people wrote, reviewers' notes and names among it, goes up only where
that's asked for (`tracker.texts=always`), whoever made the models.

A stage's folder becomes an artifact whose content depends on nothing but the stage and the
tracker's options. So whoever reads the stage can name the very same artifact again, by content, and
W&B draws the line from one to the other, also when offline runs are sent later.

Names of places (folders, addresses) stay here: of a path only its last part goes up, of an address
nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.records import MODELS

KINDS = {
    "traces": "traces",
    "cache": "activations",
    "train": "saes",
    "rank": "scores",
    "match": "matches",
    "ablate": "effects",
    "contrast": "contrast",
    "course": "course",
    "hybrid": "hybrid",
    "elicit": "elicit",
    "report": "report",
}
"""Types of artifacts, by stage."""

_FIGURES = {
    "traces": ("agreement.parquet", "confusion.parquet"),
    "train": ("*/*/quality.json", "*/*/curve.parquet"),
    "rank": tuple(
        f"{table}.parquet"
        for table in "scores latents baselines attacks grid replicas baseline_comparison".split()
    ),
    "match": ("matches.parquet", "summary.parquet"),
    "ablate": tuple(
        f"{table}.parquet" for table in "effects sets doses off_target returning".split()
    ),
    "contrast": ("contrast.parquet",),
    "course": ("course.parquet",),
    "hybrid": ("hybrid.parquet",),
    "elicit": ("elicit.parquet",),
    "report": (
        "verdict.json",
        *(
            f"rows/{name}.csv"
            for name in "evidence latents onset_probability execution value hybrid elicitation "
            "attacks dictionaries calibration".split()
        ),
    ),
}
"""Files without a word that a model read or wrote, or that a person noted; no others, so that a
file that a stage gains stays here until it's named."""
_REVIEWED = ("index.html", "latents.html", "rows/reviews.csv")
"""Files of a report that name reviewers, or hold their notes, once reviews are folded in."""
_WEIGHTS = (".safetensors",)
_NEVER = (".h5",)
MANIFEST = "stage.json"
"""The one file that each artifact has: what made the stage, without names of places."""
_MAX_NAME = 128
_MAX_PATH = 1000


@dataclass(frozen=True)
class Upload:
    """An artifact to be.

    Attributes:
        name: Of the pair, experiment and stage.
        kind: Type that W&B groups it by.
        fingerprint: Of the stage.
        content: Of `MANIFEST`.
        files: By name in the artifact.
    """

    name: str
    kind: str
    fingerprint: str
    content: str
    files: dict[str, Path]


def upload(cfg: Config, folder: Path, manifest: Manifest) -> Upload:
    """What of a finished stage goes up, as the config asks."""
    stage = _stage_of(manifest)
    has_texts = may_show_texts(cfg)
    is_reviewed = bool(manifest.config.get("report", {}).get("reviews"))
    held_back = _REVIEWED if is_reviewed and cfg.tracker.texts != "always" else ()
    kept = {path for pattern in _FIGURES.get(stage, ()) for path in folder.glob(pattern)}
    for path in folder.rglob("*"):
        is_weights = path.suffix in _WEIGHTS
        if path.suffix in _NEVER or path.name == "manifest.json" or not path.is_file():
            continue
        if cfg.tracker.weights if is_weights else has_texts:
            kept.add(path)
    named = {str(path.relative_to(folder)): path for path in sorted(kept)}
    files = {name: path for name, path in named.items() if name not in held_back}
    known = {name: value for name, value in manifest.inputs.items() if name in {*KINDS, *MODELS}}
    content = {
        "stage": manifest.stage,
        "fingerprint": manifest.fingerprint,
        "config": without_places(manifest.config),
        "inputs": known,
        "counts": without_places(manifest.counts),
        "packages": manifest.packages,
        "files": sorted(files),
    }
    return Upload(
        _name(cfg, manifest.stage),
        KINDS[stage],
        manifest.fingerprint,
        json.dumps(content, indent=2, sort_keys=True) + "\n",
        files,
    )


def made_from(cfg: Config, manifest: Manifest) -> list[Upload]:
    """The stages that a stage was made from, as far as they're still what it read."""
    found = []
    for name in KINDS:
        folder = cfg.place(name)
        read = Manifest.read(folder) if name in manifest.inputs else None
        if read is not None and read.fingerprint == manifest.inputs[name]:
            found.append(upload(cfg, folder, read))
    return found


def has_artifact(manifest: Manifest) -> bool:
    """Whether a stage is one that others are made from, or that ends the line."""
    return _stage_of(manifest) in KINDS


def may_show_texts(cfg: Config) -> bool:
    """Whether texts may go up: as asked, else only those of models that this project made."""
    if cfg.tracker.texts != "auto":
        return cfg.tracker.texts == "always"
    return cfg.traces.source == "search" and _is_made_here(cfg.pair)


def without_places(content: Any) -> Any:
    """`content` of JSON's types, without folders and addresses."""
    if isinstance(content, Mapping):
        return {without_places(str(key)): without_places(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_places(value) for value in content]
    return _placeless(content) if isinstance(content, str) else content


_WITH_PORT = re.compile(r"(?<![\w./-])([\w.-]++|\[[0-9A-Fa-f:.]++\]):\d{1,5}(?!\w)")
_WITH_USER = re.compile(r"(?<![\w.-])[\w.-]++@[\w.-]++:")
_HOST = re.compile(r".*[A-Za-z].*|\d+(\.\d+){3}|\[.*")
"""`localhost`, `10.0.0.3`, `[::1]`; a latent, which is `layer:latent`, has no host in it."""
_BETWEEN = re.compile(r"([\s,;:=]+)")


def _placeless(text: str) -> str:
    if "://" in text or _WITH_USER.search(text) or _has_port(text):
        return "(address left out)"
    if _is_path(text):
        return Path(text).name
    if "/" not in text:
        return text
    # Of an option, or of `name:folder`, each part for itself.
    parts = _BETWEEN.split(text)
    return "".join(Path(part).name if _is_path(part) else part for part in parts)


def _has_port(text: str) -> bool:
    """Whether there's an address without a scheme in it: `localhost:8000/v1`."""
    return any(_HOST.fullmatch(found[1]) for found in _WITH_PORT.finditer(text))


def _is_path(text: str) -> bool:
    path = Path(text)
    return path.is_absolute() or text.startswith("~") or ".." in path.parts or _is_there(path)


def _is_there(path: Path) -> bool:
    """Whether something lies at a path of several parts."""
    if len(path.parts) < 2 or len(str(path)) > _MAX_PATH:
        return False
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_made_here(pair: PairConfig) -> bool:
    """Whether both models have the card that `organisms` leaves beside them."""
    return all((Path(model.path) / "measured.json").is_file() for model in (pair.base, pair.rl))


def _stage_of(manifest: Manifest) -> str:
    """`ablate` of `ablate_select` and the like, which are stages of their own place."""
    return manifest.stage if manifest.stage in KINDS else manifest.stage.partition("_")[0]


def _name(cfg: Config, stage: str) -> str:
    """As W&B allows it."""
    plain = [re.sub(r"[^A-Za-z0-9_.-]", "_", part) for part in (cfg.experiment, cfg.pair.name)]
    return "-".join([*plain, stage])[-_MAX_NAME:]
