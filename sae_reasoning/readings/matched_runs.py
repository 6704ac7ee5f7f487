"""Both sides of a match: the runs' dictionaries, the text they share, activations on its units."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sae_reasoning.behaviours.matches import Listed
from sae_reasoning.behaviours.streams import Active, MaximaStream, SparseMaxima
from sae_reasoning.behaviours.units import Language, Units, token_units, word_units
from sae_reasoning.behaviours.windows import Rows, problem_numbers
from sae_reasoning.config import Config, ConfigError, ModelConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import BrokenArtifact, Manifest
from sae_reasoning.edges.console import Console
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
from sae_reasoning.edges.tables import read_traces

_BATCH = 8192


@dataclass(frozen=True)
class MatchedRun:
    """One side: its dictionaries by layer, and its shortlists."""

    folder: Path
    dictionaries: dict[int, Dictionary]
    listed: Listed

    @classmethod
    def open(
        cls, folder: Path, name: str, layers: Sequence[int], d_model: int, device: str
    ) -> "MatchedRun":
        """Read the dictionaries of some layers by their set's name, and the shortlists."""
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
class MatchedRuns:
    """Everything that is compared.

    Attributes:
        own: This run.
        other: The other.
        is_same_model: Whether both dictionaries read one model.
        stores: This run's reader's activations, by layer.
        units: Tokens of one model, or words of two.
    """

    own: MatchedRun
    other: MatchedRun
    is_same_model: bool
    stores: dict[int, ActivationStore]
    units: Units


def open_runs(
    cfg: Config, reader: ModelFacts, theirs: Manifest, inputs: dict[str, str], console: Console
) -> MatchedRuns:
    """Open both runs and cut the text; say what can't be compared.

    Args:
        cfg: The experiment.
        reader: The model that this run's dictionaries read.
        theirs: The other run's `train`.
        inputs: Fingerprints of what this run's stages were made from.
        console: Is warned of what is left out.

    Raises:
        ConfigError: Nothing of the other run can be read.
    """
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
    own = MatchedRun.open(cfg.folder, own_name, cfg.layers, reader.d_model, device)
    other = MatchedRun.open(root, name, layers, other_reader.d_model, device)
    units = _cut(cfg, stores[cfg.layers[0]], is_same_model, console)
    return MatchedRuns(own, other, is_same_model, stores, units)


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


def cached_activations(data: MatchedRuns, run: MatchedRun, layer: int) -> SparseMaxima:
    """A dictionary's activations on the units, from the cache."""
    units = data.units.own
    stream = MaximaStream(units, run.dictionaries[layer].d_sae)
    first_row = int(units.start.min())
    for batch in data.stores[layer].batches(range(first_row, int(units.stop.max())), _BATCH):
        stream.add(_active(run.dictionaries[layer], first_row, batch.activations))
        first_row += len(batch.activations)
    return stream.result()


def read_activations(
    cfg: Config, data: MatchedRuns, layers: Sequence[int], console: Console
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
