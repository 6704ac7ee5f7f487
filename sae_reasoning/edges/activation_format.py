"""What an activation store is: names, sizes, what every file says of itself, and its rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32
from torch import Tensor

SCHEMA_VERSION = 1
ON_DISK = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
"""Type that values of a dtype are stored as; bfloat16 is kept bit for bit."""
INDICES = ("token_id", "trace_index", "position")
NORM = "norm"
"""Dataset of the rows' norms, as they are stored; files made before there was one lack it."""
_INDEX_BYTES = 4 * (len(INDICES) + 1)
_ROWS_AT_ONCE = 1024
_FRAME_BYTES = 8 << 10  # Of a file besides its rows, about.


@dataclass(frozen=True)
class StoreAttributes:
    """What every shard of a store says of itself.

    Attributes:
        model: Name of the reader.
        revision: Its hub revision, or "".
        model_fingerprint: Changes with its weights.
        tokenizer_fingerprint: Changes with its tokenizer.
        traces_fingerprint: Changes with the traces that were read.
        layer: Decoder block whose output is stored.
        dtype: Of the stored values.
        d_model: Width of a row.
        num_traces: Traces read, also those that keep no token.
        num_tokens: Rows of all shards.
        num_shards: Shards of the store.
    """

    model: str
    revision: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    traces_fingerprint: str
    layer: int
    dtype: str
    d_model: int
    num_traces: int
    num_tokens: int
    num_shards: int


@dataclass(frozen=True)
class RowIndex:
    """Which token each row is.

    Attributes:
        token_id: What the reader had just read.
        trace_index: Row of its trace in the table of traces.
        position: Index into the trace's token ids.
    """

    token_id: Int32[np.ndarray, " row"]
    trace_index: Int32[np.ndarray, " row"]
    position: Int32[np.ndarray, " row"]


@dataclass(frozen=True)
class ActivationBatch:
    """Rows of a store with the token each belongs to."""

    activations: Float32[Tensor, "row d_model"]
    token_id: Int32[np.ndarray, " row"]
    trace_index: Int32[np.ndarray, " row"]
    position: Int32[np.ndarray, " row"]

    def only(self, kept: Bool[np.ndarray, " all"]) -> "ActivationBatch":
        """Without the rows that aren't kept."""
        return ActivationBatch(
            self.activations[torch.from_numpy(kept)],
            self.token_id[kept],
            self.trace_index[kept],
            self.position[kept],
        )


def row_bytes(d_model: int, dtype: str) -> int:
    """Bytes of a row: its activations, their norm, and which token it is."""
    return d_model * np.dtype(ON_DISK[dtype]).itemsize + _INDEX_BYTES


def file_bytes(num_rows: int, d_model: int, dtype: str) -> int:
    """Bytes of a shard of so many rows, to some kilobytes."""
    return num_rows * row_bytes(d_model, dtype) + _FRAME_BYTES


def shard_path(folder: Path, shard: int) -> Path:
    """File of one shard."""
    return folder / f"shard_{shard:05d}.h5"


def shard_files(folder: Path) -> list[Path]:
    """Files of the shards that are there, by number, which has five digits or more."""
    return sorted(folder.glob("shard_*.h5"), key=lambda path: (len(path.name), path.name))


def row_norms(activations: Float[Tensor, "row d_model"]) -> Float32[np.ndarray, " row"]:
    """Norm of each row; summed in float64, so that it's the same however rows are cut."""
    norms = torch.empty(len(activations))
    for own, part in zip(norms.split(_ROWS_AT_ONCE), activations.split(_ROWS_AT_ONCE), strict=True):
        own.copy_(part.double().norm(dim=1))
    return norms.numpy()
