"""One pass a reader and layer: points, maxima, attributions, baselines that read activations."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sae_reasoning.behaviours.announce import attribute, draw_onsets, shortened
from sae_reasoning.behaviours.baselines import (
    PROBE,
    RANDOM_DIRECTION,
    SPARSE_PROBE,
    IntervalActivations,
    Scorer,
    random_directions,
    score_baseline,
)
from sae_reasoning.behaviours.beaten import rival_scores
from sae_reasoning.behaviours.probes import SPARSE_SIZES, SparseProbes
from sae_reasoning.behaviours.scores import LatentScores
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.attribute import onset_gradients
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.tables import write_table
from sae_reasoning.jobs.rank.beaten import save_rivals
from sae_reasoning.jobs.rank.data import (
    BATCH_ROWS,
    RankData,
    active,
    save_maxima,
    write_baselines,
)
from sae_reasoning.records import SPAN_DETECTORS


def attribute_onsets(
    cfg: Config, data: RankData, reader: str, parts: Path, console: Console
) -> None:
    """Mean attribution of the onset logit to every latent of every layer, in one reader."""
    path = parts / f"{reader}_attribution.parquet"
    if path.exists():
        return
    onsets = [
        onset
        for onset in draw_onsets(
            data.traces, cfg.behaviours, cfg.rank.attribution_onsets, cfg.rank.seed
        )
        if data.labels.onset_ids[onset.behaviour]
    ]
    lm = load(getattr(cfg.pair, reader), cfg.device)
    keys = sorted({(onset.behaviour, onset.writer) for onset in onsets})
    group = torch.tensor([keys.index((onset.behaviour, onset.writer)) for onset in onsets])
    totals = {
        layer: torch.zeros(len(keys), d.d_sae, device=d.device)
        for layer, d in data.dictionaries.items()
    }
    prefixes = [shortened(onset.token_ids, cfg.rank.attribution_tokens) for onset in onsets]
    wanted = [[(first,) for first in data.labels.onset_ids[onset.behaviour]] for onset in onsets]
    # Gradients keep every block's activations, so a quarter of what a plain reading takes.
    budget = max(cfg.cache.token_budget // 4, 1)
    with console.progress(len(onsets), "onsets", f"{reader} announces") as bar:
        for found in onset_gradients(lm, prefixes, wanted, cfg.layers, budget):
            of_row = group[found.rows]
            for layer, dictionary in data.dictionaries.items():
                sparse = dictionary.encode_sparse(found.residuals[layer])
                for key in of_row.unique().tolist():
                    here = (of_row == key).to(sparse.values.device)
                    totals[layer][key] += attribute(
                        sparse.values[here],
                        sparse.latents[here],
                        found.gradients[layer][here],
                        dictionary.W_dec,
                    )
            bar.advance(len(found.rows))
    columns = ["layer", "latent", "behaviour", "writer", "onset_attribution"]
    blocks = [pd.DataFrame(columns=columns)] if not keys else []
    for layer, total in totals.items():
        for key, (behaviour, writer) in enumerate(keys):
            mean = (total[key] / (group == key).sum()).cpu().numpy()
            block = (layer, np.arange(len(mean)), behaviour, writer, mean)
            blocks.append(pd.DataFrame(dict(zip(columns, block, strict=True))))
    write_table(path, pd.concat(blocks, ignore_index=True))


def score_store(
    cfg: Config, data: RankData, reader: str, layer: int, parts: Path, console: Console
) -> None:
    """One pass over one store: points, maxima, and the baselines that read activations."""
    prefix = f"{reader}_layer_{layer}"
    if (parts / f"{prefix}_points.parquet").exists():
        return
    store, dictionary = data.stores[reader, layer], data.dictionaries[layer]
    # Not in the system's temporary folder, which may be memory itself.
    scores = LatentScores(data.labels, dictionary.d_sae, scratch=parts)
    directions = random_directions(cfg.rank.random_directions, store.d_model, cfg.rank.seed)
    raw = {
        kind: IntervalActivations(intervals, directions)
        for kind, intervals in data.labels.compared.items()
    }
    counted = data.counted(cfg, reader, layer)
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
    of_raw = {
        kind: {RANDOM_DIRECTION: own.best_direction, PROBE: own.probe} for kind, own in raw.items()
    }
    scorers: dict[str, Scorer] = dict(of_raw[SPAN_DETECTORS])
    scorers |= {SPARSE_PROBE.format(k): partial(sparse.score, k) for k in SPARSE_SIZES}
    rivals = [
        row
        for name, scorer in scorers.items()
        for row in score_baseline(
            name,
            scorer,
            data.labels.spans,
            cfg.behaviours,
            layer=layer,
            reader=reader,
            num_traces=len(data.traces),
        )
    ]
    for kind, own in of_raw.items():
        intervals = data.labels.compared[kind]
        beside = {
            name: rival_scores(scorer, intervals, cfg.behaviours) for name, scorer in own.items()
        }
        save_rivals(parts / f"{prefix}_{kind}_rivals.npz", beside)
    identity = {"dictionary": dictionary.name, "layer": layer, "reader": reader}
    maxima_of = {"spans": result.maxima, "onsets": result.onsets, "alike": result.alike}
    for kind, maxima in maxima_of.items():
        save_maxima(parts / f"{prefix}_{kind}.npz", maxima)
    write_baselines(parts / f"{prefix}_baselines.parquet", rivals)
    write_table(parts / f"{prefix}_latents.parquet", result.latents.assign(**identity))
    write_table(parts / f"{prefix}_points.parquet", result.points.assign(**identity))
