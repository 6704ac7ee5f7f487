"""Along a training: when each behaviour came to be decided on, and when to be carried out.

The models of the course (base, checkpoints, RL model) read the opportunities of the contrast's
traces on the report split, and are started at the RL model's onsets. Each model's figures are
kept as a part, so a killed run goes on from there.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.config import Config, ConfigError, ModelConfig, ReportConfig
from sae_reasoning.contrast.course import LEAD, MEAN_STEP, course_of, lead
from sae_reasoning.contrast.execution import ACCURACY
from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.contrast.rates import (
    ENTER_THINKING,
    PER_OPPORTUNITY,
    by_writer,
)
from sae_reasoning.contrast.starts import (
    Place,
    noise_key,
    own_openings,
    places_of,
    rl_starts,
    start_at,
)
from sae_reasoning.edges.artifacts import Manifest, Stage, read_json, write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import outside_inputs, require
from sae_reasoning.edges.lm.branch import log_probs_at, opening_probabilities
from sae_reasoning.edges.lm.load import LanguageModel, describe, load
from sae_reasoning.edges.plots import plot_course
from sae_reasoning.edges.tables import read_traces, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.opening import open_task
from sae_reasoning.records import BASE, MODELS, REPORT, RL, Trace
from sae_reasoning.rollouts.respond import Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.protocol import Execution, Start, Task

_DRAWN = {
    ENTER_THINKING: "enters thinking",
    PER_OPPORTUNITY: "starts the behaviour, at an opportunity",
    ACCURACY: "executes it rightly, once started",
}
"""Measures of the picture, as it names them."""


def course(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `course.parquet` and `course.png` in `course`."""
    models, task = _models(cfg), open_task(cfg)
    if lacking := task.missing("openings", "judge"):
        raise ConfigError(
            f"course: task={task.name} has no {' and no '.join(lacking)}, which the course needs; "
            "choose task=search"
        )
    facts = {name: describe(config).fingerprint for name, (_, config) in models.items()}
    made = require("contrast", cfg, outside_inputs(cfg))
    with Stage(
        cfg.folder / "course", cfg.settings("course"), facts | {"contrast": made.fingerprint}
    ) as stage:
        if done := console.up_to_date(stage):
            return done
        shown = _shown_to(cfg)
        steps = {name: step for name, (step, _) in models.items()}
        console.plan(
            "course",
            {
                "models": ", ".join(f"{name} ({step})" for name, step in steps.items()),
                "opportunities": f"{len(shown.places):,} of {len(shown.problems)} problems",
                "starts": len(shown.starts),
            },
        )
        seen = []
        for name, (_, config) in models.items():
            path = stage.folder / f"{name}.json"
            if not path.exists():
                console.say(f"course: {name}")
                write_json(path, _look(load(config, cfg.device), shown, task, cfg))
            seen.append(read_json(path))
        resampling = Resampling(cfg.contrast.bootstrap, cfg.contrast.seed)
        found = _measures(shown, seen, steps, resampling, cfg.report)
        table = pd.DataFrame(
            [asdict(measure) | {"step": steps.get(measure.model)} for measure in found]
        )
        write_table(stage.folder / "course.parquet", table)
        plot_course(table, _DRAWN, stage.folder / "course.png")
        for name in models:
            (stage.folder / f"{name}.json").unlink()
        manifest = stage.finish({"models": len(models), "starts": len(shown.starts)})
    tracker.table("course", table)
    tracker.figure("course", stage.final / "course.png")
    console.table(
        "mean step of each change, report split",
        ["behaviour", "what", "steps", "95 % interval", "problems"],
        [
            [m.behaviour or "entering thinking", _said(m), *_shown(m)]
            for m in found
            if m.measure.startswith(MEAN_STEP) or m.measure == LEAD
        ],
    )
    console.wrote(stage.final, manifest)
    return manifest


def _said(measure: Measure) -> str:
    return measure.condition or measure.measure.removeprefix(f"{MEAN_STEP}/")


def _shown(measure: Measure) -> list[str]:
    return [
        f"{measure.value:.0f}",
        f"[{measure.low:.0f}, {measure.high:.0f}]",
        str(measure.n),
    ]


def _models(cfg: Config) -> dict[str, tuple[int, ModelConfig]]:
    """Every model of the course with its step, in order.

    Raises:
        ConfigError: There are no checkpoints, or their names don't order them.
    """
    pattern, last = cfg.course.checkpoints, cfg.course.last_step
    if not pattern:
        raise ConfigError(
            "course.checkpoints is empty; name the models along the training, as "
            "course.checkpoints='runs/rl/checkpoints/step_*'"
        )
    at = Path(pattern)
    root = Path(at.anchor) if at.is_absolute() else Path()
    folders = [folder for folder in root.glob(str(at.relative_to(at.anchor))) if folder.is_dir()]
    steps: dict[int, Path] = {}
    for folder in folders:
        numbers = re.findall(r"\d+", folder.name)
        if not numbers or int(numbers[-1]) in steps:
            raise ConfigError(
                f"course.checkpoints={pattern} matches {folder.name}, whose name tells no step of "
                "its own; end names in the step, as step_0025"
            )
        steps[int(numbers[-1])] = folder
    if not steps:
        raise ConfigError(
            f"course.checkpoints={pattern} matches no folder; make models along an organism's RL "
            "with organism.keep_every, or name others"
        )
    if not 0 < min(steps) <= max(steps) < last:
        raise ConfigError(
            f"course.last_step={last} must be the RL model's step, beyond the {max(steps)} of "
            f"course.checkpoints={pattern}, and those beyond 0; set course.last_step"
        )
    between = {
        f"step_{step}": (step, replace(cfg.pair.rl, path=str(steps[step]), revision=None))
        for step in sorted(steps)
    }
    return {BASE: (0, cfg.pair.base), **between, RL: (last, cfg.pair.rl)}


@dataclass(frozen=True)
class _Shown:
    """What every model of the course is shown: places and starts of the contrast's report split."""

    behaviours: Sequence[str]
    traces: Sequence[Trace]
    places: Sequence[Place]
    starts: Sequence[Start]
    prompts: dict[str, str]

    @property
    def problems(self) -> list[str]:
        return list(self.prompts)


def _shown_to(cfg: Config) -> _Shown:
    traces = read_traces(cfg.folder / "contrast" / "rollouts.parquet")
    behaviours = cfg.contrast.behaviours or cfg.behaviours
    places = places_of(traces, behaviours)
    most = {REPORT: cfg.contrast.report_starts}
    return _Shown(
        behaviours,
        traces,
        [place for place in places if traces[place.trace].split == REPORT],
        rl_starts(traces, places, behaviours, most, cfg.contrast.seed),
        {trace.problem_id: trace.prompt for trace in traces if trace.split == REPORT},
    )


def _look(lm: LanguageModel, shown: _Shown, task: Task, cfg: Config) -> dict[str, Any]:
    """Of one model: P(enters thinking) by problem, onset probabilities, and each execution."""
    assert task.openings is not None and task.judge is not None
    own, openings = cfg.contrast, task.openings
    prefix = task.formats[RL].thinking_prefix
    prompts = list(shown.prompts.values())
    read = log_probs_at(
        lm,
        [trace.token_ids for trace in shown.traces],
        [(place.trace, place.opportunity.token) for place in shown.places],
        [openings.of(place.behaviour) for place in shown.places],
        own.token_budget,
    )
    log_probs = {
        start_at(shown.traces[place.trace], place.opportunity).key: values
        for place, values in zip(shown.places, read, strict=True)
        if place.opportunity.taken
    }
    said: list[str] = []
    for behaviour in shown.behaviours:
        starts = [start for start in shown.starts if start.behaviour == behaviour]
        said += own_openings(starts, openings.of(behaviour), log_probs, own.seed)
    made = respond(
        lm,
        [
            prefix_of(
                lm,
                start.problem.prompt,
                noise_key(start),
                begun=start.response_ids,
                opening=opening,
            )
            for start, opening in zip(shown.starts, said, strict=True)
        ],
        Sampling(
            Noise("contrast/forced", own.seed),
            own.temperature,
            own.behaviour_tokens,
            own.batch_size,
        ),
        until=task.sentence_end,
    )
    executions = [
        Execution(start, opening, one.added)
        for start, opening, one in zip(shown.starts, said, made, strict=True)
    ]
    return {
        "enters": opening_probabilities(lm, prompts, prefix, own.token_budget),
        "onset": [float(np.exp(values).sum()) for values in read],
        "valid": [bool(one.is_valid) for one in task.judge.judge(executions)],
    }


def _measures(
    shown: _Shown,
    seen: Sequence[dict[str, Any]],
    steps: dict[str, int],
    resampling: Resampling,
    bars: ReportConfig,
) -> list[Measure]:
    row = {problem: index for index, problem in enumerate(shown.problems)}
    shape = (len(row), len(seen), 1, 2)
    entry = np.ones(shape)
    entry[:, :, 0, 0] = np.array([one["enters"] for one in seen]).T
    found = course_of("", ENTER_THINKING, steps, entry, len(row), resampling, bars)
    onsets = np.array([one["onset"] for one in seen])
    valid = np.array([one["valid"] for one in seen], float)
    for behaviour in shown.behaviours:
        mass = np.zeros((len(row), len(MODELS), len(seen)))
        offered = np.zeros((len(row), len(MODELS)))
        for index, place in enumerate(shown.places):
            trace = shown.traces[place.trace]
            if place.behaviour == behaviour:
                at = row[trace.problem_id], MODELS.index(trace.writer)
                offered[at] += 1
                mass[at] += onsets[:, index]
        onset = by_writer(mass, offered)
        execution = np.zeros(shape)
        count = 0
        for index, start in enumerate(shown.starts):
            if start.behaviour == behaviour:
                count += 1
                execution[row[start.problem.problem_id], :, 0, 0] += valid[:, index]
                execution[row[start.problem.problem_id], :, 0, 1] += 1
        found += course_of(
            behaviour, PER_OPPORTUNITY, steps, onset, int(offered.sum()), resampling, bars
        )
        found += course_of(behaviour, ACCURACY, steps, execution, count, resampling, bars)
        ahead = lead(behaviour, list(steps.values()), execution, onset, count, resampling, bars)
        found += [ahead] if ahead else []
    return found
