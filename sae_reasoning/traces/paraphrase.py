"""The same behaviours in other words: what follows from words only is lost, the rest is kept.

A task may have templates for that; elsewhere a model behind an endpoint can be asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sae_reasoning.records import Span, Trace
from sae_reasoning.tasks.protocol import Paraphraser
from sae_reasoning.traces.align import align_span

Encode = Callable[[str], tuple[list[int], list[tuple[int, int]]]]
"""Token ids of a response's text, and the characters of each."""


@dataclass(frozen=True)
class Paraphrased:
    """A trace whose behaviours are put in other words.

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
    """A trace with all spans of some behaviours in other words; None where none could be put so.

    Args:
        trace: Annotated.
        behaviours: Whose spans to rewrite.
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
    response_ids, offsets = encode(text)
    first = trace.num_prompt_tokens
    reworded = replace(
        trace,
        trace_id=f"{trace.trace_id}/paraphrased",
        text=text,
        token_ids=(*trace.token_ids[:first], *response_ids),
        spans=tuple(align_span(span, offsets, first, "paraphrase") for span in spans),
        opportunities=(),
        answer_status="",
    )
    return Paraphrased(reworded, tuple(is_new))
