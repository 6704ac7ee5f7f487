"""Numbers that wait on disk instead of in memory, in files without a name, which leave no trace.

What is kept of latents grows with the number of tokens wherever ranks are wanted; so it's written
away as it comes, and read back piece by piece, each piece of a bounded size.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped
from numpy.typing import DTypeLike


class Scratch:
    """An array that grows at its end, in a file.

    Args:
        dtype: Of its numbers.
        folder: Where the file is; none for the system's temporary folder.
    """

    def __init__(self, dtype: DTypeLike, folder: Path | None = None) -> None:
        self._dtype = np.dtype(dtype)
        # Without a name, so that nothing is left behind however the process ends.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, numbers: Shaped[np.ndarray, " number"]) -> None:
        """Write at the end."""
        self._file.write(np.ascontiguousarray(numbers, self._dtype).data)
        self._length += len(numbers)

    def gather(self, pieces: Sequence[tuple[int, int]]) -> Shaped[np.ndarray, " number"]:
        """A copy of some pieces, each from its first number to before its last."""
        self._file.flush()
        found = np.empty(sum(stop - start for start, stop in pieces), self._dtype)
        filled = 0
        for start, stop in pieces:
            self._file.seek(start * self._dtype.itemsize)
            piece = found[filled : filled + stop - start]
            self._file.readinto(piece.data)
            filled += len(piece)
        self._file.seek(0, os.SEEK_END)
        return found

    def mapped(self) -> Shaped[np.ndarray, " number"]:
        """All numbers, left where they are; the file lives as long as they do."""
        if not self._length:
            return np.empty(0, self._dtype)
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r")


def release(mapped: Shaped[np.ndarray, " number"]) -> None:
    """Forget which pages of a mapped array were looked at; they are read again when they're wanted.

    Otherwise each stays in the process's memory until the system is short of it. An array that
    isn't mapped stays as it is.
    """
    if isinstance(mapped, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        mapping.madvise(mmap.MADV_DONTNEED)


class SortedRuns:
    """Any number of 64-bit keys in a bounded memory, to be had back in order.

    The buffer is sorted and written away when it's full; each such run then gives its share of
    every range of keys.

    Args:
        capacity: Keys held in memory.
        folder: Where the others are; none for the system's temporary folder.
    """

    def __init__(self, capacity: int, folder: Path | None = None) -> None:
        self._capacity, self._filled = capacity, 0
        self._buffer = np.empty(0, np.int64)
        self._file = Scratch(np.int64, folder)
        self._starts = [0]

    def add(self, keys: Int64[np.ndarray, " key"]) -> None:
        """Take some keys, in any order."""
        if not len(self._buffer):
            self._buffer = np.empty(self._capacity, np.int64)
        while len(keys):
            taken = keys[: self._capacity - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            keys = keys[len(taken) :]
            if self._filled == self._capacity:
                self._write()

    def _write(self) -> None:
        run = self._buffer[: self._filled]
        run.sort()
        self._file.append(run)
        self._starts.append(len(self._file))
        self._filled = 0

    def ranges(self, bounds: Int64[np.ndarray, " bound"]) -> Iterator[Int64[np.ndarray, " key"]]:
        """Keys from each bound to below the next, sorted."""
        self._write()
        self._buffer = np.empty(0, np.int64)
        places = [
            # Mapped again for each run, as a page that was looked at stays mapped.
            start + np.searchsorted(self._file.mapped()[start:stop], bounds)
            for start, stop in pairwise(self._starts)
        ]
        for number in range(len(bounds) - 1):
            keys = self._file.gather([(int(run[number]), int(run[number + 1])) for run in places])
            keys.sort()
            yield keys
