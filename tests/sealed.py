"""Finished stages that a test has changed on purpose."""

from dataclasses import replace
from pathlib import Path

from sae_reasoning.edges.artifacts import Manifest, write_json


def seal(folder: Path) -> None:
    """Let the files that are in a finished stage be those that were made."""
    manifest = Manifest.read(folder)
    assert manifest
    write_json(folder / "manifest.json", replace(manifest, files={}, digests={}))
