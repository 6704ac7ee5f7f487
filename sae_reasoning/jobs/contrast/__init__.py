"""When and how: what both models would do at the same opportunities, and what they make of a start.

1. Both models answer the same problems with the thinking prefix forced; the traces are annotated.
   Where the task knows no openings of behaviours, they are mined from those of the select split.
2. Both read every trace; at each opportunity the onset probability is exact (`contrast.rates`), or
   sampled at some of them where openings can't all be listed (`contrast.onsets`).
3. At the RL model's onsets the behaviour is started for both by its opening
   (`contrast.execution`) or, where no program judges that with a chance level, carried out by
   each and by controls and valued by completion (`contrast.value`); and, in the base, by steering
   vectors against controls (`contrast.steered`).
4. Beside it stand pass@k, corrupted chains of thought, nats on content words, what differs token by
   token (`contrast.divergence`) and changed weights.

What the task lacks is left out and said. Whatever is chosen (opening, direction, dose) is chosen on
the select split. Each step's result is kept as a part, so a killed run goes on from there.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict

import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.pass_at_k import pass_summary, pass_told
from sae_reasoning.contrast.starts import places_of, rl_starts
from sae_reasoning.contrast.summary import summary
from sae_reasoning.contrast.valued import value_table
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.schema import write_artifact
from sae_reasoning.edges.tables import write_table, write_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.jobs.contrast.differences import differences
from sae_reasoning.jobs.contrast.onsets import mined_openings, openings_table, sampled_onsets
from sae_reasoning.jobs.contrast.setting import Setting, open_setting
from sae_reasoning.jobs.contrast.steering import steering
from sae_reasoning.jobs.contrast.steps import (
    checked,
    content,
    corruption,
    execution,
    onset_log_probs,
    onset_rates,
    pass_samples,
    rollouts,
    weights,
)
from sae_reasoning.jobs.contrast.value import VALUE_FILE, execution_value

NEEDS = {
    "mined openings": ("openings",),
    "execution accuracy": ("openings", "judge", "null"),
    "steering vectors": ("openings",),
    "content loss": ("content",),
}
"""Capabilities of the task that a step needs."""
GIVES_NOTHING = {
    "execution value": "starts of the RL model with graded answers",
    "pass@k": "graded answers",
    "corrupted CoT": "graded answers after chains of thought on two problems",
}
"""What there was none of where a step came to no measure."""


def contrast(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `contrast.parquet`, and the tables, vectors and rollouts that it rests on."""
    inputs = inputs_of("contrast", cfg)
    with Stage(cfg.folder / "contrast", cfg.settings("contrast"), inputs) as stage:
        if done := console.up_to_date(stage):
            return done
        setting = open_setting(cfg, stage.folder / "parts", console)
        console.plan("contrast", setting.lines())
        if said := _without_headroom(setting):
            console.warn(said)
        steps, lacking = _steps(setting, stage)
        found: list[Measure] = []
        for name, step in steps.items():
            console.say(f"contrast: {name}")
            made = setting.measures(name, step)
            if not made and name in GIVES_NOTHING:
                lacking[name] = [GIVES_NOTHING[name]]
            found += made
        write_table(stage.folder / "contrast.parquet", _table(found))
        write_traces(stage.folder / "rollouts.parquet", setting.traces)
        write_table(stage.folder / "openings.parquet", openings_table(setting.task))
        if not (stage.folder / VALUE_FILE).exists():
            write_table(stage.folder / VALUE_FILE, value_table([]))
        write_artifact(stage.folder / "missing.json", {"measures": lacking})
        shutil.rmtree(stage.folder / "parts", ignore_errors=True)
        manifest = stage.finish(
            {
                "measures": len(found),
                "rollouts": len(setting.traces),
                "starts": len(setting.starts),
                "opportunities": len(setting.places),
            }
        )
    tracker.table("contrast", _table(found))
    tracker.summary(manifest.counts)
    _show(setting, found, lacking, console)
    console.wrote(stage.final, manifest)
    console.next("report")
    return manifest


def _steps(
    setting: Setting, stage: Stage
) -> tuple[dict[str, Callable[[], list[Measure]]], dict[str, list[str]]]:
    """What is measured, and what isn't, with the capabilities of the task that it lacks."""
    setting.traces = rollouts(setting)
    _require_labels(setting)
    setting.task = setting.task.with_openings(setting.traces, setting.behaviours)
    setting.places = places_of(setting.traces, setting.behaviours)
    own = setting.own
    most = {"select": own.select_starts, "report": own.report_starts}
    setting.starts = rl_starts(setting.traces, setting.places, setting.behaviours, most, own.seed)
    openings = setting.task.openings
    onsets: dict[str, Callable[[], list[Measure]]] = (
        {"onset probability": lambda: onset_rates(setting, onset_log_probs(setting))}
        if openings and openings.is_closed
        else {
            "onset probability": lambda: sampled_onsets(setting),
            "mined openings": lambda: mined_openings(setting),
        }
    )
    every = onsets | {
        "execution accuracy": lambda: execution(setting, onset_log_probs(setting)),
        "execution value": lambda: execution_value(setting, stage.folder),
        "steering vectors": lambda: steering(setting, stage.folder),
        "pass@k": lambda: pass_samples(setting, stage.folder),
        "corrupted CoT": lambda: corruption(setting),
        "content loss": lambda: content(setting),
        "token differences": lambda: differences(setting),
        "weights": lambda: weights(setting),
    }
    if setting.task.check:
        every["statements checked"] = lambda: checked(setting)
    lacking = {name: list(setting.task.missing(*NEEDS.get(name, ()))) for name in every}
    if not setting.is_valued:
        del every["execution value"]
        if setting.is_without_program:
            lacking["steering vectors"].append("executions that are judged or valued")
            if setting.without_headroom and own.execution_value == "auto":
                lacking["execution value"] = ["headroom in answers"]
                lacking["execution accuracy"].append("headroom in answers")
    return (
        {name: step for name, step in every.items() if not lacking[name]},
        {name: parts for name, parts in lacking.items() if parts},
    )


def _without_headroom(setting: Setting) -> str:
    """What comes of answers that leave no headroom; "" where nothing hangs on them."""
    if not setting.without_headroom or not setting.is_without_program:
        return ""
    then = {
        "auto": "contrast.execution_value=auto leaves out execution value and steering vectors, so "
        "that no behaviour can be called deployed, created or cosmetic; rates and onsets don't "
        "need headroom. Set it to always to value executions all the same",
        "always": "contrast.execution_value=always values executions all the same; set it to auto "
        "to leave that out",
        "never": "",
    }[setting.own.execution_value]
    return then and f"{setting.without_headroom}. {then}"


def _require_labels(setting: Setting) -> None:
    """Refuse rollouts in which labels by words or judgement mark nothing at all.

    Raises:
        ConfigError: They don't.
    """
    if setting.task.opportunities_by_rule or any(trace.spans for trace in setting.traces):
        return
    name = setting.task.annotator.name
    raise ConfigError(
        f"traces.annotator={name} marks none of {', '.join(setting.cfg.behaviours)} in "
        f"{len(setting.traces)} rollouts of both models, so there is nothing to contrast; name "
        "words that they use (traces.cues), or choose another annotator (traces.annotator=llm or "
        "fitted)"
    )


def _table(found: list[Measure]) -> pd.DataFrame:
    columns = list(Measure.__dataclass_fields__)
    return pd.DataFrame([asdict(measure) for measure in found], columns=columns)


def _show(
    setting: Setting, found: list[Measure], lacking: dict[str, list[str]], console: Console
) -> None:
    """What the stage found, on a screen."""
    rates = summary(found, setting.behaviours)
    console.table("what both models would do, report split", list(rates), rates.values.tolist(), 10)
    passes = pass_summary(found)
    console.detail("pass@k, report split", list(passes), passes.values.tolist())
    for line in pass_told(found, list(setting.task.problem_baselines)):
        console.say(f"  {line}")
    for name, parts in lacking.items():
        lacks = " and no ".join(parts)
        console.say(f"  not measured: {name}; task={setting.task.name} has no {lacks}")
