"""Both shortlists compared with the baselines, with what the passes have left of those."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from sae_reasoning.behaviours.baselines import NGRAM, RANDOM_READER, NgramScorer
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.config import Config
from sae_reasoning.readings.baselines import baselines_path, load_baselines
from sae_reasoning.readings.data import ONSETS, SPANS, Readings, saved_maxima
from sae_reasoning.readings.random_reader import RandomReader
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, Shortlist
from sae_reasoning.robustness.baseline_comparison import (
    ScoresByCell,
    baseline_scores,
    best_untrained,
    compare_with_baselines,
    problem_numbers_elsewhere,
)


def compare_shortlists(
    cfg: Config, readings: Readings, lists: Shortlist, random: RandomReader, parts: Path
) -> pd.DataFrame:
    """Every shortlisted latent against every baseline of its kind, in every reader."""
    problem = problem_numbers_elsewhere(
        (trace.problem_id for trace in random.traces),
        (trace.problem_id for trace in readings.traces),
    )
    tables = []
    for name, kind in ((SPAN_DETECTORS, SPANS), (ONSET_PREDICTORS, ONSETS)):
        compared = readings.labels.compared[name]
        words = baseline_scores(
            NgramScorer(compared, readings.rows.token_id), compared, cfg.behaviours
        )
        untrained = {layer: maxima[kind] for layer, maxima in random.maxima.items()}
        without_layer = {
            NGRAM: words,
            RANDOM_READER: best_untrained(untrained, cfg.behaviours, problem),
        }

        @cache
        def beside(
            reader: str,
            layer: int,
            name: str = name,
            compared: Intervals = compared,
            others: Mapping[str, ScoresByCell] = MappingProxyType(without_layer),
        ) -> dict[str, ScoresByCell]:
            path = baselines_path(parts, reader, layer, name)
            return {**others, **load_baselines(path, compared, cfg.behaviours)}

        tables.append(
            compare_with_baselines(
                name,
                lists.entries_of(name),
                cfg.behaviours,
                saved_maxima(readings, parts, kind),
                beside,
                num_resamples=cfg.rank.bootstrap,
                seed=cfg.rank.seed,
                readers=list(cfg.pair.readers),
            )
        )
    return pd.concat(tables, ignore_index=True)
