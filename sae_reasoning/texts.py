"""Text of models and data, made fit to be looked at, and numbers as people read them.

What is shown must not act: characters that nobody sees, that turn the direction of what follows or
that end a page's line are written out by name, and what is too long is cut, with how much is left.
Markup needs no change here; whoever puts text into a page escapes it.
"""

import math
import unicodedata

MAX_CHARS = 600
"""Of a text that is shown whole, such as a prompt."""
MAX_PIECE = 80
"""Of one token."""
MANY = 1000
"""Times as much, beyond which a ratio says no more than that there was hardly anything before."""

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


def number(value: float, decimals: int | None = None) -> str:
    """A number as pages, tables and plots show it: four significant figures at most.

    Args:
        value: Unknown it's a dash.
        decimals: Places after the point, where numbers stand under one another; fewer where that
            would be more than four figures. By default as many as its size asks for, and none of a
            whole number.
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    value += 0.0  # Nothing has no sign.
    size = abs(float(f"{value:.4g}"))
    if size >= 1e6:
        text = f"{value:.2e}".replace("e+0", "e").replace("e+", "e")
    elif decimals is not None:
        text = f"{float(f'{value:.4g}'):,.{min(decimals, _places(size))}f}"
    elif float(value).is_integer():
        text = f"{float(f'{value:.4g}'):,.0f}"
    elif size < 0.001:
        text = "0" if size < 1e-6 else f"{value:.0e}"
    else:
        places = 3 if size < 0.1 else 2 if size < 10 else 1 if size < 100 else 0
        text = f"{float(f'{value:.4g}'):,.{places}f}"
    return text.replace("-", "−")


def bounded(value: float, low: float, high: float, decimals: int | None = None) -> str:
    """A number with its interval; a dash where there's no number."""
    if math.isnan(value):
        return "–"
    if math.isnan(low) or math.isnan(high):
        return f"{number(value, decimals)} (no interval)"
    return f"{number(value, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def ratio(value: float, low: float, high: float) -> str:
    """How many times as much, with its interval; beyond a thousand the figure says no more."""
    return f"over {number(MANY)}" if low > MANY else bounded(value, low, high)


def _places(size: float) -> int:
    """Of four figures, how many lie behind the point."""
    return 4 if size < 1 else max(3 - int(math.log10(size)), 0)


def silent(message: str) -> None:
    """Say nothing."""
