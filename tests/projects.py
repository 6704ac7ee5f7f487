"""A folder in which commands are run, and copies of what was made there."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from command_runner import Outcome, run_command

STAGES = ("traces", "cache", "train", "rank", "ablate", "contrast", "report")


@dataclass(frozen=True)
class Project:
    """A folder in which commands are run, and the options that make them small.

    Attributes:
        folder: Where the commands are run.
        options: Of every command.
    """

    folder: Path
    options: tuple[str, ...]

    @property
    def results(self) -> Path:
        """Where the stages are."""
        return self.folder / "runs" / "tiny" / "talking"

    def run(self, *arguments: str, **limits: int) -> Outcome:
        """Run a command with the project's options, which later ones override."""
        return run_command([*arguments, *self.options], self.folder, **limits)

    def copy(self, folder: Path, *stages: str) -> "Project":
        """A new project with copies of some finished stages."""
        copied = Project(folder, self.options)
        for stage in stages:
            shutil.copytree(self.results / stage, copied.results / stage)
        return copied
