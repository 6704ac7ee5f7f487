"""Candidates chosen on the select split, intervals and q on the report split, two shortlists.

*Span detectors* say that a behaviour is under way (span AUROC); *onset predictors* that one is
about to start (attribution of the onset logit, or onset AUROC). Both are taken where the behaviour
is deployed: in the RL reader, on the RL writer's text; on the base's where the RL model never makes
the behaviour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.behaviours.baselines import BASELINES, RANDOM_READER
from sae_reasoning.behaviours.outcomes import ONSET_PREDICTORS, RANDOM, SPAN_DETECTORS
from sae_reasoning.behaviours.streams import MaximaOf, matched_strata
from sae_reasoning.behaviours.windows import POSITIONAL, TESTED, cell_index
from sae_reasoning.stats import Estimate, benjamini_hochberg, bootstrap_auroc, clustered_auroc
from sae_reasoning.texts import bounded

IDENTITY = ["layer", "latent", "behaviour", "reader", "writer"]


@dataclass(frozen=True)
class Entry:
    """A shortlisted latent; figures are of the report split unless they say select.

    Attributes:
        dictionary: Name of its SAE.
        layer: Decoder block.
        latent: Index.
        reader: Whose activations.
        writer: Whose traces.
        status: What can be said of the behaviour in this writer's text.
        span_auroc: Estimate.
        span_auroc_low: Lower bound.
        span_auroc_high: Upper bound.
        select_span_auroc: What it was chosen by, among span detectors.
        q: Of the span AUROC against 0.5.
        n_pos: Spans.
        n_neg: Windows.
        firing_rate: Share of tokens, on the select split.
        mean_active: Mean activation where it fires, on the select split.
        max_active: Largest activation on the select split.
    """

    dictionary: str
    layer: int
    latent: int
    reader: str
    writer: str
    status: str
    span_auroc: float
    span_auroc_low: float
    span_auroc_high: float
    select_span_auroc: float
    q: float
    n_pos: int
    n_neg: int
    firing_rate: float
    mean_active: float
    max_active: float


@dataclass(frozen=True)
class OnsetPredictor(Entry):
    """A shortlisted onset predictor.

    Attributes:
        onset_auroc: Estimate.
        onset_auroc_low: Lower bound, by problem bootstrap.
        onset_auroc_high: Upper bound.
        select_onset_auroc: On the select split.
        onset_attribution: Nats per opportunity, on the select split; what it was chosen by, if
            onset predictors are chosen so.
    """

    onset_auroc: float
    onset_auroc_low: float
    onset_auroc_high: float
    select_onset_auroc: float
    onset_attribution: float


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


@dataclass(frozen=True)
class Shortlist:
    """Both lists, by behaviour, the best first."""

    span_detectors: dict[str, list[Entry]]
    onset_predictors: dict[str, list[OnsetPredictor]]


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
    lists = Shortlist({}, {})
    for number, behaviour in enumerate(behaviours):
        home = _home(table[table.behaviour == behaviour])
        # Few spans make ties at 1; a latent that holds all tokens of the span goes first.
        by = ["select_span_auroc", "select_token_auroc"]
        best = home.sort_values(by, ascending=False, kind="stable")
        lists.span_detectors[behaviour] = [
            Entry(**_fields(row, Entry)) for row in _records(best.head(span_detectors))
        ]
        column, floor = onset_predictors_column(onset_predictors_by), 0.0
        if column != "onset_attribution":
            column, floor = "select_onset_auroc", 0.5
        best = home[home[column] > floor].sort_values(column, ascending=False, kind="stable")
        lists.onset_predictors[behaviour] = [
            OnsetPredictor(
                **_fields(
                    row | _onset_interval(row, onsets_of, number, bootstrap, seed), OnsetPredictor
                )
            )
            for row in _records(best.head(onset_predictors))
        ]
    return lists


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _fields(row: dict[str, Any], kind: type) -> dict[str, Any]:
    return {field.name: row[field.name] for field in fields(kind)}


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


def shortlist_content(
    lists: Shortlist,
    dictionaries: dict[str, dict[str, str]],
    attacks: pd.DataFrame,
    beaten: Mapping[tuple[str, str, int, int], Mapping[str, Sequence[str]]],
    wordings: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """What `shortlist.json` holds; a figure that couldn't be computed is null.

    Each carries what the attacks call it, and which baselines it significantly outperforms, by
    reader.
    """
    names: dict[tuple[str, str, int, int], dict[str, str]] = {}
    for row in attacks[attacks.reader != RANDOM].itertuples():
        latent = (row.shortlist, row.behaviour, row.layer, row.latent)
        names.setdefault(latent, {})[row.reader] = row.called

    def plain(entry: Entry) -> dict[str, Any]:
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(entry).items()
        }

    def called(shortlist: str, behaviour: str, entry: Entry) -> dict[str, Any]:
        latent = (shortlist, behaviour, entry.layer, entry.latent)
        return plain(entry) | {
            "called": names.get(latent, {}),
            "beats": beaten.get(latent, {}),
        }

    entries: dict[str, Mapping[str, Sequence[Entry]]] = {
        SPAN_DETECTORS: lists.span_detectors,
        ONSET_PREDICTORS: lists.onset_predictors,
    }
    return {
        "dictionaries": dictionaries,
        "wordings_held_out": {behaviour: list(words) for behaviour, words in wordings.items()},
        **{
            name: {b: [called(name, b, entry) for entry in own] for b, own in lists_of.items()}
            for name, lists_of in entries.items()
        },
    }


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
        rivals = pd.concat([others, random]).set_index("baseline")
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
                **{str(name): float(rivals.span_auroc[name]) for name in rivals.index},
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
