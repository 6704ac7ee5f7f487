"""Execution value: behaviours carried out at the RL model's onsets, completed and graded.

1. Pilots tell at which starts the answer rests on the behaviour (`jobs.contrast.pilots`), and which
   other sentences of it the RL model writes on the problem.
2. Both models carry the behaviour out there in words of their own; the base also after the RL
   model's words, after the opening that does best on the select split, and several times.
3. Controls stand at the same starts: displaced, foreign and neutral sentences.
4. The RL model completes each of them, all in one pool; equal ones at a start are completed once.
5. How much rests on the behaviour on average is told from all starts that were tried; where that is
   next to nothing, neutral sentences are completed at all of them too.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sae_reasoning.contrast.execution import BEST_OPENING
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.pilots import Pilot
from sae_reasoning.contrast.sentences import (
    CarriedOut,
    Quote,
    Sentence,
    are_made,
    carried_out,
    quotes,
)
from sae_reasoning.contrast.steered import ByCompletion, Judged
from sae_reasoning.contrast.value import (
    CONTROLS,
    HEADROOM,
    NEUTRAL,
    OWN_WORDS,
    REDONE,
    REDONE_ANYWHERE,
    TRUNCATED,
    Outcomes,
    anywhere_measures,
    control_values,
    program_measures,
    recorder,
    scale_of,
    share_measures,
    value_measures,
)
from sae_reasoning.contrast.valued import BothSplits, Said, Valued, rows_of, value_table
from sae_reasoning.edges.tables import write_table
from sae_reasoning.jobs.contrast.completions import graded
from sae_reasoning.jobs.contrast.pilots import PILOTS, Piloted, piloted
from sae_reasoning.jobs.contrast.sentences import (
    all_sentences,
    begun,
    controls,
    neutral_sentences,
    openings_of,
)
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import BASE, REPORT, RL, SELECT
from sae_reasoning.tasks.protocol import Start

VALUE_FILE = "value.parquet"

_SELDOM = 0.1
"""Share of starts with headroom, below which hardly anything can rest on a behaviour on average."""


def execution_value(setting: Setting, folder: Path) -> list[Measure]:
    """Value and value skill of each behaviour on the report split; writes every execution."""
    both = value_executions(setting)
    write_table(folder / VALUE_FILE, value_table([*rows_of(both.report), *rows_of(both.select)]))
    found = []
    for behaviour in setting.behaviours:
        pilots = [one for one in both.pilots if one.start.behaviour == behaviour]
        if not pilots:
            continue
        found += _of_pilots(setting, pilots, behaviour, both.rule)
        chosen_at, rows = both.select.of(behaviour)
        if chosen_at:
            on_select = both.select.outcomes(rows)
            found += control_values(chosen_at, on_select, setting.resampling)
        starts, own = both.report.of(behaviour)
        if not starts:
            continue
        for measure, shares in (
            (REDONE, both.report.redone_shares(own)),
            (TRUNCATED, both.report.truncated(own)),
        ):
            found += share_measures(measure, starts, shares, setting.resampling)
        credit = {control: both.report.outcomes(own, control) for control in CONTROLS}
        found += value_measures(starts, both.report.outcomes(own), credit, setting.resampling)
        if setting.task.judge:
            said = {key: [of[row] for row in own] for key, of in both.report.said.items()}
            valid = _judged(setting, starts, said)
            found += program_measures(starts, valid, setting.resampling)
    return found


def worth_by_completion(setting: Setting, both: BothSplits, behaviour: str) -> ByCompletion:
    """What sentences of one behaviour are worth, by completion."""
    starts, own = both.report.of(behaviour)
    scales = {}
    if starts:
        record = recorder(starts, setting.resampling)
        for control in CONTROLS:
            if scale := scale_of(record, both.report.outcomes(own, control), control):
                scales[control] = scale
    known = both.select.control() | both.report.control()
    return ByCompletion(partial(_worth, setting), known, scales)


def value_executions(setting: Setting) -> BothSplits:
    """Executions of all behaviours and what they are worth, from disk as far as they are there."""
    own, behaviours = setting.own, setting.behaviours
    rule = carried_out(setting.task, setting.traces, behaviours)
    on_select = piloted(setting, SELECT, rule, own.value_select_starts)
    on_report = piloted(setting, REPORT, rule, own.value_starts)
    select = [
        start
        for behaviour in behaviours
        for start in on_select.chosen(behaviour, own.value_select_starts, own.headroom, fill=True)
    ]
    report = [
        start
        for behaviour in behaviours
        for start in on_report.chosen(behaviour, own.value_starts, own.headroom)
    ]
    used = {
        one.start.key: frozenset(control.said for control in one.controls.values())
        for one in [*on_select.pilots, *on_report.pilots]
    }

    def say_on_select() -> Said:
        return controls(setting, select, _quotes(setting, rule, SELECT, on_select), rule, used)

    on_select_split = _valued(
        setting,
        select,
        _kept(setting, "value_said_select", say_on_select),
        own.select_completions,
        "value_grades_select",
    )

    def say() -> Said:
        found = _quotes(setting, rule, REPORT, on_report)
        said = all_sentences(setting, report, found, rule, used)
        said[BASE, BEST_OPENING] = _after_best_opening(setting, on_select_split, report, rule)
        return said

    return BothSplits(
        select=on_select_split,
        report=_valued(
            setting,
            report,
            _kept(setting, "value_said_report", say),
            own.completions,
            "value_grades_report",
        ),
        pilots=on_report.pilots,
        rule=rule,
    )


def _of_pilots(
    setting: Setting, pilots: Sequence[Pilot], behaviour: str, rule: CarriedOut
) -> list[Measure]:
    """At how many starts something rests on a behaviour, and how much on average."""
    starts = [one.start for one in pilots]
    found, redone = {}, {}
    for control in CONTROLS:
        own = [one.controls.get(control) for one in pilots]
        found[RL, control] = np.array([np.nan if one is None else one.right for one in own])
        redone[RL, control] = np.array([np.nan if one is None else one.redone for one in own])
    shares = np.array([one.of_control for one in pilots])
    has_headroom = np.array([one.has_headroom(setting.own.headroom) for one in pilots], float)
    known = {(RL, ""): np.where(np.isnan(shares), np.nan, has_headroom)}
    headroom = share_measures(HEADROOM, starts, known, setting.resampling)
    if any(one.high < _SELDOM for one in headroom):

        def complete_neutral() -> list[list[float]]:
            said = neutral_sentences(setting, starts, rule)
            rows = [row for row, one in enumerate(said) if one is not None]
            pairs = [(starts[row], one) for row, one in enumerate(said) if one is not None]
            values = np.full((len(starts), 2), np.nan)
            done = graded(setting, pairs, setting.own.pilot_samples, PILOTS)
            for row, sentence, one in zip(rows, pairs, done, strict=True):
                if not sentence[1].truncated:
                    values[row] = one.of_control, one.redone.mean()
            return [[float(one) for one in pair] for pair in values]

        made = setting.parts.json(f"neutral_anywhere_{behaviour}", complete_neutral)
        found[RL, NEUTRAL], redone[RL, NEUTRAL] = np.array(made, float).T
    in_trace = np.array([one.in_trace for one in pilots])
    return [
        *headroom,
        *anywhere_measures(starts, in_trace, found, setting.resampling),
        *share_measures(REDONE_ANYWHERE, starts, redone, setting.resampling),
    ]


def _after_best_opening(
    setting: Setting, select: Valued, starts: Sequence[Start], rule: CarriedOut
) -> list[Sentence | None]:
    """What the base says after the opening whose sentences are worth most on the select split."""
    found: dict[int, Sentence] = {}
    control, known = select.control(), openings_of(setting)
    tried = [
        (opening, start)
        for start in select.starts
        if start.key in control
        for opening in known[start.behaviour][: setting.own.value_openings]
    ]
    at, said = [start for _, start in tried], [opening for opening, _ in tried]
    made = begun(setting, BASE, at, said, rule, "best opening")
    done = graded(setting, list(zip(at, made, strict=True)), setting.own.select_completions)
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for (opening, start), own in zip(tried, done, strict=True):
        worth = float(np.where(own.redone, control[start.key], own.grades).mean())
        if worth == worth:
            values[start.behaviour, opening].append(worth)
    for behaviour in setting.behaviours:
        openings = [opening for b, opening in values if b == behaviour]
        rows = [row for row, start in enumerate(starts) if start.behaviour == behaviour]
        if openings:
            best = max(openings, key=lambda one: float(np.mean(values[behaviour, one])))
            there = [starts[row] for row in rows]
            said_so = begun(setting, BASE, there, [best] * len(there), rule, "best opening")
            found |= dict(zip(rows, said_so, strict=True))
    return [found.get(row) for row in range(len(starts))]


def _quotes(setting: Setting, rule: CarriedOut, split: str, pilots: Piloted) -> list[Quote]:
    """What the RL model says in its rollouts and pilots on the problems of a split."""
    own = [trace for trace in setting.traces if trace.split == split]
    return quotes(rule, [*own, *pilots.traces], setting.behaviours)


def _valued(
    setting: Setting, starts: list[Start], said: Said, completions: int, part: str
) -> Valued:
    """Executions with the grades of their completions."""
    pairs = [
        (key, row, sentence)
        for key, own in said.items()
        for row, sentence in enumerate(own)
        if sentence is not None
    ]

    def make() -> list[list[list[float]]]:
        rows = [(starts[row], sentence) for _, row, sentence in pairs]
        done = graded(setting, rows, completions)
        return [[own.grades.tolist(), own.redone.tolist()] for own in done]

    values = {key: np.full((len(starts), completions), np.nan) for key in said}
    redone = {key: np.zeros((len(starts), completions), bool) for key in said}
    for (key, row, _), own in zip(pairs, setting.parts.json(part, make), strict=True):
        values[key][row], redone[key][row] = np.array(own[0], float), np.array(own[1], bool)
    return Valued(starts, said, values, redone)


def _worth(setting: Setting, starts: Sequence[Start], sentences: Sequence[Sentence]) -> Judged:
    """Whether each sentence is the behaviour, and its value if it is: NaN where it was cut."""
    found = np.zeros((len(starts), 3))
    made = are_made(setting.task, starts, sentences)
    found[:, 0] = [is_it is True for is_it in made]
    started = np.flatnonzero(found[:, 0]).tolist()
    own = setting.own
    splits = {SELECT: own.select_completions, REPORT: own.completions}
    for split, completions in splits.items():
        rows = [row for row in started if starts[row].problem.split == split]
        pairs = [(starts[row], sentences[row]) for row in rows]
        for row, done in zip(rows, graded(setting, pairs, completions), strict=True):
            found[row, 1] = (done.grades * ~done.redone).mean()
            found[row, 2] = done.redone.mean()
    return found


def _judged(setting: Setting, starts: Sequence[Start], said: Said) -> Outcomes:
    """What the task's judge says of each execution in own words, and of the controls."""
    judge = setting.task.judge
    assert judge is not None
    found = {}
    for model, condition in ((BASE, OWN_WORDS), (RL, OWN_WORDS), *((RL, c) for c in CONTROLS)):
        own = np.full(len(starts), np.nan)
        rows = [row for row, one in enumerate(said[model, condition]) if one is not None]
        texts = [one.said for one in said[model, condition] if one is not None]
        judged = judge.judge_free([starts[row] for row in rows], texts)
        for row, one in zip(rows, judged, strict=True):
            if one.is_valid is not None:
                own[row] = one.is_valid
        found[model, condition] = own
    return found


def _kept(setting: Setting, name: str, make: Callable[[], Said]) -> Said:
    """Sentences as they were made, from disk if an earlier run got so far."""

    def rows() -> list[Any]:
        return [
            [*key, [None if one is None else asdict(one) for one in own]]
            for key, own in make().items()
        ]

    return {
        (model, condition): [
            None if one is None else Sentence(**one | {"ids": tuple(one["ids"])}) for one in own
        ]
        for model, condition, own in setting.parts.json(name, rows)
    }
