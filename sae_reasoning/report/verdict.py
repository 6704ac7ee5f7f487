"""The verdict on a move: the first line that applies.

1. `inconclusive`: too few opportunities or starts, or a needed measure is missing.
2. `unchanged`: the rates per trace and per opportunity are level; `reduced`: the rate per trace has
   fallen and the rate per opportunity isn't up.
3. `deployed`: the rate per trace is up, both models execute the move once it's started, the base as
   well as the RL model, and a push of the residual makes the base carry it out, beyond chance, more
   often than every control. Qualifier by the rate per opportunity, given that the trace is
   thinking: `gateway` where it's level, so what was taught is to think more; `rarer in thought`
   where it's down; `when unclear` where that isn't settled.
4. `created`: the rate per trace is up, the RL model executes the move, and the base is unable under
   every trigger: its own words, its best wording, the best of several tries, the best push.
5. `inconclusive`: anything else.

A rate is *up* where its ratio's lower bound is above the margin and its difference's above the
smallest that counts; *down* likewise; *level* where the 90 % interval of the ratio lies within the
margin and its inverse (two one-sided tests at 5 %), or that of the difference within the smallest
that counts. Where the ratio has no interval, as neither model makes the move, the difference
decides; where the ratio wasn't measured, nothing does.
A model executes a move where its skill, the way from chance to certainty, is above `able`, and is
unable below `unable`; the base as well as the RL model where it lacks less than `skill_margin` of
that way. Bars apply to bounds, never to points. Nothing that says how the pair was
made is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.measures import (
    BASE,
    DIFFERENCE,
    EQUIVALENCE_LEVEL,
    RATIO,
    RL,
    Measure,
)
from sae_reasoning.contrast.rates import GIVEN_THINKING, OCCURS, PER_TRACE
from sae_reasoning.contrast.triggers import OVER, TRIGGER
from sae_reasoning.contrast.triggers import SKILL as PUSHED
from sae_reasoning.contrast.validity import BEST_OF, BEST_WORDS, OWN_WORDS, SKILL, VALIDITY
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
GATEWAY, RARER, UNSETTLED = "gateway", "rarer in thought", "when unclear"
_NEVER = 0.0005
"""Times a trace, below which people say never."""


@dataclass(frozen=True)
class Evidence:
    """One figure that the verdict rests on.

    Attributes:
        measure: What it is, with model and condition.
        value: Estimate.
        low: Lower bound.
        high: Upper bound.
        n: Problems.
        margin: What the bound is held against.
        passed: Whether it passed.
    """

    measure: str
    value: float
    low: float
    high: float
    n: int
    margin: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """What training did to one move.

    Attributes:
        behaviour: The move.
        verdict: `deployed`, `created`, `unchanged`, `reduced` or `inconclusive`.
        qualifier: `gateway`, `rarer in thought`, `when unclear` or "".
        reason: The verdict in plain words.
        evidence: Every figure that was held against a margin.
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
    """The measures of one move, and what was held against margins so far."""

    behaviour: str
    measures: Sequence[Measure]
    bars: ReportConfig
    evidence: list[Evidence] = field(default_factory=list)

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
            Evidence(_name(one), one.value, one.low, one.high, one.n, margin, passed)
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


def verdict(behaviour: str, measures: Sequence[Measure], bars: ReportConfig) -> Verdict:
    """The verdict on one move.

    Args:
        behaviour: The move.
        measures: Of the contrast.
        bars: Margins and bars.
    """
    case = _Case(behaviour, measures, bars)
    try:
        return _judge(case)
    except _MissingError as missing:
        return case.says(INCONCLUSIVE, f"a needed measure is missing: {missing}")


def _judge(case: _Case) -> Verdict:
    bars, move = case.bars, case.behaviour
    given = case.get(GIVEN_THINKING, DIFFERENCE)
    met = given.items // 2
    if met < bars.min_opportunities or given.n < bars.min_problems:
        return case.says(
            INCONCLUSIVE,
            f"{met} opportunities for {move} on {given.n} problems are too few to judge a rate; "
            f"{bars.min_opportunities} on {bars.min_problems} are asked for",
        )
    trace_level, given_level = _is_level(case, PER_TRACE), _is_level(case, GIVEN_THINKING)
    often = _often(case)
    if trace_level and given_level:
        return case.says(UNCHANGED, f"the model makes {move} as often as its base does")
    if _is_down(case, PER_TRACE) and not _is_up(case, GIVEN_THINKING):
        return case.says(REDUCED, often)
    if not _is_up(case, PER_TRACE):
        return case.says(
            INCONCLUSIVE, f"the rate of {move} is neither clearly up nor down nor level"
        )
    own = case.get(VALIDITY, RL, OWN_WORDS)
    if own.items < bars.min_starts or own.n < bars.min_problems:
        return case.says(
            INCONCLUSIVE,
            f"{often}, but {own.items} starts on {own.n} problems are too few to judge how it's "
            f"carried out; {bars.min_starts} on {bars.min_problems} are asked for",
        )
    executes = case.above(case.get(SKILL, RL, OWN_WORDS), bars.able)
    is_equal = case.below(case.get(SKILL, DIFFERENCE, OWN_WORDS), bars.skill_margin)
    is_able = case.above(case.get(SKILL, BASE, OWN_WORDS), bars.able)
    pushed = case.get(PUSHED, BASE, TRIGGER)
    beaten = [case.above(one, 0.0) for one in case.all(OVER)]
    is_pushed = all(beaten)
    base = case.get(VALIDITY, BASE, OWN_WORDS).value
    executed = f"executes it in {base:.0%} of starts (the model in {own.value:.0%})"
    if executes and is_equal and is_able and is_pushed:
        taught, qualifier = _taught(case, given_level)
        return case.says(
            DEPLOYED,
            f"{often}; the base {executed} and a push of its residual makes it carry the move out: "
            f"training taught it {taught}",
            qualifier,
        )
    lacking = [
        case.below(case.get(SKILL, BASE, words), bars.unable)
        for words in (OWN_WORDS, BEST_WORDS, BEST_OF)
    ]
    lacking.append(case.below(pushed, bars.unable))
    if executes and all(lacking):
        return case.says(
            CREATED,
            f"{often}; the base {executed}, and no wording, try or push makes it do so: the move "
            "wasn't there",
        )
    return case.says(
        INCONCLUSIVE, _unsettled(often, executes, is_equal and is_able, is_pushed, executed)
    )


def _taught(case: _Case, is_level: bool) -> tuple[str, str]:
    """What a deployed move was taught by the rate within thought, in words, and the qualifier."""
    if case.holds(lambda: _is_up(case, GIVEN_THINKING)):
        return "when", ""
    if is_level:
        return "to think more; within thought the move is no more frequent", GATEWAY
    if case.holds(lambda: _is_down(case, GIVEN_THINKING)):
        return "to think more; within thought it makes the move less often", RARER
    return (
        "to think more, or when: the rate within thought is neither clearly up nor down nor level",
        UNSETTLED,
    )


def _often(case: _Case) -> str:
    """Both rates in words."""
    base, rl = (case.get(PER_TRACE, model).value for model in (BASE, RL))
    before = never(case.behaviour, case.measures, ", exact upper 95 % bound")
    if not before:
        before = f"{number(base)} times" if base >= _NEVER else "never"
    return f"the model makes {case.behaviour} {number(rl)} times a trace, its base {before}"


def never(behaviour: str, measures: Sequence[Measure], bound: str = "") -> str:
    """That the base was never seen to start a move, with how often it might; "" where it was.

    A rate that the onset mass shows to be more than nothing stands instead. The bound is exact on
    problems: rollouts on one of them may all be alike.

    Args:
        behaviour: The move.
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


def _unsettled(often: str, executes: bool, is_equal: bool, is_pushed: bool, executed: str) -> str:
    said = f"{often}, but "
    if not executes:
        return f"{said}doesn't clearly carry it out itself"
    if is_equal and not is_pushed:
        return f"{often}; though the base {executed}, no push beats every control"
    return f"{said}the base {executed}: neither as well as the model nor clearly unable"


def _is_level(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure, EQUIVALENCE_LEVEL)
    difference = case.get(measure, DIFFERENCE, level=EQUIVALENCE_LEVEL)
    least, most = case.bars.rate_difference, case.bars.rate_ratio
    is_level = ratio is not None and case.within(ratio, 1 / most, most)
    return is_level or case.within(difference, -least, least)


def _is_up(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure)
    is_more = ratio is None or case.above(ratio, case.bars.rate_ratio)
    return case.above(case.get(measure, DIFFERENCE), case.bars.rate_difference) and is_more


def _is_down(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure)
    is_less = ratio is None or case.below(ratio, 1 / case.bars.rate_ratio)
    return case.below(case.get(measure, DIFFERENCE), -case.bars.rate_difference) and is_less


def _name(one: Measure) -> str:
    level = "" if one.level == 0.95 else f" ({one.level:.0%})"
    return " ".join(filter(None, [one.measure, one.model, one.condition])) + level
