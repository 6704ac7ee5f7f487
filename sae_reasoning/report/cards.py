"""The verdict on each behaviour in words, with what decided it and how near it is to turning."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast import steered, value
from sae_reasoning.contrast.execution import (
    ACCURACY,
    CORRECTED,
    HEURISTIC,
    OVER_HEURISTIC,
    OWN_OPENING,
)
from sae_reasoning.contrast.measures import DIFFERENCE, EQUIVALENCE_LEVEL, RATIO, Measure
from sae_reasoning.contrast.rates import PER_OPPORTUNITY, PER_TRACE
from sae_reasoning.contrast.steered import CORRECTED as STEERED
from sae_reasoning.contrast.steered import OVER, VECTOR
from sae_reasoning.records import BASE, RL
from sae_reasoning.report.figures import Axis, Bar
from sae_reasoning.report.never import never
from sae_reasoning.report.skill import skill_of
from sae_reasoning.report.verdict import (
    COSMETIC,
    CREATED,
    DEPLOYED,
    GATEWAY,
    INCONCLUSIVE,
    RARER,
    REDUCED,
    UNCHANGED,
    UNSETTLED,
    Evidence,
    Verdict,
)
from sae_reasoning.texts import bounded, number

_MEANS = {
    DEPLOYED: "The base could execute it already; training taught the RL model when to start it.",
    GATEWAY: "Training taught the RL model to enter thinking; while thinking, the behaviour is no "
    "more frequent.",
    RARER: "Training taught the RL model to think more; while thinking, it starts the behaviour "
    "less often.",
    UNSETTLED: "The base could execute it already; whether training taught when to start it, or "
    "only to think more, isn't settled.",
    CREATED: "The base can't execute it, however it is started; training created the behaviour.",
    COSMETIC: "Training taught the RL model to say it; what it says makes no difference to the "
    "answer.",
    UNCHANGED: "The RL model starts it as often as the base.",
    REDUCED: "The RL model starts it less often than the base.",
    INCONCLUSIVE: "The figures don't settle what training did.",
}
_IN_SHORT = {
    DEPLOYED: "the base could, training taught when",
    GATEWAY: "training taught to enter thinking, and with it the behaviour",
    RARER: "training taught to think more; while thinking, the behaviour is less frequent",
    UNSETTLED: "the base could; whether training taught when isn't settled",
    CREATED: "the base can't, training created it",
    COSMETIC: "more frequent, and nothing rests on it",
    UNCHANGED: "as often as in the base",
    REDUCED: "less often than in the base",
    INCONCLUSIVE: "the figures don't settle it",
}
_NAMES = {
    PER_TRACE: "expected starts a rollout",
    PER_OPPORTUNITY: "probability of a start at an opportunity, while thinking",
    ACCURACY: "execution accuracy, once started",
    CORRECTED: "chance-corrected accuracy, once started (0 is chance, 1 is always right)",
    STEERED: "chance-corrected accuracy under the best steering vector",
    OVER: "lead of the best steering vector",
    value.VALUE: "completions that are right after it",
    value.OVER: "right completions after the RL model's own over the control's (done again: equal)",
    value.AFTER_CONTROL: "right answers after the control, wherever the RL model starts it",
    value.REDONE_ANYWHERE: "completions after the control that do the behaviour again",
    value.ANYWHERE: "right answers wherever the RL model starts it, over those after the control",
    value.SKILL: "value skill, once started (0 is the control, 1 the RL model's own)",
    value.BY_PROGRAM: "validity by program, once started (0 is the control, 1 the RL model's own)",
    steered.SKILL: "value skill under the best steering vector",
    steered.SKILL_OVER: "lead of the best steering vector",
}
_CLEAR = 1.0
"""Half-widths of its interval that a bound is away from its margin where the verdict is clear."""
_ENOUGH = 20
"""Verdicts on models whose answer is known, below which their share that is right says little."""
NEVER = (
    "Never: not seen in rollouts with the thinking prefix forced, and next to nothing in "
    "probability; at most is the exact upper 95 % bound of the share of rollouts that start the "
    "behaviour, with problems as the unit, since rollouts on one may all be the same."
)
"""What pages mean by it."""
MODEL_NAMES = {RATIO: "RL ÷ base", DIFFERENCE: "RL − base", BASE: "base", RL: "RL model"}
"""How pages call a measure's model."""


@dataclass(frozen=True)
class Card:
    """The verdict on one behaviour, for people.

    Attributes:
        behaviour: Its label.
        verdict: As `report.verdict` gives it.
        qualifier: All that qualifies it, or "".
        means: What the verdict means.
        reason: What it rests on, in words with figures.
        sure: How far the decisive figures are from turning.
        heuristic: How far both models are above the best heuristic, or "".
        deciding: Figures that decided, each with its margin.
        others: Other figures that were compared with a margin.
    """

    behaviour: str
    verdict: str
    qualifier: str
    means: str
    reason: str
    sure: str
    heuristic: str
    deciding: tuple[Bar, ...]
    others: tuple[Bar, ...]


def headline(verdicts: Sequence[Verdict]) -> str:
    """All verdicts in one sentence."""
    groups: dict[str, list[str]] = {}
    for one in verdicts:
        groups.setdefault(_kind(one), []).append(one.behaviour)
    said = [
        f"{_listed(behaviours)} {'is' if len(behaviours) == 1 else 'are'} "
        f"{DEPLOYED if name in (GATEWAY, RARER, UNSETTLED) else name} ({_IN_SHORT[name]})"
        for name, behaviours in groups.items()
    ]
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


@dataclass(frozen=True)
class Summary:
    """A row of the first table: the answer on one behaviour at a glance.

    Attributes:
        behaviour: Its label.
        verdict: With its qualifier, if any.
        kind: The bare verdict.
        means: In a few words.
        starts: Expected starts a rollout, base and RL model.
        executed: What executions come to once started, base and RL model: accuracy, or value.
        checks: How many checks its verdict passed.
        certainty: How near the nearest check is to turning, in words.
        has_never: Whether the base was never seen to start it.
    """

    behaviour: str
    verdict: str
    kind: str
    means: str
    starts: tuple[str, str]
    executed: tuple[str, str]
    checks: str
    certainty: str
    has_never: bool = False


def summary(
    one: Verdict, measures: Sequence[Measure], thresholds: ReportConfig | None = None
) -> Summary:
    """The answer on one behaviour at a glance.

    Args:
        one: The verdict.
        measures: Of the contrast.
        thresholds: Of the verdict.
    """
    outcome = skill_of(measures, one.behaviour, thresholds or ReportConfig()).outcome

    def figure(name: str, model: str, condition: str = "") -> str:
        wanted = (one.behaviour, name, model, condition, 0.95)
        for m in measures:
            if (m.behaviour, m.measure, m.model, m.condition, m.level) == wanted:
                return bounded(m.value, m.low, m.high)
        return "–"

    deciding, _ = _split(one)
    passed = sum(e.passed for e in deciding)
    distance = min((_distance(e) for e in deciding if e.passed), default=math.nan)
    if one.verdict == INCONCLUSIVE or not deciding:
        certainty = "not sure"
    elif distance >= _CLEAR:
        certainty = "sure: clear of every margin"
    else:
        certainty = "fairly sure: near a margin"
    return Summary(
        behaviour=one.behaviour,
        verdict=f"{one.verdict} ({one.qualifier})" if one.qualifier else one.verdict,
        kind=one.verdict,
        means=_IN_SHORT[_kind(one)],
        has_never=bool(never(one.behaviour, measures)),
        starts=(
            never(one.behaviour, measures) or figure(PER_TRACE, BASE),
            figure(PER_TRACE, RL),
        ),
        executed=(figure(outcome, BASE, OWN_OPENING), figure(outcome, RL, OWN_OPENING)),
        checks=f"{passed} of {len(deciding)} checks pass" if deciding else "no checks",
        certainty=certainty,
    )


def over_heuristic(one: Verdict, measures: Sequence[Measure]) -> str:
    """How far both models are above the best heuristic, in a sentence; "" where it isn't known.

    No verdict reads it: a base that is no better than the heuristic may know nothing else.
    """
    wanted = (one.behaviour, OVER_HEURISTIC, HEURISTIC, 0.95)
    over = {
        m.model: m for m in measures if (m.behaviour, m.measure, m.condition, m.level) == wanted
    }
    if BASE not in over or RL not in over:
        return ""
    base, rl = (bounded(m.value, m.low, m.high) for m in (over[BASE], over[RL]))
    said = (
        f"execution accuracy minus that of the best heuristic is {base} in the base, {rl} in the "
        "RL model"
    )
    if over[BASE].low > 0 or one.verdict != DEPLOYED:
        return said
    return f"{said}: the base may know no more of this behaviour than the heuristic"


def card(one: Verdict, measures: Sequence[Measure] = ()) -> Card:
    """A verdict with its evidence as bars.

    Args:
        one: The verdict.
        measures: Of the contrast, for the comparison with a heuristic.
    """
    heuristic = over_heuristic(one, measures)
    deciding, others = _split(one)
    return Card(
        behaviour=one.behaviour,
        verdict=one.verdict,
        qualifier=one.qualifier,
        means=_MEANS[_kind(one)],
        reason=f"{one.reason[:1].upper()}{one.reason[1:]}.",
        sure=_sure(one, deciding),
        heuristic=f"{heuristic[:1].upper()}{heuristic[1:]}." if heuristic else "",
        deciding=tuple(map(_evidence_bar, deciding)),
        others=tuple(map(_evidence_bar, others)),
    )


def calibration_line(found: Mapping[str, Any] | None, has_same_margins: bool = True) -> str:
    """How often verdicts are right where the answer is known, in one sentence.

    Args:
        found: The calibration; none where there is none.
        has_same_margins: Whether those verdicts were given by the margins of this one.
    """
    right = found["right"].get("all") if found else None
    if right is None or not right["cells"]:
        return "How often such verdicts are right isn't known yet; `make calibrate` counts it."
    pairs = f"{right['pairs']} {'pair' if right['pairs'] == 1 else 'pairs'}"
    few = "" if right["cells"] >= _ENOUGH else "; too few to be an error rate"
    if not has_same_margins:
        few += "; by other margins than those of this page"
    return (
        f"How far to trust a verdict: on models whose answer is known, {right['value']:.0%} of "
        f"{right['cells']} verdicts given were right (95 % interval {right['low']:.0%} to "
        f"{right['high']:.0%}, {pairs}{few})."
    )


def plain_name(measure: str) -> str:
    """A measure of the contrast, in words."""
    name, _, rest = measure.partition(" ")
    who, _, condition = rest.partition(" ")
    condition = condition.replace("(90%)", "(90 % interval)")
    kind, _, control = name.rpartition("/")
    if name in _NAMES or kind not in _NAMES:
        kind, control = name, ""
    if kind in (OVER, steered.SKILL_OVER):
        against = f", on the scale of {control} sentences" if control else ""
        return f"{_NAMES[kind]} over its strongest control ({condition}){against}"
    named = _NAMES.get(kind, kind)
    if control:
        named = f"{named}, against {control} sentences"
    said = f"{named}: {MODEL_NAMES.get(who, who)}"
    return f"{said}, {condition}" if condition and condition != VECTOR else said


def _kind(one: Verdict) -> str:
    """The verdict, or the qualifier that says more of what was taught."""
    return next((name for name in one.qualifiers if name in _MEANS), one.verdict)


def _split(one: Verdict) -> tuple[list[Evidence], list[Evidence]]:
    """What decided, and the rest; of the leads over controls only the least is kept."""
    once: dict[tuple[str, float], Evidence] = {}
    for evidence in one.evidence:
        once[evidence.measure, evidence.margin] = evidence
    of_leads = (OVER, steered.SKILL_OVER)
    leads = [e for e in once.values() if e.measure.startswith(of_leads)]
    kept = [e for e in once.values() if not e.measure.startswith(of_leads)]
    if leads:
        kept.append(min(leads, key=lambda e: e.low))
    if one.verdict == INCONCLUSIVE:
        return kept, []
    # A vector's lead is asked for where a behaviour is deployed; created is decided without it.
    is_idle = [one.verdict == CREATED and e.measure.startswith(of_leads) for e in kept]
    deciding = [e for e, idle in zip(kept, is_idle, strict=True) if e.passed and not idle]
    return deciding, [e for e in kept if e not in deciding]


def _evidence_bar(evidence: Evidence) -> Bar:
    other = _other_margin(evidence)
    values = [evidence.margin, evidence.value, evidence.low, evidence.high]
    values += [] if other is None else [other]
    axis = Axis.of_ratios(values, "") if _is_ratio(evidence) else Axis.of(values, "")
    if other is not None:
        comparison = f"within {number(other)} and {number(evidence.margin)}"
        comparison = comparison if evidence.passed else f"not {comparison}"
    elif not evidence.passed:
        comparison = f"margin {number(evidence.margin)}: not cleared"
    elif evidence.low > evidence.margin:
        comparison = f"above {number(evidence.margin)}"
    else:
        comparison = f"below {number(evidence.margin)}"
    judged = f", judged by {evidence.judge}" if evidence.judge else ""
    return Bar(
        f"{plain_name(evidence.measure)}{judged}",
        evidence.value,
        evidence.low,
        evidence.high,
        evidence.n,
        axis,
        margin=evidence.margin,
        comparison=comparison,
        passed=evidence.passed,
        other_margin=other,
    )


def _sure(one: Verdict, deciding: Sequence[Evidence]) -> str:
    """How near the nearest decisive bound is to its margin."""
    if not deciding:
        return "Not sure: no figure could be compared with a margin."
    if one.verdict == INCONCLUSIVE:
        failed = sum(not e.passed for e in deciding)
        return f"Not sure: {failed} of {len(deciding)} figures don't clear their margin."

    nearest = min(deciding, key=_distance)
    bar = _evidence_bar(nearest)
    return (
        f"All {len(deciding)} figures that it needs clear their margins with the whole interval. "
        f"The nearest to turning: {bar.label}, {bar.figure}, {bar.comparison}."
    )


def _distance(e: Evidence) -> float:
    """Distance of the bound from the margin, in half-widths of the interval; ratios by their logs.

    An interval that ends nowhere has no width: the unit is then the margin's distance from 1.
    """
    other = _other_margin(e)
    if other is not None:
        return min(_between(e, e.low, other), _between(e, e.high, e.margin))
    return _between(e, e.low if e.low > e.margin else e.high, e.margin)


def _between(e: Evidence, bound: float, margin: float) -> float:
    def at(value: float) -> float:
        if not _is_ratio(e):
            return value
        return math.log(value) if value > 0 else -math.inf

    apart = abs(at(bound) - at(margin))
    if math.isinf(apart):
        return math.inf
    half = abs(at(e.value) - at(bound))
    if math.isinf(half):
        half = abs(at(margin))
    return apart / half if half > 0 else math.inf


def _is_ratio(e: Evidence) -> bool:
    return RATIO in e.measure.split()


def _other_margin(e: Evidence) -> float | None:
    """The lower one, where a figure is to lie within two: the inverse, or the same below 0."""
    if f"({EQUIVALENCE_LEVEL:.0%})" not in e.measure:
        return None
    return 1 / e.margin if _is_ratio(e) else -e.margin


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
