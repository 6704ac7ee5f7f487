"""Hashes of files. Those of large ones, which take minutes, are kept from one run to the next."""

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LARGE = 64 << 20
"""Bytes from which a hash is kept; below, it's had in a moment."""
_SETTLED_SECONDS = 2.0
"""Age of a file from which a change must show in its times, however coarse the filesystem's are."""


def hash_files(files: Sequence[Path]) -> str:
    """Sixteen hex digits that change with names, sizes and contents of some files.

    Of large files the result is kept by path, size, times and inode, so that weights are hashed
    once, whichever stages read them.
    """
    before = [_state(file) for file in files]
    if sum(size for _, size, *_ in before) < _LARGE:
        return _hash(files)
    key = hashlib.sha256(json.dumps(before).encode()).hexdigest()
    kept = cache_home() / "hashes" / key[:32]
    with suppress(OSError):
        if re.fullmatch("[0-9a-f]{16}", known := kept.read_text(encoding="utf-8")):
            return known
    found = _hash(files)
    newest = max(changed for *_, changed in before) / 1e9
    if time.time() - newest > _SETTLED_SECONDS and before == [_state(file) for file in files]:
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
            partial.write_text(found, encoding="utf-8")
            partial.replace(kept)
    return found


def cache_home() -> Path:
    """Where what can be made again is kept for all projects of a user."""
    own = os.environ.get("SAE_REASONING_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sae_reasoning"


def _state(file: Path) -> tuple[str, int, int, int, int]:
    """What is other where a file's content is; last, when either of them changed."""
    stat = file.stat()
    return (
        str(file.absolute()),
        stat.st_size,
        stat.st_ino,
        stat.st_mtime_ns,
        max(stat.st_mtime_ns, stat.st_ctime_ns),
    )


def _hash(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            error.filename = error.filename or str(path)  # Errors of reading name none.
            raise
    return digest.hexdigest()[:16]
