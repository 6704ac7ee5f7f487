"""Section of the first page on what a program can check of what behaviours say."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.contrast.checked import COVERED, MEASURES, REPAIRED, RIGHT
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.records import BASE, RL
from sae_reasoning.report.cards import MODEL_NAMES
from sae_reasoning.report.figures import Table
from sae_reasoning.report.sections import Section
from sae_reasoning.texts import bounded


def checked(measures: Sequence[Measure], behaviours: Sequence[str]) -> list[Section]:
    """Spans with equalities, and whether they are true; no section where none has any."""
    own = [m for m in measures if m.measure in MEASURES]
    by = {(m.behaviour, m.measure, m.model): m for m in own if m.model in (BASE, RL)}
    if not any(m.value > 0 for (_, measure, _), m in by.items() if measure == COVERED):
        return []
    rows = [
        (
            behaviour,
            MODEL_NAMES[model],
            f"{by[behaviour, COVERED, model].items:,}",
            *(_told(by.get((behaviour, measure, model))) for measure in (COVERED, RIGHT, REPAIRED)),
        )
        for behaviour in behaviours
        for model in (BASE, RL)
        if (behaviour, COVERED, model) in by
    ]
    columns = (
        *("behaviour", "writer", "spans", "with an equality", "of these, all true"),
        "of false equalities, repaired later",
    )
    return [
        Section(
            "statements_checked",
            "How: arithmetic that behaviours say",
            "Equalities of arithmetic within each model's own spans on the report split, checked "
            "by a program that says nothing of what it can't read for certain. A false one counts "
            "as repaired if the same left side later gets its right value. Evidence beside the "
            "verdict; nothing is decided by it. Intervals are 95 %, over problems; n in brackets.",
            tables=(Table("Spans and their equalities", columns, tuple(rows)),),
            rows=pd.DataFrame([vars(m) for m in own]),
        )
    ]


def _told(one: Measure | None) -> str:
    return f"{bounded(one.value, one.low, one.high)} ({one.items:,})" if one and one.items else "–"
