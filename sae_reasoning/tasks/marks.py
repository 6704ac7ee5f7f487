"""Sentences that one mark ends, as they are written."""

import re


class MarkEnd:
    """The end of a sentence by its mark: by itself, or at the end of a word, not within one.

    What follows a word's mark is waited for, so the point of 3.5 ends nothing.
    """

    def __init__(self, mark: str) -> None:
        self.marks = mark
        sign = re.escape(mark)
        self._end = re.compile(rf"(?<!\S){sign}(?!\S)|{sign}[\"'”’)\]*_]*(?=\s)")

    def find(self, text: str, *, is_last: bool) -> int | None:
        """One past the last character of the mark; None where the sentence has not ended.

        Args:
            text: So far.
            is_last: Whether nothing follows.
        """
        found = self._end.search(text + " " * is_last)
        return found.end() if found else None
