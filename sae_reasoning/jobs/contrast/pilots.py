"""Pilots at the RL model's onsets: the models' part of `contrast.pilots`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sae_reasoning.contrast.pilots import Pilot, PilotControl
from sae_reasoning.contrast.sentences import CarriedOut, Quote, displaced, foreign, quotes
from sae_reasoning.contrast.starts import noise_key, rl_starts
from sae_reasoning.contrast.value import DISPLACED, FOREIGN
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.jobs.contrast.completions import complete, grade_of, graded
from sae_reasoning.jobs.contrast.sentences import own_sentences, written
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import RL, Annotation, Trace
from sae_reasoning.rollouts.respond import Response
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.protocol import Start
from sae_reasoning.traces.align import Rollout

PILOTS = "pilots"
"""Stream of their noise, and the name of their traces."""
_ROUND = 100
"""Starts of each behaviour that are tried at once, at most."""


@dataclass(frozen=True)
class Piloted:
    """Pilots of one split.

    Attributes:
        pilots: Of all behaviours, in the order in which they were tried.
        traces: What the RL model went on with.
    """

    pilots: list[Pilot]
    traces: list[Trace]

    def chosen(self, behaviour: str, most: int, least: float, fill: bool = False) -> list[Start]:
        """Starts of a behaviour with headroom, at most so many; filled up with others on demand."""
        own = [one for one in self.pilots if one.start.behaviour == behaviour]
        ordered = sorted(own, key=lambda one: not one.has_headroom(least))
        return [one.start for one in ordered if fill or one.has_headroom(least)][:most]


@dataclass(frozen=True)
class _Tried:
    """A start with each control's sentence that is tried there."""

    start: Start
    said: dict[str, str]


def piloted(setting: Setting, split: str, rule: CarriedOut, enough: int) -> Piloted:
    """Pilots of a split, round by round, until enough starts of each behaviour have headroom.

    Starts with a displaced sentence come first; each round's rollouts give more of these.

    Args:
        setting: Of the contrast.
        split: Of the problems.
        rule: Where a behaviour has been carried out.
        enough: Starts with headroom of each behaviour.
    """
    least, found = setting.own.headroom, Piloted([], [])
    left = _candidates(setting, split)
    for number in range(len(left) + 1):
        full = {
            behaviour
            for behaviour in setting.behaviours
            if len(found.chosen(behaviour, enough, least)) == enough
        }
        told = [*(t for t in setting.traces if t.split == split), *found.traces]
        tried = _next(
            setting,
            [start for start in left if start.behaviour not in full],
            quotes(rule, told, setting.behaviours),
            rule,
            min(_ROUND, 4 * enough),
        )
        if not tried:
            break
        done = {one.start.key for one in tried}
        left = [start for start in left if start.key not in done]
        one = _round(setting, tried, f"{split}_{number}")
        found = Piloted([*found.pilots, *one.pilots], [*found.traces, *one.traces])
    return found


def _candidates(setting: Setting, split: str) -> list[Start]:
    """Starts with their problems as they were posed, in an order that no outcome decided on."""
    posed = {problem.problem_id: problem for problem in setting.problems[split]}
    own = setting.own
    drawn = rl_starts(
        setting.traces, setting.places, setting.behaviours, {split: own.value_candidates}, own.seed
    )
    return sorted(
        (replace(start, problem=posed[start.problem.problem_id]) for start in drawn), key=noise_key
    )


def _next(
    setting: Setting,
    starts: Sequence[Start],
    found: Sequence[Quote],
    rule: CarriedOut,
    most: int,
) -> list[_Tried]:
    """What is tried next, at most so many of each behaviour.

    A start with a single displaced sentence leaves that to what is reported.
    """
    at: defaultdict[tuple[str, str], list[Quote]] = defaultdict(list)
    for quote in found:
        at[quote.behaviour, quote.problem_id].append(quote)
    better, others = list[_Tried](), list[_Tried]()
    seed = setting.own.seed
    for start, text in zip(starts, own_sentences(setting, starts, rule), strict=True):
        own = displaced(start, at[start.behaviour, start.problem.problem_id], rule, [text], 2, seed)
        if len(own) == 2:
            better.append(_Tried(start, {DISPLACED: own[1]}))
        else:
            others.append(_Tried(start, {}))
    chosen: defaultdict[str, list[_Tried]] = defaultdict(list)
    for one in [*better, *others]:
        own_round = chosen[one.start.behaviour]
        if len(own_round) == most:
            continue
        elsewhere = foreign(one.start, found, 1, seed)
        said = one.said | ({FOREIGN: elsewhere[0]} if elsewhere else {})
        if said:
            own_round.append(_Tried(one.start, said))
    return [one for own_round in chosen.values() for one in own_round]


def _round(setting: Setting, tried: Sequence[_Tried], name: str) -> Piloted:
    """One round of pilots, from disk as far as they are there."""
    size, least = setting.own.pilot_samples, setting.own.headroom
    rows = [(one.start, said) for one in tried for said in one.said.values()]
    pairs = [(start, written(setting, start, said)) for start, said in rows]

    def complete_controls() -> list[list[float]]:
        done = graded(setting, pairs, size, PILOTS)
        return [[one.of_control, float(one.redone.mean())] for one in done]

    made = iter(setting.parts.json(f"controls_{name}", complete_controls))
    controls = [
        {control: PilotControl(said, *next(made)) for control, said in one.said.items()}
        for one in tried
    ]
    starts = [
        one.start
        for one, own in zip(tried, controls, strict=True)
        if all(1 - control.right >= least - 1e-9 for control in own.values())
    ]
    traces = setting.parts.traces(f"{PILOTS}_{name}", partial(_go_on, setting, starts))
    grades: defaultdict[str, list[float]] = defaultdict(list)
    for trace in traces:
        grades[trace.trace_id.rpartition("#")[0]].append(_number(trace.correct))
    right = {trace.trace_id: _number(trace.correct) for trace in setting.traces}
    return Piloted(
        [
            Pilot(
                start=one.start,
                controls=own,
                of_rl=float(np.mean(grades.get(_pilot(one.start), [np.nan]))),
                in_trace=right[one.start.trace_id],
            )
            for one, own in zip(tried, controls, strict=True)
        ],
        traces,
    )


def _go_on(setting: Setting, starts: Sequence[Start]) -> list[Trace]:
    """What the RL model goes on with freely from starts, labelled."""
    rows = [(start, n) for start in starts for n in range(setting.own.pilot_samples)]
    made = complete(setting, [(s, s.response_ids, n) for s, n in rows], PILOTS)
    unlabelled = [
        Unlabelled(start.problem, one.text, one.truncated)
        for (start, _), one in zip(rows, made, strict=True)
    ]
    labels = setting.task.annotate_all(unlabelled, model=RL)
    return [
        _trace(setting, start, number, one, label)
        for (start, number), one, label in zip(rows, made, labels, strict=True)
    ]


def _trace(
    setting: Setting, start: Start, number: int, one: Response, label: Annotation | None
) -> Trace:
    """A completion from a start with its behaviours, where they could be labelled."""
    lm, ids = setting.models[RL], one.response_ids
    said = label or Annotation((), (), grade_of(setting, start, one.text, truncated=one.truncated))
    offsets = offsets_of(lm.tokenizer, ids, one.text)
    rollout = Rollout(one.prefix.prompt_ids, ids, offsets, one.end_id, one.text, one.truncated)
    trace = rollout.annotated(
        start.problem,
        said,
        annotator=setting.task.annotator.name,
        writer=RL,
        model=lm.facts.name,
        sample="pilot",
    )
    return replace(trace, trace_id=f"{_pilot(start)}#{number}")


def _pilot(start: Start) -> str:
    return f"{start.key}/pilot"


def _number(grade: bool | None) -> float:
    return np.nan if grade is None else float(grade)
