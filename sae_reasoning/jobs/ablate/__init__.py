"""Edit the latents of each move in both models, and measure what that changes, against controls."""

import shutil

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.plots import plot_effects
from sae_reasoning.edges.tables import write_table
from sae_reasoning.edges.tracker import DOSE_CURVES, Tracker
from sae_reasoning.jobs.ablate.plan import inputs_of, prepare, too_short
from sae_reasoning.jobs.ablate.rollouts import generations
from sae_reasoning.steering.effects import COHERENCE, effects
from sae_reasoning.steering.findings import (
    dose_curves,
    doses,
    findings,
    growing_sets,
    idle_controls,
    main_edits,
    mismatched_controls,
    off_target,
    returning,
    shown,
)
from sae_reasoning.steering.outcomes import judged_counts
from sae_reasoning.traces.annotate import annotator_for


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
        shutil.rmtree(stage.folder / "parts", ignore_errors=True)
        manifest = stage.finish(experiment.counts() | {"generations": len(rollouts)})
    _show(found, tables, cfg.ablate.split, tracker, console)
    tracker.figure("effects", stage.final / "effects.png")
    tracker.summary(manifest.counts)
    console.wrote(stage.final, manifest)
    if not cfg.pair.is_single and annotator_for(cfg.traces.source):
        console.next("contrast")
    return manifest


_SET_COLUMNS = ["behaviour", "found_by", "where", "set_size"] + [
    f"{side}_{column}"
    for side in ("necessity", "sufficiency")
    for column in ("without", "rate", "difference", "n", "coherent", "stands")
]
_DOSE_COLUMNS = "model behaviour edit set_size dose condition value difference n coherent".split()
_RETURN_COLUMNS = [
    *("model", "behaviour", "set_size", "without", "edit", "latents_and_error"),
    *("whole_residual", "random_span", "returned", "coherent", "n"),
]


def _show(
    found: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    split: str,
    tracker: Tracker,
    console: Console,
) -> None:
    tracker.table("effects", found)
    for name, table in tables.items():
        tracker.table(name, table)
    tracker.curves(
        DOSE_CURVES,
        dose_curves(tables["doses"]),
        x="dose",
        y="difference",
        line="line",
        title="change of starts per opportunity, by dose in multiples of the latents' maximum",
    )
    summary = findings(found)
    title = f"edits with controls, changes in starts per opportunity, on the {split} split"
    console.table(title, list(summary.columns), summary.values.tolist())
    for name, columns, title in (
        ("sets", _SET_COLUMNS, "growing sets: ablated in the RL model, clamped in the base"),
        ("doses", _DOSE_COLUMNS, "doses, in multiples of the latents' maximum"),
        ("returning", _RETURN_COLUMNS, "does the move come back through the SAE's error?"),
    ):
        if len(tables[name]):
            console.table(title, columns, shown(tables[name], columns))
    if not found.outcome.eq(COHERENCE).any() or not found.n[found.outcome == COHERENCE].any():
        console.warn(
            "nothing judges whether moves are carried out rightly, so no edit is known to leave "
            "the others intact and none stands; hold changes against the controls', and against "
            "accuracy, length and repetition in effects.parquet"
        )
    if idle := idle_controls(found):
        console.warn(
            "controls that changed nothing are no controls; their edits aren't held against them"
        )
        for edit in idle:
            console.say(f"    {edit}")
    if unlike := mismatched_controls(found):
        console.warn(
            "other latents move the residual unlike the edit they stand beside; judge these edits "
            "by the random directions, which move exactly as far. Per token they move"
        )
        for edit in unlike:
            console.say(f"    {edit}")
