"""Along a training: when each move came to be decided on, and when it came to be carried out.

The models of the course (base, checkpoints, RL model) read the opportunities of the contrast's
thoughts on the report split, and are started at the RL model's onsets. Each model's figures are
kept as a part, so a killed run goes on from there.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sae_reasoning.config import Config, ConfigError, ModelConfig, ReportConfig
from sae_reasoning.contrast.course import LEAD, MEAN_STEP, course_of, lead
from sae_reasoning.contrast.execution import ACCURACY, Start, judge, own_openings, rl_starts
from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.contrast.rates import (
    ENTER_THINKING,
    PER_OPPORTUNITY,
    Place,
    by_writer,
    places_of,
)
from sae_reasoning.edges.artifacts import Manifest, Stage, read_json, require_stage, write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import outside_inputs
from sae_reasoning.edges.lm.branch import log_probs_at, opening_probabilities
from sae_reasoning.edges.lm.load import LanguageModel, describe, load
from sae_reasoning.edges.lm.write import begun_ids, write
from sae_reasoning.edges.plots import plot_course
from sae_reasoning.edges.tables import read_traces, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.records import Trace
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.tasks.marks import MarkEnd
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS


def course(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `course.parquet` and `course.png` in `course`."""
    models = _models(cfg)
    facts = {name: describe(config).fingerprint for name, (_, config) in models.items()}
    made = require_stage(cfg.folder, "contrast", cfg.settings("contrast"), outside_inputs(cfg))
    with Stage(
        cfg.folder / "course", cfg.settings("course"), facts | {"contrast": made.fingerprint}
    ) as stage:
        if stage.is_current:
            console.current("course", stage.final)
            assert stage.manifest
            return stage.manifest
        sight = _places(cfg)
        steps = {name: step for name, (step, _) in models.items()}
        console.plan(
            "course",
            {
                "models": ", ".join(f"{name} ({step})" for name, step in steps.items()),
                "opportunities": f"{len(sight.shown):,} of {len(sight.problems)} problems",
                "starts": len(sight.starts),
            },
        )
        seen = []
        for name, (_, config) in models.items():
            path = stage.folder / f"{name}.json"
            if not path.exists():
                console.say(f"course: {name}")
                write_json(path, _look(load(config, cfg.device), sight, cfg))
            seen.append(read_json(path))
        how = Resampling(cfg.contrast.bootstrap, cfg.contrast.seed)
        found = _measures(sight, seen, steps, how, cfg.report)
        table = pd.DataFrame(
            [asdict(measure) | {"step": steps.get(measure.model)} for measure in found]
        )
        write_table(stage.folder / "course.parquet", table)
        plot_course(table, stage.folder / "course.png")
        for name in models:
            (stage.folder / f"{name}.json").unlink()
        manifest = stage.finish({"models": len(models), "starts": len(sight.starts)})
    tracker.table("course", table)
    tracker.figure("course", stage.final / "course.png")
    console.table(
        "mean step of each change, report split",
        ["move", "what", "steps", "95 % interval", "problems"],
        [
            [m.behaviour or "entering thought", _said(m), *_shown(m)]
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


def _is_report(thought: Trace) -> bool:
    return thought.split == "report"


@dataclass(frozen=True)
class _Sight:
    """What every model of the course is shown; numbers of places are those of the contrast."""

    behaviours: Sequence[str]
    thoughts: Sequence[Trace]
    places: Sequence[Place]
    starts: Sequence[Start]
    prompts: dict[str, str]

    @cached_property
    def shown(self) -> list[int]:
        """Places on the report split."""
        return [i for i, p in enumerate(self.places) if _is_report(self.thoughts[p.thought])]

    @property
    def problems(self) -> list[str]:
        return list(self.prompts)


def _places(cfg: Config) -> _Sight:
    thoughts = read_traces(cfg.folder / "contrast" / "rollouts.parquet")
    behaviours = cfg.contrast.behaviours or cfg.behaviours
    places = places_of(thoughts, behaviours)
    per_move = {"report": cfg.contrast.report_starts}
    return _Sight(
        behaviours,
        thoughts,
        places,
        rl_starts(thoughts, places, behaviours, per_move, cfg.contrast.seed),
        {thought.problem_id: thought.prompt for thought in thoughts if _is_report(thought)},
    )


def _look(lm: LanguageModel, sight: _Sight, cfg: Config) -> dict[str, Any]:
    """Of one model: P(thinks) by problem, mass at each place, and whether each start went well."""
    own = cfg.contrast
    entry = opening_probabilities(lm, list(sight.prompts.values()), grammar.THINK, own.token_budget)
    places = [sight.places[index] for index in sight.shown]
    read = log_probs_at(
        lm,
        [thought.token_ids for thought in sight.thoughts],
        [(place.thought, place.token) for place in places],
        [ALL_OPENINGS[place.behaviour] for place in places],
        own.token_budget,
    )
    log_probs = dict(zip(sight.shown, read, strict=True))
    openings: list[str] = []
    for behaviour in sight.behaviours:
        starts = [start for start in sight.starts if start.behaviour == behaviour]
        openings += own_openings(starts, log_probs, own.seed)
    noise = torch.tensor([[own.seed, start.place, 0] for start in sight.starts]).reshape(-1, 3)
    made = write(
        lm,
        [start.prompt for start in sight.starts],
        [begun_ids(lm, start.begun, o) for start, o in zip(sight.starts, openings, strict=True)],
        sampler=keyed_sampler(noise, own.temperature),
        max_new_tokens=own.behaviour_tokens,
        batch_size=own.batch_size,
        until=MarkEnd("."),
    )
    rows = zip(sight.starts, openings, made, strict=True)
    return {
        "enters": entry,
        "mass": [float(np.exp(values).sum()) for values in read],
        "valid": [judge(start, opening, one.added) for start, opening, one in rows],
    }


def _measures(
    sight: _Sight,
    seen: Sequence[dict[str, Any]],
    steps: dict[str, int],
    how: Resampling,
    bars: ReportConfig,
) -> list[Measure]:
    row = {problem: index for index, problem in enumerate(sight.problems)}
    shape = (len(row), len(seen), 1, 2)
    entry = np.ones(shape)
    entry[:, :, 0, 0] = np.array([one["enters"] for one in seen]).T
    found = course_of("", ENTER_THINKING, steps, entry, len(row), how, bars)
    masses = np.array([one["mass"] for one in seen])
    valid = np.array([one["valid"] for one in seen], float)
    for behaviour in sight.behaviours:
        mass = np.zeros((len(row), len(MODELS), len(seen)))
        offered = np.zeros((len(row), len(MODELS)))
        for index, number in enumerate(sight.shown):
            place = sight.places[number]
            thought = sight.thoughts[place.thought]
            if place.behaviour == behaviour:
                at = row[thought.problem_id], MODELS.index(thought.writer)
                offered[at] += 1
                mass[at] += masses[:, index]
        onset = by_writer(mass, offered)
        execution = np.zeros(shape)
        count = 0
        for index, start in enumerate(sight.starts):
            if start.behaviour == behaviour:
                count += 1
                execution[row[start.problem_id], :, 0, 0] += valid[:, index]
                execution[row[start.problem_id], :, 0, 1] += 1
        found += course_of(behaviour, PER_OPPORTUNITY, steps, onset, int(offered.sum()), how, bars)
        found += course_of(behaviour, ACCURACY, steps, execution, count, how, bars)
        ahead = lead(behaviour, list(steps.values()), execution, onset, count, how, bars)
        found += [ahead] if ahead else []
    return found
