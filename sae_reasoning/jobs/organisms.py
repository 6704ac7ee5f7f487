"""Make the organisms: train each model of the grid, measure it, find its truth, write its card.

Each model is a folder of its own, made when it isn't there and up to date; an interrupted training
is resumed from its last checkpoint.

1. Training: trainings/organism.py, by the recipes of organisms/cells.py.
2. Figures, truth and card: trainings/organism_figures.py.
"""

import torch

from sae_reasoning.config import Config, OrganismConfig
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.console import Console, duration
from sae_reasoning.edges.lm.create import save_model
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms.cells import PAIRS, chosen
from sae_reasoning.organisms.pairs import OrganismPair
from sae_reasoning.organisms.pretrain import Progress
from sae_reasoning.trainings.organism import Order, begin, train_organism
from sae_reasoning.trainings.organism_figures import measure_organism

_STATE = "training.safetensors"


def to_make(cfg: Config) -> dict[int, list[str]]:
    """By seed, the models that aren't there or aren't up to date, with those made from them."""
    own, missing = cfg.organism, {}
    for seed in own.seeds:
        names: list[str] = []
        for recipe in chosen(own.family, seed, own.only):
            order = Order(own, seed, recipe, cfg.device)
            if recipe.parent in names or not order.stage().is_current:
                names.append(recipe.name)
        missing[seed] = names
    return missing


def organisms(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make what `organism.only` names, or the whole grid, for each of `organism.seeds`."""
    own = cfg.organism
    models = {seed: chosen(own.family, seed, own.only) for seed in own.seeds}
    console.plan(
        "organisms",
        {
            f"seed {seed}": f"{', '.join(names) or 'nothing'} to make, in {own.folder_of(seed)}; "
            f"{len(models[seed]) - len(names)} up to date"
            for seed, names in to_make(cfg).items()
        },
    )
    for seed, recipes in models.items():
        for recipe in recipes:
            manifest = _make(Order(own, seed, recipe, cfg.device), tracker, console)
    for seed in own.seeds:
        _say_next(own, seed, console)
    return manifest


def _say_next(own: OrganismConfig, seed: int, console: Console) -> None:
    """The command that runs the first pair whose RL model was asked for; a base has none."""
    for kind in PAIRS:
        pair = OrganismPair(kind, own.family, seed, own.folder_of(seed))
        if not own.only or pair.rl.name in own.only:
            stages = "traces cache train rank ablate contrast report"
            console.next(stages, without="organism", added=pair.options)
            return


def _make(order: Order, tracker: Tracker, console: Console) -> Manifest:
    """Train, measure and describe one model, unless it is up to date."""
    name = order.recipe.name
    with order.stage() as stage:
        if made := console.up_to_date(stage):
            return made
        state = stage.folder / _STATE
        learner = begin(order)
        for progress in train_organism(order, learner, state):
            _follow(name, progress, tracker, console)
            if order.keeps(progress):
                kept = stage.folder / "checkpoints" / f"step_{progress.step:04d}"
                save_model(learner.model, learner.tokenizer, kept, torch.float16)
        save_model(learner.model, learner.tokenizer, stage.folder, torch.float16)
        console.say(f"measuring {name}")
        counts = measure_organism(order, stage.folder)
        state.unlink()
        return stage.finish(counts)


def _follow(name: str, progress: Progress, tracker: Tracker, console: Console) -> None:
    """Log a step, and print a line with the time that is left."""
    tracker.log({f"{name}/{k}": v for k, v in progress.metrics.items()}, progress.step)
    left = duration(progress.seconds_left)
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in progress.metrics.items())
    console.say(f"{name}: step {progress.step}/{progress.steps}, {metrics}, {left} left")
