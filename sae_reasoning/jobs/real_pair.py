"""Train adapters on a real language model whose answer is known, measure them, write their cards.

Each adapter is a folder of its own, made when it isn't there and up to date; a training that was
killed goes on from its last checkpoint.
"""

import shutil
from pathlib import Path

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, Stage, publish
from sae_reasoning.edges.console import Console, duration
from sae_reasoning.edges.lm.load import describe
from sae_reasoning.edges.lm.lora import LoraShape, lora_learner
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms.countdown import chosen
from sae_reasoning.organisms.pretrain import Progress
from sae_reasoning.trainings.adapter import (
    MEASURED_BY,
    Order,
    measure_adapter,
    settings,
    tell_cost,
    train,
)

_SCHEMA = 1
"""Of an adapter's folder, which holds no tables."""
_STATE = "training.safetensors"


def real_pair(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make what `real_pair.only` names, or every adapter."""
    own, model = cfg.real_pair, cfg.pair.rl
    if model.adapter:
        raise ConfigError(
            f"pair.rl.adapter={model.adapter} has an adapter already; name the plain model, as "
            "pair=smollm2 does"
        )
    orders = [Order(own, model, one, cfg.device) for one in chosen(own.only)]
    console.plan("real_pair", {"model": model.path, "to": own.folder})
    for order in orders:
        manifest = _make(order, tracker, console)
    return manifest


def _make(order: Order, tracker: Tracker, console: Console) -> Manifest:
    """Train, measure and describe one adapter, unless it is up to date."""
    name, parent = order.one.name, order.one.parent
    inputs = {"model": describe(order.with_adapter(None)).fingerprint}
    if parent:
        inputs[parent] = describe(order.with_adapter(parent)).fingerprint
    folder = Path(order.own.folder) / name
    with Stage(folder, settings(order), inputs, schema=_SCHEMA) as stage:
        if current := console.up_to_date(stage):
            return current
        _take_over(stage)
        state = stage.folder / _STATE
        if not (stage.folder / "adapter_config.json").exists():
            shape = LoraShape(order.own.rank, order.own.alpha, order.own.frozen_blocks)
            made = lora_learner(order.with_adapter(parent), shape, order.own.seed, order.device)
            tell_cost(order, made, console)
            for progress in train(order, made, state):
                _follow(name, progress, tracker, console)
            made.save(stage.folder)
        console.say(f"measuring {name}")
        counts = measure_adapter(order, stage.folder)
        state.unlink(missing_ok=True)
        return stage.finish(counts)


def _take_over(stage: Stage) -> None:
    """Keep a finished adapter of the same training, where it is only to be measured otherwise."""
    old = stage.manifest
    if old is None or old.inputs != stage.inputs:
        return
    if old.config[:-MEASURED_BY] != stage.config[:-MEASURED_BY]:
        return
    for file in ("adapter_model.safetensors", "adapter_config.json"):  # The latter says it's whole.
        with publish(stage.folder / file) as partial:
            shutil.copyfile(stage.final / file, partial)


def _follow(name: str, progress: Progress, tracker: Tracker, console: Console) -> None:
    """Log a step, and print a line with the time that is left."""
    tracker.log({f"{name}/{k}": v for k, v in progress.metrics.items()}, progress.step)
    left = duration(progress.seconds_left)
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in progress.metrics.items())
    console.say(f"{name}: step {progress.step}/{progress.steps}, {metrics}, {left} left")
