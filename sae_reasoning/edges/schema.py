"""The version that every table and JSON object of a stage carries.

It is the stage's entry in `config.VERSIONS`, so whatever makes a stage stale makes its files
unreadable too, and the command named in the refusal makes them again.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_reasoning.config import VERSIONS
from sae_reasoning.edges.artifacts import BrokenArtifact, MissingInput, read_json, write_json

_STAGE_FOLDER = re.compile(rf"(?:.*\.)?({'|'.join(VERSIONS)})(?:_[^.]*)?(?:\.partial-\w+)?")
"""A stage's folder: its place (`Config.place`), or the partial folder beside it."""


def stage_of(path: Path) -> str:
    """The stage in whose folder a file lies, or ""."""
    found = (_STAGE_FOLDER.fullmatch(folder.name) for folder in path.parents)
    return next((match[1] for match in found if match), "")


def schema_version(path: Path) -> int | None:
    """What a stage's file carries as `schema_version`: its stage's entry in `VERSIONS`."""
    return VERSIONS.get(stage_of(path))


def require_schema(path: Path, found: object) -> None:
    """Refuse a stage's file that another version made; a file outside stages carries none.

    Args:
        path: The file.
        found: Its `schema_version`, None where it has none.

    Raises:
        MissingInput: It has another schema version than the stage has now, or none.
    """
    wanted = schema_version(path)
    if wanted is not None and found != wanted:
        has = "no schema_version" if found is None else f"schema_version={found}"
        raise MissingInput(
            f"{path} has {has}, this version reads {wanted}; run `make {stage_of(path)}` with the "
            "same options to make it again"
        )


def write_artifact(path: Path, content: Mapping[str, Any]) -> None:
    """Publish an object of a stage as JSON that carries its `schema_version`."""
    write_json(path, {"schema_version": schema_version(path)} | dict(content))


def read_artifact(path: Path) -> dict[str, Any]:
    """What `write_artifact` wrote.

    Raises:
        BrokenArtifact: The file isn't one whole JSON object.
        MissingInput: Another version made it.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise BrokenArtifact(f"{path} holds no JSON object; delete its folder, rerun")
    require_schema(path, content.get("schema_version"))
    return content
