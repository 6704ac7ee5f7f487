"""Sentences of natural text: where a behaviour may start, where no grammar says so.

One rule, by the past alone, says of a place in a text whether a sentence may start there
(`may_start`), so that the same is said of each place while a text is written and afterwards. What
follows tells more: the full stop of a decimal, or of `x.append`, turns out to end nothing. Whole
texts are cut into sentences (`sentence_starts`) where white space follows.
"""

import re
from collections.abc import Sequence

from sae_reasoning.records import Opportunity, Span

_SEEN = 256
"""Characters before a place that decide on it."""

_END = re.compile(
    r"""(?:
        [.!?…]+ ["'”’»)\]}*_`$\\]*      # With what closes quotes, brackets, emphasis, formulas.
        | [。！？]+ [”’」』）]*
        | </?think(?:ing)?>
    )\Z""",
    re.VERBOSE,
)
_NO_END = re.compile(
    r"""(?:
        (?:\A|\n)[ \t>\#*_-]* (?:\d{1,3}|[a-z])\. [*_]*     # A list's number.
        | (?<![a-z]) (?:e\.g|i\.e|cf|vs|viz|approx|resp|figs?|eqs?|dr|mrs?|ms|prof|et\ al)\.
        | (?<![a-z.]) (?:[a-z]\.){2,}                       # Initials.
        | \\(?:left|right|big|bigg)[lrm]?\.
        | (?<![a-z]) (?:[a-z]|\d|\))!                       # A factorial.
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_WIDE = "。！？”’」』）"
"""White space doesn't follow these."""
_MAY_PRECEDE = frozenset(""".!?…。！？"'”’»)]}*_`$\\」』）>""")


def may_start(before: str) -> bool:
    """Whether a sentence may start after a text, as far as the text itself tells."""
    seen = before[-_SEEN:]
    text = seen.rstrip()
    if not text or "\n" in seen[len(text) :]:
        return True
    return _END.search(text) is not None and _NO_END.search(text) is None


def possible_starts(text: str) -> list[int]:
    """Every place of a text at which a sentence may start by what stands before it.

    There may be several between two sentences: after a full stop, and after a newline behind it.
    """
    return [place for place in range(len(text) + 1) if _may_start_at(text, place)]


def _may_start_at(text: str, place: int) -> bool:
    last = text[place - 1 : place]
    if last and not last.isspace() and last not in _MAY_PRECEDE:
        return False
    return may_start(text[max(place - _SEEN, 0) : place])


class SentenceListener:
    """Follows a text while it is written; says of each place what `may_start` says of it."""

    def __init__(self) -> None:
        self._before = ""

    def may_start_after(self, piece: str) -> bool:
        """Whether a sentence may start after a piece.

        Args:
            piece: What came since the last piece after which one may, from its beginning.
        """
        text = self._before + piece
        if not may_start(text):
            return False
        self._before = text[-_SEEN:]
        return True


class FirstSentence:
    """The end of the first sentence of a text that is being written, by the rule of whole texts."""

    marks = ".!?…。！？>\n"

    def find(self, text: str, *, is_last: bool) -> int | None:
        """One past the last character of the sentence; None where it has not ended.

        Args:
            text: So far.
            is_last: Whether nothing follows.
        """
        said = len(text) - len(text.lstrip())
        for place in range(said + 1, len(text) + 1):
            is_end = _is_apart(text[place - 1]) or (is_last and place == len(text))
            if is_end and _may_start_at(text, place):
                return len(text[:place].rstrip())
        return None


def sentence_starts(text: str) -> list[int]:
    """The first character of each sentence."""
    return [
        place
        for place in possible_starts(text)
        if place < len(text) and not text[place].isspace() and _is_apart(text[:place])
    ]


def _is_apart(before: str) -> bool:
    """Whether what ended there has ended, also by what follows."""
    return not before or before[-1].isspace() or before[-1] in _WIDE or before.endswith(">")


def sentences(text: str) -> list[tuple[int, int]]:
    """First character of each sentence, and one past its last that is no white space."""
    starts = sentence_starts(text)
    return [
        (start, start + len(text[start:stop].rstrip()))
        for start, stop in zip(starts, [*starts, len(text)][1:], strict=True)
    ]


def sentence_opportunities(
    text: str, spans: Sequence[Span], behaviours: Sequence[str]
) -> tuple[Opportunity, ...]:
    """Every sentence start, and every place where a span starts, once a behaviour."""
    onsets = {(span.char_start, span.behaviour) for span in spans}
    starts = {*sentence_starts(text), *(span.char_start for span in spans)}
    return tuple(
        Opportunity(behaviour, place, taken=(place, behaviour) in onsets)
        for place in sorted(starts)
        for behaviour in behaviours
    )
