"""Train one SAE or crosscoder a layer on the cached activations; measure it on each reader.

SAEs that were trained elsewhere are taken in instead, and measured alike.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from sae_reasoning.behaviours.scaling import ScalingBars, ScalingSums, survivors
from sae_reasoning.config import LAYER_FIELD, Config, TrainConfig
from sae_reasoning.edges.activation_norms import kept_of_all
from sae_reasoning.edges.activation_pairs import paired_batches, shuffled_pairs
from sae_reasoning.edges.artifacts import Manifest, Stage, publish, require_stage
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.crosscoder_checkpoint import (
    Crosscoder,
    concatenate,
    crosscoder_of,
    load_crosscoder,
    scales_of,
)
from sae_reasoning.edges.inputs import files_in, models_in, outside_inputs
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    load,
    resolve_device,
)
from sae_reasoning.edges.sae_checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Dictionary,
    load_dictionary,
)
from sae_reasoning.edges.sae_quality import (
    CrossEntropyProbe,
    describe_quality,
    draw_probe,
    measure_crosscoders,
    measure_saes,
)
from sae_reasoning.edges.sae_release import check_registered, load_registered, load_released
from sae_reasoning.edges.sae_training import (
    StepRecord,
    batches_done,
    mixed_batches,
    train_sae,
)
from sae_reasoning.edges.schema import write_artifact
from sae_reasoning.edges.tables import write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.jobs.train.data import Data, open_data

_REMEDIES = {
    "fvu": "raise train.steps or train.sae.d_sae",
    "l0": "lower train.sae.k",
    "dead_share": "lower train.sae.d_sae or raise train.steps",
    "ce_recovered": "raise train.steps or train.sae.d_sae",
}
"""What helps against each figure that fails the transfer gate."""
_SPARSER = {
    "jumprelu": "raise train.sae.l0_coefficient",
    "standard": "raise train.sae.l1_coefficient",
}
"""How to make an SAE sparser that has no k."""
_BARS = ("gate_", "scaling_")
"""Beginnings of options that judge a dictionary and don't make it."""
_CURVE_FILE, _CHECKPOINT_FILE = "curve.parquet", "checkpoint.safetensors"


def train(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `train/<readers>/layer_<L>/` for every layer: dictionary, curve and quality."""
    models = {reader: describe(model) for reader, model in cfg.pair.readers.items()}
    for facts in models.values():
        check_layers(cfg.layers, facts.num_layers, facts.name)
    now = outside_inputs(cfg)
    inputs = models_in(cfg, now) | {
        stage: require_stage(cfg.folder, stage, cfg.settings(stage), now).fingerprint
        for stage in ("traces", "cache")
    }
    inputs |= files_in(now, "train")
    if cfg.train.sae.release:
        for layer in cfg.layers:
            check_registered(cfg.train.sae.release, _registered_id(cfg, layer))
    with Stage(cfg.folder / "train", cfg.settings("train"), inputs) as stage:
        if stage.is_current:
            console.current("train", stage.final)
            assert stage.manifest
            return stage.manifest
        data = open_data(cfg, models, inputs["traces"])
        _plan(cfg, data, stage, console)
        for layer in cfg.layers:
            _make_layer(cfg, layer, data, stage, tracker, console)
        quality = _measure(cfg, data, stage, console)
        scaled = _scale(cfg, data, stage, console)
        manifest = stage.finish(
            {
                "saes": len(cfg.layers),
                "steps": 0 if cfg.train.readers == "released" else cfg.train.steps,
                "tokens": len(data.select),
            }
        )
    _tell_outlying(quality, cfg.train.max_norm_multiple, console)
    quality, failed = quality.drop(columns=["outlying", "failed"]), quality.failed
    tracker.table("quality", quality)
    tracker.summary({f"{r.dictionary}/{r.reader}/fvu": r.fvu for r in quality.itertuples()})
    console.table(
        "quality on the report split", list(quality.columns), quality.values.tolist(), at_most=8
    )
    for row, reasons in zip(quality.itertuples(), failed, strict=True):
        _warn(cfg.train, f"{row.dictionary} on {row.reader}", reasons, console)
    if not scaled.empty:
        tracker.table("latent scaling", scaled)
        title = "latents by decoder norms, and what latent scaling makes of them"
        console.table(title, list(scaled.columns), scaled.values.tolist(), at_most=6)
    if not any(failed):
        console.tell(
            f"All {len(quality)} rows pass the transfer gate (FVU at most {cfg.train.gate_fvu:g}, "
            f"L0 at most {cfg.train.gate_l0:g} of d_model, cross-entropy recovered at least "
            f"{cfg.train.gate_ce_recovered:g}): these dictionaries can be read in "
            f"{'the model' if cfg.pair.is_single else 'either model'}."
        )
    console.wrote(stage.final, manifest)
    if not (cfg.rank.gate and any(failed)):  # Which rank refuses; what helps was said above.
        console.next("rank")
    return manifest


def _warn(train: TrainConfig, which: str, reasons: dict[str, str], console: Console) -> None:
    """Say what fails the transfer gate, and what helps."""
    if train.readers == "released":
        remedies = dict.fromkeys(_REMEDIES, "bring another, or train one here")
    else:
        remedies = _REMEDIES | {"l0": _SPARSER.get(train.sae.architecture, _REMEDIES["l0"])}
    for figure, reason in reasons.items():
        console.warn(f"{which} fails the transfer gate: {reason}; {remedies[figure]}")


def _plan(cfg: Config, data: Data, stage: Stage, console: Console) -> None:
    sae, is_joint = cfg.train.sae, cfg.train.readers == "crosscoder"
    width = data.d_model * (len(data.models) if is_joint else 1)
    num_parameters = len(cfg.layers) * (2 * width + 1) * sae.d_sae
    rows_a_step = cfg.train.batch_size / (1 if is_joint else len(_readers(cfg)))
    epochs = cfg.train.steps * rows_a_step / len(data.select)
    layers = ", ".join(map(str, cfg.layers))
    making = {
        "SAEs": f"{sae.architecture}, {width} -> {sae.d_sae} latents, k={sae.k}; "
        f"{cfg.train.readers}, layers {layers}",
        "steps": f"{cfg.train.steps:,} of {cfg.train.batch_size:,} tokens, {epochs:.1f} epochs",
        # While training, weights with both moments and the checkpoint that replaces them.
        "disk": megabytes(4 * num_parameters * 2 + 24 * num_parameters / len(cfg.layers)),
    }
    if cfg.train.readers == "released":
        named = cfg.train.released or f"{sae.release}, {sae.id}"
        making = {"SAEs": f"{named}, layers {layers}"}
    console.plan(
        "train",
        {
            "activations": f"{cfg.folder / 'cache'}: {len(data.select):,} tokens to select on, "
            f"{len(data.report):,} to report on, of each reader",
        }
        | making
        | ({"resuming": "yes"} if stage.is_resuming else {}),
    )


def _make_layer(
    cfg: Config, layer: int, data: Data, stage: Stage, tracker: Tracker, console: Console
) -> None:
    """One dictionary: taken in, taken over from before, or trained."""
    folder = _folder(cfg, stage, layer)
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
        with publish(_folder(cfg, stage, layer) / name) as partial:
            shutil.copyfile(source / name, partial)
    return True


def _train_layer(
    cfg: Config, layer: int, data: Data, stage: Stage, tracker: Tracker, console: Console
) -> None:
    """One SAE or crosscoder, with its curve."""
    folder = _folder(cfg, stage, layer)
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


def _batches(cfg: Config, layer: int, data: Data, done: int) -> Iterator[Tensor]:
    """Batches of the select split, an equal part from each reader, after the first `done`."""
    train, readers = cfg.train, _readers(cfg)
    stores = [data.stores[reader, layer] for reader in readers]
    kept = [
        kept_of_all([data.norms[reader, layer]], train.max_norm_multiple, data.select)
        for reader in readers
    ]
    return mixed_batches(train, stores, data.select, seed=train.seed, skip_batches=done, kept=kept)


def _fit_crosscoder(
    cfg: Config, layer: int, data: Data, done: int, fit: Callable[..., Dictionary]
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


def _metadata(cfg: Config, layer: int, data: Data) -> dict[str, Any]:
    """What `cfg.json` says of where the SAE belongs; the hook's name is TransformerLens's."""
    readers = _readers(cfg)
    return {
        "model_name": "+".join(data.models[reader].name for reader in readers),
        "hook_name": f"blocks.{layer}.hook_resid_post",
        "layer": layer,
        "readers": list(readers),
        "model_fingerprints": [data.models[reader].fingerprint for reader in readers],
        "training_tokens": cfg.train.steps * cfg.train.batch_size,
        "seed": cfg.train.seed,
    }


def _measure(cfg: Config, data: Data, stage: Stage, console: Console) -> pd.DataFrame:
    """`quality.json` of every dictionary; a row for each of its readers."""
    folders = {layer: _folder(cfg, stage, layer) for layer in cfg.layers}
    device, size = resolve_device(cfg.device), cfg.train.batch_size
    probes, multiple = _probes(cfg, data), cfg.train.max_norm_multiple
    on = (data.stores, data.report, size, probes, data.norms, multiple)
    made: dict[int, Any]
    if cfg.train.readers == "crosscoder":
        made = {layer: load_crosscoder(folder, device) for layer, folder in folders.items()}
        measured = measure_crosscoders(made, *on)
    else:
        made = {layer: load_dictionary(folder, device) for layer, folder in folders.items()}
        measured = measure_saes(made, *on)
    figures: dict[int, dict[str, Any]] = {layer: {} for layer in cfg.layers}
    with console.progress(len(data.models) * len(cfg.layers), "measured", "quality") as progress:
        for one in measured:
            figures[one.layer][one.reader] = describe_quality(
                one.fit, one.recovery, data.d_model, cfg.train
            ) | {"outlying": _outlying(cfg, data, one.reader, one.layer)}
            progress.advance()
    rows = []
    for layer, coder in made.items():
        write_artifact(
            _folder(cfg, stage, layer) / "quality.json",
            {
                "dictionary": coder.name,
                "fingerprint": coder.fingerprint,
                "split": "report",
                "readers": figures[layer],
            },
        )
        for reader, figure in figures[layer].items():
            rows.append({"dictionary": coder.name, "reader": reader} | figure)
    columns = ["dictionary", "reader", "num_tokens", "fvu", "l0", "dead_share", "ce_recovered"]
    return pd.DataFrame(rows)[[*columns, "passes", "failed", "outlying"]]


def _outlying(cfg: Config, data: Data, reader: str, layer: int) -> dict[str, Any]:
    """Tokens of one reader that were left out for their norm, as in `quality.json`.

    `of_training` and `of_report` count them; where the reader isn't trained on, the former are 0.
    """
    train, own = cfg.train, data.norms[reader, layer]
    both = data.norms_of(layer) if train.readers == "crosscoder" else [own]

    def left_out(rows: range) -> int:
        kept = kept_of_all(both, train.max_norm_multiple, rows)
        return 0 if kept is None else len(rows) - int(kept[rows.start : rows.stop].sum())

    return {
        "max_norm_multiple": train.max_norm_multiple,
        "median_norm": own.median,
        "largest_multiple": own.largest,
        "of_training": left_out(data.select) if reader in _readers(cfg) else 0,
        "of_report": left_out(data.report),
    }


def _tell_outlying(quality: pd.DataFrame, multiple: float, console: Console) -> None:
    """Say how many tokens were left out for their norm, if any were."""
    said = [
        f"{row.dictionary} on {row.reader} {row.outlying['of_training']:,} of training and "
        f"{row.outlying['of_report']:,} of the report split"
        for row in quality.itertuples()
        if row.outlying["of_training"] or row.outlying["of_report"]
    ]
    if said:
        more = f"; and {len(said) - 2} more" if len(said) > 2 else ""
        console.tell(
            f"Tokens left out for a norm of more than {multiple:g} times the median "
            f"(train.max_norm_multiple): {'; '.join(said[:2])}{more}."
        )


def _probes(cfg: Config, data: Data) -> Iterator[tuple[str, CrossEntropyProbe]]:
    """Of each reader; a crosscoder's hold both models, as it reads both to reconstruct one."""

    def lm(reader: str) -> LanguageModel:
        return load(getattr(cfg.pair, reader), cfg.device)

    held = {reader: lm(reader) for reader in data.models if cfg.train.readers == "crosscoder"}
    for reader in data.models:
        own = held[reader] if held else lm(reader)
        beside = next((other for name, other in held.items() if name != reader), None)
        store = data.stores[reader, cfg.layers[0]]
        yield (
            reader,
            draw_probe(
                own, data.traces, store, cfg.cache.token_budget, beside, cfg.train.gate_tokens
            ),
        )


def _scale(cfg: Config, data: Data, stage: Stage, console: Console) -> pd.DataFrame:
    """`scaling.parquet` of every crosscoder; what it leaves of specific latents."""
    if cfg.train.readers != "crosscoder":
        return pd.DataFrame()
    options = cfg.train
    bars = ScalingBars(
        norm=options.scaling_norm,
        error=options.scaling_error,
        reconstruction=options.scaling_reconstruction,
        problems=options.scaling_problems,
        resamples=options.scaling_bootstrap,
        seed=options.seed,
    )
    reported = sorted({trace.problem_id for trace in data.traces if trace.split != "select"})
    place = {problem: i for i, problem in enumerate(reported)}
    problems = np.array([place.get(trace.problem_id, -1) for trace in data.traces])
    readers = tuple(data.models)
    counts = []
    for layer in cfg.layers:
        folder = _folder(cfg, stage, layer)
        crosscoder = load_crosscoder(folder, resolve_device(cfg.device))
        unit = crosscoder.biases.new_tensor(crosscoder.scales)[:, None, None]
        sums = ScalingSums(crosscoder.decoders * unit, readers, len(reported))
        with console.progress(len(data.report), "tokens", f"scaling layer {layer}") as progress:
            kept = kept_of_all(data.norms_of(layer), options.max_norm_multiple, data.report)
            for batch in paired_batches(
                data.of_layer(layer), data.report, options.batch_size, kept
            ):
                x = batch.activations.to(crosscoder.device)
                sparse = crosscoder.encode_sparse(x)
                reconstruction = crosscoder.decode_sparse(sparse)
                sums.add(
                    problems[batch.trace_index],
                    sparse.values,
                    sparse.latents,
                    (x - reconstruction) * unit,
                    (reconstruction - crosscoder.biases[:, None]) * unit,
                )
                progress.advance(x.shape[1])
        table = sums.result(bars)
        write_table(folder / "scaling.parquet", table)
        found = survivors(table, readers)
        found.insert(0, "dictionary", crosscoder.name)
        counts.append(found)
    return pd.concat(counts, ignore_index=True)


def _load_released(cfg: Config, layer: int, d_model: int) -> Dictionary:
    device = resolve_device(cfg.device)
    if cfg.train.released:
        folder = Path(cfg.train.released.replace(LAYER_FIELD, str(layer)))
        return load_released(folder, layer, d_model, device)
    sae_id = _registered_id(cfg, layer)
    return load_registered(cfg.train.sae.release, sae_id, layer, d_model, device)


def _registered_id(cfg: Config, layer: int) -> str:
    return cfg.train.sae.id.replace(LAYER_FIELD, str(layer))


def _readers(cfg: Config) -> Sequence[str]:
    every = tuple(cfg.pair.readers)
    return every if cfg.train.readers in ("pooled", "crosscoder") else (cfg.train.readers,)


def _folder(cfg: Config, stage: Stage, layer: int) -> Path:
    return stage.folder / cfg.train.readers / f"layer_{layer}"
