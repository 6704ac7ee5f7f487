"""Wordings that selection never sees.

A wording is the first word of a behaviour as it's written. Some wordings of each behaviour are held
out: on the select split their spans and opportunities are neither the behaviour nor anything else,
so that a latent which only knows the words it was chosen by is caught on the report split.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sae_reasoning.records import TokenSpan, Trace

HELD_OUT = "held out: "
"""What the name of a behaviour begins with where selection may not see it."""

_SHARE, _FEWEST = 0.2, 0.5


def wording(trace: Trace, span: TokenSpan) -> str:
    """First word of a span, in lower case."""
    words = trace.text[span.char_start : span.char_end].split()
    return words[0].lower() if words else ""


def draw_wordings(
    traces: Sequence[Trace], behaviours: Sequence[str], seed: int
) -> dict[str, tuple[str, ...]]:
    """Random wordings to hold out, until they make a fifth of a behaviour's select spans.

    None where they would leave less than half of the spans.
    """
    counts: dict[str, Counter[str]] = {behaviour: Counter() for behaviour in behaviours}
    for trace in traces:
        for span in trace.spans:
            if trace.split == "select" and span.behaviour in counts:
                counts[span.behaviour][wording(trace, span)] += 1
    drawn = {}
    for number, behaviour in enumerate(behaviours):
        own, total = counts[behaviour], counts[behaviour].total()
        rng = np.random.default_rng((seed, number))
        chosen: list[str] = []
        for index in rng.permutation(len(own)).tolist():
            word = sorted(own)[index]
            held = sum(own[w] for w in chosen)
            if held < _SHARE * total and held + own[word] <= (1 - _FEWEST) * total:
                chosen.append(word)
        drawn[behaviour] = tuple(sorted(chosen))
    return drawn


def hold_out(traces: Sequence[Trace], wordings: Mapping[str, Collection[str]]) -> list[Trace]:
    """The same traces; on the select split behaviours in held-out wordings go by another name."""
    return [_without(trace, wordings) if trace.split == "select" else trace for trace in traces]


def _without(trace: Trace, wordings: Mapping[str, Collection[str]]) -> Trace:
    starts = {
        (span.behaviour, span.token_start)
        for span in trace.spans
        if wording(trace, span) in wordings.get(span.behaviour, ())
    }
    return replace(
        trace,
        spans=tuple(
            replace(s, behaviour=HELD_OUT + s.behaviour)
            if (s.behaviour, s.token_start) in starts
            else s
            for s in trace.spans
        ),
        opportunities=tuple(
            replace(o, behaviour=HELD_OUT + o.behaviour)
            if (o.behaviour, o.token + 1) in starts
            else o
            for o in trace.opportunities
        ),
    )
