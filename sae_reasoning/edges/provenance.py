"""Which code made a result: packages and revision."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sae_reasoning import __version__

_PACKAGES = (
    "sae_reasoning torch transformers sae-lens h5py numpy scipy pyarrow hydra-core wandb".split()
)


def package_versions() -> dict[str, str]:
    """Of the packages that results rest on, those that are here."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """Of the code that runs: its repository's, or the package's version where it's installed."""
    own = Path(__file__)
    git = ["git", "-C", str(own.parent)]
    describe = [*git, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # An environment may stand in the repository of something else.
        for command in ([*git, "ls-files", "--error-unmatch", own.name], describe):
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return f"sae_reasoning {__version__}"
    return done.stdout.strip()
