"""One pass a reader and layer: points, maxima, attributions, baselines that read activations."""

from functools import partial
from pathlib import Path

import torch

from sae_reasoning.behaviours.baselines import (
    SPARSE_PROBE,
    IntervalActivations,
    random_directions,
    score_baseline,
)
from sae_reasoning.behaviours.onset_attribution import OnsetAttributions, draw_onsets, shortened
from sae_reasoning.behaviours.probes import SPARSE_SIZES, SparseProbes
from sae_reasoning.behaviours.scores import LatentScores
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.attribute import onset_gradients
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.tables import write_table
from sae_reasoning.readings.baselines import baselines_path, save_baselines
from sae_reasoning.readings.data import (
    BATCH_ROWS,
    MATCHED,
    ONSETS,
    SPANS,
    Readings,
    active,
    save_maxima,
    write_baselines,
)
from sae_reasoning.records import SPAN_DETECTORS
from sae_reasoning.robustness.baseline_comparison import baseline_scores


def attribute_onsets(
    cfg: Config, readings: Readings, reader: str, parts: Path, console: Console
) -> None:
    """Mean attribution of the onset logit to every latent of every layer, in one reader."""
    path = parts / f"{reader}_attribution.parquet"
    if path.exists():
        return
    onsets = [
        onset
        for onset in draw_onsets(
            readings.traces, cfg.behaviours, cfg.rank.attribution_onsets, cfg.rank.seed
        )
        if readings.labels.onset_ids[onset.behaviour]
    ]
    lm = load(getattr(cfg.pair, reader), cfg.device)
    sums = OnsetAttributions(onsets, {x: d.W_dec for x, d in readings.dictionaries.items()})
    prefixes = [shortened(onset.token_ids, cfg.rank.attribution_tokens) for onset in onsets]
    wanted = [
        [(first,) for first in readings.labels.onset_ids[onset.behaviour]] for onset in onsets
    ]
    # Gradients keep every block's activations, so a quarter of what a plain reading takes.
    budget = max(cfg.cache.token_budget // 4, 1)
    with console.progress(len(onsets), "onsets", f"{reader}: onset attribution") as bar:
        for found in onset_gradients(lm, prefixes, wanted, cfg.layers, budget):
            for layer, dictionary in readings.dictionaries.items():
                sparse = dictionary.encode_sparse(found.residuals[layer])
                gradients = found.gradients[layer]
                sums.add(layer, found.rows, sparse.values, sparse.latents, gradients)
            bar.advance(len(found.rows))
    write_table(path, sums.table())


def score_store(
    cfg: Config, readings: Readings, reader: str, layer: int, parts: Path, console: Console
) -> None:
    """One pass over one store: points, maxima, and the baselines that read activations."""
    prefix = f"{reader}_layer_{layer}"
    if (parts / f"{prefix}_points.parquet").exists():
        return
    store, dictionary = readings.stores[reader, layer], readings.dictionaries[layer]
    # Not in the system's temporary folder, which may be memory itself.
    scores = LatentScores(readings.labels, dictionary.d_sae, scratch=parts)
    directions = random_directions(cfg.rank.random_directions, store.d_model, cfg.rank.seed)
    raw = {
        name: IntervalActivations(intervals, directions)
        for name, intervals in readings.labels.compared.items()
    }
    counted = readings.counted(cfg, reader, layer)
    first_row = 0
    with console.progress(store.num_tokens, "tokens", f"{reader} layer {layer}") as bar:
        for batch in store.batches(None, BATCH_ROWS):
            scores.add(active(dictionary, first_row, batch.activations, counted))
            read = batch.activations
            if counted is not None:
                here = counted[first_row : first_row + len(read)]
                read = torch.where(torch.from_numpy(here)[:, None], read, 0.0)
            for of_kind in raw.values():
                of_kind.add(first_row, read)
            first_row += len(batch.activations)
            bar.advance(len(batch.activations))
        result = scores.result()
    sparse = SparseProbes(result.maxima)
    scorers = raw[SPAN_DETECTORS].scorers
    scorers |= {SPARSE_PROBE.format(k): partial(sparse.score, k) for k in SPARSE_SIZES}
    baselines = [
        row
        for name, scorer in scorers.items()
        for row in score_baseline(
            name,
            scorer,
            readings.labels.spans,
            cfg.behaviours,
            layer=layer,
            reader=reader,
            num_traces=len(readings.traces),
        )
    ]
    for name, own in raw.items():
        found = {
            baseline: baseline_scores(scorer, own.intervals, cfg.behaviours)
            for baseline, scorer in own.scorers.items()
        }
        save_baselines(baselines_path(parts, reader, layer, name), found)
    identity = {"dictionary": dictionary.name, "layer": layer, "reader": reader}
    maxima_of = {SPANS: result.maxima, ONSETS: result.onsets, MATCHED: result.matched}
    for kind, maxima in maxima_of.items():
        save_maxima(parts / f"{prefix}_{kind}.npz", maxima)
    write_baselines(parts / f"{prefix}_baselines.parquet", baselines)
    write_table(parts / f"{prefix}_latents.parquet", result.latents.assign(**identity))
    write_table(parts / f"{prefix}_points.parquet", result.points.assign(**identity))
