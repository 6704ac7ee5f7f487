"""Train one SAE or crosscoder a layer on the cached activations; measure it on each reader.

SAEs that were trained elsewhere are taken in instead, and measured alike.

1. A dictionary for each layer (dictionaries/making.py).
2. The transfer gate's figures on each reader (dictionaries/quality.py).
3. Of crosscoders, latent scaling (dictionaries/scaling.py).
"""

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.dictionaries.activations import Activations, open_activations
from sae_reasoning.dictionaries.making import (
    check_release,
    dictionary_folder,
    make_dictionary,
    trained_readers,
)
from sae_reasoning.dictionaries.quality import measure_quality, remedies_of
from sae_reasoning.dictionaries.scaling import scale_latents
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.load import describe
from sae_reasoning.edges.tracker import Tracker


def train(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `train/<readers>/layer_<L>/` for every layer: dictionary, curve and quality."""
    models = {reader: describe(model) for reader, model in cfg.pair.readers.items()}
    for facts in models.values():
        check_layers(cfg.layers, facts.num_layers, facts.name)
    inputs = inputs_of("train", cfg)
    check_release(cfg)
    with Stage(cfg.folder / "train", cfg.settings("train"), inputs) as stage:
        if made := console.up_to_date(stage):
            return made
        data = open_activations(cfg, models, inputs["traces"])
        console.plan("train", _lines(cfg, data, stage))
        for layer in cfg.layers:
            make_dictionary(cfg, layer, data, stage, tracker, console)
        folders = {layer: dictionary_folder(cfg, stage, layer) for layer in cfg.layers}
        quality = measure_quality(cfg, data, folders, console)
        scaled = scale_latents(cfg, data, folders, console)
        manifest = stage.finish(
            {
                "saes": len(cfg.layers),
                "steps": 0 if cfg.train.readers == "released" else cfg.train.steps,
                "tokens": len(data.select),
            }
        )
    _tell_outlying(quality, cfg.train.max_norm_multiple, console)
    _tell_quality(cfg, quality, tracker, console)
    if not scaled.empty:
        tracker.table("latent scaling", scaled)
        title = "latents by decoder norms, and what latent scaling makes of them"
        console.table(title, list(scaled.columns), scaled.values.tolist(), at_most=6)
    if quality.passes.all():
        console.tell(
            f"All {len(quality)} rows pass the transfer gate (FVU at most {cfg.train.gate_fvu:g}, "
            f"L0 at most {cfg.train.gate_l0:g} of d_model, cross-entropy recovered at least "
            f"{cfg.train.gate_ce_recovered:g}): these dictionaries can be read in "
            f"{'the model' if cfg.pair.is_single else 'either model'}."
        )
    console.wrote(stage.final, manifest)
    if not cfg.rank.gate or quality.passes.all():  # Else rank refuses; what helps was said above.
        console.next("rank")
    return manifest


def _lines(cfg: Config, data: Activations, stage: Stage) -> dict[str, str]:
    sae, is_joint = cfg.train.sae, cfg.train.readers == "crosscoder"
    width = data.d_model * (len(data.models) if is_joint else 1)
    num_parameters = len(cfg.layers) * (2 * width + 1) * sae.d_sae
    rows_a_step = cfg.train.batch_size / (1 if is_joint else len(trained_readers(cfg)))
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
    return (
        {
            "activations": f"{cfg.folder / 'cache'}: {len(data.select):,} tokens to select on, "
            f"{len(data.report):,} to report on, of each reader",
        }
        | making
        | ({"resuming": "yes"} if stage.is_resuming else {})
    )


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


def _tell_quality(cfg: Config, quality: pd.DataFrame, tracker: Tracker, console: Console) -> None:
    """Print the figures, and what helps against those that fail the gate."""
    shown = quality.drop(columns=["outlying", "failed"])
    tracker.table("quality", shown)
    tracker.summary({f"{r.dictionary}/{r.reader}/fvu": r.fvu for r in shown.itertuples()})
    title = "quality on the report split"
    console.table(title, list(shown.columns), shown.values.tolist(), at_most=8)
    remedies = remedies_of(cfg.train)
    for row in quality.itertuples():
        for figure, reason in row.failed.items():
            console.warn(
                f"{row.dictionary} on {row.reader} fails the transfer gate: {reason}; "
                f"{remedies[figure]}"
            )
