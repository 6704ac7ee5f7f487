"""Offsets of characters as tools count them: code points, UTF-16 units or bytes of UTF-8.

Python counts code points, JavaScript (so Doccano, and older Label Studio) UTF-16 units, in which an
emoji is two; some tools count bytes. The three part behind the first character of more than one.
"""

import math
import re
from collections.abc import Sequence

from sae_reasoning.config import OFFSET_UNITS

CODEPOINTS, UTF16, BYTES = OFFSET_UNITS
UNITS = {CODEPOINTS: "characters", UTF16: "UTF-16 units", BYTES: "bytes"}
"""Each with its name in messages."""


_ENCODINGS = {UTF16: ("utf-16-le", 2), BYTES: ("utf-8", 1)}
"""Each with the bytes of one of its units."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class Ruler:
    """A text's offsets in one unit.

    Args:
        text: The text.
        unit: One of UNITS.
    """

    def __init__(self, text: str, unit: str) -> None:
        self.unit = unit
        self.is_plain = (
            unit == CODEPOINTS or text.isascii() or (unit == UTF16 and max(text) <= "\uffff")
        )
        """Whether this text's offsets are its code points."""
        self.length = len(text)
        if not self.is_plain:
            self._encoding, self._size = _ENCODINGS[unit]
            # Half a character has no encoding; what stands for it here has the same size.
            self._text = _SURROGATE.sub("\ufffd", text)
            self._encoded = self._text.encode(self._encoding)
            self.length = len(self._encoded) // self._size

    def codepoint(self, offset: int) -> int:
        """The code point at an offset.

        Raises:
            ValueError: It lies outside the text, or within a character.
        """
        if not 0 <= offset <= self.length:
            raise ValueError(f"{offset} lies outside its text of {self.length} {UNITS[self.unit]}")
        if self.is_plain:
            return offset
        try:
            return len(self._encoded[: offset * self._size].decode(self._encoding))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{offset} lies within a character, counted in {UNITS[self.unit]}"
            ) from error

    def offset(self, codepoint: int) -> int:
        """The offset of a code point."""
        if self.is_plain:
            return codepoint
        return len(self._text[:codepoint].encode(self._encoding)) // self._size


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
