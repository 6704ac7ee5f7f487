"""That the base was never seen to start a behaviour, in words."""

from collections.abc import Sequence

from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.rates import OCCURS, PER_TRACE
from sae_reasoning.records import BASE
from sae_reasoning.stats import most_of_none
from sae_reasoning.texts import number

NEVER_BELOW = 0.0005
"""Starts a trace, below which people say never."""


def never(behaviour: str, measures: Sequence[Measure], bound: str = "") -> str:
    """That the base was never seen to start a behaviour, with how often it might; "" where it was.

    Where the onset probability is more than next to nothing, the rate is told instead. The bound is
    exact on problems: rollouts on one problem may all be the same.

    Args:
        behaviour: Its label.
        measures: Of the contrast.
        bound: Says which bound it is, where nothing else does.
    """
    own = {
        m.measure: m
        for m in measures
        if (m.behaviour, m.model, m.condition, m.level) == (behaviour, BASE, "", 0.95)
    }
    if not {OCCURS, PER_TRACE} <= own.keys():
        return ""
    seen = own[OCCURS]
    if seen.value > 0 or own[PER_TRACE].value >= NEVER_BELOW:
        return ""
    most = number(most_of_none(seen.n))
    return f"never in {seen.items:,} rollouts on {seen.n:,} problems (at most {most}{bound})"
