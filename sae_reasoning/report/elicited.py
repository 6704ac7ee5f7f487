"""Section of the first page on what recovers the gap without reinforcement learning."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.elicitation.table import recovered_in_words, shown
from sae_reasoning.report.figures import Table
from sae_reasoning.report.sections import Section

TITLE = "Elicitation: what recovers the gap without RL"


def elicited(found: pd.DataFrame, behaviours: Sequence[str]) -> Section:
    """Interventions beside the models themselves, with what each costs.

    Args:
        found: The table of `elicit`.
        behaviours: That are counted.
    """
    rows = shown(found, [one for one in behaviours if one in found])
    return Section(
        "elicitation",
        TITLE,
        "Gap recovered is the share of the difference in accuracy, base to RL model, on the same "
        "problems of the report split (of the hybrid on its own, of best of k over one sample); it "
        "isn't clipped. Costs are those of the intervention "
        "alone: tokens and steps of training, the share of tokens that are steered, samples an "
        "answer. Controls stand in brackets. Intervals are 95 %, over problems, and aren't "
        f"corrected for how many interventions there are. {recovered_in_words(found)}",
        tables=(
            Table(
                "Interventions and their controls",
                tuple(rows.columns),
                tuple(tuple(str(cell) for cell in row) for row in rows.itertuples(index=False)),
            ),
        ),
        rows=found,
    )
