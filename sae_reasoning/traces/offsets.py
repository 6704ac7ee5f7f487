"""Offsets of characters as tools count them: code points, UTF-16 units or bytes of UTF-8.

Python counts code points, JavaScript (so Doccano, and older Label Studio) UTF-16 units, in which an
emoji is two; some tools count bytes. The three part behind the first character of more than one.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from sae_reasoning.config import OFFSET_UNITS

CODEPOINTS, UTF16, BYTES = OFFSET_UNITS
UNITS = {CODEPOINTS: "characters", UTF16: "UTF-16 units", BYTES: "bytes"}
"""Each with its name in messages."""


class Ruler:
    """A text's offsets in one unit.

    Args:
        text: The text.
        unit: One of UNITS.
    """

    def __init__(self, text: str, unit: str) -> None:
        self.unit = unit
        sizes: Iterable[int] = ()
        if unit == UTF16 and not text.isascii() and max(text) > "\uffff":
            sizes = (1 + (character > "\uffff") for character in text)
        elif unit == BYTES and not text.isascii():
            sizes = (len(character.encode("utf-8", "surrogatepass")) for character in text)
        # Offset of each character, and of the end; empty where the unit counts as Python does.
        self._offsets = [0, *accumulate(sizes)] if sizes else []
        self.length = self._offsets[-1] if self._offsets else len(text)

    @property
    def is_plain(self) -> bool:
        """Whether this text's offsets are its code points."""
        return not self._offsets

    def codepoint(self, offset: int) -> int:
        """The code point at an offset.

        Raises:
            ValueError: It lies outside the text, or within a character.
        """
        if not 0 <= offset <= self.length:
            raise ValueError(f"{offset} lies outside its text of {self.length} {UNITS[self.unit]}")
        if self.is_plain:
            return offset
        found = bisect_left(self._offsets, offset)
        if self._offsets[found] != offset:
            raise ValueError(f"{offset} lies within a character, counted in {UNITS[self.unit]}")
        return found

    def offset(self, codepoint: int) -> int:
        """The offset of a code point."""
        return codepoint if self.is_plain else self._offsets[codepoint]


def misfits(text: str, places: Sequence[tuple[int, int]], unit: str) -> float:
    """Boundaries of `[start, end)`, counted in a unit, that cut a word or have white space within.

    Infinite where one of them is no stretch of the text.
    """
    ruler = Ruler(text, unit)
    odd = 0
    for place in places:
        try:
            start, end = map(ruler.codepoint, place)
        except ValueError:
            return math.inf
        if start >= end:
            return math.inf
        odd += _is_odd(text, start, text[start : start + 1])
        odd += _is_odd(text, end, text[end - 1 : end])
    return odd


def _is_odd(text: str, at: int, within: str) -> bool:
    return within.isspace() or (0 < at < len(text) and text[at - 1 : at + 1].isalnum())
