"""What the transfer gate says of each dictionary on each reader."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config, TrainConfig
from sae_reasoning.dictionaries.activations import Activations
from sae_reasoning.dictionaries.making import trained_readers
from sae_reasoning.edges.activation_norms import kept_of_all
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.crosscoder_checkpoint import load_crosscoder
from sae_reasoning.edges.lm.load import LanguageModel, load, resolve_device
from sae_reasoning.edges.sae_checkpoint import load_dictionary
from sae_reasoning.edges.sae_quality import (
    CrossEntropyProbe,
    describe_quality,
    draw_probe,
    measure_crosscoders,
    measure_saes,
)
from sae_reasoning.edges.schema import write_artifact

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


def measure_quality(
    cfg: Config, data: Activations, folders: Mapping[int, Path], console: Console
) -> pd.DataFrame:
    """Write `quality.json` beside every dictionary.

    Args:
        cfg: The experiment.
        data: Measured on its report split.
        folders: Of the dictionaries, by layer.
        console: Shows progress.

    Returns:
        A row for each dictionary and reader: figures, `passes`, `failed` (what misses its bar, by
        figure) and `outlying` (tokens left out for their norm).
    """
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
            folders[layer] / "quality.json",
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


def _outlying(cfg: Config, data: Activations, reader: str, layer: int) -> dict[str, Any]:
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
        "of_training": left_out(data.select) if reader in trained_readers(cfg) else 0,
        "of_report": left_out(data.report),
    }


def _probes(cfg: Config, data: Activations) -> Iterator[tuple[str, CrossEntropyProbe]]:
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


def remedies_of(train: TrainConfig) -> dict[str, str]:
    """What helps against each figure that fails the gate."""
    if train.readers == "released":
        return dict.fromkeys(_REMEDIES, "bring another, or train one here")
    return _REMEDIES | {"l0": _SPARSER.get(train.sae.architecture, _REMEDIES["l0"])}
