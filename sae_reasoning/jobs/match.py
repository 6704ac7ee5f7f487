"""Match latents of one dictionary with those of another.

Where both dictionaries read the same model, directions and activations on the cached tokens are
compared; whichever traces the other was trained on, this run's are read. Otherwise the other run's
model reads this run's report texts, and activations are compared by word.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sae_reasoning.behaviours.matches import (
    CORRELATION,
    WORDS,
    Listed,
    Side,
    add_q,
    by_activations,
    by_directions,
    findings,
    summarise,
)
from sae_reasoning.behaviours.matching import Series
from sae_reasoning.behaviours.streams import Active, MaximaStream, SparseMaxima
from sae_reasoning.behaviours.units import Language, Units, token_units, word_units
from sae_reasoning.behaviours.windows import Rows, problem_numbers
from sae_reasoning.config import VERSIONS, Config, ConfigError, ModelConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    MissingInput,
    Stage,
    require_stage,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import models_in, outside_inputs
from sae_reasoning.edges.lm.load import (
    ModelFacts,
    describe,
    encode_prompt,
    encode_response,
    expresses,
    load,
    load_tokenizer,
    resolve_device,
)
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.read import read_residuals
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_trained
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_table, read_traces, write_table
from sae_reasoning.edges.tracker import Tracker

_BATCH = 8192


def match(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `match/`: every latent's match, and shares by pair of layers."""
    models = {reader: describe(model) for reader, model in cfg.pair.readers.items()}
    now = outside_inputs(cfg)
    inputs = models_in(cfg, now) | {
        name: require_stage(cfg.folder, name, cfg.settings(name), now).fingerprint
        for name in ("traces", "cache", "train", "rank")
    }
    theirs = {name: _require_other(cfg, name) for name in ("train", "rank")}
    inputs |= {f"other_{name}": made.fingerprint for name, made in theirs.items()}
    with Stage(cfg.folder / "match", cfg.settings("match"), inputs) as stage:
        if stage.is_current:
            console.current("match", stage.final)
            assert stage.manifest
            return stage.manifest
        data = _open(cfg, models[cfg.match.reader], theirs["train"], inputs, console)
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


def _require_other(cfg: Config, name: str) -> Manifest:
    """A stage of the other run, whatever options made it, by the present version."""
    if not cfg.match.other:
        raise ConfigError(
            "match.other is empty; name the run whose dictionary to look in, as "
            "match.other=default/organism_created_neox"
        )
    root = Path(cfg.runs) / cfg.match.other
    made = Manifest.read(root / name)
    if made is None:
        raise MissingInput(
            f"match.other={cfg.match.other}: {root / name} is missing; run `make {name}` with that "
            "experiment and pair first"
        )
    return require_stage(root, name, made.config | {"version": VERSIONS[name]}, {})


@dataclass(frozen=True)
class _Run:
    """One side: its dictionaries by layer, and its shortlists."""

    folder: Path
    dictionaries: dict[int, Dictionary]
    listed: Listed

    @classmethod
    def open(
        cls, folder: Path, name: str, layers: Sequence[int], d_model: int, device: str
    ) -> "_Run":
        found = {
            layer: load_trained(folder / "train" / name / f"layer_{layer}", layer, d_model, device)
            for layer in layers
        }
        shortlist = read_shortlist(folder / "rank")
        fingerprints = {layer: dictionary.fingerprint for layer, dictionary in found.items()}
        return cls(folder, found, Listed.of(shortlist, fingerprints))

    def __str__(self) -> str:
        sizes = ", ".join(f"{d.name}: {d.d_sae}" for d in self.dictionaries.values())
        return f"{self.folder} ({sizes})"


@dataclass(frozen=True)
class _Data:
    """Everything that is compared.

    Attributes:
        own: This run.
        other: The other.
        is_same_model: Whether both dictionaries read one model.
        stores: This run's reader's activations, by layer.
        units: Tokens of one model, or words of two.
    """

    own: _Run
    other: _Run
    is_same_model: bool
    stores: dict[int, ActivationStore]
    units: Units


def _open(
    cfg: Config, reader: ModelFacts, theirs: Manifest, inputs: dict[str, str], console: Console
) -> _Data:
    """Open both runs and cut the text; say what can't be compared."""
    device = resolve_device(cfg.device)
    root = Path(cfg.runs) / cfg.match.other
    is_same_model = theirs.inputs[cfg.match.reader] == reader.fingerprint
    other_reader = reader if is_same_model else _describe_other(cfg, theirs)
    name = cfg.match.other_dictionary or theirs.config["train"]["readers"]
    layers = _layers(root / "train" / name)
    cache = cfg.folder / "cache" / cfg.match.reader
    if is_same_model and (unread := sorted({*layers} - {*_layers(cache)})):
        console.warn(
            f"layers {unread} of {root} are left out: {cache} doesn't hold them; name them too in "
            "layers= of `make cache`"
        )
        layers = [layer for layer in layers if layer not in unread]
    if not layers:
        raise ConfigError(
            f"match.other={cfg.match.other} has no SAE of a layer that can be read; choose another "
            "run, or match.other_dictionary"
        )
    expected = {"traces_fingerprint": inputs["traces"], "model_fingerprint": reader.fingerprint}
    stores = {
        layer: ActivationStore.open(cache / f"layer_{layer}", expected)
        for layer in sorted({*cfg.layers, *(layers if is_same_model else ())})
    }
    own_name = cfg.match.dictionary or cfg.train.readers
    own = _Run.open(cfg.folder, own_name, cfg.layers, reader.d_model, device)
    other = _Run.open(root, name, layers, other_reader.d_model, device)
    units = _cut(cfg, stores[cfg.layers[0]], is_same_model, console)
    return _Data(own, other, is_same_model, stores, units)


def _describe_other(cfg: Config, theirs: Manifest) -> ModelFacts:
    """The other run's reader.

    Raises:
        ConfigError: It isn't named, or isn't the one that the other run was made with.
    """
    which = f"the {cfg.match.reader} model of match.other={cfg.match.other}"
    if not cfg.match.model.path:
        raise ConfigError(f"{which} is needed to read text; name its folder as match.model.path=…")
    facts = describe(cfg.match.model)
    if facts.fingerprint != theirs.inputs[cfg.match.reader]:
        raise ConfigError(
            f"{cfg.match.model.named} isn't {which}, or not as it was then; name that one, or make "
            "that run again"
        )
    return facts


def _layers(folder: Path) -> list[int]:
    numbers = (path.name.removeprefix("layer_") for path in folder.glob("layer_*"))
    return sorted(int(number) for number in numbers if number.isdigit())


def _cut(cfg: Config, store: ActivationStore, is_same_model: bool, console: Console) -> Units:
    """The report split's responses, as tokens or as words."""
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    problems = problem_numbers(traces)
    report = [t for t, trace in enumerate(traces) if trace.split == "report"]
    kept = set(sorted({problems[t] for t in report})[: cfg.match.num_problems])
    chosen = {t: traces[t] for t in report if problems[t] in kept}
    rows = Rows.cached(store.token_id, store.row_of_trace, store.position)
    if is_same_model:
        return token_units(chosen, rows)
    own, other = getattr(cfg.pair, cfg.match.reader), cfg.match.model
    try:
        units = word_units(chosen, rows, _language(own), _language(other))
    except ValueError as error:
        raise BrokenArtifact(f"{error} in {own.named}; run `make traces` again") from error
    if not len(units.trace):
        raise ConfigError(
            f"the tokenizer of {other.named} can't express any of the {len(chosen):,} texts; "
            "choose a match.other whose model knows these words"
        )
    if units.num_left_out:
        console.warn(
            f"{units.num_left_out:,} of {len(chosen):,} texts are left out: the tokenizer of "
            f"{other.named} can't express them"
        )
    return units


def _language(model: ModelConfig) -> Language:
    tokenizer = load_tokenizer(model)
    return Language(
        partial(expresses, tokenizer),
        partial(encode_prompt, tokenizer),
        partial(encode_response, tokenizer),
        partial(offsets_of, tokenizer),
    )


def _plan(cfg: Config, data: _Data, stage: Stage, console: Console) -> None:
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


def _match(cfg: Config, data: _Data, parts: Path, console: Console) -> pd.DataFrame:
    """All pairs of layers, each a part of its own."""
    paths = {
        (layer, other): parts / f"{layer}_{other}.parquet"
        for layer in data.own.dictionaries
        for other in data.other.dictionaries
    }
    missing = [pair for pair, path in paths.items() if not path.exists()]
    own = {x: _cached(data, data.own, x) for x in sorted({layer for layer, _ in missing})}
    theirs = sorted({other for _, other in missing})
    if data.is_same_model:
        other = {x: _cached(data, data.other, x) for x in theirs}
    else:
        other = _read(cfg, data, theirs, console) if missing else {}
    sides = [
        {layer: _side(cfg, data, run, layer, found) for layer, found in activations.items()}
        for run, activations in ((data.own, own), (data.other, other))
    ]
    for layer, other_layer in missing:
        found = _compare(cfg, data, sides[0][layer], sides[1][other_layer], console)
        write_table(paths[layer, other_layer], found)
    return pd.concat([read_table(path) for path in paths.values()], ignore_index=True)


def _cached(data: _Data, run: _Run, layer: int) -> SparseMaxima:
    """A dictionary's activations on the units, from the cache."""
    units = data.units.own
    stream = MaximaStream(units, run.dictionaries[layer].d_sae)
    first_row = int(units.start.min())
    for batch in data.stores[layer].batches(range(first_row, int(units.stop.max())), _BATCH):
        stream.add(_active(run.dictionaries[layer], first_row, batch.activations))
        first_row += len(batch.activations)
    return stream.result()


def _read(
    cfg: Config, data: _Data, layers: Sequence[int], console: Console
) -> dict[int, SparseMaxima]:
    """The other dictionaries' activations on the units, as its model reads them."""
    lm = load(cfg.match.model, cfg.device)
    units, dictionaries = data.units, data.other.dictionaries
    streams = {layer: MaximaStream(units.other, dictionaries[layer].d_sae) for layer in layers}
    sequences = [[*p, *r] for p, r in zip(units.prompts, units.responses, strict=True)]
    first_row = np.cumsum([0, *map(len, units.responses)])
    with console.progress(len(sequences), "texts", f"{lm.facts.name} reads") as bar:
        for batch in read_residuals(lm, sequences, layers, cfg.cache.token_budget):
            for place, row in enumerate(batch.rows):
                here = slice(len(units.prompts[row]), len(sequences[row]))
                for layer, stream in streams.items():
                    resid = batch.residuals[layer][place, here]
                    stream.add(_active(dictionaries[layer], int(first_row[row]), resid))
            bar.advance(len(batch.rows))
    return {layer: stream.result() for layer, stream in streams.items()}


def _active(dictionary: Dictionary, first_row: int, activations: torch.Tensor) -> Active:
    sparse = dictionary.encode_sparse(activations.to(dictionary.device))
    return Active.of(first_row, *sparse.numpy())


def _side(cfg: Config, data: _Data, run: _Run, layer: int, activations: SparseMaxima) -> Side:
    series = Series.of(activations, min_fires=cfg.match.min_fires, by_rank=not data.is_same_model)
    if not len(series.latent):
        raise ConfigError(
            f"match.min_fires={cfg.match.min_fires}: no latent of {run.dictionaries[layer].name} "
            f"in {run.folder} fires so often; lower it, or raise match.num_problems"
        )
    directions = run.dictionaries[layer].W_dec[series.latent].double().cpu().numpy()
    return Side(layer, series, directions, run.listed.names(layer, series.latent))


def _compare(cfg: Config, data: _Data, own: Side, other: Side, console: Console) -> pd.DataFrame:
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
