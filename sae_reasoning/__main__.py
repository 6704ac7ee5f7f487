"""The command line: `python -m sae_reasoning <stage…> [option=value…]`.

Inputs that are cheap and local are made first, where they aren't up to date; a stage whose other
inputs are missing or stale names the stage that makes them. Nothing heavy is imported before the
config is checked, so that help and errors come at once.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import NoReturn

from sae_reasoning.config import Config, ConfigError

STAGES = {
    "traces": "roll out both models on the same problems, grade, annotate (or import traces)",
    "cache": "read every trace through both models; activations to HDF5",
    "train": "train one SAE a layer on the cache",
    "rank": "score every latent for every behaviour; two shortlists",
    "match": "find latents' counterparts in another run's dictionary; matches.parquet",
    "ablate": "edit the shortlist in both models, with controls; effects",
    "contrast": "when and how: onset mass, execution validity, triggers, pass@k; contrast.parquet",
    "course": "when and how, at every checkpoint of a training: what came first; course.parquet",
    "report": "the verdict on each move, with its evidence; verdict.json",
    "calibrate": "hold the verdict against models whose answer is known; calibration.json",
    "organisms": "make models whose answer is known: pretraining, SFT, RL, model cards",
    "bench": "measure our speed against the peers'; bench.json",
}
"""Stages in the order of the flow, each with one line."""

_CHEAP_INPUTS = {"cache": ("traces",)}
"""Inputs worth making unasked: seconds to minutes, from what is on this machine."""

_EXIT_ERROR, _EXIT_INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages named; the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(help_text())
        return 0
    try:
        names = [argument for argument in arguments if argument in STAGES]
        overrides = [argument for argument in arguments if argument not in STAGES]
        _refuse_unknown(names, overrides)
        return _run(names, overrides)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return _EXIT_INTERRUPTED


def help_text() -> str:
    """Stages, options and examples."""
    from sae_reasoning.compose import group_options, option_names

    width = max(map(len, STAGES))
    parts: dict[str, list[str]] = {}
    for option in option_names():
        part, _, name = option.rpartition(".")
        parts.setdefault(part, []).append(name)
    lines = [
        "python -m sae_reasoning <stage…> [option=value…]",
        "",
        "Stages, in order; each is up to date, resumes, or is made anew:",
        *(f"  {name:<{width}}  {what}" for name, what in STAGES.items()),
        "",
        "Choices of files (conf/):",
        *(f"  {name}={'|'.join(options)}" for name, options in group_options().items()),
        "",
        "Options (defaults and meaning: sae_reasoning/config/):",
        *(
            f"  {', '.join(names)}" if not part else f"  {part}.{{{', '.join(names)}}}"
            for part, names in parts.items()
        ),
        "",
        "Examples:",
        "  python -m sae_reasoning cache train rank ablate",
        "  python -m sae_reasoning traces cache train train.sae.k=8 experiment=narrow",
        "  python -m sae_reasoning traces cache pair=local pair.name=mine \\",
        "      pair.base.path=/models/base pair.rl.path=/models/rl traces.source=annotated.jsonl",
        "  make cache train ARGS='train.sae.k=8'     # the same through make",
    ]
    return "\n".join(lines)


def _refuse_unknown(names: Sequence[str], overrides: Sequence[str]) -> None:
    for argument in overrides:
        if "=" not in argument:
            _fail(f"{argument} is no stage; choose of {', '.join(STAGES)}")
    if not names:
        _fail(f"no stage is named; choose of {', '.join(STAGES)}")


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(_EXIT_ERROR)


def _run(names: Sequence[str], overrides: Sequence[str]) -> int:
    from sae_reasoning.compose import compose
    from sae_reasoning.edges.artifacts import BrokenArtifact, MissingInput
    from sae_reasoning.edges.lock import InUse

    try:
        config = compose(overrides)
        _set_up(config)
        for name in names:
            for stage in (*_inputs_to_make(name, names), name):
                _run_stage(stage, config)
    except (ConfigError, MissingInput, BrokenArtifact, InUse) as error:
        _fail(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        place = f" ({error.filename})" if error.filename else ""
        _fail(
            f"{error.strerror}{place} while writing to runs={config.runs}; what was made before "
            "stands; make room or permit writing, or set runs=… elsewhere, and run it again"
        )
    return 0


def _inputs_to_make(name: str, asked: Sequence[str]) -> list[str]:
    """Cheap inputs of a stage; one that is up to date says so and does nothing."""
    return [stage for stage in _CHEAP_INPUTS.get(name, ()) if stage not in asked]


def _set_up(config: Config) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if config.threads:
        # OpenMP reads it when torch is first imported, so before any job is.
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)


def _run_stage(name: str, config: Config) -> None:
    from sae_reasoning.edges.console import Console
    from sae_reasoning.edges.tracker import open_tracker

    job = getattr(importlib.import_module(f"sae_reasoning.jobs.{name}"), name)
    tracker = open_tracker(
        config.tracker,
        stage=name,
        group=f"{config.experiment}/{config.pair.name}",
        folder=config.folder,
        config=asdict(config),
    )
    try:
        job(config, tracker=tracker, console=Console())
    finally:
        tracker.finish()


if __name__ == "__main__":
    sys.exit(main())
