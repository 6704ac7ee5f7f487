"""Edit the latents of each behaviour in both models; measure what changes, against controls."""

import shutil
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from sae_reasoning.behaviours.headlines import Headline, headlines
from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.plots import plot_effects
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import DOSE_CURVES, Tracker
from sae_reasoning.jobs.ablate.joint import is_joint
from sae_reasoning.jobs.ablate.plan import inputs_of, prepare, too_short
from sae_reasoning.jobs.ablate.rollouts import generations
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS
from sae_reasoning.steering.effects import COHERENCE, effects
from sae_reasoning.steering.findings import (
    MainEdit,
    dose_curves,
    doses,
    findings,
    growing_sets,
    idle_controls,
    main_edits,
    main_effects,
    mismatched_controls,
    off_target,
    returning,
    shown,
)
from sae_reasoning.steering.outcomes import judged_counts
from sae_reasoning.traces.annotate import annotator_for
from sae_reasoning.traces.problems import more_traces


def ablate(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `generations.parquet`, `effects.parquet` and tables of them, on one split's problems.

    The select split's go to `ablate_select`, so that tuning never replaces the reported result, and
    those of another run's latents to `ablate_from_<run>`, with who the `counterparts` are.
    """
    name = cfg.place("ablate").name
    with Stage(cfg.place("ablate"), cfg.settings("ablate"), inputs_of(cfg)) as stage:
        if stage.is_current:
            console.current(name, stage.final)
            assert stage.manifest
            return stage.manifest
        experiment = prepare(cfg)
        console.plan(name, experiment.lines())
        if said := too_short(cfg, experiment.chosen):
            console.warn(said)
        for model, behaviours in experiment.without_lot.items():
            console.warn(
                f"no trace of the select split says how often {model} could start "
                f"{', '.join(behaviours)}: no random positions as control; {more_traces(cfg)}"
            )
        rollouts = generations(cfg, experiment, stage.folder, console)
        found = effects(
            rollouts,
            judged_counts(rollouts, cfg.behaviours),
            split=cfg.ablate.split,
            num_resamples=cfg.ablate.bootstrap,
            seed=cfg.ablate.seed,
        )
        tables = {
            "sets": growing_sets(found),
            "doses": doses(found),
            "off_target": off_target(found),
            "returning": returning(found),
        }
        for table, content in {"effects": found, **tables}.items():
            write_table(stage.folder / f"{table}.parquet", content)
        if experiment.matches is not None:
            write_table(stage.folder / "counterparts.parquet", experiment.matches.table)
        plot_effects(main_edits(found), stage.folder / "effects.png")
        # All that is shown is worked out before the stage counts as made, and isn't shown again.
        shown_tables = _shown(found, tables, cfg.ablate.split)
        edits, latents = main_effects(found), _best_latents(cfg)
        shutil.rmtree(stage.folder / "parts", ignore_errors=True)
        manifest = stage.finish(experiment.counts() | {"generations": len(rollouts)})
    _show(found, tables, shown_tables, tracker, console)
    _tell(edits, latents, cfg.ablate.split, console)
    if (stage.final / "effects.png").exists():  # Without a measured edit there is none.
        tracker.figure("effects", stage.final / "effects.png")
    tracker.summary(manifest.counts)
    console.wrote(stage.final, manifest)
    if not cfg.pair.is_single and annotator_for(cfg.traces.source):
        console.next("contrast report", "which say whether RL created or deployed them")
    return manifest


_TOLD = 4
"""Behaviours that are told of in words; the table has them all."""
_LISTS = (SPAN_DETECTORS, ONSET_PREDICTORS)
_SAID = {
    "yes": "significant",
    "no": "not significant",
    "no, damage": "may damage others",
    "unknown": "can't be told",
}
_SET_COLUMNS = ["behaviour", "found_by", "where", "set_size"] + [
    f"{side}_{column}"
    for side in ("necessity", "sufficiency")
    for column in ("without", "rate", "difference", "n", "coherent", "significant")
]
_DOSE_COLUMNS = "model behaviour edit set_size dose condition value difference n coherent".split()
_RETURN_COLUMNS = [
    *("model", "behaviour", "set_size", "without", "edit", "latents_and_error"),
    *("whole_residual", "random_span", "returned", "coherent", "n"),
]


class _Shown(NamedTuple):
    """What the tables come to.

    Attributes:
        curves: Of doses.
        details: Title, columns and rows of each table that isn't empty.
        is_judged: Whether anything judges if behaviours are carried out rightly.
        idle: Controls that changed nothing.
        unlike: Controls that move the residual less or more than their edit.
    """

    curves: pd.DataFrame
    details: list[tuple[str, list[str], list[list[object]]]]
    is_judged: bool
    idle: list[str]
    unlike: list[str]


def _shown(found: pd.DataFrame, tables: dict[str, pd.DataFrame], split: str) -> _Shown:
    summary = findings(found)
    title = f"edits with controls, changes in starts per opportunity, on the {split} split"
    details = [(title, list(summary.columns), summary.values.tolist())] if len(summary) else []
    details += [
        (title, columns, shown(tables[name], columns))
        for name, columns, title in (
            ("sets", _SET_COLUMNS, "growing sets: ablated in the RL model, clamped in the base"),
            ("doses", _DOSE_COLUMNS, "doses, in multiples of the latents' maximum"),
            ("returning", _RETURN_COLUMNS, "does the behaviour come back through the SAE's error?"),
        )
        if len(tables[name])
    ]
    return _Shown(
        dose_curves(tables["doses"]),
        details,
        bool(found.n[found.outcome == COHERENCE].any()),
        idle_controls(found),
        mismatched_controls(found),
    )


def _show(
    found: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    made: _Shown,
    tracker: Tracker,
    console: Console,
) -> None:
    tracker.table("effects", found)
    for name, table in tables.items():
        tracker.table(name, table)
    tracker.curves(
        DOSE_CURVES,
        made.curves,
        x="dose",
        y="difference",
        line="line",
        title="change of starts per opportunity, by dose in multiples of the latents' maximum",
    )
    for title, columns, rows in made.details:
        console.detail(title, columns, rows)
    if not made.is_judged:
        console.warn(
            "nothing judges whether behaviours are carried out rightly, so no edit is known to "
            "leave the others intact and none is significant; hold changes against the controls', "
            "and against accuracy, length and repetition in effects.parquet"
        )
    if idle := made.idle:
        others = f", and {len(idle) - 1} more" if len(idle) > 1 else ""
        console.warn(
            f"a control that changed nothing is none, and no edit is held against it: {idle[0]}"
            f"{others}"
        )
        console.detail("controls that changed nothing", ["control"], [[e] for e in idle])
    if unlike := made.unlike:
        console.detail(
            "control latents that move the residual less or more than their edit; random "
            "directions move it exactly as far",
            ["control"],
            [[e] for e in unlike],
        )


def _best_latents(cfg: Config) -> list[Headline]:
    """The best latent of each list as `rank` found it; that of the list which is edited is last.

    None where latents came otherwise, or in another order: the best may not be among the edited.
    """
    folder, own = cfg.folder / "rank", cfg.ablate
    if is_joint(cfg) or own.matches_of or own.reviews or own.shortlist not in _LISTS:
        return []
    shortlist, attacks = (
        read_shortlist(folder),
        read_table(folder / "attacks.parquet"),
    )
    others = [name for name in _LISTS if name != own.shortlist]
    return headlines(shortlist, attacks, [*others, own.shortlist])


def _tell(
    edits: Sequence[MainEdit], latents: Sequence[Headline], split: str, console: Console
) -> None:
    """The answer that the stages before led to: each behaviour's best latent, and its edits."""
    if not edits:
        console.tell("No edit has matched latents beside it; effects.parquet has those made.")
        return
    behaviours = list(dict.fromkeys(edit.behaviour for edit in edits))
    rows = sorted(edits, key=lambda edit: behaviours.index(edit.behaviour))
    console.table(
        f"starts of the behaviour per opportunity, {split} split: without → with the edit",
        [
            *("behaviour", "model", "edit", "positions (controls)", "rate", "change [95 % CI]"),
            *("largest control", "right answers", "significant"),
        ],
        [
            [
                *(e.behaviour, e.model, e.edit, e.positions.replace("controls ", "")),
                *(e.rates, e.change),
                *(e.control, e.accuracy, e.verdict),
            ]
            for e in rows
        ],
        at_most=8,
    )
    console.say(
        "  Significant: q < 0.05 beyond no edit and one more draw of each control; damage: others "
        "may suffer."
    )
    for behaviour in behaviours[:_TOLD]:
        own = [one for one in latents if one.behaviour == behaviour]
        best = [f"best {x.kind} {x.latent} (AUROC {x.interval}, {x.called})" for x in own[:-1]]
        best += [f"edited {x.kind}s from {x.latent} ({x.called}):" for x in own[-1:]]
        done = [f"{one.doing} {_SAID[one.verdict]}" for one in rows if one.behaviour == behaviour]
        console.tell(f"{behaviour}: {'; '.join(best)} {', '.join(done)}.")
