"""Train one SAE a layer on the cached activations, and measure it on each reader."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from sae_reasoning.config import Config, ConfigError, TrainConfig
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.artifacts import Manifest, Stage, require_stage, write_json
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.lm.load import ModelFacts, describe, load, resolve_device
from sae_reasoning.edges.lm.read import check_layers
from sae_reasoning.edges.sae_checkpoint import load_dictionary
from sae_reasoning.edges.sae_quality import (
    CrossEntropyProbe,
    describe_quality,
    measure_fit,
    measure_recovery,
)
from sae_reasoning.edges.sae_training import (
    StepRecord,
    batches_done,
    mixed_batches,
    train_sae,
)
from sae_reasoning.edges.tables import read_traces, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.records import Trace

READERS = ("base", "rl")
SCHEMA_VERSION = 1

_SPARSER = {
    "jumprelu": "raise train.sae.l0_coefficient",
    "standard": "raise train.sae.l1_coefficient",
}
"""How to make an SAE sparser that has no k."""

_PROBED_TRACES = 200
"""Report traces on which cross-entropy recovered is measured; both writers, evenly spread."""


def train(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `train/<readers>/layer_<L>/` for every layer: SAE, curve and quality."""
    models = {reader: describe(getattr(cfg.pair, reader)) for reader in READERS}
    for facts in models.values():
        check_layers(cfg.layers, facts.num_layers, facts.name)
    inputs = {reader: facts.fingerprint for reader, facts in models.items()}
    inputs |= {
        stage: require_stage(cfg.folder, stage, cfg.settings(stage), inputs).fingerprint
        for stage in ("traces", "cache")
    }
    with Stage(cfg.folder / "train", cfg.settings("train"), inputs) as stage:
        if stage.is_current:
            console.current("train", stage.final)
            assert stage.manifest
            return stage.manifest
        data = _open(cfg, models, inputs["traces"])
        _plan(cfg, data, stage, console)
        for layer in cfg.layers:
            _train_layer(cfg, layer, data, stage, tracker, console)
        quality = _measure(cfg, data, stage, console)
        manifest = stage.finish(
            {"saes": len(cfg.layers), "steps": cfg.train.steps, "tokens": len(data.select)}
        )
    tracker.table("quality", quality)
    tracker.summary({f"{r.dictionary}/{r.reader}/fvu": r.fvu for r in quality.itertuples()})
    console.table("quality on the report split", list(quality.columns), quality.values.tolist())
    for row in quality[~quality.passes].itertuples():
        console.warn(
            f"{row.dictionary} has L0 {row.l0:.1f} on {row.reader}, over d_model/8; "
            f"{_SPARSER.get(cfg.train.sae.architecture, 'lower train.sae.k')}"
        )
    console.wrote(stage.final, manifest)
    console.next("make rank")
    return manifest


@dataclass(frozen=True)
class _Data:
    """Activations of both readers, the rows of each split, and the traces behind them."""

    models: dict[str, ModelFacts]
    stores: dict[tuple[str, int], ActivationStore]
    select: range
    report: range
    traces: list[Trace]

    @property
    def d_model(self) -> int:
        return next(iter(self.stores.values())).d_model


def _open(cfg: Config, models: dict[str, ModelFacts], traces_fingerprint: str) -> _Data:
    """Open every store; refuse what was read from other models or traces than the config's."""
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    num_select = sum(trace.split == "select" for trace in traces)
    stores = {
        (reader, layer): ActivationStore.open(
            cfg.folder / "cache" / reader / f"layer_{layer}",
            {
                "model_fingerprint": facts.fingerprint,
                "tokenizer_fingerprint": facts.tokenizer_fingerprint,
                "traces_fingerprint": traces_fingerprint,
                "layer": layer,
            },
        )
        for reader, facts in models.items()
        for layer in cfg.layers
    }
    check_same_rows(*stores.values())
    first = next(iter(stores.values()))
    border = int(first.row_of_trace[num_select])
    select, report = range(border), range(border, first.num_tokens)
    if not select or not report:
        raise ConfigError(
            f"traces.report_share={cfg.traces.report_share} leaves {len(select)} tokens to select "
            f"on and {len(report)} to report on; raise traces.num_problems"
        )
    return _Data(models, stores, select, report, traces)


def _plan(cfg: Config, data: _Data, stage: Stage, console: Console) -> None:
    sae = cfg.train.sae
    num_parameters = len(cfg.layers) * (2 * data.d_model + 1) * sae.d_sae
    num_readers = len(_readers(cfg.train))
    epochs = cfg.train.steps * cfg.train.batch_size / (num_readers * len(data.select))
    console.plan(
        "train",
        {
            "activations": f"{cfg.folder / 'cache'}: {len(data.select):,} tokens to select on, "
            f"{len(data.report):,} to report on, of each reader",
            "SAEs": f"{sae.architecture}, {data.d_model} -> {sae.d_sae} latents, k={sae.k}; "
            f"{cfg.train.readers}, layers {', '.join(map(str, cfg.layers))}",
            "steps": f"{cfg.train.steps:,} of {cfg.train.batch_size:,} tokens, {epochs:.1f} epochs",
            # While training, weights with both moments and the checkpoint that replaces them.
            "disk": megabytes(4 * num_parameters * 2 + 24 * num_parameters / len(cfg.layers)),
            "resuming": "yes" if stage.is_resuming else "no",
        },
    )


def _train_layer(
    cfg: Config, layer: int, data: _Data, stage: Stage, tracker: Tracker, console: Console
) -> None:
    """One SAE; its curve is written last, so a folder with a curve is done."""
    folder = _folder(cfg, stage, layer)
    curve_path, checkpoint = folder / "curve.parquet", folder / "checkpoint.safetensors"
    if curve_path.exists():
        checkpoint.unlink(missing_ok=True)
        return
    done = batches_done(checkpoint)
    curve: list[StepRecord] = []
    with console.progress(
        cfg.train.steps, "steps", f"{cfg.train.readers} layer {layer}", done=done
    ) as progress:

        def on_step(record: StepRecord) -> None:
            metrics = {k: v for k, v in asdict(record).items() if k != "step"}
            tracker.log({f"layer_{layer}/{k}": v for k, v in metrics.items()}, step=record.step)
            last = max(curve[-1].step if curve else 0, done)
            note = f"loss {record.loss:.3f}, FVU {record.fvu:.3f}"
            progress.advance(max(record.step - last, 0), note)
            curve.append(record)

        dictionary = train_sae(
            cfg.train,
            _batches(cfg.train, layer, data, done),
            d_in=data.d_model,
            seed=cfg.train.seed,
            checkpoint=checkpoint,
            on_step=on_step,
            device=resolve_device(cfg.device),
            metadata=_metadata(cfg, layer, data),
        )
    dictionary.save(folder)
    write_table(curve_path, pd.DataFrame([asdict(record) for record in curve]))
    checkpoint.unlink(missing_ok=True)


def _batches(train: TrainConfig, layer: int, data: _Data, done: int) -> Iterator[Tensor]:
    """Batches of the select split, an equal part from each reader, after the first `done`."""
    stores = [data.stores[reader, layer] for reader in _readers(train)]
    return mixed_batches(train, stores, data.select, seed=train.seed, skip_batches=done)


def _metadata(cfg: Config, layer: int, data: _Data) -> dict[str, Any]:
    """What `cfg.json` says of where the SAE belongs; the hook's name is TransformerLens's."""
    readers = _readers(cfg.train)
    return {
        "model_name": "+".join(data.models[reader].name for reader in readers),
        "hook_name": f"blocks.{layer}.hook_resid_post",
        "layer": layer,
        "readers": list(readers),
        "model_fingerprints": [data.models[reader].fingerprint for reader in readers],
        "training_tokens": cfg.train.steps * cfg.train.batch_size,
        "seed": cfg.train.seed,
    }


def _measure(cfg: Config, data: _Data, stage: Stage, console: Console) -> pd.DataFrame:
    """`quality.json` of every SAE; a row for each of its readers."""
    device = resolve_device(cfg.device)
    dictionaries = {
        layer: load_dictionary(_folder(cfg, stage, layer), device) for layer in cfg.layers
    }
    figures: dict[int, dict[str, Any]] = {layer: {} for layer in cfg.layers}
    with console.progress(len(READERS) * len(cfg.layers), "measured", "quality") as progress:
        for reader in READERS:
            probe = _probe(cfg, reader, data)
            for layer, dictionary in dictionaries.items():
                store = data.stores[reader, layer]
                batches = store.batches(data.report, cfg.train.batch_size)
                fit = measure_fit(dictionary, (batch.activations for batch in batches))
                recovery = measure_recovery(dictionary, probe, fit.mean)
                figures[layer][reader] = describe_quality(fit, recovery)
                progress.advance()
    rows = []
    for layer, dictionary in dictionaries.items():
        write_json(
            _folder(cfg, stage, layer) / "quality.json",
            {
                "schema_version": SCHEMA_VERSION,
                "dictionary": dictionary.name,
                "fingerprint": dictionary.fingerprint,
                "split": "report",
                "readers": figures[layer],
            },
        )
        for reader, figure in figures[layer].items():
            rows.append({"dictionary": dictionary.name, "reader": reader} | figure)
    columns = ["dictionary", "reader", "num_tokens", "fvu", "l0", "dead_share", "ce_recovered"]
    return pd.DataFrame(rows)[[*columns, "passes"]]


def _probe(cfg: Config, reader: str, data: _Data) -> CrossEntropyProbe:
    """Some of the report split's traces, and where the cache began to keep their tokens."""
    store = data.stores[reader, cfg.layers[0]]
    starts = store.row_of_trace
    kept = [
        trace
        for trace in range(len(data.traces))
        if data.traces[trace].split != "select" and starts[trace] < starts[trace + 1]
    ]
    places = np.linspace(0, len(kept) - 1, min(_PROBED_TRACES, len(kept))).round().astype(int)
    chosen = [kept[place] for place in places]
    return CrossEntropyProbe(
        lm=load(getattr(cfg.pair, reader), cfg.device),
        sequences=[data.traces[trace].token_ids for trace in chosen],
        keep_from=[int(store.position[starts[trace]]) for trace in chosen],
        response_from=[data.traces[trace].num_prompt_tokens for trace in chosen],
        token_budget=cfg.cache.token_budget,
    )


def _readers(train: TrainConfig) -> Sequence[str]:
    return READERS if train.readers == "pooled" else (train.readers,)


def _folder(cfg: Config, stage: Stage, layer: int) -> Path:
    return stage.folder / cfg.train.readers / f"layer_{layer}"
