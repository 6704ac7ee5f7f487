"""Roll out the models on the same problems, grade and annotate; or import annotated traces."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.lm.same_tokens import require_shared_tokens
from sae_reasoning.edges.schema import write_artifact
from sae_reasoning.edges.tables import write_table, write_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.jobs.traces.labels import SHOWN_ROWS, Labelling
from sae_reasoning.jobs.traces.rollouts import roll_out
from sae_reasoning.opening import PROBLEMS_FILE
from sae_reasoning.opening.grades import grade_traces
from sae_reasoning.opening.problems import check_source, draw_problems
from sae_reasoning.opening.sources import Rows, read_source
from sae_reasoning.records import SELECT, Trace
from sae_reasoning.rollouts.context import fit_readers
from sae_reasoning.rollouts.imported import import_traces
from sae_reasoning.tasks.annotations import Placement
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.headroom import ACCURACY, advice, headroom_of, writers_in_words
from sae_reasoning.traces.imported import is_trace
from sae_reasoning.traces.imported_notes import note_single_writer
from sae_reasoning.traces.summary import beside_each_other, summarise


def traces(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `traces/traces.parquet`: rows sorted by split, problem, writer and sample."""
    # First of all, as a name that is misspelt shouldn't wait for models.
    check_source(cfg.traces)
    rows: Rows = []
    if cfg.traces.kind == "file":
        rows = read_source("traces.source", cfg.traces.source, console.warn)
    inputs = inputs_of("traces", cfg)
    with Stage(cfg.folder / "traces", cfg.settings("traces"), inputs) as stage:
        if done := console.up_to_date(stage):
            return done
        require_shared_tokens(cfg.pair)
        labelling = Labelling(cfg, stage.folder, tracker, console)
        labelling.prepare()
        parts = stage.folder / "parts"
        found = _find(cfg, rows, parts, console)
        posed = pd.DataFrame(list(map(asdict, found.problems)))
        write_table(stage.folder / PROBLEMS_FILE, posed)
        graded = _graded(cfg, found, stage.folder, tracker, console)
        labelled = labelling.label(graded, are_imported=found.are_imported)
        made, placement = labelled.traces, found.placement
        placement.add(labelled.placement)
        if found.are_imported and cfg.traces.annotator in ("auto", "imported"):
            labelling.fit_on_imported(graded)
        made.sort(key=lambda t: (t.split != SELECT, t.problem_id, t.writer, t.trace_id))
        write_traces(stage.folder / "traces.parquet", made)
        shutil.rmtree(parts, ignore_errors=True)
        _report_placement(placement, stage.folder, tracker, console)
        headroom = headroom_of(made, cfg.traces.headroom_low, cfg.traces.headroom_high)
        write_artifact(stage.folder / ACCURACY, headroom.as_json())
        summary = summarise(made, cfg.behaviours)
        tracker.table("traces", summary)
        rates = beside_each_other(summary)
        manifest = stage.finish(_counts(made, placement, len(labelled.left_out)))
    tracker.summary(manifest.counts)
    console.detail("all counts", list(summary.columns), summary.values.tolist())
    console.table(
        "behaviours by writer", list(rates.columns), rates.values.tolist(), at_most=SHOWN_ROWS
    )
    console.tell(f"{writers_in_words(headroom)}.")
    if not cfg.pair.is_single:
        note_single_writer([trace.writer for trace in made], console.warn)
    console.wrote(stage.final, manifest)
    if said := advice(headroom, cfg.traces, cfg.task.max_edges):
        console.warn(said)
    console.next("cache")
    return manifest


@dataclass
class _Found:
    """Traces before anybody labels them here.

    Attributes:
        traces: Rolled out or imported.
        are_imported: Whether they came in a file, with what labels and grades it has.
        problems: In the order in which they were posed.
        placement: Quoted sections of imported ones.
    """

    traces: list[Trace]
    are_imported: bool
    problems: list[Problem] = field(default_factory=list)
    placement: Placement = field(default_factory=Placement)


def _find(cfg: Config, rows: Rows, parts: Path, console: Console) -> _Found:
    if _holds_traces(rows):
        other = cfg.traces.base_source
        base = read_source("traces.base_source", other, console.warn) if other else []
        made, placement = import_traces(cfg, rows, base, console)
        fit = fit_readers(cfg, made, console)
        posed: dict[str, Problem] = {}
        for one in made:
            posed.setdefault(one.problem_id, Problem(one.problem_id, one.split, one.prompt))
        return _Found(fit, True, list(posed.values()), placement)
    if cfg.traces.kind == "file":
        _refuse_imported(cfg)
    if cfg.task_kind == "text" and cfg.traces.annotator == "auto":
        cfg.traces.require_words()
    problems = draw_problems(cfg, rows, console.warn)
    return _Found(roll_out(cfg, problems, parts, console), False, problems)


def _holds_traces(rows: Rows) -> bool:
    return any(is_trace(row) for _, row in rows)


def _refuse_imported(cfg: Config) -> None:
    """Refuse options that need traces where there are problems only."""
    options = {"annotator": cfg.traces.annotator, "second_annotator": cfg.traces.second_annotator}
    for option, value in options.items():
        if value == "imported":
            raise ConfigError(
                f"traces.{option}=imported, but traces.source={cfg.traces.source} holds problems "
                "and no text; choose cues or llm"
            )
    if cfg.traces.base_source:
        raise ConfigError(
            f"traces.base_source={cfg.traces.base_source} goes with a file of traces, but "
            f"traces.source={cfg.traces.source} holds problems; leave it out"
        )


def _graded(
    cfg: Config, found: _Found, folder: Path, tracker: Tracker, console: Console
) -> list[Trace]:
    """Rollouts with their grades; imported traces have theirs, or none."""
    if found.are_imported:
        return found.traces
    graded, shares = grade_traces(cfg, found.traces, found.problems, console.warn)
    if shares is not None:
        write_table(folder / "grades.parquet", shares)
        tracker.table("grades", shares)
        rows = shares.values.tolist()
        console.table("grades by program (shares of rollouts)", list(shares), rows)
    return graded


def _report_placement(
    placement: Placement, folder: Path, tracker: Tracker, console: Console
) -> None:
    """Say which quoted sections were found in their texts."""
    if not placement.quoted:
        return
    frame = pd.DataFrame(placement.rows())
    write_table(folder / "placement.parquet", frame)
    tracker.table("placement", frame)
    console.detail("quoted sections found in their texts", list(frame), frame.values.tolist())
    total, lost = placement.quoted.total(), (placement.quoted - placement.placed).total()
    console.say(f"  placed {total - lost:,} of {total:,} sections ({placement.share:.1%})")


def _counts(made: list[Trace], placement: Placement, num_left_out: int) -> dict[str, float]:
    counts: dict[str, float] = {
        "traces": len(made),
        "problems": len({t.problem_id for t in made}),
        "tokens": sum(len(t.token_ids) for t in made),
    }
    if graded := [trace.correct for trace in made if trace.correct is not None]:
        counts["correct"] = sum(graded)
    counts["ungraded"] = len(made) - len(graded)
    if any(trace.answer_status for trace in made):
        counts["unreadable_answers"] = sum(t.answer_status == "unreadable" for t in made)
    counts["truncated"] = sum(trace.truncated for trace in made)
    if placement.quoted:
        counts["sections"] = placement.quoted.total()
        counts["sections_placed"] = placement.placed.total()
    if num_left_out:
        counts["unreadable"] = num_left_out
    return counts
