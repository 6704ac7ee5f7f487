"""Roll out the models on the same problems, grade and annotate; or import annotated traces."""

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import files_in, models_in, outside_inputs
from sae_reasoning.edges.lm.same_tokens import require_shared_tokens
from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.edges.tables import write_table, write_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.jobs.traces.context import fit_readers
from sae_reasoning.jobs.traces.imports import import_traces
from sae_reasoning.jobs.traces.marks import Marked, mark
from sae_reasoning.jobs.traces.problems import check_source, draw_problems
from sae_reasoning.jobs.traces.rollouts import opens_thought, roll_out
from sae_reasoning.opening import PROBLEMS_FILE, Rows, read_source
from sae_reasoning.records import SELECT, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.grading import Grader, grade_all, uneven_answers
from sae_reasoning.tasks.text.placing import Placement
from sae_reasoning.traces.agreement import agree
from sae_reasoning.traces.imported import is_trace
from sae_reasoning.traces.imported_notes import note_single_writer
from sae_reasoning.traces.jitter import jitter
from sae_reasoning.traces.summary import beside_each_other, summarise, writers_in_words

_SHOWN_ROWS = 8
"""Rows of a table that fit on a screen beside the stage's other lines."""


def traces(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `traces/traces.parquet`: rows sorted by split, problem, writer and sample."""
    # First of all, as a name that is misspelt shouldn't wait for models.
    check_source(cfg.traces)
    rows: Rows = []
    if cfg.traces.kind == "file":
        rows = read_source("traces.source", cfg.traces.source, console.warn)
    with Stage(cfg.folder / "traces", cfg.settings("traces"), _inputs(cfg)) as stage:
        if stage.is_current:
            console.current("traces", stage.final)
            assert stage.manifest
            return stage.manifest
        require_shared_tokens(cfg.pair)
        parts = stage.folder / "parts"
        found = _find(cfg, rows, parts, console)
        made, placement = found.traces, found.placement
        posed = pd.DataFrame(list(map(asdict, found.problems)))
        write_table(stage.folder / PROBLEMS_FILE, posed)
        if not found.marked_by and cfg.traces.kind != "search":
            made = _graded(cfg, made, found.problems, stage.folder, tracker, console)
        made, quotes, failures = _marked(cfg, made, found.marked_by, stage.folder, tracker, console)
        placement.add(quotes)
        made.sort(key=lambda t: (t.split != SELECT, t.problem_id, t.writer, t.trace_id))
        write_traces(stage.folder / "traces.parquet", made)
        shutil.rmtree(parts, ignore_errors=True)
        _report_placement(placement, stage.folder, tracker, console)
        summary = summarise(made, cfg.behaviours)
        tracker.table("traces", summary)
        rates, said = beside_each_other(summary), writers_in_words(summary)
        manifest = stage.finish(_counts(made, placement) | failures)
    tracker.summary(manifest.counts)
    console.detail("all counts", list(summary.columns), summary.values.tolist())
    console.table(
        "behaviours by writer", list(rates.columns), rates.values.tolist(), at_most=_SHOWN_ROWS
    )
    console.tell(f"{said}.")
    if not cfg.pair.is_single:
        note_single_writer([trace.writer for trace in made], console.warn)
    console.wrote(stage.final, manifest)
    console.next("cache")
    return manifest


@dataclass
class _Found:
    """Traces before another annotator has seen them.

    Attributes:
        traces: Rolled out or imported.
        marked_by: Annotator whose moves they bear; "" for none.
        problems: In the order in which they were posed.
        placement: Quoted sections of imported ones.
    """

    traces: list[Trace]
    marked_by: str
    problems: list[Problem] = field(default_factory=list)
    placement: Placement = field(default_factory=Placement)


def _find(cfg: Config, rows: Rows, parts: Path, console: Console) -> _Found:
    if _holds_traces(rows):
        made, placement = import_traces(cfg, rows, console)
        fit = fit_readers(cfg, made, console)
        posed: dict[str, Problem] = {}
        for one in made:
            posed.setdefault(one.problem_id, Problem(one.problem_id, one.split, one.prompt))
        return _Found(fit, "imported", list(posed.values()), placement)
    if cfg.traces.kind == "file":
        _refuse_imported(cfg)
    problems = draw_problems(cfg, rows, console.warn)
    made = roll_out(cfg, problems, parts, console)
    return _Found(made, "grammar" if cfg.task_kind == "search" else "", problems)


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
    cfg: Config,
    made: list[Trace],
    problems: list[Problem],
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> list[Trace]:
    """Grade rollouts on problems in words."""
    with OutsideScorers() as scorers:
        grader = Grader({problem.problem_id: problem for problem in problems}, scorers)
        graded, shares = grade_all(made, grader, opens_thought(cfg))
        if share := sum(trace.correct is None for trace in graded) / max(len(graded), 1):
            needs = "" if scorers.has_algebra else " needs math-verify (sae_reasoning[math]) or"
            console.warn(
                f"{share:.1%} of rollouts could not be graded, and no accuracy counts them: the "
                f"right answer is missing or can't be read, or comparing{needs} takes too long"
            )
    for warning in uneven_answers(graded):
        console.warn(warning)
    write_table(folder / "grades.parquet", shares)
    tracker.table("grades", shares)
    console.table("grades by program (shares of rollouts)", list(shares), shares.values.tolist())
    return graded


def _marked(
    cfg: Config,
    made: list[Trace],
    marked_by: str,
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> tuple[list[Trace], Placement, dict[str, float]]:
    """The traces with the moves that the annotator marks, and how a second one sees them."""
    first = (marked_by or "cues") if cfg.traces.annotator == "auto" else cfg.traces.annotator
    marked = Marked(made) if first == marked_by else mark(cfg, first, made, console)
    failures: dict[str, float] = {"unreadable": len(marked.failures)} if marked.failures else {}
    if second := cfg.traces.second_annotator:
        other = mark(cfg, second, made, console)
        _compare(cfg, (first, marked.traces), (second, other.traces), folder, tracker, console)
    if cfg.traces.jitter:
        rng = np.random.default_rng(cfg.traces.seed)
        jittered = [jitter(trace, cfg.traces.jitter, rng) for trace in marked.traces]
        marked = replace(marked, traces=jittered)
    return marked.traces, marked.placement, failures


def _compare(
    cfg: Config,
    one: tuple[str, list[Trace]],
    other: tuple[str, list[Trace]],
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> None:
    """Write and show how far two annotators agree on the traces that both could mark."""
    (first, ones), (second, others) = one, other
    by_second = {trace.trace_id: trace for trace in others}
    both = [trace for trace in ones if trace.trace_id in by_second]
    kappas, confusion = agree(both, [by_second[t.trace_id] for t in both], cfg.behaviours)
    title = f"{first} (first) and {second} (second), by sentence"
    for name, frame in (("agreement", kappas), ("confusion", confusion)):
        write_table(folder / f"{name}.parquet", frame)
        tracker.table(name, frame)
    console.table(f"κ: {title}", list(kappas), kappas.values.tolist(), at_most=_SHOWN_ROWS)
    square = confusion.pivot(index="first", columns="second", values="sentences").fillna(0)
    rows = [[name, *map(int, row)] for name, row in zip(square.index, square.values, strict=True)]
    console.detail(f"sentences: {title}", ["", *square.columns], rows)


def _inputs(cfg: Config) -> dict[str, str]:
    now = outside_inputs(cfg)
    inputs = models_in(cfg, now) | files_in(now, "traces")
    tokenizers = {f"{writer}_tokenizer" for writer in cfg.pair.readers}
    return inputs | {name: now[name] for name in sorted(tokenizers)}


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


def _counts(made: list[Trace], placement: Placement) -> dict[str, float]:
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
    return counts
