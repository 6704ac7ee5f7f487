"""Numbers in English words."""

import re
from dataclasses import dataclass
from fractions import Fraction

_UNDER_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: value for value, word in enumerate(_UNDER_TWENTY)}
_SMALL |= {word: 10 * value for value, word in enumerate(_TENS, 2)}
_LARGE = {"dozen": 12, "thousand": 1000, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4}
_MOST = 10**30


@dataclass(frozen=True)
class NumberWords:
    """A number in words.

    Attributes:
        start: Its first character in the text.
        end: One past its last.
        words: In small letters.
        value: What they say.
    """

    start: int
    end: int
    words: tuple[str, ...]
    value: Fraction


def number_words(text: str) -> list[NumberWords]:
    """The numbers that a text names in words, in order."""
    found: list[NumberWords] = []
    run: list[re.Match[str]] = []

    def close() -> None:
        while run and run[-1][0].lower() in ("and", "a", "an", "minus", "negative"):
            run.pop()
        words = [word[0].lower() for word in run]
        if words and (value := _said(words)) is not None:
            found.append(NumberWords(run[0].start(), run[-1].end(), tuple(words), value))
        run.clear()

    for word in re.finditer(r"[A-Za-z]+", text):
        name = word[0].lower()
        gap = text[run[-1].end() : word.start()] if run else ""
        last = run[-1][0].lower() if run else ""
        if run and re.search(r"[^\s-]", gap):
            close()
            last = ""
        if name in _SMALL:
            if run and last in _SMALL and not (last in _TENS and 0 < _SMALL[name] < 10):
                close()
            run.append(word)
        elif (name in ("minus", "negative", "a", "an") and not run) or (
            run
            and (
                name in ("and", "hundred")
                or name in _LARGE
                or name in _PARTS
                or (name in ("a", "an") and last == "and")
            )
        ):
            run.append(word)
        else:
            close()
    close()
    return found


def _said(words: list[str]) -> Fraction | None:
    sign = -1 if words[0] in ("minus", "negative") else 1
    words = words[1:] if sign < 0 else words
    total, current, is_any = Fraction(0), Fraction(0), False
    for index, word in enumerate(words):
        if word in ("a", "an"):
            if index + 1 == len(words):
                return None
            current += 0 if words[index + 1] in _PARTS and is_any else 1
        elif word in _SMALL:
            current += _SMALL[word]
        elif word == "hundred":
            current *= 100
            if current > _MOST:
                return None  # Nobody says so; who repeats a word for ever does.
        elif word in _LARGE:
            total, current = total + current * _LARGE[word], Fraction(0)
        elif word in _PARTS:
            if "and" in words[:index]:
                whole = Fraction(_said(words[: words.index("and")]) or 0)
                count = _said(words[words.index("and") + 1 : index]) or 1
                return sign * (whole + Fraction(count) / _PARTS[word])
            return sign * (total + current) / _PARTS[word]
        is_any = is_any or word in _SMALL or word == "hundred" or word in _LARGE
    return sign * (total + current) if is_any else None
