"""The verdict on a behaviour: the first line that applies.

1. `inconclusive`: too few opportunities or starts, or a needed measure is missing.
2. `unchanged`: the rates per trace and per opportunity are level; `reduced`: the rate per trace has
   fallen and the rate per opportunity isn't up.
3. `cosmetic`: the rate per trace is up, and what the behaviour says makes no difference to the
   answer: wherever it starts, the RL model's own way on is worth hardly more (upper bound) than a
   displaced sentence, and than one without the behaviour. Only where executions are valued by
   completion, where controls leave the answer open (between 5 and 95 % are right), and where fewer
   than half of completions do the behaviour again. What follows is judged where pilots find that
   the answer rests on the behaviour.
4. `deployed`: the rate per trace is up, both models execute the behaviour once it is started, the
   base as well as the RL model, and steering one position of the residual stream makes the base
   execute it more often than every control. The qualifier says how the rate per opportunity went,
   given that the trace is thinking: `gateway` where it is level, so that what was taught is to
   enter thinking; `less frequent while thinking` where it is down; `when unclear` where that isn't
   settled. A model that doesn't choose whether to think has no gateway.
5. `created`: the rate per trace is up, the RL model executes the behaviour, and the base is unable
   however it is started: in its own words, in the RL model's, by its best opening, the best of k
   samples, the best steering vector.
6. `inconclusive`: anything else; so where nothing is shown to rest on the behaviour, and where two
   judges are on different sides of a threshold.

A rate is *up* where its ratio's lower bound is above the threshold and its difference's above the
smallest that counts; *down* likewise; *level* where the 90 % interval of the ratio lies within the
threshold and its inverse (two one-sided tests at 5 %), or that of the difference within the
smallest that counts; of rates per opportunity only where the ratio's interval reaches the
threshold, as an opportunity may be every sentence. Where the ratio has no interval, as neither
model shows the behaviour, the difference decides; where the ratio wasn't measured, nothing does.
How well the base executes it is said on one scale (`report.skill`): 0 is no ability, 1 full. It
does so above `able`, is unable below `unable`, and does as well as the RL model where it is less
than `margin` behind. Thresholds apply to bounds, never to points. Where labels are by cue words
alone, every verdict is qualified by that. Nothing that says how the pair was made is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast import steered, value
from sae_reasoning.contrast.execution import ACCURACY, CORRECTED, OWN_OPENING, RANDOM_FILL
from sae_reasoning.contrast.measures import DIFFERENCE, EQUIVALENCE_LEVEL, RATIO, Measure
from sae_reasoning.contrast.rates import ENTER_THINKING, PER_OPPORTUNITY, PER_TRACE
from sae_reasoning.contrast.value import COMPLETION, DISPLACED, FOREIGN, NEUTRAL, against
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.report.never import NEVER_BELOW, never
from sae_reasoning.report.skill import Skill, skill_of
from sae_reasoning.texts import bounded, number

CREATED, DEPLOYED, COSMETIC, UNCHANGED, REDUCED, INCONCLUSIVE = (
    "created",
    "deployed",
    "cosmetic",
    "unchanged",
    "reduced",
    "inconclusive",
)
VERDICTS = (DEPLOYED, CREATED, COSMETIC, UNCHANGED, REDUCED, INCONCLUSIVE)
GATEWAY, RARER, UNSETTLED = "gateway", "less frequent while thinking", "when unclear"
BY_CUES = "by cue words"
"""Qualifies verdicts on behaviours that nothing but their words marks."""
CUES = "cues"
"""Name of the annotator that marks behaviours by their words alone."""
_BY_TASKS_JUDGE = (ACCURACY, CORRECTED, steered.CORRECTED, steered.OVER)
"""Measures that rest on the task's judge of executions, as those that end in a control may."""
_CONTROLS = {CORRECTED: RANDOM_FILL, steered.CORRECTED: RANDOM_FILL}
"""Control within a measure that has no other: chance is what a random fill earns."""
_STEPS = {
    "onset_probability/": "onset probability",
    ACCURACY: "execution accuracy",
    CORRECTED: "execution accuracy",
    **dict.fromkeys((value.VALUE, value.OVER, value.ANYWHERE, value.SKILL), "execution value"),
    "steered/": "steering vectors",
}
"""Steps of the contrast, by the beginning of their measures."""
_CONTROL_NAMES = {
    DISPLACED: "its sentence from another place of the same problem",
    FOREIGN: "its sentence from another problem",
    NEUTRAL: "a sentence without the behaviour",
}
_LEADS = {name.partition("/")[2] for name in (steered.OVER, steered.SKILL_OVER)}  # Of a vector.
_IDLE = {name: _CONTROL_NAMES[name] for name in (DISPLACED, NEUTRAL)}
"""Controls that do as well where a behaviour is cosmetic."""
_OPEN = (0.05, 0.95)  # Right answers after a control, where something could make a difference.
_REDONE = 0.5  # Completions after a control that do the behaviour again, where it is left out.


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
        verdict: `deployed`, `created`, `cosmetic`, `unchanged`, `reduced` or `inconclusive`.
        qualifiers: Of `gateway`, `less frequent while thinking`, `when unclear` and `by cue words`.
        reason: The verdict in plain words.
        evidence: Every figure that was compared with a margin.
    """

    behaviour: str
    verdict: str
    qualifiers: tuple[str, ...]
    reason: str
    evidence: list[Evidence]

    @property
    def qualifier(self) -> str:
        """All qualifiers, in words; "" where there are none."""
        return ", ".join(self.qualifiers)


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
    annotator: str = ""
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

    def find(self, measure: str, model: str, condition: str = "") -> Measure | None:
        """A measure, where there is one that has an interval."""
        try:
            return self.get(measure, model, condition)
        except _MissingError:
            return None

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
        judge, control = self._judge_of(one), _control_in(one)
        bounds = one.value, one.low, one.high
        self.evidence.append(Evidence(_name(one), *bounds, one.n, margin, passed, judge, control))
        return passed

    def _judge_of(self, one: Measure) -> str:
        name = one.measure.partition("/")[0]
        if one.measure in _BY_TASKS_JUDGE or name == value.BY_PROGRAM:
            return self.judge
        of_value = (value.VALUE, value.OVER, value.ANYWHERE, value.SKILL)
        is_steered = one.measure.startswith((steered.SKILL, steered.SKILL_OVER))
        return COMPLETION if name in of_value or is_steered else ""

    def holds(self, check: Callable[[], bool]) -> bool:
        """Whether all of a check's figures pass; those of one that fails aren't evidence."""
        before = len(self.evidence)
        if passed := check():
            return passed
        del self.evidence[before:]
        return False

    def says(self, verdict: str, reason: str, qualifier: str = "") -> Verdict:
        by_cues = verdict != INCONCLUSIVE and self.annotator == CUES
        qualifiers = (qualifier, BY_CUES if by_cues else "")
        return Verdict(
            self.behaviour, verdict, tuple(filter(None, qualifiers)), reason, self.evidence
        )


def verdict(
    behaviour: str,
    measures: Sequence[Measure],
    thresholds: ReportConfig,
    judge: str = "",
    lacking: Mapping[str, Sequence[str]] = MappingProxyType({}),
    annotator: str = "",
) -> Verdict:
    """The verdict on one behaviour.

    Args:
        behaviour: Its label.
        measures: Of the contrast.
        thresholds: The verdict's margins and thresholds.
        judge: Name of the judge of executions, which figures are cited with.
        lacking: By step of the contrast that was left out, the capabilities that the task lacks.
        annotator: Name of what marks behaviours.
    """
    case = _Case(behaviour, measures, thresholds, judge, annotator)
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
    is_absent = all(case.get(PER_TRACE, model).value == 0 for model in MODELS)
    absent = "; neither model starts it in any trace" if is_absent else ""
    if trace_level and given_level:
        return case.says(UNCHANGED, f"the RL model starts {behaviour} as often as the base{absent}")
    if _is_down(case, PER_TRACE) and not _is_up(case, PER_OPPORTUNITY):
        return case.says(REDUCED, often)
    if not _is_up(case, PER_TRACE):
        how = "is level, and that per opportunity isn't" if trace_level else "isn't clearly up"
        return case.says(INCONCLUSIVE, f"the rate of {behaviour} per trace {how}{absent}")
    skill = skill_of(case.measures, behaviour, thresholds)
    if found := _without_worth(case, often):
        return found
    if found := _too_little(case, skill, often):
        return found
    executes = skill.is_worth or case.above(case.get(*skill.executes), skill.executes_above)
    is_equal = case.below(case.get(*skill.behind), thresholds.margin)
    is_able = case.above(case.get(*skill.base), thresholds.able)
    leads = [case.above(one, 0.0) for one in case.all(skill.leads)]
    is_steered = all(leads)
    executed = _executed(case, skill)
    if said := _disagreement(case, skill):
        return case.says(INCONCLUSIVE, f"{often}, but {said}")
    if executes and is_equal and is_able and is_steered:
        taught, qualifier = _taught(case, given_level)
        return case.says(
            DEPLOYED,
            f"{often}; the base {executed}, and steering one position makes it execute the "
            f"behaviour: training taught {taught}",
            qualifier,
        )
    fails = [case.below(case.get(*key), thresholds.unable) for key in skill.failing]
    if executes and all(fails):
        return case.says(
            CREATED,
            f"{often}; the base {executed}, and no opening, sample or steering vector makes it do "
            "so: the base lacks the behaviour",
        )
    return case.says(
        INCONCLUSIVE, _unsettled(often, executes, is_equal and is_able, is_steered, executed)
    )


def _without_worth(case: _Case, often: str) -> Verdict | None:
    """The verdict where what the behaviour says makes no difference to the answer."""
    margin, least = case.thresholds.cosmetic_margin, case.thresholds.min_displaced
    over, checks = dict[str, Measure](), list[Callable[[], bool]]()
    for name in _IDLE:
        worth = case.find(against(value.ANYWHERE, name), RL, OWN_OPENING)
        after = case.find(value.AFTER_CONTROL, RL, name)
        again = case.find(value.REDONE_ANYWHERE, RL, name)
        if worth is None or after is None or again is None or worth.items < least:
            return None
        over[name] = worth
        checks.append(partial(case.below, worth, margin))
        checks.append(partial(case.within, after, *_OPEN))
        checks.append(partial(case.below, again, _REDONE))
    if not case.holds(lambda: all(check() for check in checks)):
        return None
    more = [f"{bounded(m.value, m.low, m.high)} than {_IDLE[name]}" for name, m in over.items()]
    said = f"{often}; what it says makes no difference to the answer: wherever it starts, the RL"
    return case.says(COSMETIC, f"{said} model is right more often by {' and '.join(more)}")


def _too_little(case: _Case, skill: Skill, often: str) -> Verdict | None:
    """The verdict where executions are too few, or nothing is shown to rest on them."""
    thresholds, headroom = case.thresholds, case.find(value.HEADROOM, RL)
    key, where = (skill.outcome, RL, OWN_OPENING), ""
    own = case.find(*key) if headroom else case.get(*key)
    if headroom:
        tried = f"{headroom.value:.0%} of {headroom.items:,} that were tried"
        where = f" at which the answer rests on it ({tried})"
    items, n = (own.items, own.n) if own else (0, 0)
    if items < thresholds.min_starts or n < thresholds.min_problems:
        return case.says(
            INCONCLUSIVE,
            f"{often}, but {items} starts on {n} problems{where} are too few to judge its "
            f"execution; {thresholds.min_starts} on {thresholds.min_problems} are needed",
        )
    if not skill.is_worth:
        return None
    rests = case.get(*skill.executes)
    is_shown = case.above(rests, 0.0)
    if is_shown and not case.holds(lambda: case.below(rests, thresholds.min_gap)):
        return None
    said = "too little rests on it for a skill" if is_shown else "nothing is shown to rest on it"
    by = f"{_CONTROL_NAMES[skill.control]} by {bounded(rests.value, rests.low, rests.high)}"
    completed = f"completed by the RL model, its own sentence is right more often than {by}"
    completed += ", what does it again counting as that"
    return case.says(INCONCLUSIVE, f"{often}, but {said}: {completed}")


def _disagreement(case: _Case, skill: Skill) -> str:
    """That a second judge is on the other side of a threshold, in words; "" where none is."""
    if skill.second is None:
        return ""
    first, second = case.find(*skill.base), case.find(*skill.second)
    if first is None or second is None:
        return ""
    for threshold in (case.thresholds.able, case.thresholds.unable):
        for above, below in ((first, second), (second, first)):
            if above.low > threshold > below.high:
                case.above(first, threshold)
                case.above(second, threshold)
                return (
                    f"two judges disagree on the base: by {COMPLETION} its skill is "
                    f"{bounded(first.value, first.low, first.high)}, by {case.judge} "
                    f"{bounded(second.value, second.low, second.high)}"
                )
    return ""


def _executed(case: _Case, skill: Skill) -> str:
    """How well the base executes the behaviour, in words."""
    base, rl = (case.get(skill.outcome, model, OWN_OPENING) for model in (BASE, RL))
    if not skill.is_worth:
        return f"executes it in {base.value:.0%} of starts (the RL model in {rl.value:.0%})"
    own, rests = case.get(*skill.base), case.get(*skill.executes)
    caveats = []
    displaced = case.find(against(value.OVER, DISPLACED), RL, OWN_OPENING)
    if displaced is None or displaced.items < case.thresholds.min_displaced:
        caveats.append("too few starts have a displaced sentence to measure against")
    if rests.value < case.thresholds.min_gap:
        caveats.append(
            f"little rests on it, {number(rests.value)}, so that intervals of the skill say less"
        )
    noted = f"; {'; '.join(caveats)}" if caveats else ""
    return (
        f"executes it with a skill of {bounded(own.value, own.low, own.high)}, from "
        f"{_CONTROL_NAMES[skill.control]} (0) to the RL model's own (1): {base.value:.0%} of "
        f"completions are right after it, {rl.value:.0%} after the RL model's{noted}"
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
        before = f"{number(base)} times" if base >= NEVER_BELOW else "never"
    return f"the RL model starts {case.behaviour} {number(rl)} times a trace, the base {before}"


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
    # Where every sentence is an opportunity, several times as often is still a small difference.
    is_multiple = ratio is not None and (ratio.low > most or ratio.high < 1 / most)
    if is_multiple and not is_level and measure == PER_OPPORTUNITY:
        return False
    return is_level or case.within(difference, -least, least)


def _is_up(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure)
    is_more = ratio is None or case.above(ratio, case.thresholds.rate_ratio)
    return case.above(case.get(measure, DIFFERENCE), case.thresholds.rate_difference) and is_more


def _is_down(case: _Case, measure: str) -> bool:
    ratio = case.ratio(measure)
    is_less = ratio is None or case.below(ratio, 1 / case.thresholds.rate_ratio)
    return case.below(case.get(measure, DIFFERENCE), -case.thresholds.rate_difference) and is_less


def _control_in(one: Measure) -> str:
    """What a figure is measured against: another condition, or what stands in its name."""
    if one.measure.partition("/")[2].partition("/")[0] in _LEADS:
        return one.condition
    last = one.measure.rpartition("/")[2]
    return last if last in _CONTROL_NAMES else _CONTROLS.get(one.measure, "")


def _name(one: Measure) -> str:
    level = "" if one.level == 0.95 else f" ({one.level:.0%})"
    return " ".join(filter(None, [one.measure, one.model, one.condition])) + level
