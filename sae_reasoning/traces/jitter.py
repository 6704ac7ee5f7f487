"""Spans with their boundaries moved at random: does a finding hang on where a behaviour begins?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace


def jitter(trace: Trace, max_tokens: int, rng: np.random.Generator) -> Trace:
    """A trace whose spans begin and end up to `max_tokens` earlier or later, each at random.

    Spans keep a token, stay within the response and don't come to overlap. A taken opportunity
    moves with its span's onset. Characters stay where they were: they say what was labelled.

    Args:
        trace: Annotated.
        max_tokens: Most that a boundary moves; each distance is as likely.
        rng: Of the distances.
    """
    ordered = sorted(trace.spans, key=lambda span: span.token_start)
    moved: list[TokenSpan] = []
    floor = trace.num_prompt_tokens
    for index, span in enumerate(ordered):
        later = ordered[index + 1 :]
        ceiling = later[0].token_start if later else len(trace.token_ids)
        shifts = rng.integers(-max_tokens, max_tokens + 1, size=2)
        start = int(np.clip(span.token_start + shifts[0], floor, ceiling - 1))
        end = int(np.clip(span.token_end + shifts[1], start + 1, ceiling))
        moved.append(replace(span, token_start=start, token_end=end))
        floor = end
    return replace(
        trace,
        spans=tuple(moved),
        opportunities=_moved(trace.opportunities, ordered, moved),
    )


def _moved(
    opportunities: Sequence[TokenOpportunity],
    before: Sequence[TokenSpan],
    after: Sequence[TokenSpan],
) -> tuple[TokenOpportunity, ...]:
    shifts = {
        (old.behaviour, old.token_start - 1): new.token_start - 1
        for old, new in zip(before, after, strict=True)
    }
    return tuple(
        replace(o, token=shifts.get((o.behaviour, o.token), o.token)) if o.taken else o
        for o in opportunities
    )
