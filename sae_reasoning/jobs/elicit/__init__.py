"""The elicitation table: cheap means beside RL, gap recovered against cost.

1. Base and RL model answer the report problems: the ends of the gap (`base`, `rl`).
2. The base answers them under every means: made to think, told the words of moves, tuned on one
   problem, with a control token or biases attached, or as often as a judge may choose. Whatever is
   trained is trained, and its length and rate are chosen, on the select split.
3. Each means has a control beside it: the same without what it is said to work by.

Noise is common to all means. Each means is a part, so a killed run goes on from there; parts stand
until the models, the problems or the options change, whatever becomes of the hybrid.
"""

import math
import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, Stage, publish, require_stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import models_in, outside_inputs
from sae_reasoning.edges.lm.attach import Attachment, ControlToken, LayerBiases, random_twin_of
from sae_reasoning.edges.lm.generate import Sampler
from sae_reasoning.edges.lm.load import LanguageModel, continuation_ids
from sae_reasoning.edges.plots import plot_elicitation
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.elicitation import table as tables
from sae_reasoning.elicitation.told import (
    Propose,
    Telling,
    anywhere,
    at_opportunities,
    move_words,
)
from sae_reasoning.jobs.elicit.lab import MODELS, Arm, Cost, Lab, Manner
from sae_reasoning.jobs.elicit.trainings import Lessons, reinforced, with_values
from sae_reasoning.organisms.cells import JUDGED
from sae_reasoning.organisms.measure import random_walks
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.tutor import CRITIQUES, SearchTutor
from sae_reasoning.tasks.search.world import parse_prompt
from sae_reasoning.traces.annotate import Annotator, annotator_for

_MEANS, _CONTROL, _END = "means", "control", "end"
_UNKNOWN = Cost(math.nan, math.nan, math.nan)
_WALKS = "random descents"


def elicit(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `elicit.parquet`, `elicit.png`, `rollouts/` and `trained/` in `elicit`."""
    annotate, inputs = _inputs(cfg)
    with Stage(cfg.folder / "elicit", cfg.settings("elicit"), inputs) as stage:
        if stage.is_current:
            console.current("elicit", stage.final)
            assert stage.manifest
            return stage.manifest
        _take_over(stage)
        lab = Lab(cfg, stage.folder, annotate, console)
        console.plan("elicit", _lines(lab))
        arms = list(_arms(lab))
        table = _table(cfg, arms)
        write_table(stage.folder / "elicit.parquet", table)
        plot_elicitation(table, stage.folder / "elicit.png")
        manifest = stage.finish(
            {"means": len(table), "rollouts": sum(len(arm.rollouts) for arm in arms)}
        )
    tracker.table("elicit", table)
    tracker.figure("elicit", stage.final / "elicit.png")
    tracker.summary(manifest.counts)
    judged = [move for move in cfg.behaviours if move in JUDGED]
    people = tables.shown(table, judged)
    console.table(
        "what recovers the gap, report split (moves: made in their place and rightly, a rollout)",
        list(people.columns),
        people.values.tolist(),
        at_most=12,
    )
    console.tell(tables.recovered_in_words(table))
    if "hybrid" in cfg.elicit.means and "hybrid" not in manifest.inputs:
        console.say("elicit: without the hybrid; run `make hybrid`, then this again, to add it")
    console.wrote(stage.final, manifest)
    console.next("report")
    return manifest


def _inputs(cfg: Config) -> tuple[Annotator, dict[str, str]]:
    """Who judges, and fingerprints of what is read; the hybrid's only where it's there.

    Raises:
        ConfigError: Nothing can judge new text.
    """
    annotate = annotator_for(cfg.traces.source)
    if annotate is None:
        raise ConfigError(
            f"traces.source={cfg.traces.source} has no grader for new text, so no accuracy can be "
            "recovered; use traces.source=search"
        )
    now = outside_inputs(cfg)
    traces = require_stage(cfg.folder, "traces", cfg.settings("traces"), now).fingerprint
    inputs = models_in(cfg, now) | {"traces": traces}
    if hybrid := _hybrid(cfg):
        inputs["hybrid"] = hybrid.fingerprint
    return annotate, inputs


def _hybrid(cfg: Config) -> Manifest | None:
    """The hybrid, where it's asked for, there, and of these traces (hence of these models)."""
    found = Manifest.read(cfg.folder / "hybrid")
    traces = Manifest.read(cfg.folder / "traces")
    if "hybrid" not in cfg.elicit.means or not found or not traces:
        return None
    return found if found.inputs.get("traces") == traces.fingerprint else None


def _take_over(stage: Stage) -> None:
    """Keep the rollouts of a finished table that differs in the hybrid alone."""
    old = stage.manifest

    def others(inputs: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in inputs.items() if name != "hybrid"}

    if old is None or old.config != stage.config or others(old.inputs) != others(stage.inputs):
        return
    for name in ("rollouts", "trained"):
        for file in filter(Path.is_file, (stage.final / name).rglob("*")):
            place = stage.folder / file.relative_to(stage.final)
            if not place.exists():
                with publish(place) as temporary:  # A kill leaves no half of a file.
                    shutil.copyfile(file, temporary)


def _lines(lab: Lab) -> dict[str, Any]:
    own = lab.own
    return {
        "means": ", ".join(own.means),
        "problems": ", ".join(f"{s}: {len(p)}" for s, p in lab.problems.items()),
        "rollouts": f"{own.samples} a problem and means",
        "best of": f"{own.best_of}, {min(own.best_problems, len(lab.problems['report']))} problems",
    }


def _arms(lab: Lab) -> list[Arm]:
    """Every means and its control, rolled out; the ends first."""

    def end(model: str) -> tuple[pd.DataFrame, Cost]:
        lm = lab.base if model == "base" else lab.fresh(model)
        return lab.roll(lm, Manner()), Cost() if model == "base" else _UNKNOWN

    found = [lab.arm(model, "as it is", partial(end, model), _END) for model in MODELS]
    make: dict[str, Callable[[Lab], list[Arm]]] = {
        "prompt": _prompted,
        "tools": _told,
        "critiques": _critiqued,
        "gate": _gated,
        "biases": _biased,
        "best-of": _best_of,
    }
    for name, arms in make.items():
        if name in lab.own.means:
            found += arms(lab)
    return found


def _rolled(lab: Lab, manner: Manner, lm: LanguageModel | None = None) -> tuple[pd.DataFrame, Cost]:
    return lab.roll(lm or lab.base, manner), Cost()


def _prompted(lab: Lab) -> list[Arm]:
    """Made to think; the control is made to answer directly."""
    own = lab.own
    thinking = Manner(beginning=own.think, after=own.think_instruction)
    direct = Manner(beginning=grammar.ANSWER)
    return [
        lab.arm("prompt", "made to think", partial(_rolled, lab, thinking), _MEANS),
        lab.arm("prompt", "made to answer", partial(_rolled, lab, direct), _CONTROL),
    ]


def _told(lab: Lab) -> list[Arm]:
    """Words of the moves, in the prompt or at opportunities; the control has them anywhere.

    All are made to think, so what tools add stands against `made to think`.
    """
    own = lab.own

    def telling(propose: Callable[[Sequence[str]], Propose]) -> Manner:
        def make(sampler: Sampler, prompts: Sequence[str], beginnings: Sequence[str]) -> Telling:
            return Telling(
                sampler,
                beginnings,
                propose(prompts),
                decode=lab.base.decode,
                encode=partial(continuation_ids, lab.base),
                ends=(".", "?"),
            )

        return Manner(beginning=own.think, telling=make)

    words = own.tools_instruction or move_words(own.seed)
    in_prompt = Manner(
        beginning=own.think,
        before="" if own.tools_instruction else words,
        after=words if own.tools_instruction else "",
    )
    arms = [lab.arm("tools", "words in the prompt", partial(_rolled, lab, in_prompt), _MEANS)]
    here = telling(lambda prompts: at_opportunities(prompts, own.seed))
    arms.append(lab.arm("tools", "words at opportunities", partial(_rolled, lab, here), _MEANS))
    share = _told_share(arms[-1].rollouts)
    by_lot = telling(lambda prompts: anywhere(prompts, share, own.seed))
    arms.append(lab.arm("tools", "words anywhere", partial(_rolled, lab, by_lot), _CONTROL))
    return arms


def _told_share(rollouts: pd.DataFrame) -> float:
    """Share of the ends of sentences at which words were written, about."""
    openings = [o for move in JUDGED for o in grammar.OPENINGS[move]]
    mean = sum(len(opening.split()) for opening in openings) / len(openings)
    ends = rollouts.text.str.count(r" \.").sum()
    return float(min(rollouts.num_written.sum() / mean / max(ends, 1), 1.0))


def _critiqued(lab: Lab) -> list[Arm]:
    """Tuned on one select problem; controls learn its right answer, or shuffled critiques."""
    lessons = Lessons(lab)

    def make(kind: str) -> tuple[pd.DataFrame, Cost]:
        lm, cost = lessons.taught(kind)
        return lab.roll(lm, Manner()), cost

    return [
        lab.arm("critiques", kind, partial(make, kind), _MEANS if kind == CRITIQUES else _CONTROL)
        for kind in SearchTutor.kinds
    ]


def _attached(lab: Lab, means: str, trained: Callable[[], tuple[Attachment, Cost]]) -> list[Arm]:
    def make(by_lot: bool) -> tuple[pd.DataFrame, Cost]:
        part, cost = trained()
        if by_lot:
            part = with_values(part, random_twin_of(part, lab.own.seed))
        return lab.roll(lab.base, Manner(part=part)), Cost() if by_lot else cost

    return [
        lab.arm(means, "trained", partial(make, False), _MEANS),
        lab.arm(means, "by lot", partial(make, True), _CONTROL),
    ]


def _gated(lab: Lab) -> list[Arm]:
    """A control token that learns when to think; the control is as long a vector by lot."""
    own = lab.own

    def trained() -> tuple[Attachment, Cost]:
        return reinforced(lab, "gate", ControlToken, own.gate_steps, own.gate_rates)

    return _attached(lab, "gate", trained)


def _biased(lab: Lab) -> list[Arm]:
    """A vector a layer at every position; the control is as long vectors by lot."""
    own = lab.own

    def trained() -> tuple[Attachment, Cost]:
        return reinforced(lab, "biases", LayerBiases, own.bias_steps, own.bias_rates)

    return _attached(lab, "biases", trained)


def _best_of(lab: Lab) -> list[Arm]:
    """Samples of the base, judged by program; the control is random descents of the map."""
    problems = lab.problems["report"][: lab.own.best_problems]
    most = max(lab.own.best_of)

    def sampled() -> tuple[pd.DataFrame, Cost]:
        return lab.roll(lab.base, Manner(), problems, most), Cost()

    def walked() -> tuple[pd.DataFrame, Cost]:
        rng = random.Random(f"walk/{lab.own.seed}")
        rows = [
            {"problem_id": problem.problem_id, "sample": sample, "correct": right}
            for problem in problems
            for sample, right in enumerate(random_walks(parse_prompt(problem.prompt), most, rng))
        ]
        nothing = {"num_tokens": 0, "num_written": 0, "prompt_tokens": 0, "truncated": False}
        moves = {f"{kind}/{m}": 0 for kind in ("made", "right") for m in lab.cfg.behaviours}
        return pd.DataFrame(rows).assign(**nothing, **moves), Cost()

    return [
        lab.arm("best-of", "samples", sampled, _MEANS),
        lab.arm("best-of", _WALKS, walked, _CONTROL),
    ]


def _table(cfg: Config, arms: Sequence[Arm]) -> pd.DataFrame:
    own = cfg.elicit
    by_model = {arm.means: arm for arm in arms if arm.role == _END}
    ends = tables.Ends(
        tables.accuracy_by_problem(by_model["base"].rollouts),
        tables.accuracy_by_problem(by_model["rl"].rollouts),
        own.bootstrap,
        own.seed,
    )
    sampled = next((arm.rollouts for arm in arms if arm.setting == "samples"), None)
    rows: list[dict[str, object]] = []
    for arm in arms:
        names = {"means": arm.means, "setting": arm.setting, "role": arm.role}
        if arm.means == "best-of":
            assert sampled is not None
            # What one sample earns counts as 0, so both sides of a gap rest on the same samples.
            one = tables.pass_at(sampled.set_index("problem_id").correct, 1)
            grades = arm.rollouts.set_index("problem_id").correct
            for k in sorted(own.best_of):
                setting = f"{arm.setting}, k={k}" if arm.setting == _WALKS else f"k={k}"
                rows.append(
                    tables.row(
                        names | {"setting": setting},
                        tables.chosen_of(arm.rollouts, k),
                        ends,
                        cfg.behaviours,
                        samples=k,
                        accuracy=tables.pass_at(grades, k),
                        base=one,
                    )
                    | {"ungraded": int(grades.isna().sum())}
                )
            continue
        share = None
        if arm.means == "biases":
            share = 1.0
        if arm.means == "gate":
            share = len(arm.rollouts) / tables.predicted(arm.rollouts)
        rows.append(tables.row(names, arm.rollouts, ends, cfg.behaviours, share_steered=share))
    if _hybrid(cfg):
        found = read_table(cfg.folder / "hybrid" / "hybrid.parquet")
        rows += tables.hybrid_rows(found, own.hybrid_budget)
    return (
        pd.DataFrame(rows).reindex(columns=tables.columns(cfg.behaviours)).replace({None: np.nan})
    )
