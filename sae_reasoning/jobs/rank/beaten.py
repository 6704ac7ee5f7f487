"""Both shortlists held against the baselines, with what the passes have left of those."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from sae_reasoning.behaviours.baselines import NGRAM, RANDOM_READER, NgramScorer, best_latent
from sae_reasoning.behaviours.beaten import (
    RivalScores,
    hold_against,
    problem_numbers_elsewhere,
    rival_scores,
)
from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import publish
from sae_reasoning.jobs.rank.data import RankData, saved_maxima
from sae_reasoning.jobs.rank.rivals import RandomReader
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, Shortlist
from sae_reasoning.stats import Ranked


def save_rivals(path: Path, found: Mapping[str, RivalScores]) -> None:
    """Keep the scores of a pass's baselines."""
    arrays = {
        f"{baseline}/{behaviour}/{writer}": own.scores
        for baseline, scores in found.items()
        for (behaviour, writer), own in scores.items()
    }
    with publish(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def hold_shortlists(
    cfg: Config, data: RankData, lists: Shortlist, random: RandomReader, parts: Path
) -> pd.DataFrame:
    """Every shortlisted latent against every baseline of its kind, in every reader."""
    tables = []
    for kind, maxima in ((SPAN_DETECTORS, "spans"), (ONSET_PREDICTORS, "onsets")):
        compared = data.labels.compared[kind]
        words = rival_scores(NgramScorer(compared, data.rows.token_id), compared, cfg.behaviours)
        without_layer = {NGRAM: words, RANDOM_READER: _untrained(cfg, data, random, kind)}

        @cache
        def beside(
            reader: str,
            layer: int,
            kind: str = kind,
            compared: Intervals = compared,
            others: Mapping[str, RivalScores] = MappingProxyType(without_layer),
        ) -> dict[str, RivalScores]:
            path = parts / f"{reader}_layer_{layer}_{kind}_rivals.npz"
            return {**others, **load_rivals(path, compared, cfg.behaviours)}

        tables.append(
            hold_against(
                kind,
                lists.entries_of(kind),
                cfg.behaviours,
                saved_maxima(data, parts, maxima),
                beside,
                num_resamples=cfg.rank.bootstrap,
                seed=cfg.rank.seed,
                readers=list(cfg.pair.readers),
            )
        )
    return pd.concat(tables, ignore_index=True)


def load_rivals(path: Path, compared: Intervals, behaviours: list[str]) -> dict[str, RivalScores]:
    """The scores that `save_rivals` kept."""
    found: dict[str, dict[tuple[str, str], Ranked]] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            baseline, _, cell = name.partition("/")
            behaviour, _, writer = cell.rpartition("/")  # A behaviour's name may hold a slash.
            here = compared.of_cell(cell_index(behaviours.index(behaviour), writer, "report"))
            found.setdefault(baseline, {})[behaviour, writer] = Ranked(
                file[name], compared.is_positive[here], compared.problem[here]
            )
    return dict(found)


def _untrained(cfg: Config, data: RankData, random: RandomReader, kind: str) -> RivalScores:
    """The untrained reader's best latent, of the layer that is best on the select split."""
    problem = problem_numbers_elsewhere(
        (trace.problem_id for trace in random.traces), (trace.problem_id for trace in data.traces)
    )
    best: dict[tuple[str, str], tuple[float, Ranked]] = {}
    for maxima in random.maxima.values():
        compared = maxima.of(kind)
        scores = rival_scores(best_latent(compared), compared.intervals, cfg.behaviours, problem)
        for (behaviour, writer), own in scores.items():
            cell = cell_index(cfg.behaviours.index(behaviour), writer, "select")
            chosen_by = float(np.nanmax(compared.aurocs(cell)))
            if chosen_by > best.get((behaviour, writer), (-1.0, own))[0]:
                best[behaviour, writer] = (chosen_by, own)
    return {key: own for key, (_, own) in best.items()}
