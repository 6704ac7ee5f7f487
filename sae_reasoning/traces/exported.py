"""Traces as span JSONL, as Doccano reads and writes it; `traces.source` takes it back whole."""

import json
from collections.abc import Iterable, Iterator

from sae_reasoning.records import Trace


def span_lines(traces: Iterable[Trace]) -> Iterator[str]:
    """One JSON object a trace: `text`, `label` as `[[start, end, name], ...]`, and what it's of."""
    for trace in traces:
        yield json.dumps(
            {
                "text": trace.text,
                "label": [[s.char_start, s.char_end, s.behaviour] for s in trace.spans],
                "trace_id": trace.trace_id,
                "problem_id": trace.problem_id,
                "split": trace.split,
                "writer": trace.writer,
                "model": trace.model,
                "prompt": trace.prompt,
                "correct": trace.correct,
                "truncated": trace.truncated,
                "opportunities": [
                    {"behaviour": o.behaviour, "char_end": o.char_end, "taken": o.taken}
                    for o in trace.opportunities
                ],
            },
            ensure_ascii=False,
        )
