"""Activations on disk (HDF5): one row a token, in trace order, in shards that appear whole or not.

A store is one reader's residual stream after one layer: a folder of `shard_00000.h5`, ... with the
datasets

    activations [token, d_model]    float32, float16, or bfloat16 kept bit for bit as uint16
    token_id    [token]             what the reader had just read
    trace_index [token]             row of its trace in traces.parquet
    position    [token]             index into the trace's token_ids
    norm        [token]             of the stored activations

A shard holds whole traces and its datasets are contiguous: they are written in one piece and read
at their offset as plain bytes, at the speed of a raw file. Each is written under a temporary name,
synced and renamed, so after a kill every published shard is whole and work goes on at the first
missing one.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32, Int64
from torch import Tensor

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.activation_faults import (
    broken,
    check_finite,
    in_use,
    is_locked,
    missing,
    reason,
    unfit,
)
from sae_reasoning.edges.activation_format import (
    INDICES,
    NORM,
    ON_DISK,
    SCHEMA_VERSION,
    ActivationBatch,
    RowIndex,
    StoreAttributes,
    row_norms,
    shard_files,
    shard_path,
)
from sae_reasoning.edges.artifacts import (
    MissingInput,
    fingerprint,
    publish,
)
from sae_reasoning.edges.files import reserve
from sae_reasoning.edges.lock import Lock

_BLOCKS_MIXED = 256  # At least so many places of the store meet in a mixing buffer.
_MAX_BLOCK = 1024  # Rows; larger blocks read no faster.


class StoreWriter:
    """Writes the shards of one store.

    Args:
        folder: Of the store.
        attributes: What each shard says of itself.
        trace_ids: For messages.
    """

    def __init__(self, folder: Path, attributes: StoreAttributes, trace_ids: Sequence[str]) -> None:
        self.folder, self.attributes = folder, attributes
        self._trace_ids = trace_ids

    def has(self, shard: int) -> bool:
        """Whether a shard is published, and so whole."""
        return shard_path(self.folder, shard).exists()

    def lock(self, shard: int) -> Lock:
        """What whoever makes a shard holds, so that nobody else makes it."""
        return Lock(shard_path(self.folder, shard), "activations")

    def buffer(self, num_rows: int) -> Float[Tensor, "row d_model"]:
        """Room for a shard in memory, in the dtype of the disk."""
        dtype: torch.dtype = getattr(torch, self.attributes.dtype)
        return torch.empty(num_rows, self.attributes.d_model, dtype=dtype)

    def write(self, shard: int, activations: Float[Tensor, "row d_model"], index: RowIndex) -> None:
        """Publish one shard.

        Args:
            shard: Its number; one that is there stays.
            activations: Its rows, in the store's dtype, on the CPU.
            index: Which token each row is.

        Raises:
            ConfigError: A value isn't finite, or the disk refuses; shards already there stay.
            InUse: The filesystem doesn't let HDF5 lock a file.
        """
        if self.has(shard):
            return
        check_finite(activations, index, self.attributes, self._trace_ids)
        norms = row_norms(activations)
        if self.attributes.dtype == "bfloat16":
            activations = activations.view(torch.uint16)  # Which NumPy and HDF5 know.
        stored = activations.numpy()
        assert stored.dtype == ON_DISK[self.attributes.dtype]
        try:
            with publish(shard_path(self.folder, shard)) as partial:
                self._write(partial, shard, stored, index, norms)
        except (OSError, RuntimeError) as error:
            if is_locked(error):
                raise in_use(shard_path(self.folder, shard)) from error
            raise ConfigError(
                f"{self.folder} can't be written ({reason(error)}); free disk there or set runs= "
                "to another disk, and run again: shards that are done stay"
            ) from error

    def _write(
        self,
        path: Path,
        shard: int,
        stored: np.ndarray,
        index: RowIndex,
        norms: Float32[np.ndarray, " row"],
    ) -> None:
        columns = {"activations": stored} | {name: getattr(index, name) for name in INDICES}
        columns[NORM] = norms
        # Every dataset has its place before a value is written, so that all room can be reserved.
        placed = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        placed.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        placed.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with h5py.File(path, "w") as file:
            own = {"schema_version": SCHEMA_VERSION, "shard": shard, "num_rows": len(stored)}
            named = {"fingerprint": fingerprint(self.attributes)}
            file.attrs.update(asdict(self.attributes) | own | named)
            for name, values in columns.items():
                file.create_dataset(name, values.shape, values.dtype, dcpl=placed)
        reserve(path)
        with h5py.File(path, "r+") as file:
            for name, values in columns.items():
                file[name][...] = values


@dataclass(frozen=True)
class _Shard:
    """Where a shard's activations lie."""

    path: Path
    first_row: int
    num_rows: int
    offset: int


class ActivationStore:
    """A whole store, opened for reading; files are held open only while they are read."""

    def __init__(self, folder: Path, attributes: StoreAttributes, shards: Sequence[_Shard]) -> None:
        self.folder, self.attributes = folder, attributes
        self.num_tokens, self.d_model = attributes.num_tokens, attributes.d_model
        self.layer, self.dtype = attributes.layer, attributes.dtype
        self._shards = tuple(shards)
        self._first_rows = [shard.first_row for shard in shards]
        self._stored_dtype: torch.dtype = getattr(torch, attributes.dtype)
        self._value_bytes = attributes.d_model * np.dtype(ON_DISK[attributes.dtype]).itemsize

    @classmethod
    def open(cls, folder: Path, expected: Mapping[str, Any] | None = None) -> Self:
        """Open a store after checking every shard.

        Args:
            folder: Of the store.
            expected: Attributes that it must have, by name, such as `model_fingerprint`.

        Raises:
            MissingInput: There is no store.
            BrokenArtifact: A shard is missing, cut short, of another schema or from elsewhere.
            InUse: Another process holds a shard open for writing.
        """
        folder = Path(folder)
        paths = shard_files(folder)
        if not paths:
            raise MissingInput(f"{folder} holds no activations; run `make cache` first")
        attributes, shards, first_row = None, [], 0
        for number, path in enumerate(paths):
            if path != shard_path(folder, number):
                raise missing(shard_path(folder, number))
            found, shard = _open_shard(path, number, first_row)
            if attributes is None:
                attributes = found
                _check_expected(path, found, expected or {})
            elif found != attributes:
                name = next(f.name for f in fields(found) if _differs(found, attributes, f.name))
                raise broken(
                    path,
                    f"is foreign ({name}={getattr(found, name)}, its neighbours have "
                    f"{getattr(attributes, name)})",
                )
            shards.append(shard)
            first_row += shard.num_rows
        assert attributes is not None
        if len(shards) != attributes.num_shards:
            raise missing(shard_path(folder, len(shards)), f" of {attributes.num_shards}")
        if first_row != attributes.num_tokens:
            raise unfit(folder, f"holds {first_row} rows instead of {attributes.num_tokens}")
        return cls(folder, attributes, shards)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open between reads."""

    @property
    def fingerprint(self) -> str:
        """Changes with model, tokenizer, traces, layer, dtype or layout."""
        return fingerprint(self.attributes)

    @cached_property
    def token_id(self) -> Int32[np.ndarray, " row"]:
        """Token that each row has just read."""
        return self._column("token_id")

    @cached_property
    def trace_index(self) -> Int32[np.ndarray, " row"]:
        """Trace of each row, as row of the table of traces."""
        return self._column("trace_index")

    @cached_property
    def position(self) -> Int32[np.ndarray, " row"]:
        """Index of each row into its trace's token ids."""
        return self._column("position")

    @cached_property
    def norm(self) -> Float32[np.ndarray, " row"]:
        """Norm of each row, as it's stored."""
        norms = np.empty(self.num_tokens, np.float32)
        for shard in self._shards:
            rows = range(shard.first_row, shard.first_row + shard.num_rows)
            with _opened(shard.path) as file:
                # Files that were made before norms were kept lack them.
                norms[rows.start : rows.stop] = (
                    file[NORM][:] if NORM in file else row_norms(self._read_block(rows))
                )
        return norms

    @cached_property
    def row_of_trace(self) -> Int64[np.ndarray, " trace_and_end"]:
        """Row of each trace's first kept token; one more, for the end."""
        traces = np.arange(self.attributes.num_traces + 1)
        return np.searchsorted(self.trace_index, traces).astype(np.int64)

    def read(
        self, rows: slice | range | Int64[np.ndarray, " row"] | Int64[Tensor, " row"]
    ) -> Float32[Tensor, "row d_model"]:
        """Activations of some rows, in the order asked for; neighbours are read in one piece."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(self.num_tokens))
        if isinstance(rows, range) and rows.step == 1:
            return self._read_block(self._checked(rows)).float()
        index = np.asarray(rows, np.int64)
        if not len(index):
            return torch.empty(0, self.d_model)
        wanted, place = np.unique(index, return_inverse=True)
        self._checked(range(int(wanted[0]), int(wanted[-1]) + 1))
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        found = self._room(len(wanted))
        start = 0
        for run in runs:
            self._fill(found[start : start + len(run)], int(run[0]))
            start += len(run)
        return found[torch.from_numpy(place)].float()

    def batches(
        self, rows: range | None, size: int, kept: Bool[np.ndarray, " row"] | None = None
    ) -> Iterator[ActivationBatch]:
        """Rows in order, `size` at a time; the last batch is what is left.

        Args:
            rows: Which; none for all.
            size: Rows read at once.
            kept: Of each row of the store, whether it isn't left out; none leaves out nothing.
        """
        rows = self._checked(rows)
        for start in range(rows.start, rows.stop, size):
            part = range(start, min(start + size, rows.stop))
            here = slice(part.start, part.stop)
            batch = ActivationBatch(
                self._read_block(part).float(),
                self.token_id[here],
                self.trace_index[here],
                self.position[here],
            )
            if kept is None or kept[here].all():
                yield batch
            elif kept[here].any():
                yield batch.only(kept[here])

    def shuffled_batches(
        self,
        batch_size: int,
        seed: int,
        rows: range | None = None,
        mixing_tokens: int = 65536,
        skip_batches: int = 0,
        kept: Bool[np.ndarray, " row"] | None = None,
    ) -> Iterator[Float32[Tensor, "batch d_model"]]:
        """Endless shuffled batches: each epoch visits every row once, in an order of its own.

        An epoch's blocks of neighbouring rows are shuffled, read a mixing buffer at a time, and the
        buffer's rows are shuffled. A batch may straddle two epochs. Any point of the stream follows
        from (seed, epoch, buffer), so a resumed training skips without reading.

        Args:
            batch_size: Rows of a batch.
            seed: Of the order.
            rows: Which rows take part; none for all.
            mixing_tokens: Rows of the mixing buffer, which bounds memory.
            skip_batches: Batches to leave out at the start.
            kept: Of each row of the store, whether it takes part; none for all.
        """
        rows = self._checked(rows)
        num_kept = len(rows) if kept is None else int(kept[rows.start : rows.stop].sum())
        if not num_kept:
            raise ValueError(f"{self.folder}: no rows to shuffle; choose a split that has traces")
        batch = torch.empty(batch_size, self.d_model)
        filled = 0
        epoch, skipped = divmod(skip_batches * batch_size, num_kept)
        while True:
            for piece in self._shuffled_epoch(rows, mixing_tokens, (seed, epoch), skipped, kept):
                left = piece
                while len(left):
                    taken = min(len(left), batch_size - filled)
                    batch[filled : filled + taken] = left[:taken]
                    left, filled = left[taken:], filled + taken
                    if filled == batch_size:
                        yield batch
                        batch, filled = torch.empty(batch_size, self.d_model), 0
            epoch, skipped = epoch + 1, 0

    def _shuffled_epoch(
        self,
        rows: range,
        mixing_tokens: int,
        seeds: tuple[int, int],
        skipped: int,
        kept: Bool[np.ndarray, " row"] | None,
    ) -> Iterator[Tensor]:
        """One epoch's rows, shuffled, in small pieces; its first `skipped` rows left out."""
        block = min(max(mixing_tokens // _BLOCKS_MIXED, 1), _MAX_BLOCK)
        starts = np.arange(rows.start, rows.stop, block)
        np.random.default_rng(seeds).shuffle(starts)
        per_buffer = max(mixing_tokens // block, 1)
        for first in range(0, len(starts), per_buffer):
            parts = [
                range(start, min(start + block, rows.stop))
                for start in starts[first : first + per_buffer].tolist()
            ]
            num_rows = sum(map(len, parts))
            takes_part = (
                None
                if kept is None
                else np.concatenate([kept[part.start : part.stop] for part in parts])
            )
            num_taken = num_rows if takes_part is None else int(takes_part.sum())
            if skipped >= num_taken:
                skipped -= num_taken
                continue
            held = self._room(num_rows)
            filled = 0
            for part in parts:
                self._fill(held[filled : filled + len(part)], part.start)
                filled += len(part)
            order = np.random.default_rng((*seeds, first)).permutation(num_rows)
            if takes_part is not None:
                order = order[takes_part[order]]
            for piece in torch.from_numpy(order[skipped:]).split(_MAX_BLOCK):
                yield held[piece]
            del held  # Before the next buffer is filled: one at a time.
            skipped = 0

    def _checked(self, rows: range | None) -> range:
        rows = range(self.num_tokens) if rows is None else rows
        if rows.step != 1 or (len(rows) and (rows.start < 0 or rows.stop > self.num_tokens)):
            raise IndexError(
                f"{rows} isn't a run of rows of {self.folder} ({self.num_tokens} rows)"
            )
        return rows

    def _column(self, name: str) -> np.ndarray:
        column = np.empty(self.num_tokens, np.int32)
        for shard in self._shards:
            with _opened(shard.path) as file:
                column[shard.first_row : shard.first_row + shard.num_rows] = file[name][:]
        return column

    def _read_block(self, rows: range) -> Tensor:
        return self._fill(self._room(len(rows)), rows.start)

    def _room(self, num_rows: int) -> Tensor:
        return torch.empty(num_rows, self.d_model, dtype=self._stored_dtype)

    def _fill(self, out: Tensor, start: int) -> Tensor:
        """Copy rows from `start` on into `out`, as they are on disk."""
        rest = out
        while len(rest):
            shard = self._shards[bisect_right(self._first_rows, start) - 1]
            here = rest[: shard.first_row + shard.num_rows - start]
            with shard.path.open("rb") as file:
                file.seek(shard.offset + (start - shard.first_row) * self._value_bytes)
                if (
                    file.readinto(here.view(torch.uint8).numpy().data)
                    != len(here) * self._value_bytes
                ):
                    raise broken(shard.path, "was cut short while it was read")
            rest, start = rest[len(here) :], start + len(here)
        return out


def check_same_rows(*stores: ActivationStore) -> None:
    """Make sure that row i is the same token in all stores.

    Raises:
        BrokenArtifact: Two stores are of different traces or keep different tokens.
    """
    first, *others = stores
    for other in others:
        for name in ("traces_fingerprint", "num_tokens", "num_traces"):
            if _differs(first.attributes, other.attributes, name):
                raise unfit(other.folder, f"has other rows than {first.folder} ({name} differs)")


def _open_shard(path: Path, number: int, first_row: int) -> tuple[StoreAttributes, _Shard]:
    try:
        with _opened(path) as file:
            schema = file.attrs.get("schema_version")
            if schema != SCHEMA_VERSION:
                raise broken(path, f"has schema {schema}, this version reads {SCHEMA_VERSION}")
            attributes = StoreAttributes(
                **{f.name: np.asarray(file.attrs[f.name]).item() for f in fields(StoreAttributes)}
            )
            num_rows, layer = int(file.attrs["num_rows"]), attributes.layer
            if int(file.attrs["shard"]) != number:
                raise broken(path, f"says that it is shard {file.attrs['shard']}")
            offset = file["activations"].id.get_offset()
            shapes = {name: (file[name].shape, file[name].dtype) for name in INDICES}
            shapes["activations"] = (file["activations"].shape, file["activations"].dtype)
    except KeyError as error:
        raise broken(path, f"lacks an attribute or dataset ({reason(error)})") from error
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        name: ((num_rows,), np.dtype(np.int32)) for name in INDICES
    }
    stored = np.dtype(ON_DISK.get(attributes.dtype, np.void))
    wanted["activations"] = ((num_rows, attributes.d_model), stored)
    if shapes != wanted or (offset is None and num_rows):
        raise broken(path, "has datasets of another shape, type or layout than it says")
    named = re.fullmatch(r"layer_(\d+)", path.parent.name)
    if named and int(named[1]) != layer:
        raise broken(path, f"is of layer {layer}, not of its folder's")
    return attributes, _Shard(path, first_row, num_rows, offset or 0)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A shard, opened for reading; what can't be read for now isn't called broken."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise missing(path) from error
    except (OSError, RuntimeError) as error:
        if is_locked(error):
            raise in_use(path) from error
        if number := getattr(error, "errno", None):  # The system's, not HDF5's own.
            raise ConfigError(
                f"{path} can't be read ({os.strerror(number)}); make it readable and run again"
            ) from error
        raise broken(path, f"is cut short or no HDF5 file ({reason(error)})") from error


def _check_expected(path: Path, found: StoreAttributes, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if getattr(found, name) != value:
            raise unfit(path, f"has {name}={getattr(found, name)}, wanted is {value}")


def _differs(one: StoreAttributes, other: StoreAttributes, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
