"""Execution value: behaviours carried out at the RL model's onsets, completed and graded.

1. Separate samples from each start tell where the RL model's success is in doubt, and which other
   sentences of the behaviour it writes on the problem.
2. Both models carry the behaviour out in words of their own; the base also after the RL model's
   words, after the opening that does best on the select split, and several times.
3. Controls stand at the same starts: displaced, foreign and neutral sentences.
4. The RL model completes each of them, all in one pool; equal ones at a start are completed once.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sae_reasoning.contrast.execution import BEST_OPENING
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.sentences import (
    CarriedOut,
    Quote,
    Sentence,
    are_made,
    carried_out,
    quotes,
)
from sae_reasoning.contrast.starts import noise_key
from sae_reasoning.contrast.steered import ByCompletion, Judged
from sae_reasoning.contrast.value import (
    CONTROLS,
    HEADROOM,
    OWN_WORDS,
    Outcomes,
    has_headroom,
    program_measures,
    recorder,
    scale_of,
    value_measures,
)
from sae_reasoning.contrast.valued import BothSplits, Said, Valued, rows_of, value_table
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.tables import write_table
from sae_reasoning.jobs.contrast.completions import complete, grade_of, graded
from sae_reasoning.jobs.contrast.sentences import (
    all_sentences,
    begun,
    controls,
    openings_of,
)
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import BASE, REPORT, RL, SELECT, Annotation, Trace
from sae_reasoning.rollouts.respond import Response
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.protocol import Start
from sae_reasoning.traces.align import Rollout

VALUE_FILE = "value.parquet"


def execution_value(setting: Setting, folder: Path) -> list[Measure]:
    """Value and value skill of each behaviour on the report split; writes every execution."""
    both = value_executions(setting)
    write_table(folder / VALUE_FILE, value_table([*rows_of(both.report), *rows_of(both.select)]))
    found = []
    for behaviour in setting.behaviours:
        starts, own = both.report.of(behaviour)
        if not starts:
            continue
        record = recorder(starts, setting.resampling)
        found.append(record.share(HEADROOM, RL, "", both.in_doubt[own].astype(float)))
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
    pilots, own = _pilots(setting), setting.own
    select = [
        start
        for behaviour in setting.behaviours
        for start in _posed(setting, behaviour, SELECT)[: own.value_select_starts]
    ]
    report: list[Start] = []
    in_doubt: list[bool] = []
    for behaviour in setting.behaviours:
        every = _posed(setting, behaviour, REPORT)
        doubted = _in_doubt(setting, every, pilots)
        chosen = sorted(np.argsort(~doubted, kind="stable")[: own.value_starts].tolist())
        report += [every[index] for index in chosen]
        in_doubt += doubted[chosen].tolist()
    rule = carried_out(setting.task, setting.traces, setting.behaviours)
    on_select = _quotes(setting, rule, SELECT, setting.traces)
    on_report = _quotes(setting, rule, REPORT, [*setting.traces, *pilots])

    on_select_split = _valued(
        setting,
        select,
        _kept(setting, "value_said_select", lambda: controls(setting, select, on_select, rule)),
        own.select_completions,
        "value_grades_select",
    )

    def say() -> Said:
        said = all_sentences(setting, report, on_report, rule)
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
        in_doubt=np.array(in_doubt, bool),
        rule=rule,
    )


def _pilots(setting: Setting) -> list[Trace]:
    """Separate completions of the RL model from every start of the report split."""

    def make() -> list[Trace]:
        starts = [start for b in setting.behaviours for start in _posed(setting, b, REPORT)]
        rows = [(start, n) for start in starts for n in range(setting.own.pilot_samples)]
        made = complete(setting, [(s, s.response_ids, n) for s, n in rows], "pilots")
        unlabelled = [
            Unlabelled(start.problem, one.text, one.truncated)
            for (start, _), one in zip(rows, made, strict=True)
        ]
        labels = setting.task.annotate_all(unlabelled, model=RL)
        return [
            _trace(setting, start, number, one, label)
            for (start, number), one, label in zip(rows, made, labels, strict=True)
        ]

    return setting.parts.traces("pilots", make)


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


def _posed(setting: Setting, behaviour: str, split: str) -> list[Start]:
    """Starts with their problems as they were posed, in an order that no outcome decided on."""
    posed = {problem.problem_id: problem for problem in setting.problems[split]}
    chosen = [
        replace(start, problem=posed[start.problem.problem_id])
        for start in setting.starts
        if (start.behaviour, start.problem.split) == (behaviour, split)
    ]
    return sorted(chosen, key=noise_key)


def _in_doubt(setting: Setting, starts: Sequence[Start], pilots: Sequence[Trace]) -> np.ndarray:
    grades: defaultdict[str, list[bool | None]] = defaultdict(list)
    for trace in pilots:
        grades[trace.trace_id.rpartition("#")[0]].append(trace.correct)
    low, high = setting.own.headroom
    return has_headroom([grades[_pilot(start)] for start in starts], (low, high))


def _quotes(setting: Setting, rule: CarriedOut, split: str, traces: Sequence[Trace]) -> list[Quote]:
    own = [trace for trace in traces if trace.split == split]
    return quotes(rule, own, setting.behaviours)


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


def _worth(setting: Setting, starts: Sequence[Start], sentences: Sequence[Sentence]) -> Judged:
    """Whether each sentence is the behaviour, and its value if it is."""
    found = np.zeros((len(starts), 3))
    found[:, 0] = are_made(setting.task, starts, sentences)
    made = np.flatnonzero(found[:, 0]).tolist()
    own = setting.own
    splits = {SELECT: own.select_completions, REPORT: own.completions}
    for split, completions in splits.items():
        rows = [row for row in made if starts[row].problem.split == split]
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
