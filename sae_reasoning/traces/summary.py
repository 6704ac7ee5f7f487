"""What the writers do: grades, thinking and behaviours, per trace and per opportunity."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.records import Trace


def summarise(traces: Sequence[Trace], behaviours: Sequence[str]) -> pd.DataFrame:
    """One row a writer and behaviour: how often it starts, and how often it could have.

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


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
