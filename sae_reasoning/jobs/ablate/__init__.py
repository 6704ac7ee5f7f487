"""Edit the latents of each behaviour in both models; measure what changes, against controls.

1. Latents are chosen from the shortlist, and edits planned, each with what it is compared with:
   controls as large, other behaviours' latents, the mean difference (`steering.conditions`).
2. Both models write under every condition, with common noise (`rollouts.edited`).
3. Outcomes are counted, compared with no edit and with every control, and held against the
   coherence guard (`steering.effects`, `steering.coherence`).
"""

import shutil
from collections.abc import Sequence

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.plots import plot_effects
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import DOSE_CURVES, Tracker
from sae_reasoning.jobs.ablate.joint import is_joint
from sae_reasoning.jobs.ablate.plan import Experiment, prepare
from sae_reasoning.jobs.ablate.rollouts import generations
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS
from sae_reasoning.robustness.headlines import Headline, headlines
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.steering import edit_summary
from sae_reasoning.steering.effects import effects
from sae_reasoning.steering.findings import MainEdit, main_edits, main_effects
from sae_reasoning.steering.latent_choice import too_short
from sae_reasoning.steering.outcomes import judged_counts
from sae_reasoning.traces.problems import more_traces

_TOLD = 4
"""Behaviours that are told of in words; the table has them all."""
_LISTS = (SPAN_DETECTORS, ONSET_PREDICTORS)


def ablate(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `generations.parquet`, `effects.parquet` and tables of them, on one split's problems.

    The select split's go to `ablate_select`, so that tuning never replaces the reported result, and
    those of another run's latents to `ablate_from_<run>`, with their `matched_latents`.
    """
    own, place = cfg.ablate, cfg.place("ablate")
    with Stage(place, cfg.settings("ablate"), inputs_of("ablate", cfg)) as stage:
        if done := console.up_to_date(stage):
            return done
        experiment = prepare(cfg)
        console.plan(place.name, experiment.lines())
        for warning in (too_short(cfg, experiment.chosen), *_without_random(cfg, experiment)):
            if warning:
                console.warn(warning)
        pair, parts = LoadedPair(cfg.pair, cfg.device), Parts(stage.folder / "parts")
        rollouts = generations(own, experiment, pair, parts, console)
        found = effects(
            rollouts,
            judged_counts(rollouts, cfg.behaviours),
            split=own.split,
            num_resamples=own.bootstrap,
            seed=own.seed,
        )
        tables = edit_summary.tables_of(found)
        every = {"generations": rollouts, "effects": found, **tables}
        if experiment.matches is not None:
            every["matched_latents"] = experiment.matches.table
        for name, table in every.items():
            write_table(stage.folder / f"{name}.parquet", table)
        plot_effects(main_edits(found), stage.folder / "effects.png")
        # All that is shown is worked out before the stage counts as made, and isn't shown again.
        summary = edit_summary.summary_of(found, tables, own.split)
        edits, latents = main_effects(found), _best_latents(cfg)
        shutil.rmtree(parts.folder, ignore_errors=True)
        manifest = stage.finish(experiment.counts() | {"generations": len(rollouts)})
    _show(found, tables, summary, tracker, console)
    _tell(edits, latents, own.split, console)
    if (stage.final / "effects.png").exists():  # Without a measured edit there is none.
        tracker.figure("effects", stage.final / "effects.png")
    tracker.summary(manifest.counts)
    console.wrote(stage.final, manifest)
    if not cfg.pair.is_single:
        console.next("contrast report", "which say whether RL created or deployed them")
    return manifest


def _without_random(cfg: Config, experiment: Experiment) -> list[str]:
    return [
        f"no trace of the select split says how often {model} could start "
        f"{', '.join(behaviours)}: no random positions as control; {more_traces(cfg)}"
        for model, behaviours in experiment.without_random.items()
    ]


def _show(
    found: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    summary: edit_summary.Summary,
    tracker: Tracker,
    console: Console,
) -> None:
    for name, table in {"effects": found, **tables}.items():
        tracker.table(name, table)
    tracker.curves(
        DOSE_CURVES,
        summary.curves,
        x="dose",
        y="difference",
        line="line",
        title="change of starts per opportunity, by dose in multiples of the latents' maximum",
    )
    for title, columns, rows in summary.details:
        console.detail(title, columns, rows)
    for warning in summary.warnings:
        console.warn(warning)


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
    console.table(
        f"starts of the behaviour per opportunity, {split} split: without → with the edit",
        edit_summary.MAIN_COLUMNS,
        edit_summary.main_rows(edits),
        at_most=8,
    )
    console.say(
        "  Significant: q < 0.05 beyond no edit and one more draw of each control, within the "
        "coherence guard."
    )
    for line in edit_summary.told(edits, latents)[:_TOLD]:
        console.tell(line)
