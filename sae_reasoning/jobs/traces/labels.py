"""Who labels the behaviours of the traces, and who will label what is written later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.opening.annotators import fit_annotator, fit_required, open_annotator
from sae_reasoning.opening.sources import read_labelled
from sae_reasoning.records import Trace
from sae_reasoning.rollouts.labels import LabelledTraces, label_traces, unlabelled
from sae_reasoning.traces.agreement import agree
from sae_reasoning.traces.fitted import FitRecord, LabelledText
from sae_reasoning.traces.jitter import jitter

SHOWN_ROWS = 8
"""Rows of a table that fit on a screen beside the stage's other lines."""


@dataclass(frozen=True)
class Labelling:
    """What labelling needs.

    Attributes:
        cfg: The experiment.
        folder: Where the stage writes.
        tracker: Gets tables.
        console: Told of costs, agreement and what is left out.
    """

    cfg: Config
    folder: Path
    tracker: Tracker
    console: Console

    def prepare(self) -> None:
        """Before any rollout: refuse annotators that can't label it, and fit `fitted`'s classifier.

        Raises:
            ConfigError: The grammar knows no such behaviour, cues and meanings are those of another
                kind of text, or the classifier isn't good enough.
        """
        part = self.cfg.traces
        if self.cfg.task_kind == "search" and part.annotator == "auto":
            open_annotator(self.cfg, "grammar", self.folder)
        for kind in part.annotators:
            if kind in ("cues", "llm"):
                part.require_words()
            if kind == "grammar":
                open_annotator(self.cfg, kind, self.folder)
        if "fitted" not in part.annotators:
            return
        read = partial(
            read_labelled,
            "traces.fitted_on",
            part.fitted_on,
            self.cfg.behaviours,
            part.offsets,
            self.console.warn,
        )
        self._tell(fit_required(self.cfg, read, self.folder))

    def fit_on_imported(self, traces: Sequence[Trace]) -> None:
        """Fit a classifier on traces that came with labels, to label what is written later."""
        texts = [LabelledText(t.problem_id, t.text, t.spans) for t in traces]
        if "fitted" in self.cfg.traces.annotators:
            return
        record = fit_annotator(self.cfg, texts, "the imported traces", self.folder)
        if record is not None:
            self._tell(record)
        annotator = open_annotator(self.cfg, "imported", self.folder)
        self.console.say(
            f"  new text will be labelled by {annotator.name}"
            + ("" if annotator.name == "fitted" else _WHY_CUES)
        )

    def _tell(self, record: FitRecord) -> None:
        floor = self.cfg.traces.fitted_min_kappa
        self.console.say(
            f"  a classifier of sentences, fitted on {record.fitted_on} ({record.problems:,} "
            f"problems, {record.sentences:,} sentences): κ={record.overall} on problems that it "
            "was not fitted on"
        )
        if weak := record.weak(floor):
            said = ", ".join(f"{one.behaviour} {one}" for one in weak)
            self.console.warn(
                f"the classifier's κ is less than traces.fitted_min_kappa={floor} for {said}; "
                "counts of these say little"
            )

    def label(self, traces: Sequence[Trace], *, are_imported: bool) -> LabelledTraces:
        """The traces with the labels of `traces.annotator`, and how a second annotator sees them.

        Args:
            traces: To label.
            are_imported: Whether they bear labels already.
        """
        part = self.cfg.traces
        first = part.annotator
        if first == "auto":
            search = "grammar" if self.cfg.task_kind == "search" else "cues"
            first = "imported" if are_imported else search
        found = self._labelled(first, traces)
        if second := part.second_annotator:
            other = self._labelled(second, traces)
            self._compare((first, found.traces), (second, other.traces))
        if part.jitter:
            rng = np.random.default_rng(part.seed)
            found = replace(found, traces=[jitter(t, part.jitter, rng) for t in found.traces])
        return found

    def _labelled(self, kind: str, traces: Sequence[Trace]) -> LabelledTraces:
        if kind == "imported":
            return LabelledTraces(list(traces))
        annotator = open_annotator(self.cfg, kind, self.folder)
        reader = next(iter(self.cfg.pair.readers.values()))
        if not (costs := annotator.costs(unlabelled(traces))):
            return label_traces(annotator, traces, reader)
        self.console.plan("annotator", costs)
        with self.console.progress(len(traces), "traces", f"{annotator.name} labels") as bar:
            found = label_traces(annotator, traces, reader, bar.advance)
        if found.left_out:
            self.console.warn(
                f"{len(found.left_out)} of {len(traces)} traces are left out: no readable answer "
                f"on them ({', '.join(list(found.left_out)[:3])})"
            )
        return found

    def _compare(self, one: tuple[str, list[Trace]], other: tuple[str, list[Trace]]) -> None:
        """Write and show how far two annotators agree on the traces that both could label."""
        (first, ones), (second, others) = one, other
        by_second = {trace.trace_id: trace for trace in others}
        both = [trace for trace in ones if trace.trace_id in by_second]
        kappas, confusion = agree(both, [by_second[t.trace_id] for t in both], self.cfg.behaviours)
        title = f"{first} (first) and {second} (second), by sentence"
        for name, frame in (("agreement", kappas), ("confusion", confusion)):
            write_table(self.folder / f"{name}.parquet", frame)
            self.tracker.table(name, frame)
        shown = kappas.values.tolist()
        self.console.table(f"κ: {title}", list(kappas), shown, at_most=SHOWN_ROWS)
        square = confusion.pivot(index="first", columns="second", values="sentences").fillna(0)
        rows = [[n, *map(int, row)] for n, row in zip(square.index, square.values, strict=True)]
        self.console.detail(f"sentences: {title}", ["", *square.columns], rows)


_WHY_CUES = (
    " (these labels are too few to fit a classifier on, or it doesn't reach "
    "traces.fitted_min_kappa)"
)
