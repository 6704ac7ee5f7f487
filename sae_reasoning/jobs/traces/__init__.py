"""Roll out both models on the same problems, grade and annotate; or import annotated traces."""

import glob
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage, fingerprint_files
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import describe
from sae_reasoning.edges.lm.shared import require_shared_tokens
from sae_reasoning.edges.tables import write_table, write_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.jobs.traces.imports import import_traces, read_source
from sae_reasoning.jobs.traces.marks import Marked, mark
from sae_reasoning.jobs.traces.rollouts import draw_problems, roll_out
from sae_reasoning.records import Trace
from sae_reasoning.traces.agreement import agree
from sae_reasoning.traces.annotate import ANNOTATORS
from sae_reasoning.traces.imported import Placement, note_single_writer
from sae_reasoning.traces.jitter import jitter
from sae_reasoning.traces.problems import SELECT
from sae_reasoning.traces.summary import summarise


def traces(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `traces/traces.parquet`: rows sorted by split, problem, writer and sample."""
    with Stage(cfg.folder / "traces", cfg.settings("traces"), _inputs(cfg)) as stage:
        if stage.is_current:
            console.current("traces", stage.final)
            assert stage.manifest
            return stage.manifest
        require_shared_tokens(cfg.pair)
        parts = stage.folder / "parts"
        placement = Placement()
        if cfg.traces.source in ANNOTATORS:
            made = roll_out(cfg, draw_problems(cfg), parts, console)
        else:
            rows = read_source("traces.source", cfg.traces.source)
            made, placement = import_traces(cfg, rows)
        made, quotes, failures = _marked(cfg, made, stage.folder, tracker, console)
        placement.add(quotes)
        made.sort(key=lambda t: (t.split != SELECT, t.problem_id, t.writer, t.trace_id))
        write_traces(stage.folder / "traces.parquet", made)
        shutil.rmtree(parts, ignore_errors=True)
        _report_placement(placement, stage.folder, tracker, console)
        summary = summarise(made, cfg.behaviours)
        tracker.table("traces", summary)
        manifest = stage.finish(_counts(made, placement) | failures)
    tracker.summary(manifest.counts)
    console.table("moves by writer", list(summary.columns), summary.values.tolist())
    note_single_writer([trace.writer for trace in made], console.warn)
    console.wrote(stage.final, manifest)
    console.next("make cache")
    return manifest


def _marked(
    cfg: Config, made: list[Trace], folder: Path, tracker: Tracker, console: Console
) -> tuple[list[Trace], Placement, dict[str, float]]:
    """The traces with the moves that the annotator marks, and how a second one sees them."""
    own = "grammar" if cfg.traces.source in ANNOTATORS else "imported"
    first = own if cfg.traces.annotator == "auto" else cfg.traces.annotator
    marked = Marked(made) if first == own else mark(cfg, first, made, console)
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
    console.table(f"κ: {title}", list(kappas), kappas.values.tolist())
    square = confusion.pivot(index="first", columns="second", values="sentences").fillna(0)
    rows = [[name, *map(int, row)] for name, row in zip(square.index, square.values, strict=True)]
    console.table(f"sentences: {title}", ["", *square.columns], rows)


def _inputs(cfg: Config) -> dict[str, str]:
    facts = {"base": describe(cfg.pair.base), "rl": describe(cfg.pair.rl)}
    inputs = {writer: fact.fingerprint for writer, fact in facts.items()}
    inputs |= {f"{writer}_tokenizer": f.tokenizer_fingerprint for writer, f in facts.items()}
    if cfg.traces.source not in ANNOTATORS:
        files = {"source": cfg.traces.source, "base_source": cfg.traces.base_source}
        for name, path in files.items():
            if path:
                inputs[name] = fingerprint_files(Path(path).parent, glob.escape(Path(path).name))
    return inputs


def _report_placement(
    placement: Placement, folder: Path, tracker: Tracker, console: Console
) -> None:
    """Say which quoted sections were found in their texts."""
    if not placement.quoted:
        return
    frame = pd.DataFrame(placement.rows())
    write_table(folder / "placement.parquet", frame)
    tracker.table("placement", frame)
    console.table("quoted sections found in their texts", list(frame), frame.values.tolist())
    total, lost = placement.quoted.total(), (placement.quoted - placement.placed).total()
    console.say(f"  placed {total - lost:,} of {total:,} sections ({placement.share:.1%})")


def _counts(made: list[Trace], placement: Placement) -> dict[str, float]:
    counts: dict[str, float] = {
        "traces": len(made),
        "problems": len({t.problem_id for t in made}),
        "tokens": sum(len(t.token_ids) for t in made),
    }
    if placement.quoted:
        counts["sections"] = placement.quoted.total()
        counts["sections_placed"] = placement.placed.total()
    return counts
