"""Behaviours by their words: the baseline that any better annotator must beat.

A sentence that holds a cue of a behaviour, as whole words and in any case, is a span of it; where
it holds cues of several, of the one whose cue comes first, then of the one listed first. A cue that
begins with `^` counts at the beginning of a sentence only. Apostrophes, hyphens and spaces are the
same however they're set: `I'm` is found where the text has `I’m`.
"""

import re
from collections.abc import Mapping, Sequence

from sae_reasoning.config import ConfigError
from sae_reasoning.records import Span
from sae_reasoning.tasks.text.sentences import sentences

_APOSTROPHES = "'’‘ʼʹ‛′´`＇"
_HYPHENS = "-‐‑‒–−﹣－"
_GAP = r"[\s\u200b\u2060\ufeff]+"  # White space, and spaces of no width.


class Lexicon:
    """Cues of behaviours.

    Args:
        cues: Of each behaviour.
        behaviours: To label.

    Raises:
        ConfigError: A behaviour has no cue.
    """

    def __init__(self, cues: Mapping[str, Sequence[str]], behaviours: Sequence[str]) -> None:
        without = [behaviour for behaviour in behaviours if not cues.get(behaviour)]
        if without:
            raise ConfigError(
                f"traces.annotator=cues has no cues for {', '.join(without)}; list them under "
                "traces.cues in a file of conf/behaviours, or leave them out of behaviours"
            )
        self._patterns = [
            (behaviour, re.compile("|".join(map(_pattern, cues[behaviour])), re.IGNORECASE))
            for behaviour in behaviours
        ]

    def spans(self, text: str) -> tuple[Span, ...]:
        """A span for each sentence with a cue, in order."""
        found = []
        for start, end in sentences(text):
            sentence = text[start:end]
            first = [
                (match.start(), order, behaviour)
                for order, (behaviour, pattern) in enumerate(self._patterns)
                if (match := pattern.search(sentence))
            ]
            if first:
                found.append(Span(min(first)[2], start, end))
        return tuple(found)


def _pattern(cue: str) -> str:
    words = _GAP.join(map(_letters, cue.removeprefix("^").split()))
    # Before a sentence's first word may stand a list's dash or number, or a quotation mark.
    begin = r"\A(?:\d+[.)]|\W)*" if cue.startswith("^") else r"(?<!\w)"
    return rf"{begin}{words}(?!\w)"


def _letters(word: str) -> str:
    """A word as a pattern, with its apostrophes and hyphens of any kind."""
    kinds = (_APOSTROPHES, _HYPHENS)
    return "".join(
        next((f"[{re.escape(kind)}]" for kind in kinds if letter in kind), re.escape(letter))
        for letter in word
    )
