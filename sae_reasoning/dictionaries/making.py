"""One dictionary a layer: trained, taken over from an earlier run, or taken in from elsewhere."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from sae_reasoning.config import LAYER_FIELD, Config
from sae_reasoning.dictionaries.activations import Activations
from sae_reasoning.edges.activation_norms import kept_of_all
from sae_reasoning.edges.activation_pairs import shuffled_pairs
from sae_reasoning.edges.artifacts import Stage, publish
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.crosscoder_checkpoint import (
    Crosscoder,
    concatenate,
    crosscoder_of,
    scales_of,
)
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import CONFIG_FILE, WEIGHTS_FILE, Dictionary
from sae_reasoning.edges.sae_release import check_registered, load_registered, load_released
from sae_reasoning.edges.sae_training import (
    StepRecord,
    batches_done,
    mixed_batches,
    train_sae,
)
from sae_reasoning.edges.tables import write_table
from sae_reasoning.edges.tracker import Tracker

_BARS = ("gate_", "scaling_")
"""Beginnings of options that judge a dictionary and don't make it."""
_CURVE_FILE, _CHECKPOINT_FILE = "curve.parquet", "checkpoint.safetensors"


def trained_readers(cfg: Config) -> Sequence[str]:
    """Models whose activations a dictionary is trained on, or is made for."""
    every = tuple(cfg.pair.readers)
    return every if cfg.train.readers in ("pooled", "crosscoder") else (cfg.train.readers,)


def dictionary_folder(cfg: Config, stage: Stage, layer: int) -> Path:
    """Where the stage keeps a layer's dictionary while it's made."""
    return stage.folder / cfg.train.readers / f"layer_{layer}"


def check_release(cfg: Config) -> None:
    """Refuse a release that sae-lens's registry doesn't have.

    Raises:
        ConfigError: It lacks the release, or its SAE of one of the layers.
    """
    if cfg.train.sae.release:
        for layer in cfg.layers:
            check_registered(cfg.train.sae.release, _registered_id(cfg, layer))


def make_dictionary(
    cfg: Config, layer: int, data: Activations, stage: Stage, tracker: Tracker, console: Console
) -> None:
    """Make one layer's dictionary, with its curve where it's trained; what is there stays.

    A killed training goes on from its last checkpoint.
    """
    folder = dictionary_folder(cfg, stage, layer)
    if cfg.train.readers == "released":
        _load_released(cfg, layer, data.d_model).save(folder)
    elif (folder / _CURVE_FILE).exists():  # Written last, so a folder that has it is done.
        (folder / _CHECKPOINT_FILE).unlink(missing_ok=True)
    elif not _take_over(cfg, layer, stage):
        _train_layer(cfg, layer, data, stage, tracker, console)


def _take_over(cfg: Config, layer: int, stage: Stage) -> bool:
    """Copy a layer that was made with the same options, but for bars; whether there was one."""
    made = stage.manifest
    if made is None or made.inputs != stage.inputs or layer not in made.config["layers"]:
        return False
    if made.config.get("version") != stage.config["version"]:
        return False
    old, new = (
        {name: value for name, value in options.items() if not name.startswith(_BARS)}
        for options in (made.config["train"], stage.config["train"])
    )
    source = stage.final / cfg.train.readers / f"layer_{layer}"
    if old != new or not (source / _CURVE_FILE).exists():
        return False
    for name in (CONFIG_FILE, WEIGHTS_FILE, _CURVE_FILE):
        with publish(dictionary_folder(cfg, stage, layer) / name) as partial:
            shutil.copyfile(source / name, partial)
    return True


def _train_layer(
    cfg: Config, layer: int, data: Activations, stage: Stage, tracker: Tracker, console: Console
) -> None:
    """One SAE or crosscoder, with its curve."""
    folder = dictionary_folder(cfg, stage, layer)
    checkpoint = folder / _CHECKPOINT_FILE
    done = batches_done(checkpoint)
    curve: list[StepRecord] = []
    with console.progress(
        cfg.train.steps, "steps", f"{cfg.train.readers} layer {layer}", done=done
    ) as progress:

        def on_step(record: StepRecord) -> None:
            metrics = {k: v for k, v in asdict(record).items() if k != "step"}
            tracker.log({f"layer_{layer}/{k}": v for k, v in metrics.items()}, step=record.step)
            progress.reach(record.step, f"loss {record.loss:.3f}, FVU {record.fvu:.3f}")
            curve.append(record)

        fit = partial(
            train_sae,
            cfg.train,
            seed=cfg.train.seed,
            checkpoint=checkpoint,
            on_step=on_step,
            device=resolve_device(cfg.device),
        )
        made: Dictionary | Crosscoder
        if cfg.train.readers == "crosscoder":
            made = _fit_crosscoder(cfg, layer, data, done, fit)
        else:
            batches = _batches(cfg, layer, data, done)
            made = fit(batches, d_in=data.d_model, metadata=_metadata(cfg, layer, data))
    made.save(folder)
    write_table(folder / _CURVE_FILE, pd.DataFrame([asdict(record) for record in curve]))
    checkpoint.unlink(missing_ok=True)


def _batches(cfg: Config, layer: int, data: Activations, done: int) -> Iterator[Tensor]:
    """Batches of the select split, an equal part from each reader, after the first `done`."""
    train, readers = cfg.train, trained_readers(cfg)
    stores = [data.stores[reader, layer] for reader in readers]
    kept = [
        kept_of_all([data.norms[reader, layer]], train.max_norm_multiple, data.select)
        for reader in readers
    ]
    return mixed_batches(train, stores, data.select, seed=train.seed, skip_batches=done, kept=kept)


def _fit_crosscoder(
    cfg: Config, layer: int, data: Activations, done: int, fit: Callable[..., Dictionary]
) -> Crosscoder:
    """One code for both readers of each token, by the training of SAEs."""
    batches = partial(
        shuffled_pairs,
        data.of_layer(layer),
        cfg.train.batch_size,
        seed=cfg.train.seed,
        rows=data.select,
        mixing_tokens=cfg.train.mixing_tokens,
        kept=kept_of_all(data.norms_of(layer), cfg.train.max_norm_multiple, data.select),
    )
    scales = scales_of(next(batches()))  # The first batch, also where a killed training goes on.
    joint = fit(
        (concatenate(x, scales) for x in batches(skip_batches=done)),
        d_in=len(data.models) * data.d_model,
        metadata=_metadata(cfg, layer, data) | {"reader_scales": list(scales)},
    )
    return crosscoder_of(joint, tuple(data.models), scales)


def _metadata(cfg: Config, layer: int, data: Activations) -> dict[str, Any]:
    """What `cfg.json` says of where the SAE belongs; the hook's name is TransformerLens's."""
    readers = trained_readers(cfg)
    return {
        "model_name": "+".join(data.models[reader].name for reader in readers),
        "hook_name": f"blocks.{layer}.hook_resid_post",
        "layer": layer,
        "readers": list(readers),
        "model_fingerprints": [data.models[reader].fingerprint for reader in readers],
        "training_tokens": cfg.train.steps * cfg.train.batch_size,
        "seed": cfg.train.seed,
    }


def _load_released(cfg: Config, layer: int, d_model: int) -> Dictionary:
    device = resolve_device(cfg.device)
    if cfg.train.released:
        folder = Path(cfg.train.released.replace(LAYER_FIELD, str(layer)))
        return load_released(folder, layer, d_model, device)
    sae_id = _registered_id(cfg, layer)
    return load_registered(cfg.train.sae.release, sae_id, layer, d_model, device)


def _registered_id(cfg: Config, layer: int) -> str:
    return cfg.train.sae.id.replace(LAYER_FIELD, str(layer))
