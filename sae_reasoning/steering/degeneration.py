"""Degeneration of text: it repeats itself, goes on and on, or doesn't come to its end.

The share of repeated n-grams is 1 less the share of different ones among all of a text's (seq-rep-n
of 1908.04319), here of words. The compression ratio is bytes before over bytes after compression;
text that repeats itself in whatever way has a high one (2403.00553), and longer text a higher one.
"""

import zlib
from typing import NamedTuple

SIZE = 3
"""Words of an n-gram."""


class Degeneration(NamedTuple):
    """How degenerate one text is, beside its length and whether it was cut.

    Attributes:
        repeated_3grams: Share of the text's 3-grams of words that occurred in it before.
        compression: Bytes of the text over bytes of it compressed; 1 for no text.
    """

    repeated_3grams: float
    compression: float


def degeneration(text: str) -> Degeneration:
    """Both measures of a text."""
    return Degeneration(repeated_share(text), compression_ratio(text))


def repeated_share(text: str, size: int = SIZE) -> float:
    """Share of the n-grams of words that occurred before in a text; 0 of a shorter text."""
    words = text.split()
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def compression_ratio(text: str) -> float:
    """Bytes of a text over bytes of it compressed, headers included; 1 for no text."""
    whole = text.encode("utf-8", "surrogatepass")
    return len(whole) / len(zlib.compress(whole, 9)) if whole else 1.0
