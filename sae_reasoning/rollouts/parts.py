"""Results of a stage's steps, kept as they are made, so that a killed run goes on from there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.edges.artifacts import read_json, write_json
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
