"""Latent scaling of crosscoders: which latents that seem one reader's own really are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sae_reasoning.behaviours.scaling import ScalingSums, ScalingThresholds, scaling_summary
from sae_reasoning.config import Config, TrainConfig
from sae_reasoning.dictionaries.activations import Activations
from sae_reasoning.edges.activation_norms import kept_of_all
from sae_reasoning.edges.activation_pairs import paired_batches
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.crosscoder_checkpoint import load_crosscoder
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.tables import write_table


def scale_latents(
    cfg: Config, data: Activations, folders: Mapping[int, Path], console: Console
) -> pd.DataFrame:
    """Write `scaling.parquet` beside every crosscoder.

    Args:
        cfg: The experiment; SAEs, which have one decoder, aren't scaled.
        data: Scaled on its report split.
        folders: Of the crosscoders, by layer.
        console: Shows progress.

    Returns:
        What scaling leaves of specific latents, a row for each crosscoder and kind; empty of SAEs.
    """
    if cfg.train.readers != "crosscoder":
        return pd.DataFrame()
    options, readers = cfg.train, tuple(data.models)
    reported = data.problems
    place = {problem: i for i, problem in enumerate(reported)}
    problems = np.array([place.get(trace.problem_id, -1) for trace in data.traces])
    counts = []
    for layer, folder in folders.items():
        crosscoder = load_crosscoder(folder, resolve_device(cfg.device))
        unit = crosscoder.biases.new_tensor(crosscoder.scales)[:, None, None]
        sums = ScalingSums(crosscoder.decoders * unit, readers, len(reported))
        kept = kept_of_all(data.norms_of(layer), options.max_norm_multiple, data.report)
        batches = paired_batches(data.of_layer(layer), data.report, options.batch_size, kept)
        with console.progress(len(data.report), "tokens", f"scaling layer {layer}") as progress:
            for batch in batches:
                x = batch.activations.to(crosscoder.device)
                sparse = crosscoder.encode_sparse(x)
                reconstruction = crosscoder.decode_sparse(sparse)
                sums.add(
                    problems[batch.trace_index],
                    sparse.values,
                    sparse.latents,
                    (x - reconstruction) * unit,
                    (reconstruction - crosscoder.biases[:, None]) * unit,
                )
                progress.advance(x.shape[1])
        table = sums.result(_thresholds(options))
        write_table(folder / "scaling.parquet", table)
        found = scaling_summary(table, readers)
        found.insert(0, "dictionary", crosscoder.name)
        counts.append(found)
    return pd.concat(counts, ignore_index=True)


def _thresholds(train: TrainConfig) -> ScalingThresholds:
    return ScalingThresholds(
        norm=train.scaling_norm,
        error=train.scaling_error,
        reconstruction=train.scaling_reconstruction,
        problems=train.scaling_problems,
        resamples=train.scaling_bootstrap,
        seed=train.seed,
    )
