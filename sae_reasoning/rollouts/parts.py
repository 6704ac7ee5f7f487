"""Results of a stage's steps, kept as they are made, so that a killed run goes on from there."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.edges.artifacts import Stage, publish, read_json, write_json
from sae_reasoning.edges.tables import read_table, read_traces, write_table, write_traces
from sae_reasoning.records import Trace


@dataclass(frozen=True)
class Parts:
    """A folder of results within a stage's partial folder; each is written whole or not at all."""

    folder: Path

    def json(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, from disk if an earlier run got so far."""
        path = self._path(name, "json")
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The same for a table."""
        path = self._path(name, "parquet")
        if not path.exists():
            write_table(path, make())
        return read_table(path)

    def traces(self, name: str, make: Callable[[], Sequence[Trace]]) -> list[Trace]:
        """The same for traces."""
        path = self._path(name, "parquet")
        if not path.exists():
            write_traces(path, list(make()))
        return read_traces(path)

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name.replace(' ', '_').replace('/', '_')}.{ending}"


def keep_parts(stage: Stage, folders: Sequence[str], aside_from: str) -> None:
    """Take the parts of a finished stage over to one that differs from it in one input alone.

    Args:
        stage: That is being made.
        folders: Of parts.
        aside_from: The input that may differ.
    """
    old = stage.manifest

    def others(inputs: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in inputs.items() if name != aside_from}

    if old is None or old.config != stage.config or others(old.inputs) != others(stage.inputs):
        return
    for name in folders:
        for file in filter(Path.is_file, (stage.final / name).rglob("*")):
            place = stage.folder / file.relative_to(stage.final)
            if not place.exists():
                with publish(place) as temporary:  # A kill leaves no half of a file.
                    shutil.copyfile(file, temporary)
