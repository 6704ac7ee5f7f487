"""Baselines that read no trained model: the text alone, and randomly initialised weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float

from sae_reasoning.behaviours.baselines import (
    NGRAM,
    RANDOM_READER,
    NgramScorer,
    best_latent,
    score_baseline,
    some_with_behaviours,
)
from sae_reasoning.behaviours.matched_windows import MatchedWindows, draw_matched_windows
from sae_reasoning.behaviours.streams import MaximaStream, SparseMaxima
from sae_reasoning.behaviours.windows import (
    Intervals,
    Rows,
    onset_intervals,
    response_rows,
    span_intervals,
)
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import LanguageModel, load, random_twin, resolve_device
from sae_reasoning.edges.lm.read import residuals_in_memory
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_dictionary
from sae_reasoning.edges.sae_training import train_sae
from sae_reasoning.edges.workers import shared_out
from sae_reasoning.readings.data import (
    BATCH_ROWS,
    MATCHED,
    ONSETS,
    SPANS,
    Readings,
    active,
    load_maxima,
    save_maxima,
    write_baselines,
)
from sae_reasoning.records import Trace


@dataclass(frozen=True)
class RandomReader:
    """A reader that was never trained, and what was found of it.

    Attributes:
        lm: Of the RL model's architecture.
        traces: That it reads.
        rows: Their tokens.
        matched: Spans on the report split, and windows that are matched to them.
        dictionaries: SAEs trained on it, by layer.
        maxima: Largest activations over spans, onsets and matched windows, by layer and kind.
    """

    lm: LanguageModel
    traces: list[Trace]
    rows: Rows
    matched: MatchedWindows
    dictionaries: Mapping[int, Dictionary]
    maxima: Mapping[int, Mapping[str, SparseMaxima]]


def score_text(cfg: Config, readings: Readings, parts: Path) -> None:
    """The n-gram model of the text."""
    path = parts / "text_baselines.parquet"
    if path.exists():
        return
    scored = score_baseline(
        NGRAM,
        NgramScorer(readings.labels.spans, readings.rows.token_id),
        readings.labels.spans,
        cfg.behaviours,
        layer=-1,
        reader="text",
        num_traces=len(readings.traces),
    )
    write_baselines(path, scored)


def random_reader(cfg: Config, readings: Readings, parts: Path, console: Console) -> RandomReader:
    """Train SAEs on a randomly initialised reader, or read them back; score the best latents."""
    chosen = some_with_behaviours(readings.traces, cfg.rank.random_traces, cfg.rank.seed)
    traces = [readings.traces[t] for t in chosen]
    rows = response_rows(traces)
    twin = random_twin(load(cfg.pair.rl, cfg.device), cfg.rank.seed)
    spans = span_intervals(traces, rows, cfg.behaviours, cfg.rank.seed)
    drawn = draw_matched_windows(
        traces, rows, cfg.behaviours, readings.labels.wordings, cfg.rank.seed
    )
    compared: dict[str, Intervals] = {
        SPANS: spans,
        ONSETS: onset_intervals(traces, rows, cfg.behaviours, cfg.rank.seed),
        MATCHED: drawn.intervals,
    }
    missing = [x for x in cfg.layers if not (parts / f"random_{x}_baselines.parquet").exists()]
    if missing:
        sequences = [trace.token_ids for trace in traces]
        with console.progress(sum(map(len, sequences)), "tokens", "random reader reads") as bar:
            residuals = residuals_in_memory(
                twin,
                sequences,
                rows.first_position,
                missing,
                cfg.cache.token_budget,
                on_read=bar.advance,
            )
        num_select = int(rows.row_of_trace[sum(trace.split == "select" for trace in traces)])

    def learn(layer: int) -> None:
        dictionary = _trained(cfg, layer, residuals[layer][:num_select], console)
        dictionary.save(_folder(parts, layer))
        streams = {
            kind: MaximaStream(intervals, dictionary.d_sae) for kind, intervals in compared.items()
        }
        for start in range(0, len(residuals[layer]), BATCH_ROWS):
            part = active(dictionary, start, residuals[layer][start : start + BATCH_ROWS])
            for stream in streams.values():
                stream.add(part)
        found = {kind: stream.result() for kind, stream in streams.items()}
        for kind, maxima_of_kind in found.items():
            save_maxima(_maxima_path(parts, layer, kind), maxima_of_kind)
        scored = score_baseline(
            RANDOM_READER,
            best_latent(found[SPANS]),
            spans,
            cfg.behaviours,
            layer=layer,
            reader="random",
            num_traces=len(traces),
            steps=cfg.train.steps,
        )
        write_baselines(parts / f"random_{layer}_baselines.parquet", scored)

    list(shared_out(learn, missing, twin.device))
    device = resolve_device(cfg.device)
    dictionaries = {x: load_dictionary(_folder(parts, x), device) for x in cfg.layers}
    maxima = {
        layer: {
            kind: load_maxima(_maxima_path(parts, layer, kind), intervals, dictionary.d_sae)
            for kind, intervals in compared.items()
        }
        for layer, dictionary in dictionaries.items()
    }
    return RandomReader(twin, traces, rows, drawn, dictionaries, maxima)


def _trained(
    cfg: Config, layer: int, rows: Float[torch.Tensor, "row d_model"], console: Console
) -> Dictionary:
    with console.progress(cfg.train.steps, "steps", f"random reader layer {layer}") as bar:
        return train_sae(
            cfg.train,
            _shuffled(rows, cfg.train.batch_size, cfg.rank.seed),
            d_in=rows.shape[1],
            seed=cfg.rank.seed,
            on_step=lambda record: bar.reach(record.step),
            device=resolve_device(cfg.device),
        )


def _folder(parts: Path, layer: int) -> Path:
    return parts / f"random_{layer}"


def _maxima_path(parts: Path, layer: int, kind: str) -> Path:
    return parts / f"random_{layer}_{kind}.npz"


def _shuffled(x: torch.Tensor, size: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield x[torch.randint(len(x), (size,), generator=generator)]
