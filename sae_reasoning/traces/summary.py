"""What the writers do: grades, thinking and moves, per trace and per opportunity."""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.records import Trace


def summarise(traces: Sequence[Trace], behaviours: Sequence[str]) -> pd.DataFrame:
    """One row a writer and move: how often it is made, and how often it could have been.

    Columns: writer, traces, correct (share), truncated (share), behaviour, spans, per_trace
    (spans a trace), opportunities, taken (share of opportunities).
    """
    rows = []
    for writer in sorted({trace.writer for trace in traces}):
        own = [trace for trace in traces if trace.writer == writer]
        graded = [trace.correct for trace in own if trace.correct is not None]
        for behaviour in behaviours:
            num_spans = sum(s.behaviour == behaviour for t in own for s in t.spans)
            taken = [o.taken for t in own for o in t.opportunities if o.behaviour == behaviour]
            rows.append(
                {
                    "writer": writer,
                    "traces": len(own),
                    "correct": _share(graded),
                    "truncated": _share([trace.truncated for trace in own]),
                    "behaviour": behaviour,
                    "spans": num_spans,
                    "per_trace": num_spans / len(own),
                    "opportunities": len(taken),
                    "taken": _share(taken),
                }
            )
    return pd.DataFrame(rows)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
