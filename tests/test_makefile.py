"""What `make` would run, without running it."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def commands(*goals: str) -> list[str]:
    """The commands of some goals, as if the environment were there."""
    old = ["--old-file", ".venv/.ready", "--dry-run", "--no-print-directory"]
    # What the make that runs the tests was given isn't this one's.
    own = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "ARGS"}
    made = subprocess.run(
        ["make", *old, "VENV=.venv", *goals],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in made.stdout.splitlines() if line != ":"]
    named = [line.removeprefix(".venv/bin/python -m ").rstrip() for line in lines]
    return ["pytest" if command.startswith("pytest") else command for command in named]


@pytest.mark.parametrize(
    ("goals", "expected"),
    [
        (["cache", "train", "rank", "ablate"], ["sae_reasoning cache train rank ablate"]),
        (["rank", "ARGS=experiment=tiny"], ["sae_reasoning rank experiment=tiny"]),
        (["cache", "test", "rank"], ["sae_reasoning cache", "pytest", "sae_reasoning rank"]),
    ],
)
def test_stages_named_together_share_one_process(goals: list[str], expected: list[str]) -> None:
    assert commands(*goals) == expected
