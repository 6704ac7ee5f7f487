"""Named arrays in one `.npz` file, published whole."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sae_reasoning.edges.artifacts import publish


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays under their names."""
    with publish(path) as partial, partial.open("wb") as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` kept."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
