"""Experiments made small: a folder in which commands are run, and a config of seconds."""

import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from command_runner import Outcome, run_command

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.tasks.search import grammar

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


def tiny_experiment(pair: PairConfig, folder: Path) -> Config:
    """An experiment of seconds, with results below a folder."""
    own = deepcopy(pair)  # A test may change its own.
    config = Config(pair=own, behaviours=list(grammar.BEHAVIOURS), runs=str(folder / "runs"))
    config.layers = [0, 1]
    config.device = "cpu"
    config.tracker.kind = "none"
    config.traces.num_problems = 8
    config.traces.base_samples = config.traces.rl_samples = 2
    config.traces.max_new_tokens = 24
    config.cache.token_budget = 2048
    config.cache.shard_tokens = 512
    config.train.sae.d_sae, config.train.sae.k = 64, 4
    config.train.steps, config.train.batch_size = 20, 128
    config.train.mixing_tokens, config.train.checkpoint_every = 512, 10
    config.rank.bootstrap, config.rank.random_directions = 20, 8
    config.rank.gate = False  # So short a training passes none.
    config.rank.span_detectors = config.rank.onset_predictors = config.rank.candidates = 3
    config.rank.attribution_onsets = 8
    config.rank.injection_texts = 4
    config.ablate.num_problems, config.ablate.max_new_tokens = 3, 16
    config.ablate.base_samples = 2
    config.ablate.num_latents, config.ablate.controls, config.ablate.bootstrap = 2, 1, 20
    return config
