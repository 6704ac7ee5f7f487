"""Behaviours of a response: how many are made, and how many where they could be and rightly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.records import Annotation


@dataclass(frozen=True)
class Made:
    """One behaviour in one response.

    Attributes:
        spans: How often it's made; None where the response couldn't be annotated.
        right: How often at an opportunity and rightly; None where nothing can tell.
    """

    spans: int | None
    right: int | None


def behaviours_made(
    text: str, annotation: Annotation | None, behaviours: Sequence[str]
) -> Mapping[str, Made]:
    """Of each behaviour, what a response makes of it.

    Args:
        text: The response.
        annotation: Of it, where there is one.
        behaviours: To be counted.
    """
    if annotation is None:
        return dict.fromkeys(behaviours, Made(None, None))
    taken = {
        (o.behaviour, len(text[: o.char_end].rstrip())) for o in annotation.opportunities if o.taken
    }
    is_judged = len(annotation.is_right) == len(annotation.spans)
    found = {}
    for behaviour in behaviours:
        own = [n for n, span in enumerate(annotation.spans) if span.behaviour == behaviour]
        right = None
        if is_judged:
            right = sum(
                annotation.is_right[n]
                and (behaviour, len(text[: annotation.spans[n].char_start].rstrip())) in taken
                for n in own
            )
        found[behaviour] = Made(len(own), right)
    return found
