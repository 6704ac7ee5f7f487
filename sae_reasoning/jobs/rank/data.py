"""What ranking reads, checked to belong together, and the parts that it keeps while it runs."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool

from sae_reasoning.behaviours.baselines import BaselineScore
from sae_reasoning.behaviours.scores import Labels, label_rows
from sae_reasoning.behaviours.streams import Active, MaximaOf, SparseMaxima
from sae_reasoning.behaviours.windows import NO_SPANS, Intervals, Rows
from sae_reasoning.behaviours.wordings import hold_out
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_norms import Norms, kept_of_all
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.artifacts import publish
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_trained
from sae_reasoning.edges.schema import read_artifact
from sae_reasoning.edges.tables import read_traces, write_table
from sae_reasoning.records import RankedDictionary, Trace
from sae_reasoning.traces.problems import more_traces

BATCH_ROWS = 8192


@dataclass(frozen=True)
class RankData:
    """Everything that is read, checked to belong together; traces as selection may see them."""

    traces: list[Trace]
    rows: Rows
    labels: Labels
    stores: dict[tuple[str, int], ActivationStore]
    dictionaries: dict[int, Dictionary]

    @property
    def select(self) -> range:
        """Rows of the select split."""
        num_select = sum(trace.split == "select" for trace in self.traces)
        return range(int(self.rows.row_of_trace[num_select]))

    def norms(self, reader: str, layer: int) -> Norms:
        """Of a reader's residuals."""
        return Norms.of(self.stores[reader, layer], self.select)

    def counted(self, cfg: Config, reader: str, layer: int) -> Bool[np.ndarray, " row"] | None:
        """Rows that aren't silent for their norm; none where no row is."""
        multiple, every = cfg.rank.max_norm_multiple, range(len(self.rows.token_id))
        return kept_of_all([self.norms(reader, layer)], multiple, every) if multiple else None

    def known(self, cfg: Config) -> dict[str, RankedDictionary]:
        """The dictionaries as the shortlist names them."""
        return {
            d.name: RankedDictionary(f"train/{cfg.train.readers}/layer_{layer}", d.fingerprint)
            for layer, d in self.dictionaries.items()
        }


def open_data(cfg: Config, inputs: dict[str, str]) -> RankData:
    """Open traces, stores and dictionaries; refuse what doesn't belong together."""
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    if not any(span.behaviour in cfg.behaviours for trace in traces for span in trace.spans):
        raise ConfigError(
            f"behaviours={cfg.behaviours} have no span in {len(traces)} traces; annotate other "
            f"behaviours, or {more_traces(cfg)}"
        )
    stores, dictionaries = {}, {}
    for layer in cfg.layers:
        for reader in cfg.pair.readers:
            expected = {
                "traces_fingerprint": inputs["traces"],
                "model_fingerprint": inputs[reader],
                "layer": layer,
            }
            folder = cfg.folder / "cache" / reader / f"layer_{layer}"
            stores[reader, layer] = ActivationStore.open(folder, expected)
        folder = cfg.folder / "train" / cfg.train.readers / f"layer_{layer}"
        d_model = stores["rl", layer].d_model
        dictionaries[layer] = load_trained(folder, layer, d_model, resolve_device(cfg.device))
        if cfg.rank.gate:
            _refuse_failed(folder)
    first, *others = stores.values()
    check_same_rows(first, *others)
    rows = Rows.cached(first.token_id, first.row_of_trace, first.position)
    labels = label_rows(traces, rows, cfg.behaviours, cfg.rank.seed)
    if all(status == NO_SPANS for status in labels.status.values()):
        raise ConfigError(
            f"behaviours={cfg.behaviours}: neither writer has enough spans of any in both splits, "
            f"select and report, so there is nothing to rank; {more_traces(cfg)}, or let both "
            "splits have some (traces.report_share)"
        )
    return RankData(hold_out(traces, labels.wordings), rows, labels, stores, dictionaries)


def _refuse_failed(folder: Path) -> None:
    """Refuse a dictionary that fails the transfer gate on a reader.

    Raises:
        ConfigError: It does; the message has the figures.
    """
    readers = read_artifact(folder / "quality.json")["readers"]
    failed = [
        f"{reason} on {reader}"
        for reader, figures in readers.items()
        for reason in figures["failed"].values()
    ]
    if failed:
        raise ConfigError(
            f"{folder} fails the transfer gate ({'; '.join(failed)}), so what it says of one "
            "reader doesn't hold beside the other; train it better (train.readers=pooled, more "
            "train.steps, a larger train.sae.d_sae), or set rank.gate=false to see it all the same"
        )


def active(
    dictionary: Dictionary,
    first_row: int,
    activations: torch.Tensor,
    counted: Bool[np.ndarray, " row"] | None = None,
) -> Active:
    """Nonzero latents of consecutive rows; of those that count, if some don't."""
    sparse = dictionary.encode_sparse(activations.to(dictionary.device))
    values, latents = sparse.numpy()
    if counted is not None:
        values = values * counted[first_row : first_row + len(values), None]
    return Active.of(first_row, values, latents)


def saved_maxima(data: RankData, parts: Path, kind: str) -> MaximaOf:
    """Maxima that the passes over the stores have left: `spans`, `onsets` or `alike`."""
    labels = data.labels
    intervals = {"spans": labels.spans, "onsets": labels.onsets, "alike": labels.alike.intervals}

    @cache
    def load(reader: str, layer: int) -> SparseMaxima:
        path = parts / f"{reader}_layer_{layer}_{kind}.npz"
        return load_maxima(path, intervals[kind], data.dictionaries[layer].d_sae)

    return load


def load_maxima(path: Path, intervals: Intervals, num_latents: int) -> SparseMaxima:
    """Maxima over intervals that are drawn anew each time, and alike each time."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("interval", "latent", "value")}
    return SparseMaxima(intervals, num_latents, **arrays)


def save_maxima(path: Path, maxima: SparseMaxima) -> None:
    """Keep maxima without their intervals."""
    with publish(path) as partial, partial.open("wb") as file:
        np.savez(file, interval=maxima.interval, latent=maxima.latent, value=maxima.value)
    maxima.release()


def write_baselines(path: Path, scores: Iterable[BaselineScore]) -> None:
    """Keep scores of baselines, none included."""
    rows = list(map(asdict, scores))
    write_table(path, pd.DataFrame(rows, columns=list(BaselineScore.__dataclass_fields__)))
