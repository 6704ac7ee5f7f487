"""The same moves in other words: what follows from a latent's words only is lost, the rest is kept.

A task may have templates for that; elsewhere a model behind an endpoint can be asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sae_reasoning.records import Annotation, Span, Trace
from sae_reasoning.tasks.protocol import Paraphraser
from sae_reasoning.traces.align import Offsets, build_trace

Encode = Callable[[str], tuple[list[int], list[tuple[int, int]]]]
"""Token ids of a response's text, and the characters of each."""


@dataclass(frozen=True)
class Paraphrased:
    """A trace whose moves are put in other words.

    Attributes:
        trace: With the same spans, in the same order, at their new places; no opportunities.
        is_new: Of each span, whether its words are new.
    """

    trace: Trace
    is_new: tuple[bool, ...]


def paraphrase(
    trace: Trace,
    behaviours: Sequence[str],
    paraphraser: Paraphraser,
    encode: Encode,
    rng: np.random.Generator,
) -> Paraphrased | None:
    """A trace with all spans of some moves in other words; None where none could be put so.

    Args:
        trace: Annotated.
        behaviours: Moves to rewrite.
        paraphraser: Finds the words.
        encode: Tokenises the new text.
        rng: Of the choice of words.
    """
    text, end = "", 0
    spans, is_new = [], []
    for span in sorted(trace.spans, key=lambda s: s.char_start):
        words = trace.text[span.char_start : span.char_end]
        other = paraphraser(span.behaviour, words, rng) if span.behaviour in behaviours else None
        text += trace.text[end : span.char_start]
        start = len(text)
        text += words if other is None else other
        spans.append(Span(span.behaviour, start, len(text)))
        is_new.append(other is not None)
        end = span.char_end
    text += trace.text[end:]
    if not any(is_new):
        return None
    return Paraphrased(_rebuilt(trace, text, spans, *encode(text)), tuple(is_new))


def _rebuilt(
    trace: Trace, text: str, spans: Sequence[Span], response_ids: Sequence[int], offsets: Offsets
) -> Trace:
    prompt_ids = trace.token_ids[: trace.num_prompt_tokens]
    built = build_trace(
        prompt_ids,
        response_ids,
        offsets,
        Annotation(tuple(spans), (), None),
        end_id=None,
        annotator="paraphrase",
        trace_id=f"{trace.trace_id}/paraphrased",
        problem_id=trace.problem_id,
        split=trace.split,
        writer=trace.writer,
        model=trace.model,
        prompt=trace.prompt,
        text=text,
        truncated=trace.truncated,
    )
    return replace(built, correct=trace.correct)
