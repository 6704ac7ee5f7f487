"""Traces as span JSONL, as Doccano reads and writes it; `traces.source` takes it back whole.

Offsets count code points unless another unit is asked for; reading them back takes the same one.
"""

import json
from collections.abc import Iterable, Iterator

from sae_reasoning.records import Trace
from sae_reasoning.traces.offsets import CODEPOINTS, Ruler


def span_lines(traces: Iterable[Trace], unit: str = CODEPOINTS) -> Iterator[str]:
    """One JSON object a trace: `text`, `label` as `[[start, end, name], ...]`, and what it's of.

    Args:
        traces: What is written.
        unit: What offsets count, of UNITS.
    """
    for trace in traces:
        ruler = Ruler(trace.text, unit)
        yield json.dumps(
            {
                "text": trace.text,
                "label": [
                    [ruler.offset(s.char_start), ruler.offset(s.char_end), s.behaviour]
                    for s in trace.spans
                ],
                "trace_id": trace.trace_id,
                "problem_id": trace.problem_id,
                "split": trace.split,
                "writer": trace.writer,
                "model": trace.model,
                "prompt": trace.prompt,
                "correct": trace.correct,
                "truncated": trace.truncated,
                "opportunities": [
                    {
                        "behaviour": o.behaviour,
                        "char_end": ruler.offset(o.char_end),
                        "taken": o.taken,
                    }
                    for o in trace.opportunities
                ],
            },
            ensure_ascii=False,
        )
