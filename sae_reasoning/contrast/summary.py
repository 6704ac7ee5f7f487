"""What a person wants to see of a contrast first, and what its measures lack."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.contrast.execution import ACCURACY, OWN_OPENING
from sae_reasoning.contrast.measures import RATIO, Measure
from sae_reasoning.contrast.rates import (
    ANNOTATED_PER_OPPORTUNITY,
    ANNOTATED_PER_TRACE,
    PER_OPPORTUNITY,
    PER_TRACE,
)
from sae_reasoning.contrast.steered import NONE, VALID, VECTOR
from sae_reasoning.contrast.value import CONTROLS, SKILL, VALUE, against
from sae_reasoning.contrast.weights import WeightChange
from sae_reasoning.records import BASE, RL
from sae_reasoning.texts import bounded, ratio


def weight_measures(changes: Sequence[WeightChange]) -> list[Measure]:
    """Changes of weights as measures; they are counts of all parameters, without an interval."""
    return [
        Measure("", f"weights/{name}", RATIO, change.module, value, value, value, 1.0, 0, items)
        for change in changes
        for name, value, items in (
            ("changed_share", change.changed, change.num_parameters),
            ("relative_norm", change.relative_norm, change.num_parameters),
            ("effective_rank", change.effective_rank, change.num_parameters),
        )
    ]


def summary(found: Sequence[Measure], behaviours: Sequence[str]) -> pd.DataFrame:
    """Rates of each behaviour, with execution accuracy and steering, or with execution value.

    Rates are annotated ones where onset probabilities were not measured.
    """
    exact = any(m.measure == PER_TRACE for m in found)
    per_trace = PER_TRACE if exact else ANNOTATED_PER_TRACE
    per_opportunity = PER_OPPORTUNITY if exact else ANNOTATED_PER_OPPORTUNITY
    by = {(m.behaviour, m.measure, m.model, m.condition, m.level): m for m in found}

    def cell(behaviour: str, measure: str, model: str, condition: str = "") -> str:
        one = by.get((behaviour, measure, model, condition, 0.95))
        if one is None:
            return "–"
        return (ratio if model == RATIO else bounded)(one.value, one.low, one.high)

    is_valued = not any(m.measure == ACCURACY for m in found) and any(
        m.measure == VALUE for m in found
    )

    def executed(behaviour: str) -> dict[str, str]:
        if is_valued:
            return {
                "value, base": cell(behaviour, VALUE, BASE, OWN_OPENING),
                "value, rl": cell(behaviour, VALUE, RL, OWN_OPENING),
            } | {
                f"skill, base ({one})": cell(behaviour, against(SKILL, one), BASE, OWN_OPENING)
                for one in CONTROLS
            }
        return {
            "accuracy, base": cell(behaviour, ACCURACY, BASE, OWN_OPENING),
            "accuracy, rl": cell(behaviour, ACCURACY, RL, OWN_OPENING),
            "steered": cell(behaviour, VALID, BASE, VECTOR),
            "not steered": cell(behaviour, VALID, BASE, NONE),
        }

    return pd.DataFrame(
        [
            {
                "behaviour": behaviour,
                "a trace, rl/base": cell(behaviour, per_trace, RATIO),
                "an opportunity, rl/base": cell(behaviour, per_opportunity, RATIO),
            }
            | executed(behaviour)
            for behaviour in behaviours
        ]
    )
