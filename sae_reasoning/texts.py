"""Text of models and data, made fit to be looked at.

What is shown must not act: characters that nobody sees, that turn the direction of what follows or
that end a page's line are written out by name, and what is too long is cut, with how much is left.
Markup needs no change here; whoever puts text into a page escapes it.
"""

import unicodedata

MAX_CHARS = 600
"""Of a text that is shown whole, such as a prompt."""
MAX_PIECE = 80
"""Of one token."""

_PLAIN = {"\n", "\t"}
_UNSEEN = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}  # Emoji and some scripts are spelt with them.


def shown(text: str, most: int = MAX_CHARS) -> str:
    """A text without characters that act unseen, cut to `most` of its own.

    Control characters, lone surrogates, and marks of direction become their code points in angle
    brackets; line breaks and tabs stay.
    """
    cut = "".join(map(_seen, text[:most]))
    left = len(text) - most
    return cut if left <= 0 else f"{cut} … ({left:,} more characters)"


def _seen(character: str) -> str:
    kind = unicodedata.category(character)
    if character in _PLAIN or character in _JOINERS or (kind not in _UNSEEN and kind != "Cf"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
