"""What the writers do: grades, thinking and moves, per trace and per opportunity."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.records import Trace


def summarise(traces: Sequence[Trace], behaviours: Sequence[str]) -> pd.DataFrame:
    """One row a writer and move: how often it is made, and how often it could have been.

    Columns: writer, traces, correct (share), unreadable (share whose answer can't be read, where a
    program graded), truncated (share), behaviour, spans, per_trace (spans a trace), opportunities,
    taken (share of opportunities).
    """
    rows = []
    for writer in sorted({trace.writer for trace in traces}):
        own = [trace for trace in traces if trace.writer == writer]
        graded = [trace.correct for trace in own if trace.correct is not None]
        statuses = [trace.answer_status for trace in own if trace.answer_status]
        for behaviour in behaviours:
            num_spans = sum(s.behaviour == behaviour for t in own for s in t.spans)
            taken = [o.taken for t in own for o in t.opportunities if o.behaviour == behaviour]
            rows.append(
                {
                    "writer": writer,
                    "traces": len(own),
                    "correct": _share(graded),
                    "unreadable": _share([status == "unreadable" for status in statuses]),
                    "truncated": _share([trace.truncated for trace in own]),
                    "behaviour": behaviour,
                    "spans": num_spans,
                    "per_trace": num_spans / len(own),
                    "opportunities": len(taken),
                    "taken": _share(taken),
                }
            )
    return pd.DataFrame(rows)


def beside_each_other(summary: pd.DataFrame) -> pd.DataFrame:
    """The same rates as people compare them: one row a behaviour, the writers side by side.

    Args:
        summary: As `summarise` makes it.
    """
    wide = summary.pivot(index="behaviour", columns="writer", values=["per_trace", "taken"])
    names = {"per_trace": "a trace", "taken": "of opportunities"}
    rows = wide.loc[list(dict.fromkeys(summary.behaviour))]
    rows.columns = [f"{writer}: {names[figure]}" for figure, writer in rows.columns]
    return rows.reset_index()


def writers_in_words(summary: pd.DataFrame) -> str:
    """How many traces each writer has, how many of them are right and how many truncated."""
    said = []
    for row in summary.drop_duplicates("writer").itertuples():
        right = "none graded" if row.correct != row.correct else f"{row.correct:.1%} right"
        said.append(f"{row.writer} {row.traces:,} traces, {right}, {row.truncated:.1%} truncated")
    return "; ".join(said)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
