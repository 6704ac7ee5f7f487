"""Sentences of natural text: where a move may start, where nobody's grammar says so."""

import re
from collections.abc import Sequence

from sae_reasoning.records import Opportunity, Span

_SENTENCE_START = re.compile(r"(?:^\s*|(?<=[.!?])\s+|\n\s*)(?=\S)")


def sentence_starts(text: str) -> list[int]:
    """The first character of each sentence."""
    return [match.end() for match in _SENTENCE_START.finditer(text)]


def sentences(text: str) -> list[tuple[int, int]]:
    """First character of each sentence, and one past its last that is no white space."""
    starts = sentence_starts(text)
    return [
        (start, start + len(text[start:stop].rstrip()))
        for start, stop in zip(starts, [*starts[1:], len(text)], strict=True)
    ]


def sentence_opportunities(
    text: str, spans: Sequence[Span], behaviours: Sequence[str]
) -> tuple[Opportunity, ...]:
    """Every sentence start, and every place where a span starts, once a move."""
    onsets = {(span.char_start, span.behaviour) for span in spans}
    places = {*sentence_starts(text), *(span.char_start for span in spans)}
    return tuple(
        Opportunity(behaviour, place, taken=(place, behaviour) in onsets)
        for place in sorted(places)
        for behaviour in behaviours
    )
