"""Moves of a response: how many are made, and how many of them where they could be and rightly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.records import Annotation
from sae_reasoning.tasks.search.forced import ForcedStart, is_valid
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS


@dataclass(frozen=True)
class Made:
    """One move in one response: spans of it, and those in their place and carried out rightly."""

    spans: int
    right: int


def moves_made(
    prompt: str, text: str, annotation: Annotation, behaviours: Sequence[str]
) -> Mapping[str, Made]:
    """Of each move, what a response makes of it, judged by program."""
    taken = {(o.behaviour, o.char_end) for o in annotation.opportunities if o.taken}
    found = {}
    for behaviour in behaviours:
        own = [span for span in annotation.spans if span.behaviour == behaviour]
        right = 0
        for span in own:
            before, said = text[: span.char_start].rstrip(), text[span.char_start : span.char_end]
            opening = next((o for o in ALL_OPENINGS[behaviour] if said.startswith(f"{o} ")), None)
            if opening and (behaviour, len(before)) in taken:
                start = ForcedStart(prompt, before, opening, behaviour)
                right += is_valid(start, text[span.char_start + len(opening) + 1 :])
        found[behaviour] = Made(len(own), right)
    return found
