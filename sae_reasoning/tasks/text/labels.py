"""How labels of behaviours are spelt, and which one a sentence bears."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sae_reasoning.records import Span, TokenSpan
from sae_reasoning.tasks.text.sentences import sentences

NONE = "(none)"
"""Of a sentence without a behaviour."""

_COVERED = 0.5
_BEFORE = 2


class SentenceInContext(NamedTuple):
    """A sentence and what an annotator may know of what stands before it.

    Attributes:
        text: The sentence.
        before: The two sentences before it; "" at the beginning.
        number: How many sentences stand before it.
    """

    text: str
    before: str
    number: int


def spelt(label: str) -> str:
    """A label as labels are compared: lower case, words joined by hyphens."""
    return re.sub(r"[\s_]+", "-", label.strip().lower())


def in_context(text: str) -> list[SentenceInContext]:
    """The sentences of a text, in order."""
    said = [text[start:end] for start, end in sentences(text)]
    return [
        SentenceInContext(own, " ".join(said[max(number - _BEFORE, 0) : number]), number)
        for number, own in enumerate(said)
    ]


def sentence_labels(text: str, spans: Sequence[Span | TokenSpan]) -> list[str]:
    """Of each sentence the behaviour whose spans cover most of its characters.

    NONE where less than half of it is covered.
    """
    labels = []
    for start, end in sentences(text):
        covered: defaultdict[str, int] = defaultdict(int)
        for span in spans:
            shared = min(span.char_end, end) - max(span.char_start, start)
            if shared > 0:
                covered[span.behaviour] += shared
        most = max(covered, key=lambda behaviour: covered[behaviour], default=NONE)
        labels.append(most if covered and covered[most] >= _COVERED * (end - start) else NONE)
    return labels
