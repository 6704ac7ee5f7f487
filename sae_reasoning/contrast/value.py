"""Execution value: what a behaviour, once a model carries it out, is worth to the answer.

1. At those of the RL model's own onsets at which something rests on it (`contrast.pilots`) a
   behaviour is carried out to the end of a sentence: by the base, by the RL model, or by a control
   (`contrast.sentences`).
2. From there the RL model completes the response several times; the share of right answers is the
   value V of what was carried out.
3. A completion that begins with an opening of the behaviour does it again: what was said left it
   undone, and the answer says nothing of who said it. In a skill, and in what rests on a behaviour,
   it counts as the control; after a control it is left out, and a control after which more than
   half are has no value there.
4. `value skill = sum(V - V_control) / sum(V_RL - V_control)` over starts: 0 is the behaviour with
   the wrong content, 1 is the RL model's own. Where the interval of `V_RL - V_control` reaches 0,
   nothing is shown to rest on what the behaviour says, and the skill is undefined.

Controls: `displaced`, the RL model's sentence of the same behaviour on the same problem, from
another place and with other content; `foreign`, from another problem. No ability is worth
what can be said without it, so a skill is taken against the control that is worth more on the
select split: where pilots chose places at which both go wrong, what chance has left of either's
worth differs between them.

How much rests on a behaviour on average is said of all starts that pilots tried, also against
`neutral` sentences: what the RL model says where it doesn't begin the behaviour
(`anywhere_measures`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from sae_reasoning.contrast.execution import BEST_OF, BEST_OPENING, OWN_OPENING
from sae_reasoning.contrast.measures import DIFFERENCE, Measure, Recorder, Resampling
from sae_reasoning.records import BASE, RL
from sae_reasoning.tasks.protocol import Start

OWN_WORDS, RL_WORDS = OWN_OPENING, "RL's words"
DISPLACED, FOREIGN, NEUTRAL = "displaced", "foreign", "neutral"
CONTROLS = (DISPLACED, FOREIGN)
"""What an execution is measured against, the better one first."""
CONDITIONS = (OWN_WORDS, RL_WORDS, BEST_OPENING, BEST_OF)
"""How the base is started; all of them have to fail before it is called unable."""
VALUE, OVER, SKILL, ANYWHERE, HEADROOM, ON_SELECT = (
    "execution_value",
    "value_over",
    "value_skill",
    "value_over_anywhere",
    "headroom",
    "control_value_on_select",
)
"""Measures; the second to the fourth are of a control, as `value_skill/displaced`. The first three
are of the report split's starts with headroom, the last is what a control is worth on select."""
AFTER_CONTROL = "control_value_anywhere"
"""Right answers after a control, at all starts that pilots tried: how much room is left there."""
REDONE, REDONE_ANYWHERE, TRUNCATED = "redone", "redone_anywhere", "truncated_executions"
"""Share of completions that do the behaviour again, at starts with headroom and at all that pilots
tried; share of executions that were cut, which are worth nothing that could be told."""
BY_PROGRAM = "program_skill"
"""The same skill where the judge of the task stands in for completions."""
COMPLETION = "completion by the RL model"
"""Name of the judge."""

TRY = ", try "
"""Between a condition and the number of a further execution under it."""

Outcomes = Mapping[tuple[str, str], Float[np.ndarray, " start"]]
"""By model and condition, an outcome at each start; NaN where there is none."""


def against(measure: str, control: str) -> str:
    """Name of a measure that is taken against a control."""
    return f"{measure}/{control}"


def best_of(control: str) -> str:
    """Condition of the best of several sentences of a control: what choosing alone comes to."""
    return f"{control}, {BEST_OF}"


def best_of_tries(values: Float[np.ndarray, "try start completion"]) -> Float[np.ndarray, " start"]:
    """Value of the best of several tries at each start; unbiased, as another half chooses it.

    The try that does best on one half of the completions is valued by the other half, both ways.
    Completions that aren't known are NaN; a try counts where each half knows any, and where none
    does, the value is NaN.
    """
    halves = mean_known(values[:, :, ::2]), mean_known(values[:, :, 1::2])
    is_there = ~np.isnan(halves).any(0)
    found = []
    for chooses, values_it in (halves, halves[::-1]):
        best = np.where(is_there, chooses, -1.0).argmax(0)
        found.append(values_it[best, np.arange(values.shape[1])])
    return np.where(is_there.any(0), np.mean(found, axis=0), np.nan)


@dataclass(frozen=True)
class Scale:
    """What executions at some starts are measured by.

    Attributes:
        record: Makes estimates, of the starts at which there is a control.
        rows: Those starts, of all.
        top: Outcome of the RL model in its own words there.
        control: Outcome of the control there.
        rests: Estimate of `top - control`.
    """

    record: Recorder
    rows: np.ndarray
    top: Float[np.ndarray, " start"]
    control: Float[np.ndarray, " start"]
    rests: Measure

    def skill(
        self, measure: str, model: str, condition: str, outcome: Float[np.ndarray, " start"]
    ) -> Measure:
        """Skill of an execution: 0 as the control, 1 as the RL model; undefined if nothing rests.

        Args:
            measure: Name of the estimate.
            model: Whose execution.
            condition: Under which.
            outcome: At every start, those without a control included; NaN where there is none.
        """
        lost = self.lost(measure, model, condition, outcome)
        return replace(lost, value=1 - lost.value, low=1 - lost.high, high=1 - lost.low)

    def lost(
        self, measure: str, model: str, condition: str, outcome: Float[np.ndarray, " start"]
    ) -> Measure:
        """How far an execution is behind the RL model's, on the same scale: `1 - skill`."""
        return self.apart(measure, model, condition, None, outcome)

    def apart(
        self,
        measure: str,
        model: str,
        condition: str,
        one: Float[np.ndarray, " start"] | None,
        other: Float[np.ndarray, " start"],
    ) -> Measure:
        """How much more skill one execution has than another.

        Args:
            measure: Name of the estimate.
            model: Whose executions.
            condition: Under which.
            one: Outcome at every start; None for the RL model's own.
            other: The same, compared with.
        """
        own = self.top if one is None else one[self.rows]
        known = ~(np.isnan(own) | np.isnan(other[self.rows]))
        record = self.record.at(np.flatnonzero(known).tolist())
        if not self.rests.low > 0 or not known.any():
            return record.undefined(measure, model, condition)
        full = (self.top - self.control)[known]
        lost = own[known] - other[self.rows][known]
        return record.share_of_gap(measure, model, condition, lost, full)


def scale_of(record: Recorder, outcomes: Outcomes, control: str, over: str = OVER) -> Scale | None:
    """What a control gives to measure by; None where there is no start with it.

    Args:
        record: Of all starts.
        outcomes: At all of them.
        control: Which.
        over: Name of the estimate of the RL model's outcome over the control's.
    """
    top, low = outcomes[RL, OWN_WORDS], outcomes.get((RL, control))
    if low is None:
        return None
    rows = np.flatnonzero(~(np.isnan(top) | np.isnan(low)))
    if not len(rows):
        return None
    there = record.at(rows.tolist())
    rests = there.difference(against(over, control), RL, OWN_WORDS, top[rows], low[rows])
    return Scale(there, rows, top[rows], low[rows], rests)


def recorder(starts: Sequence[Start], resampling: Resampling) -> Recorder:
    """Makes estimates of one behaviour's outcomes at some starts."""
    problems = [start.problem.problem_id for start in starts]
    return Recorder(resampling, starts[0].behaviour, problems)


def credited(
    grades: Float[np.ndarray, "*try start completion"],
    redone: Bool[np.ndarray, "*try start completion"],
    control: Float[np.ndarray, " start"],
) -> Float[np.ndarray, "*try start completion"]:
    """Grades of completions, those that do the behaviour again counting as the control."""
    return np.where(redone, control[:, None], grades)


def without_redone(
    grades: Float[np.ndarray, "*try start completion"],
    redone: Bool[np.ndarray, "*try start completion"],
) -> Float[np.ndarray, "*try start completion"]:
    """Grades of a control's completions, NaN for those that do the behaviour again.

    Where fewer than half are left, or one that is left has no grade, all of them are NaN.
    """
    is_known = (redone.mean(-1) <= 0.5) & ~(np.isnan(grades) & ~redone).any(-1)
    return np.where(redone | ~is_known[..., None], np.nan, grades)


def mean_known(grades: Float[np.ndarray, "*try completion"]) -> Float[np.ndarray, "*try"]:
    """Mean over completions of those that aren't NaN; NaN where all are."""
    count = (~np.isnan(grades)).sum(-1)
    return np.where(count > 0, np.nansum(grades, axis=-1) / np.maximum(count, 1), np.nan)


def share_measures(
    measure: str, starts: Sequence[Start], shares: Outcomes, resampling: Resampling
) -> list[Measure]:
    """Mean of shares by model and condition, over the starts of one behaviour that have one."""
    record, found = recorder(starts, resampling), []
    for (model, condition), own in shares.items():
        known = np.flatnonzero(~np.isnan(own))
        if len(known):
            there = record.at(known.tolist())
            found.append(there.share(measure, model, condition, own[known]))
    return found


def value_measures(
    starts: Sequence[Start],
    values: Outcomes,
    credit: Mapping[str, Outcomes],
    resampling: Resampling,
) -> list[Measure]:
    """What executions of one behaviour are worth, and value skill by each control.

    Args:
        starts: Of one behaviour, on the report split; at least one.
        values: Of each model and condition; at least those of both models in their own words.
        credit: By control, the same as skill counts them (`credited`).
        resampling: Makes intervals.
    """
    record = recorder(starts, resampling)
    found = share_measures(VALUE, starts, values, resampling)
    for control in CONTROLS:
        if scale := scale_of(record, credit[control], control):
            found += [scale.rests, *_skills(scale, credit[control], control, SKILL)]
    return found


def control_values(
    starts: Sequence[Start], values: Outcomes, resampling: Resampling
) -> list[Measure]:
    """What each control is worth at starts of one behaviour on the select split."""
    controls = {(RL, control): values[RL, control] for control in CONTROLS}
    return share_measures(ON_SELECT, starts, controls, resampling)


def program_measures(
    starts: Sequence[Start], valid: Outcomes, resampling: Resampling
) -> list[Measure]:
    """Skill by the task's own judge, of both models in their own words; arguments are as above.

    A start counts where the judge can tell of all that is compared there.
    """
    record = recorder(starts, resampling)
    found = []
    for control in CONTROLS:
        if scale := scale_of(record, valid, control, f"{BY_PROGRAM}_over"):
            found += [scale.rests, *_skills(scale, valid, control, BY_PROGRAM)]
    return found


def _skills(scale: Scale, outcomes: Outcomes, control: str, skill: str) -> list[Measure]:
    name, found = against(skill, control), list[Measure]()
    for condition in CONDITIONS:
        own, least = outcomes.get((BASE, condition)), outcomes.get((RL, best_of(control)))
        if own is None:
            continue
        if condition == BEST_OF and least is not None:  # Choosing helps the control as well.
            own = own - least + outcomes[RL, control]
        found.append(scale.skill(name, BASE, condition, own))
    behind = scale.lost(name, DIFFERENCE, OWN_WORDS, outcomes[BASE, OWN_WORDS])
    return [*found, behind]


def anywhere_measures(
    starts: Sequence[Start],
    own: Float[np.ndarray, " start"],
    controls: Outcomes,
    resampling: Resampling,
) -> list[Measure]:
    """How much the RL model's own way from a start is worth over controls, and these themselves.

    Args:
        starts: Of one behaviour, drawn at random.
        own: Outcome of the RL model's own rollout from there.
        controls: Outcome of each control there.
        resampling: Makes intervals.
    """
    record, found = recorder(starts, resampling), []
    for (model, control), low in controls.items():
        known = np.flatnonzero(~(np.isnan(own) | np.isnan(low)))
        if len(known):
            there, name = record.at(known.tolist()), against(ANYWHERE, control)
            found.append(there.difference(name, model, OWN_WORDS, own[known], low[known]))
            found.append(there.share(AFTER_CONTROL, model, control, low[known]))
    return found
