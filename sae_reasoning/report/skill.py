"""What says how well models execute a behaviour, on one scale: 0 is no ability, 1 is full ability.

Where a program judges executions and a random fill gives its chance level, the scale is
chance-corrected accuracy, the form of Cohen's kappa. Elsewhere it is value skill
(`contrast.value`), against displaced or foreign sentences, whichever are worth more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast import steered, value
from sae_reasoning.contrast.execution import (
    ACCURACY,
    BEST_OF,
    BEST_OPENING,
    CORRECTED,
    OWN_OPENING,
    RANDOM_FILL,
)
from sae_reasoning.contrast.measures import DIFFERENCE, Measure
from sae_reasoning.contrast.steered import VECTOR
from sae_reasoning.contrast.value import COMPLETION, DISPLACED, FOREIGN, against
from sae_reasoning.records import BASE, RL

Key = tuple[str, str, str]
"""Measure, model and condition."""


@dataclass(frozen=True)
class Skill:
    """The measures of execution that a verdict compares with margins.

    Attributes:
        judge: Who says what an execution came to; "" where that is named elsewhere.
        control: What no ability comes to.
        outcome: What executions come to, before they are put on the scale.
        executes: That the RL model executes the behaviour.
        executes_above: What its lower bound must exceed.
        base: Of the base in its own words.
        behind: How far the base is behind the RL model.
        steered: Of the base under the best steering vector.
        leads: Measure of that vector's leads over its controls.
        failing: All ways in which the base must fail before it is called unable.
        second: Of the base in its own words by a second judge, if there may be one.
        is_worth: Whether executions are valued by completion.
    """

    judge: str
    control: str
    outcome: str
    executes: Key
    executes_above: float
    base: Key
    behind: Key
    steered: Key
    leads: str
    failing: tuple[Key, ...]
    second: Key | None = None
    is_worth: bool = False


def skill_of(measures: Sequence[Measure], behaviour: str, thresholds: ReportConfig) -> Skill:
    """Which measures say how well a behaviour is executed: the exact ones where there are any."""
    own = [one for one in measures if one.behaviour == behaviour]
    names = {one.measure for one in own}
    if ACCURACY not in names and names & {value.VALUE, value.HEADROOM}:
        return _by_completion(own, thresholds)
    conditions = (OWN_OPENING, BEST_OPENING, BEST_OF)
    vector = (steered.CORRECTED, BASE, VECTOR)
    return Skill(
        judge="",
        control=RANDOM_FILL,
        outcome=ACCURACY,
        executes=(CORRECTED, RL, OWN_OPENING),
        executes_above=thresholds.able,
        base=(CORRECTED, BASE, OWN_OPENING),
        behind=(CORRECTED, DIFFERENCE, OWN_OPENING),
        steered=vector,
        leads=steered.OVER,
        failing=(*((CORRECTED, BASE, one) for one in conditions), vector),
    )


def control_of(measures: Sequence[Measure], behaviour: str, thresholds: ReportConfig) -> str:
    """The control that value skill is taken against: of those at enough starts, the one worth more.

    Which is worth more is told by the select split; where that doesn't tell, displaced sentences
    are taken.
    """
    own = [one for one in measures if one.behaviour == behaviour]
    name = against(value.OVER, DISPLACED)
    starts = [one.items for one in own if one.measure == name]
    if max(starts, default=0) < thresholds.min_displaced:
        return FOREIGN
    worth = {one.condition: one.value for one in own if one.measure == value.ON_SELECT}
    return max(value.CONTROLS, key=lambda control: worth.get(control, 0.0))


def _by_completion(own: Sequence[Measure], thresholds: ReportConfig) -> Skill:
    control = control_of(own, own[0].behaviour, thresholds)
    name = against(value.SKILL, control)
    vector = (against(steered.SKILL, control), BASE, VECTOR)
    second = (against(value.BY_PROGRAM, control), BASE, OWN_OPENING)
    return Skill(
        judge=COMPLETION,
        control=control,
        outcome=value.VALUE,
        executes=(against(value.OVER, control), RL, OWN_OPENING),
        executes_above=0.0,
        base=(name, BASE, OWN_OPENING),
        behind=(name, DIFFERENCE, OWN_OPENING),
        steered=vector,
        leads=against(steered.SKILL_OVER, control),
        failing=(*((name, BASE, one) for one in value.CONDITIONS), vector),
        second=second if any(one.measure == second[0] for one in own) else None,
        is_worth=True,
    )
