"""Sections on mined openings and on where the models differ."""

import numpy as np

from sae_reasoning.contrast.divergence import ENRICHMENT, FROM_BASE, MEAN, ONSET, SHARE
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.onsets import MINED_OPENINGS, OPENING_COVERAGE, OPENING_PRECISION
from sae_reasoning.report.by_token import differences, mined

BACK, CHECK = "backtracking", "verification"


def measured(
    behaviour: str, measure: str, model: str, condition: str, value: float, level: float = 0.95
) -> Measure:
    return Measure(
        behaviour, measure, model, condition, value, value / 2, value * 2, level, 40, 1200
    )


def test_divergence_is_shown_by_kind_of_token_with_interval_and_n() -> None:
    measures = [
        measured("", SHARE, FROM_BASE, ONSET, 0.4),
        measured(BACK, SHARE, FROM_BASE, ONSET, 0.3),
        measured(BACK, MEAN, FROM_BASE, ONSET, 1.5),
        measured(BACK, ENRICHMENT, FROM_BASE, ONSET, 12.0),
    ]
    (section,) = differences(measures, [BACK, CHECK])
    (chart,), (table,) = section.charts, section.tables
    assert [bar.label for bar in chart.bars] == ["backtracking, onset"]
    assert chart.bars[0].figure == "12 [6, 24]" and chart.bars[0].n == 40
    every, back = table.rows
    assert every[:3] == ("all", "onset", "0.40 [0.20, 0.80]")
    assert back[4:] == ("1.50 [0.75, 3]", "12 [6, 24]", "–", "1,200", "40")
    assert len(table.columns) == len(back)
    assert section.rows is not None and len(section.rows) == 4
    assert differences([], [BACK]) == []


def test_mined_openings_are_shown_with_what_they_cover() -> None:
    measures = [
        measured(BACK, MINED_OPENINGS, "base", "", 0.01),
        measured(BACK, MINED_OPENINGS, "rl", "", 0.2),
        measured(BACK, OPENING_COVERAGE, "rl", "", 0.8, level=1.0),
        measured(BACK, OPENING_PRECISION, "", "", 0.9, level=1.0),
    ]
    (section,) = mined(measures, [BACK, CHECK])
    assert [bar.series for bar in section.charts[0].bars] == ["base", "rl"]
    assert section.tables[0].rows == (
        (BACK, "base", "–", "0.90 (1,200)"),
        (BACK, "RL model", "0.80 (1,200)", "0.90 (1,200)"),
    )
    assert mined([measured(BACK, "other", "rl", "", np.nan)], [BACK]) == []
