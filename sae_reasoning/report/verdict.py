"""The verdict on a behaviour: the first line that applies.

1. `inconclusive`: too few opportunities or starts, or a needed measure is missing.
2. `unchanged`: the rates per trace and per opportunity are level; `reduced`: the rate per trace has
   fallen and the rate per opportunity isn't up.
3. `deployed`: the rate per trace is up, both models execute the behaviour once it is started, the
   base as well as the RL model, and steering one position of the residual stream makes the base
   execute it, beyond chance, more often than every control. The qualifier says how the rate per
   opportunity went, given that the trace is thinking: `gateway` where it is level, so that what was
   taught is to enter thinking; `less frequent while thinking` where it is down; `when unclear`
   where that isn't settled. A model that doesn't choose whether to think has no gateway.
4. `created`: the rate per trace is up, the RL model executes the behaviour, and the base is unable
   however it is started: its own opening, its best opening, the best of k samples, the best
   steering vector.
5. `inconclusive`: anything else.

A rate is *up* where its ratio's lower bound is above the threshold and its difference's above the
smallest that counts; *down* likewise; *level* where the 90 % interval of the ratio lies within the
threshold and its inverse (two one-sided tests at 5 %), or that of the difference within the
smallest that counts. Where the ratio has no interval, as neither model shows the behaviour, the
difference decides; where the ratio wasn't measured, nothing does.
A model executes a behaviour where its chance-corrected accuracy (0 is chance, 1 is always right) is
above `able`, and is unable below `unable`; the base does so as well as the RL model where it is
less than `margin` behind. Thresholds apply to bounds, never to points. Nothing that says how the
pair was made is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.execution import (
    ACCURACY,
    BEST_OF,
    BEST_OPENING,
    CORRECTED,
    OWN_OPENING,
    RANDOM_FILL,
)
from sae_reasoning.contrast.measures import DIFFERENCE, EQUIVALENCE_LEVEL, RATIO, Measure
from sae_reasoning.contrast.rates import ENTER_THINKING, OCCURS, PER_OPPORTUNITY, PER_TRACE
from sae_reasoning.contrast.steered import CORRECTED as STEERED
from sae_reasoning.contrast.steered import OVER, VECTOR
from sae_reasoning.records import BASE, RL
from sae_reasoning.stats import most_of_none
from sae_reasoning.texts import number

CREATED, DEPLOYED, UNCHANGED, REDUCED, INCONCLUSIVE = (
    "created",
    "deployed",
    "unchanged",
    "reduced",
    "inconclusive",
)
VERDICTS = (DEPLOYED, CREATED, UNCHANGED, REDUCED, INCONCLUSIVE)
GATEWAY, RARER, UNSETTLED = "gateway", "less frequent while thinking", "when unclear"
_JUDGED = (ACCURACY, CORRECTED, STEERED, OVER)
"""Measures that rest on a judge of executions."""
_CONTROLS = {CORRECTED: RANDOM_FILL, STEERED: RANDOM_FILL}
"""Control within a measure that has no other: chance is what a random fill earns."""
_STEPS = {
    "onset_probability/": "onset probability",
    ACCURACY: "execution accuracy",
    CORRECTED: "execution accuracy",
    "steered/": "steering vectors",
}
"""Steps of the contrast, by the beginning of their measures."""
_NEVER = 0.0005
"""Starts a trace, below which people say never."""


@dataclass(frozen=True)
class Evidence:
    """One figure that the verdict rests on.

    Attributes:
        measure: What it is, with model and condition.
        value: Estimate.
        low: Lower bound.
        high: Upper bound.
        n: Problems.
        margin: What the bound is compared with.
        passed: Whether it passed.
        judge: Who judged executions, where the figure rests on them; else "".
        control: What the figure is measured against, where that is a control; else "".
    """

    measure: str
    value: float
    low: float
    high: float
    n: int
    margin: float
    passed: bool
    judge: str = ""
    control: str = ""


@dataclass(frozen=True)
class Verdict:
    """What training did to one behaviour.

    Attributes:
        behaviour: Its label.
        verdict: `deployed`, `created`, `unchanged`, `reduced` or `inconclusive`.
        qualifier: `gateway`, `less frequent while thinking`, `when unclear` or "".
        reason: The verdict in plain words.
        evidence: Every figure that was compared with a margin.
    """

    behaviour: str
    verdict: str
    qualifier: str
    reason: str
    evidence: list[Evidence]


class _MissingError(LookupError):
    """A needed measure that isn't there."""


class _NoIntervalError(_MissingError):
    """A needed measure that is there, without an interval."""


@dataclass
class _Case:
    """The measures of one behaviour, and what was compared with margins so far."""

    behaviour: str
    measures: Sequence[Measure]
    thresholds: ReportConfig
    judge: str
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def chooses_to_think(self) -> bool:
        """Whether the RL model has a probability of entering thinking: else it has no choice."""
        return any(one.measure == ENTER_THINKING and one.model == RL for one in self.measures)

    def get(self, measure: str, model: str, condition: str = "", level: float = 0.95) -> Measure:
        for one in self.measures:
            key = (one.behaviour, one.measure, one.model, one.condition, one.level)
            if key == (self.behaviour, measure, model, condition, level):
                if one.low != one.low or one.high != one.high:
                    raise _NoIntervalError(f"{_name(one)} has no interval")
                return one
        share = "" if level == 0.95 else f" ({level:.0%})"
        raise _MissingError(f"{measure} {model} {condition}".strip() + f"{share} wasn't measured")

    def ratio(self, measure: str, level: float = 0.95) -> Measure | None:
        """Of both models' rates; None where it was measured but has no interval."""
        try:
            return self.get(measure, RATIO, level=level)
        except _NoIntervalError:
            return None

    def all(self, measure: str) -> list[Measure]:
        found = [
            m
            for m in self.measures
            if (m.behaviour, m.measure, m.level) == (self.behaviour, measure, 0.95)
        ]
        if not found:
            raise _MissingError(f"{measure} wasn't measured")
        return found

    def above(self, one: Measure, margin: float) -> bool:
        return self._hold(one, margin, one.low > margin)

    def below(self, one: Measure, margin: float) -> bool:
        return self._hold(one, margin, one.high < margin)

    def within(self, one: Measure, low: float, high: float) -> bool:
        return self._hold(one, high, low < one.low and one.high < high)

    def _hold(self, one: Measure, margin: float, passed: bool) -> bool:
        self.evidence.append(
            Evidence(
                _name(one),
                one.value,
                one.low,
                one.high,
                one.n,
                margin,
                passed,
                self.judge if one.measure in _JUDGED else "",
                one.condition if one.measure == OVER else _CONTROLS.get(one.measure, ""),
            )
        )
        return passed

    def holds(self, check: Callable[[], bool]) -> bool:
        """Whether all of a check's figures pass; those of one that fails aren't evidence."""
        before = len(self.evidence)
        if passed := check():
            return passed
        del self.evidence[before:]
        return False

    def says(self, verdict: str, reason: str, qualifier: str = "") -> Verdict:
        return Verdict(self.behaviour, verdict, qualifier, reason, self.evidence)


def verdict(
    behaviour: str,
    measures: Sequence[Measure],
    thresholds: ReportConfig,
    judge: str = "",
    lacking: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Verdict:
    """The verdict on one behaviour.

    Args:
        behaviour: Its label.
        measures: Of the contrast.
        thresholds: The verdict's margins and thresholds.
        judge: Name of the judge of executions, which figures are cited with.
        lacking: By step of the contrast that was left out, the capabilities that the task lacks.
    """
    case = _Case(behaviour, measures, thresholds, judge)
    try:
        return _judge(case)
    except _MissingError as missing:
        steps = [step for start, step in _STEPS.items() if str(missing).startswith(start)]
        lacks = [name for step in steps for name in lacking.get(step, ())]
        why = f", since this task has no {' and no '.join(lacks)}" if lacks else ""
        return case.says(INCONCLUSIVE, f"a needed measure is missing: {missing}{why}")


def _judge(case: _Case) -> Verdict:
    thresholds, behaviour = case.thresholds, case.behaviour
    given = case.get(PER_OPPORTUNITY, DIFFERENCE)
    met = given.items // 2
    if met < thresholds.min_opportunities or given.n < thresholds.min_problems:
        return case.says(
            INCONCLUSIVE,
            f"{met} opportunities for {behaviour} on {given.n} problems are too few to judge a "
            f"rate; {thresholds.min_opportunities} on {thresholds.min_problems} are needed",
        )
    trace_level, given_level = _is_level(case, PER_TRACE), _is_level(case, PER_OPPORTUNITY)
    often = _often(case)
    if trace_level and given_level:
        return case.says(UNCHANGED, f"the RL model starts {behaviour} as often as the base")
    if _is_down(case, PER_TRACE) and not _is_up(case, PER_OPPORTUNITY):
        return case.says(REDUCED, often)
    if not _is_up(case, PER_TRACE):
        return case.says(
            INCONCLUSIVE, f"the rate of {behaviour} is neither clearly up nor down nor level"
        )
    own = case.get(ACCURACY, RL, OWN_OPENING)
    if own.items < thresholds.min_starts or own.n < thresholds.min_problems:
        return case.says(
            INCONCLUSIVE,
            f"{often}, but {own.items} starts on {own.n} problems are too few to judge its "
            f"execution; {thresholds.min_starts} on {thresholds.min_problems} are needed",
        )
    executes = case.above(case.get(CORRECTED, RL, OWN_OPENING), thresholds.able)
    is_equal = case.below(case.get(CORRECTED, DIFFERENCE, OWN_OPENING), thresholds.margin)
    is_able = case.above(case.get(CORRECTED, BASE, OWN_OPENING), thresholds.able)
    steered = case.get(STEERED, BASE, VECTOR)
    leads = [case.above(one, 0.0) for one in case.all(OVER)]
    is_steered = all(leads)
    base = case.get(ACCURACY, BASE, OWN_OPENING).value
    executed = f"executes it in {base:.0%} of starts (the RL model in {own.value:.0%})"
    if executes and is_equal and is_able and is_steered:
        taught, qualifier = _taught(case, given_level)
        return case.says(
            DEPLOYED,
            f"{often}; the base {executed}, and steering one position makes it execute the "
            f"behaviour: training taught {taught}",
            qualifier,
        )
    lacking = [
        case.below(case.get(CORRECTED, BASE, words), thresholds.unable)
        for words in (OWN_OPENING, BEST_OPENING, BEST_OF)
    ]
    lacking.append(case.below(steered, thresholds.unable))
    if executes and all(lacking):
        return case.says(
            CREATED,
            f"{often}; the base {executed}, and no opening, sample or steering vector makes it do "
            "so: the base lacks the behaviour",
        )
    return case.says(
        INCONCLUSIVE, _unsettled(often, executes, is_equal and is_able, is_steered, executed)
    )


def _taught(case: _Case, is_level: bool) -> tuple[str, str]:
    """What training taught of a deployed behaviour, in words, and the qualifier."""
    if case.holds(lambda: _is_up(case, PER_OPPORTUNITY)):
        return "when to start it", ""
    if is_level and case.chooses_to_think:
        return "to enter thinking; while thinking, the behaviour is no more frequent", GATEWAY
    if is_level:
        return (
            "to think longer, or when: at an opportunity the behaviour is no more frequent, and "
            "the model doesn't choose whether to think",
            UNSETTLED,
        )
    if case.holds(lambda: _is_down(case, PER_OPPORTUNITY)):
        return "to think more; while thinking, the behaviour is less frequent", RARER
    return (
        "to think more, or when: the rate while thinking is neither clearly up nor down nor level",
        UNSETTLED,
    )


def _often(case: _Case) -> str:
    """Both rates in words."""
    base, rl = (case.get(PER_TRACE, model).value for model in (BASE, RL))
    before = never(case.behaviour, case.measures, ", exact upper 95 % bound")
    if not before:
        before = f"{number(base)} times" if base >= _NEVER else "never"
    return f"the RL model starts {case.behaviour} {number(rl)} times a trace, the base {before}"


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
    if seen.value > 0 or own[PER_TRACE].value >= _NEVER:
        return ""
    most = number(most_of_none(seen.n))
    return f"never in {seen.items:,} rollouts on {seen.n:,} problems (at most {most}{bound})"


def _unsettled(often: str, executes: bool, is_equal: bool, is_steered: bool, executed: str) -> str:
    if not executes:
        return f"{often}, but the RL model itself doesn't clearly execute it"
    if is_equal and not is_steered:
        return f"{often}; the base {executed}, but no steering vector outperforms every control"
    return f"{often}, but the base {executed}: neither as well as the RL model nor clearly unable"


def _is_level(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure, EQUIVALENCE_LEVEL)
    difference = case.get(measure, DIFFERENCE, level=EQUIVALENCE_LEVEL)
    least, most = case.thresholds.rate_difference, case.thresholds.rate_ratio
    is_level = ratio is not None and case.within(ratio, 1 / most, most)
    return is_level or case.within(difference, -least, least)


def _is_up(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure)
    is_more = ratio is None or case.above(ratio, case.thresholds.rate_ratio)
    return case.above(case.get(measure, DIFFERENCE), case.thresholds.rate_difference) and is_more


def _is_down(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure)
    is_less = ratio is None or case.below(ratio, 1 / case.thresholds.rate_ratio)
    return case.below(case.get(measure, DIFFERENCE), -case.thresholds.rate_difference) and is_less


def _name(one: Measure) -> str:
    level = "" if one.level == 0.95 else f" ({one.level:.0%})"
    return " ".join(filter(None, [one.measure, one.model, one.condition])) + level
