"""Sections of the first page on openings that were mined, and on where the models differ."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.contrast.divergence import (
    ENRICHMENT,
    FROM_BASE,
    MEAN,
    ONSET,
    PLACES,
    SHARE,
    TOKENS,
    TOP_DIFFERS,
    WITHIN,
)
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.onsets import MINED_OPENINGS, OPENING_COVERAGE, OPENING_PRECISION
from sae_reasoning.records import BASE, RL
from sae_reasoning.report.cards import MODEL_NAMES
from sae_reasoning.report.figures import Chart, Table, bars_on_one_axis
from sae_reasoning.report.sections import Section
from sae_reasoning.texts import bounded, number


def mined(measures: Sequence[Measure], behaviours: Sequence[str]) -> list[Section]:
    """Probability of mined openings, and what they cover; no section where none were mined."""
    by = {(m.behaviour, m.measure, m.model): m for m in measures if m.level in (0.95, 1.0)}
    bars, rows = [], []
    for behaviour in behaviours:
        for model in (BASE, RL):
            if one := by.get((behaviour, MINED_OPENINGS, model)):
                label = f"{behaviour}, {MODEL_NAMES[model]}"
                bars.append((label, model, one.value, one.low, one.high, one.n))
                rows.append(
                    (
                        behaviour,
                        MODEL_NAMES[model],
                        _share(by.get((behaviour, OPENING_COVERAGE, model))),
                        _share(by.get((behaviour, OPENING_PRECISION, ""))),
                    )
                )
    if not bars:
        return []
    chart = Chart(
        "Probability of a mined opening at an opportunity",
        bars_on_one_axis(bars, "probability of a mined opening"),
    )
    table = Table(
        "What the mined openings stand for",
        ("behaviour", "writer", "share of its spans that begin so", "precision"),
        tuple(rows),
    )
    return [
        Section(
            "mined_openings",
            "When: mined openings",
            "Exact probability, at the places where onset probability was sampled, of the words "
            "with which annotated spans of the select split begin. It is part of the onset "
            "probability: the table says how many spans begin so, and how many of the sentences "
            "that begin so are the behaviour, both on sentences that selected nothing (n in "
            "brackets).",
            (chart,),
            tables=(table,),
            rows=_rows(measures, (MINED_OPENINGS, OPENING_COVERAGE, OPENING_PRECISION)),
        )
    ]


def differences(measures: Sequence[Measure], behaviours: Sequence[str]) -> list[Section]:
    """Where the models differ, token by token; no section where it wasn't measured."""
    by = {(m.behaviour, m.measure, m.condition): m for m in measures if m.model == FROM_BASE}
    if not by:
        return []
    enriched = [
        (f"{behaviour}, {place}", "", one.value, one.low, one.high, one.n)
        for behaviour in behaviours
        for place in (ONSET, WITHIN)
        if (one := by.get((behaviour, ENRICHMENT, place)))
    ]
    rows = []
    for behaviour in ("", *behaviours):
        for place in PLACES:
            found = [
                by.get((behaviour, measure, place))
                for measure in (SHARE, TOKENS, MEAN, ENRICHMENT, TOP_DIFFERS)
            ]
            if known := next(filter(None, found), None):
                figures = (bounded(m.value, m.low, m.high) if m else "–" for m in found)
                rows.append(
                    (behaviour or "all", place, *figures, f"{known.items:,}", f"{known.n:,}")
                )
    columns = (
        *("behaviour", "token", "share of KL", "share of tokens", "nats a token"),
        *("times other sentence starts", "likeliest token differs", "tokens", "problems"),
    )
    charts = [
        Chart(
            "Divergence per token, as a multiple of that at other sentence starts",
            bars_on_one_axis(enriched, "times the mean of other sentence starts"),
        )
    ]
    return [
        Section(
            "token_differences",
            "Where the models differ",
            "KL divergence of the RL model's predictions from the base's, on the RL model's "
            "rollouts of the report split: before the first token of a behaviour (onset), within "
            "its span, before the first token of other sentences, and elsewhere. Evidence beside "
            "the verdict; nothing is decided by it. Intervals are 95 %, over problems.",
            tuple(chart for chart in charts if chart.bars),
            tables=(Table("KL divergence by kind of token", columns, tuple(rows)),),
            rows=_rows(measures, (SHARE, TOKENS, MEAN, ENRICHMENT, TOP_DIFFERS)),
        )
    ]


def _share(one: Measure | None) -> str:
    return f"{number(one.value)} ({one.items:,})" if one else "–"


def _rows(measures: Sequence[Measure], names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([vars(m) for m in measures if m.measure in names])
