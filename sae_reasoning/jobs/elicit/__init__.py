"""The elicitation table: cheap interventions beside RL, gap recovered against cost.

1. Base and RL model answer the report problems: the ends of the gap (`base`, `rl`).
2. The base answers them under every intervention: made to think, given behaviours as tools or their
   openings, tuned on one problem, with a control token or biases attached, or as often as a grader
   may choose. Whatever is trained is trained, and its length and rate are chosen, on the select
   split.
3. Each intervention has a control beside it: the same without what it is said to work by.

What the task lacks is left out and said. Noise is common to all conditions. Each is a part, so a
killed run goes on from there; parts stand until the models, the problems or the options change,
whatever becomes of the hybrid.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import hybrid_read, inputs_of, outside_inputs
from sae_reasoning.edges.plots import plot_elicitation
from sae_reasoning.edges.schema import write_artifact
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.elicitation.conditions import Condition
from sae_reasoning.elicitation.interventions import BEST_OF, HYBRID
from sae_reasoning.elicitation.table import (
    elicitation_table,
    ends_of,
    hybrid_rows,
    recovered_in_words,
    shown,
)
from sae_reasoning.jobs.elicit.interventions import ends, planned
from sae_reasoning.jobs.elicit.setting import Setting, condition, open_setting
from sae_reasoning.rollouts.parts import keep_parts


def elicit(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `elicit.parquet`, `elicit.png`, `missing.json`, `rollouts/` and `trained/`."""
    inputs = inputs_of("elicit", cfg)
    without = "" if HYBRID in inputs else hybrid_read(cfg, outside_inputs(cfg))[1]
    with Stage(cfg.place("elicit"), cfg.settings("elicit"), inputs) as stage:
        if done := console.up_to_date(stage):
            return done
        keep_parts(stage, ("rollouts", "trained"), HYBRID)
        setting = open_setting(cfg, stage.folder, console)
        console.plan("elicit", setting.lines())
        conditions, lacking = _conditions(setting)
        hybrid = []
        if HYBRID in inputs:
            made = read_table(cfg.place("hybrid") / "hybrid.parquet")
            hybrid = hybrid_rows(made, cfg.elicit.hybrid_budget)
        table = _table(cfg, setting, conditions, hybrid)
        write_table(stage.folder / "elicit.parquet", table)
        write_artifact(stage.folder / "missing.json", {"interventions": lacking})
        plot_elicitation(table, stage.folder / "elicit.png")
        rollouts = sum(len(one.rollouts) for one in conditions)
        manifest = stage.finish({"conditions": len(table), "rollouts": rollouts})
    tracker.table("elicit", table)
    tracker.figure("elicit", stage.final / "elicit.png")
    tracker.summary(manifest.counts)
    people = shown(table, setting.material.behaviours)
    console.table(
        "what recovers the gap, report split (behaviours: made a rollout)",
        list(people.columns),
        people.values.tolist(),
        at_most=12,
    )
    console.tell(recovered_in_words(table))
    for name, parts in lacking.items():
        console.say(f"  left out: {name}; missing: {', '.join(parts)}")
    if without:
        console.say(f"elicit: without the hybrid; {without}; then `make elicit` again adds it")
    console.wrote(stage.final, manifest)
    console.next("report")
    return manifest


def _conditions(setting: Setting) -> tuple[list[Condition], dict[str, list[str]]]:
    """Every condition that can be rolled out, the ends first, and what the others lack."""
    found, lacking = ends(setting), {}
    is_graded = any(one.rollouts.correct.notna().any() for one in found)
    for plan in planned(setting, () if is_graded else ("graded answers",)):
        if plan.lacks:
            lacking[f"{plan.intervention}: {plan.name}"] = list(plan.lacks)
        else:
            found.append(condition(setting, plan.intervention, plan.name, plan.role, plan.make))
    if (
        BEST_OF in setting.material.own.interventions
        and not setting.material.task.problem_baselines
    ):
        lacking[f"{BEST_OF}: control"] = ["random procedure that answers problems"]
    return found, lacking


def _table(
    cfg: Config,
    setting: Setting,
    conditions: list[Condition],
    hybrid: Sequence[Mapping[str, object]],
) -> pd.DataFrame:
    own, baselines = cfg.elicit, {}
    for name, odds in setting.material.task.problem_baselines.items():
        by_problem = {problem.problem_id: odds(problem) for problem in setting.best_problems}
        baselines[name] = pd.Series(by_problem, dtype=float)
    return elicitation_table(
        conditions,
        ends_of(conditions, own.bootstrap, own.seed),
        setting.behaviours,
        best_of=own.best_of,
        baselines=baselines,
        hybrid=hybrid,
    )
