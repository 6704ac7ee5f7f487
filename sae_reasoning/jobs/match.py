"""Match latents of one dictionary with those of another.

Where both dictionaries read the same model, directions and activations on the cached tokens are
compared; whichever traces the other was trained on, this run's are read. Otherwise the other run's
model reads this run's report texts, and activations are compared by word.
"""

import shutil
from pathlib import Path

import pandas as pd

from sae_reasoning.behaviours.matches import (
    CORRELATION,
    WORDS,
    Side,
    add_q,
    by_activations,
    by_directions,
    findings,
    summarise,
)
from sae_reasoning.behaviours.matching import Series
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import (
    Manifest,
    Stage,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of, require_other
from sae_reasoning.edges.lm.load import (
    describe,
)
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.readings.matched_runs import (
    MatchedRun,
    MatchedRuns,
    cached_activations,
    open_runs,
    read_activations,
)


def match(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `match/`: every latent's match, and shares by pair of layers."""
    models = {reader: describe(model) for reader, model in cfg.pair.readers.items()}
    theirs = require_other(cfg, "train")
    inputs = inputs_of("match", cfg) | {"other_train": theirs.fingerprint}
    with Stage(cfg.folder / "match", cfg.settings("match"), inputs) as stage:
        if done := console.up_to_date(stage):
            return done
        data = open_runs(cfg, models[cfg.match.reader], theirs, inputs, console)
        _plan(cfg, data, stage, console)
        matches = add_q(_match(cfg, data, stage.folder / "parts", console))
        summary = summarise(matches, cfg.match.strong)
        write_table(stage.folder / "matches.parquet", matches)
        write_table(stage.folder / "summary.parquet", summary)
        shutil.rmtree(stage.folder / "parts")
        manifest = stage.finish(
            {
                "matches": len(matches),
                "units": len(data.units.trace),
                "traces": data.units.num_traces,
                "traces_left_out": data.units.num_left_out,
            }
        )
    lists = data.own.listed, data.other.listed
    found = findings(matches, *lists, cfg.behaviours, cfg.match.strong)
    tracker.table("matched latents", summary)
    tracker.table("findings", found)
    tracker.summary(manifest.counts)
    title = f"shares of latents with a match (strong: {cfg.match.strong:g} or more)"
    console.table(title, list(summary.columns), summary.values.tolist(), at_most=5)
    title = f"matches of the span detectors in {cfg.match.other}, and whether they detect the same"
    console.table(title, list(found.columns), found.values.tolist(), at_most=6)
    console.wrote(stage.final, manifest)
    return manifest


def _plan(cfg: Config, data: MatchedRuns, stage: Stage, console: Console) -> None:
    units = data.units
    console.plan(
        "match",
        {
            "latents": data.own,
            "matched with": data.other,
            "reader": f"{cfg.match.reader}; "
            + (
                "the same model: directions, and activations on cached tokens"
                if data.is_same_model
                else f"{cfg.match.model.path} reads the same texts: activations by word"
            ),
            "text": f"{len(units.trace):,} {'tokens' if data.is_same_model else 'words'} of "
            f"{units.num_traces:,} traces, report split",
            "null": f"text shifted within traces, {cfg.match.null_draws} draws"
            + ("; directions mirrored" if data.is_same_model else ""),
        }
        | ({"resuming": "yes"} if stage.is_resuming else {}),
    )


def _match(cfg: Config, data: MatchedRuns, parts: Path, console: Console) -> pd.DataFrame:
    """All pairs of layers, each a part of its own."""
    paths = {
        (layer, other): parts / f"{layer}_{other}.parquet"
        for layer in data.own.dictionaries
        for other in data.other.dictionaries
    }
    missing = [pair for pair, path in paths.items() if not path.exists()]
    ours = sorted({layer for layer, _ in missing})
    own = {layer: cached_activations(data, data.own, layer) for layer in ours}
    theirs = sorted({other for _, other in missing})
    if data.is_same_model:
        other = {x: cached_activations(data, data.other, x) for x in theirs}
    else:
        other = read_activations(cfg, data, theirs, console) if missing else {}
    sides = [
        {layer: _side(cfg, data, run, layer, found) for layer, found in activations.items()}
        for run, activations in ((data.own, own), (data.other, other))
    ]
    for layer, other_layer in missing:
        found = _compare(cfg, data, sides[0][layer], sides[1][other_layer], console)
        write_table(paths[layer, other_layer], found)
    return pd.concat([read_table(path) for path in paths.values()], ignore_index=True)


def _side(
    cfg: Config, data: MatchedRuns, run: MatchedRun, layer: int, activations: SparseMaxima
) -> Side:
    series = Series.of(activations, min_fires=cfg.match.min_fires, by_rank=not data.is_same_model)
    if not len(series.latent):
        raise ConfigError(
            f"match.min_fires={cfg.match.min_fires}: no latent of {run.dictionaries[layer].name} "
            f"in {run.folder} fires so often; lower it, or raise match.num_problems"
        )
    directions = run.dictionaries[layer].W_dec[series.latent].double().cpu().numpy()
    return Side(layer, series, directions, run.listed.names(layer, series.latent))


def _compare(
    cfg: Config, data: MatchedRuns, own: Side, other: Side, console: Console
) -> pd.DataFrame:
    """One pair of layers, by all that can be compared."""
    draws, seed = cfg.match.null_draws, cfg.match.seed
    label = f"layer {own.layer} with {other.layer}"
    with console.progress(draws, "draws", label) as bar:
        found = by_activations(
            own,
            other,
            data.units,
            CORRELATION if data.is_same_model else WORDS,
            num_draws=draws,
            num_resamples=cfg.match.bootstrap,
            seed=seed,
            on_draw=bar.advance,
        )
    if not data.is_same_model:
        return found
    cosines = by_directions(own, other, num_draws=draws, seed=seed)
    return pd.concat([cosines, found], ignore_index=True)
