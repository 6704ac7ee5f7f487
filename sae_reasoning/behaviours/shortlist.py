"""Candidates chosen on the select split, intervals and q on the report split, two shortlists.

*Span detectors* say that a behaviour is under way (span AUROC); *onset predictors* that one is
about to start (attribution of the onset logit, or onset AUROC). Both are taken where the behaviour
is deployed: in the RL reader, on the RL writer's text; on the base's where the RL model never makes
the behaviour.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.behaviours.baselines import BASELINES, RANDOM_READER
from sae_reasoning.behaviours.streams import MaximaOf, matched_strata
from sae_reasoning.behaviours.windows import POSITIONAL, TESTED, cell_index
from sae_reasoning.records import (
    OnsetPredictorEntry,
    Shortlist,
    ShortlistEntry,
)
from sae_reasoning.stats import Estimate, benjamini_hochberg, bootstrap_auroc, clustered_auroc
from sae_reasoning.texts import bounded

IDENTITY = ["layer", "latent", "behaviour", "reader", "writer"]


def mark_candidates(
    scores: pd.DataFrame, *, candidates: int, onset_predictors: int, onset_predictors_by: str
) -> pd.Series:
    """Which rows get intervals: the best on the select split, per layer and behaviour.

    The best of any reader and writer are tested in all of them, so that the same latent can be
    compared across the grid.
    """
    select = scores[scores.split == "select"]
    groups = ["behaviour", "layer", "reader", "writer"]
    key = ["behaviour", "layer", "latent"]
    chosen = pd.concat(
        select.sort_values(by, ascending=False).dropna(subset=by).groupby(groups).head(size)[key]
        for by, size in (
            ("span_auroc", candidates),
            (onset_predictors_column(onset_predictors_by), onset_predictors),
        )
    ).drop_duplicates()
    wanted = pd.MultiIndex.from_frame(chosen)
    return pd.Series(pd.MultiIndex.from_frame(scores[key]).isin(wanted), index=scores.index)


def onset_predictors_column(onset_predictors_by: str) -> str:
    """Column of the scores that picks onset predictors."""
    return "onset_attribution" if onset_predictors_by == "attribution" else "onset_auroc"


def add_intervals(
    scores: pd.DataFrame, maxima_of: MaximaOf, behaviours: Sequence[str]
) -> pd.DataFrame:
    """Intervals, p and q of the candidates, on the report split.

    q is Benjamini-Hochberg's over latents, layers and behaviours, for each reader and writer. What
    is only positional isn't tested.
    """
    scores = scores.assign(span_auroc_low=np.nan, span_auroc_high=np.nan, p=np.nan, q=np.nan)
    tested = scores[scores.is_candidate & (scores.split == "report")]
    for (reader, layer), part in tested.groupby(["reader", "layer"]):
        maxima = maxima_of(str(reader), int(layer))
        for (behaviour, writer), rows in part.groupby(["behaviour", "writer"]):
            cell = cell_index(behaviours.index(str(behaviour)), str(writer), "report")
            here = maxima.intervals.of_cell(cell)
            found = clustered_auroc(
                maxima.columns(cell, rows.latent.to_numpy()),
                maxima.intervals.is_positive[here],
                maxima.intervals.problem[here],
            )
            scores.loc[rows.index, "span_auroc_low"] = found.low
            scores.loc[rows.index, "span_auroc_high"] = found.high
            if (rows.status == TESTED).all():
                scores.loc[rows.index, "p"] = found.p
    for _, rows in scores[scores.p.notna()].groupby(["reader", "writer"]):
        scores.loc[rows.index, "q"] = benjamini_hochberg(rows.p.to_numpy())
    return scores


def draw_up(
    scores: pd.DataFrame,
    latents: pd.DataFrame,
    onsets_of: MaximaOf,
    behaviours: Sequence[str],
    *,
    span_detectors: int,
    onset_predictors: int,
    onset_predictors_by: str,
    bootstrap: int,
    seed: int,
) -> Shortlist:
    """Pick the best of each behaviour on the select split; show the report split's figures.

    So many parameters because each list has options of its own (`rank.span_detectors` …).
    """
    table = _side_by_side(scores).merge(
        latents, on=["dictionary", "layer", "latent", "reader", "writer"], how="left"
    )
    detectors: dict[str, list[ShortlistEntry]] = {}
    predictors: dict[str, list[OnsetPredictorEntry]] = {}
    for number, behaviour in enumerate(behaviours):
        home = _home(table[table.behaviour == behaviour])
        # Few spans make ties at 1; a latent that holds all tokens of the span goes first.
        by = ["select_span_auroc", "select_token_auroc"]
        best = home.sort_values(by, ascending=False, kind="stable")
        detectors[behaviour] = [
            ShortlistEntry(**_figures(row, ShortlistEntry))
            for row in _records(best.head(span_detectors))
        ]
        column, floor = onset_predictors_column(onset_predictors_by), 0.0
        if column != "onset_attribution":
            column, floor = "select_onset_auroc", 0.5
        best = home[home[column] > floor].sort_values(column, ascending=False, kind="stable")
        predictors[behaviour] = [
            OnsetPredictorEntry(
                **_figures(
                    row | _onset_interval(row, onsets_of, number, bootstrap, seed),
                    OnsetPredictorEntry,
                )
            )
            for row in _records(best.head(onset_predictors))
        ]
    return Shortlist(detectors, predictors)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _figures(row: dict[str, Any], kind: type[ShortlistEntry]) -> dict[str, Any]:
    return {one.name: row[one.name] for one in fields(kind) if one.name in row}


def _side_by_side(scores: pd.DataFrame) -> pd.DataFrame:
    """The report split's rows with what the select split said."""
    select = scores[scores.split == "select"].rename(
        columns={f"{kind}_auroc": f"select_{kind}_auroc" for kind in ("span", "token", "onset")}
    )
    keys = ["dictionary", *IDENTITY]
    chosen_by = ["select_span_auroc", "select_token_auroc", "select_onset_auroc"]
    wanted = [*keys, *chosen_by, "onset_attribution"]
    report = scores[scores.split == "report"].drop(columns="onset_attribution")
    return report.merge(select[wanted], on=keys)


def _home(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores where the behaviour is deployed."""
    rows = rows[rows.reader == "rl"]
    on_rl = rows[rows.writer == "rl"]
    home = on_rl if len(on_rl) else rows
    return home[home.select_span_auroc.notna()]


def _onset_interval(
    row: dict[str, Any], onsets_of: MaximaOf, behaviour: int, bootstrap: int, seed: int
) -> dict[str, float]:
    onsets = onsets_of(str(row["reader"]), int(row["layer"]))
    cell = cell_index(behaviour, str(row["writer"]), "report")
    strata, _ = matched_strata(onsets.intervals, cell)
    here = onsets.intervals.of_cell(cell)
    found = Estimate(float("nan"), float("nan"), float("nan"), 0)
    if here.stop > here.start:
        found = bootstrap_auroc(
            onsets.columns(cell, np.array([row["latent"]], np.int64))[:, 0],
            onsets.intervals.is_positive[here],
            onsets.intervals.problem[here],
            stratum=strata,
            num_resamples=bootstrap,
            seed=seed,
        )
    return {"onset_auroc_low": found.low, "onset_auroc_high": found.high}


def findings(
    scores: pd.DataFrame, baselines: pd.DataFrame, lists: Shortlist, behaviours: Sequence[str]
) -> pd.DataFrame:
    """Per behaviour: the best latent in both readers on one writer's text, beside its baselines.

    The random reader's is of the layer whose best latent is best on the select split: the latent
    was looked for in all layers too.
    """
    report = scores[scores.split == "report"]
    rows: list[dict[str, Any]] = []
    for behaviour in behaviours:
        if not lists.span_detectors.get(behaviour):
            rows.append({"behaviour": behaviour, "latent": "skipped: no spans on both splits"})
            continue
        best = lists.span_detectors[behaviour][0]
        here = report[
            (report.behaviour == behaviour)
            & (report.writer == best.writer)
            & (report.layer == best.layer)
            & (report.latent == best.latent)
        ].set_index("reader")
        beside = baselines[(baselines.behaviour == behaviour) & (baselines.writer == best.writer)]
        is_random = beside.baseline == RANDOM_READER
        random = beside[is_random].nlargest(1, "select_span_auroc")
        others = beside[
            beside.baseline.isin(BASELINES)
            & ~is_random
            & beside.layer.isin([best.layer, -1])
            & beside.reader.isin(["rl", "text"])
        ]
        compared = pd.concat([others, random]).set_index("baseline")
        onset_predictors = lists.onset_predictors[behaviour]
        rows.append(
            {
                "behaviour": behaviour,
                "latent": f"{best.layer}/{best.latent}",
                "text": best.writer,
                "spans": best.n_pos,
                **{
                    f"{reader} reader": _interval(here.loc[reader])
                    for reader in ("base", "rl")
                    if reader in here.index
                },
                **{str(name): float(compared.span_auroc[name]) for name in compared.index},
                "onset predictor": f"{onset_predictors[0].layer}/{onset_predictors[0].latent}"
                if onset_predictors
                else "-",
                "attribution": onset_predictors[0].onset_attribution
                if onset_predictors
                else np.nan,
                "note": best.status if best.status == POSITIONAL else "",
            }
        )
    frame = pd.DataFrame(rows)
    return frame.astype(object).where(frame.notna(), None)


def _interval(row: pd.Series) -> str:
    return bounded(row.span_auroc, row.span_auroc_low, row.span_auroc_high, 3)
