"""Files that are there whole or not at all, whenever a process or the machine dies."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sae_reasoning.config import ConfigError


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Write to the yielded temporary path; the file takes its final name only when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of two machines may have one number.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def reserve(path: Path) -> None:
    """Take the disk that a file will fill up to its present end, if it was only stretched to it.

    A full disk is noticed here, before a library is half-way through the file. Where the
    filesystem can't reserve, nothing is.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Make a folder below `runs`.

    Raises:
        ConfigError: It can't be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"runs: {folder} can't be written ({error.strerror}); set runs= to a folder that can"
        ) from error
