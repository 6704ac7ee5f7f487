"""Readers with their stored activations and dictionaries, and what passes over them keep."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool

from sae_reasoning.behaviours.baselines import BaselineScore
from sae_reasoning.behaviours.scores import Labels
from sae_reasoning.behaviours.streams import Active, MaximaOf, SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, Rows
from sae_reasoning.config import Config
from sae_reasoning.edges.activation_norms import Norms, kept_of_all
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.arrays import read_arrays, write_arrays
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.edges.tables import write_table
from sae_reasoning.records import RankedDictionary, Trace

BATCH_ROWS = 8192
SPANS, ONSETS, MATCHED = "spans", "onsets", "matched"
"""Kinds of intervals over which maxima are kept."""


@dataclass(frozen=True)
class Readings:
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


def saved_maxima(readings: Readings, parts: Path, kind: str) -> MaximaOf:
    """Maxima that the passes over the stores have left, over intervals of one kind."""
    labels = readings.labels
    intervals = {SPANS: labels.spans, ONSETS: labels.onsets, MATCHED: labels.matched.intervals}

    @cache
    def load(reader: str, layer: int) -> SparseMaxima:
        path = parts / f"{reader}_layer_{layer}_{kind}.npz"
        return load_maxima(path, intervals[kind], readings.dictionaries[layer].d_sae)

    return load


def load_maxima(path: Path, intervals: Intervals, num_latents: int) -> SparseMaxima:
    """Maxima over intervals, which are drawn again each time, and the same."""
    return SparseMaxima(intervals, num_latents, **read_arrays(path))


def save_maxima(path: Path, maxima: SparseMaxima) -> None:
    """Keep maxima without their intervals."""
    write_arrays(
        path, {"interval": maxima.interval, "latent": maxima.latent, "value": maxima.value}
    )
    maxima.release()


def write_baselines(path: Path, scores: Iterable[BaselineScore]) -> None:
    """Keep scores of baselines, none included."""
    rows = list(map(asdict, scores))
    write_table(path, pd.DataFrame(rows, columns=list(BaselineScore.__dataclass_fields__)))
