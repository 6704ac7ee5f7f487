"""Offline W&B runs, as W&B's own reader gives them back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Records = list[dict[str, Any]]


def records_of(run: Path) -> Records:
    """Records of a `.wandb` file."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def only_run_below(folder: Path) -> Records:
    """Records of the one offline run below a folder."""
    (run,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    return records_of(run)


def artifacts(records: Records) -> list[dict[str, Any]]:
    """What a run sent and used."""
    return [record["artifact"] for record in records if record["type"] == "artifact"]


def merged(records: Records, kind: str) -> dict[str, Any]:
    """All that a run wrote into its summary or config."""
    updates = [record[kind]["update"] for record in records if record["type"] == kind]
    return {name: value for update in updates for name, value in update.items()}
