"""The coherence guard: whether a model still writes as it did, but for what an edit is about.

Where the task judges how behaviours are carried out, the *other* behaviours must be carried out
rightly at least `GUARD` as often as without the edit, by the lower bound of the interval.

Elsewhere (natural text) nothing judges that, and a condition is coherent where accuracy and the
rate of the other behaviours are non-inferior and degeneration isn't up. Each of `PARTS` has a
margin, fixed beforehand: a part is met where the whole interval of the change lies within it, and
damaged where the whole interval lies beyond. In between it can't be told, and with it the guard:
more problems or samples narrow the interval.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sae_reasoning.steering.ratios import Differences

GUARD = 0.85
"""Share of the other behaviours' validity that must be left, by the lower bound."""
VALIDITY, RATE = "off_target/validity", "off_target/rate_per_opportunity"
"""Outcomes of all other behaviours together."""


class Part(NamedTuple):
    """One part of the guard of natural text.

    Attributes:
        name: For people.
        outcome: What is held.
        margin: The largest fall (below 0) or rise (above 0) that does no harm.
        is_relative: Whether the margin is a share of the outcome without the edit.
    """

    name: str
    outcome: str
    margin: float
    is_relative: bool


PARTS = (
    Part("accuracy", "accuracy", -0.15, is_relative=False),
    Part("other behaviours", RATE, -0.25, is_relative=True),
    Part("repeated 3-grams", "repeated_3grams", 0.05, is_relative=False),
    Part("compression", "compression", 0.15, is_relative=True),
    Part("length", "length", 0.25, is_relative=True),
    Part("truncated", "truncated", 0.15, is_relative=False),
)


class Coherence(NamedTuple):
    """What the guard says of one condition.

    Attributes:
        is_coherent: None where it can't be told.
        damaged: Parts that lie beyond their margin.
        unknown: Parts of which that can't be told.
    """

    is_coherent: bool | None
    damaged: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def coherence_of(
    change: Differences,
    outcomes: Sequence[str],
    without: Float[np.ndarray, " outcome"],
    counted: Int[np.ndarray, "2 outcome"],
) -> Coherence:
    """Hold a condition against the guard.

    Args:
        change: The condition less no edit.
        outcomes: Their names.
        without: Values without an edit.
        counted: What each outcome was counted over, without an edit and under the condition.
    """
    at = {name: place for place, name in enumerate(outcomes)}
    if VALIDITY in at and counted[0, at[VALIDITY]] > 0:
        return _by_validity(change.relative_low[at[VALIDITY]], int(counted[1, at[VALIDITY]]))
    damaged, unknown = [], []
    for part in PARTS:
        # Where no other behaviour is tracked, or ever starts, there is none to lose.
        if part.outcome not in at or (part.outcome == RATE and without[at[RATE]] == 0):
            continue
        low, high = _bounds(change, at[part.outcome], part.is_relative)
        nearest, farthest = (high, low) if part.margin < 0 else (-low, -high)
        bound = -abs(part.margin)
        if nearest < bound:
            damaged.append(part.name)
        elif not farthest >= bound:
            unknown.append(part.name)
    is_coherent = False if damaged else None if unknown else True
    return Coherence(is_coherent, tuple(damaged), tuple(unknown))


def _bounds(change: Differences, place: int, is_relative: bool) -> tuple[float, float]:
    """The interval of a change; NaN where there is none."""
    if change.value[place] == 0 and change.p[place] == 1:
        kept = (change.low[place], change.high[place])
        if np.isnan(kept).any():  # No resample of problems changes anything.
            return 0.0, 0.0
    if is_relative:
        return float(change.relative_low[place]), float(change.relative_high[place])
    return float(change.low[place]), float(change.high[place])


def _by_validity(relative_low: float, num_judged: int) -> Coherence:
    """Other behaviours that are never started any more aren't carried out rightly."""
    part = ("other behaviours' validity",)
    if num_judged and relative_low != relative_low:
        return Coherence(None, unknown=part)
    return Coherence(True) if relative_low >= GUARD - 1 else Coherence(False, damaged=part)
