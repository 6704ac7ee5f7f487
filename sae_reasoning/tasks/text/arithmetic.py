r"""Equalities of arithmetic in any text, in figures, words or LaTeX, and whether they are true.

    3 × 4 = 12        \frac{12}{4} + 1 = 4        three plus four is seven        10/3 ≈ 3.3

An equality is two expressions of numbers that `=`, `≈`, "equals" or "is" joins, at least one with
an operation; a chain (`2 + 3 = 5 = 10/2`) is several. Nothing is said of what can't be read for
certain: sides with letters (`2x = 14`, `f(3) = 9`), ranges (`3-5 = …`), dates, times and ratios,
factorials and roots, per cent that is added, "7 million", remainders, mixed numbers. So what is
called false is false, and a text without a false equality may still be wrong.

A false equality is repaired where the same left side later gets its right value.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from sae_reasoning.tasks.protocol import Checked
from sae_reasoning.tasks.text.number_words import number_words

_LARGEST_POWER = 64
_SLACK = Fraction(1, 20)
"""Of a value that is said to be approximate."""

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|\\[,;:!\ ()]|\\left|\\right|\\quad|\\displaystyle|\\?\$|[€£]|°|\^\\?\{?\\circ\}?
        |\*\*(?=\S[^*\n]{0,40}\*\*)|(?<=[\w)])\*\*(?=[\s.,;:)]|$))
    | (?P<date>\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}(?!\d)|\d{1,2}:\d{2}(?::\d{2})?
        |\d+(?:\.\d+){2,})
    | (?P<number>(?:\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)
    | (?P<frac>\\[dt]?frac(?=\s*\{))
    | (?P<relation>\\approx|\\simeq|≈|≃|(?<![<>!=:≤≥])=(?![=>])|\bequals\b|\bis\s+equal\s+to\b
        |\bis\s+(?:about|approximately|roughly)\b|\b(?:is|makes|gives)\b)
    | (?P<times>\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|[×·∙]|\*
        |(?:(?<=[\d)])|(?<=[\d)]\s))[xX](?=\s*[\d($])
        |\btimes\b|\bmultiplied\s+by\b)
    | (?P<over>\\div(?![A-Za-z])|[÷/]|\bdivided\s+by\b)
    | (?P<plus>\+|\bplus\b)
    | (?P<minus>[-−–]|\bminus\b)
    | (?P<percent>\\?%|\bper\s?cent\b)
    | (?P<of>\bof\b)
    | (?P<power>\^)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<unit>\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|[A-Za-z]{2,}(?:\^?\{?[23]\}?|²|³)?(?![A-Za-z(]))
    | (?P<stop>[.,;:?…](?=\s|$|["')\]}*\\])|!(?=\s*(?:$|[A-Z"']))|[→⇒∴"“”|>]
        |\\(?:implies|Rightarrow|\[|\]|\\))
    | (?P<unknown>\\[A-Za-z]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_UNCLEAR_UNITS = re.compile(
    r"(?:thousand|[mb]illion|trillion|hundred|dozen|mod|remainder|rem|squared|cubed|percent|less"
    r"|more|fewer|greater|sin|cos|tan|log|ln|exp|max|min|gcd|lcm|floor|ceil|sqrt|choose|percentage"
    r"|half|twice|double|triple|out|each|per|not|above|below|between|about|roughly|almost|nearly"
    r"|at|up|under|over|root|digit|digits|place|mph|am|pm|AM|PM)",
)
"""Words beside a number with which it isn't what it says by itself."""


_CLOSE = re.compile(r"approx|simeq|[≈≃]|about|roughly")


@dataclass(frozen=True)
class Equality:
    """Two expressions that a text calls equal.

    Attributes:
        start: First character of the left side.
        end: One past the last of the right side.
        left: The left side, spelt in one way whatever its signs and spaces.
        right: The right side, likewise.
        is_true: Whether they are equal; to the places that are shown, where one is a decimal.
    """

    start: int
    end: int
    left: str
    right: str
    is_true: bool


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)


class _UnreadableError(ValueError):
    """No expression of arithmetic."""


def equalities(text: str) -> list[Equality]:
    """Equalities of a text, in order."""
    found: list[Equality] = []
    for line in _lines(_tokens(text)):
        relations = [index for index, token in enumerate(line) if token.kind == "relation"]
        bounds = [-1, *relations, len(line)]
        sides = [
            _side(
                line[one + 1 : other],
                is_first=number == 0,
                is_last=number == len(relations),
            )
            for number, (one, other) in enumerate(pairwise(bounds))
        ]
        for index, left, right in zip(relations, sides[:-1], sides[1:], strict=True):
            if left and right and _joins(line[index], left, right):
                is_close = _CLOSE.search(line[index].text) is not None
                is_true = _is_equal(left, right, is_close=is_close)
                spelt = left.spelt, right.spelt
                found.append(Equality(left.start, right.end, *spelt, is_true))
    return found


def checked_equalities(text: str) -> list[Checked]:
    """Equalities of a text, in order; one is repaired where its left side is later right."""
    every = equalities(text)
    return [
        Checked(
            one.start,
            one.is_true,
            not one.is_true
            and any(later.is_true and later.left == one.left for later in every[index + 1 :]),
        )
        for index, one in enumerate(every)
    ]


def _tokens(text: str) -> list[_Token]:
    """Numbers, signs and words of a text; white space and marks of emphasis are left out."""
    said = {words.start: words for words in number_words(text)}
    tokens: list[_Token] = []
    place = 0
    while place < len(text):
        if words := said.get(place):
            spelt = text[words.start : words.end]
            tokens.append(_Token("number", spelt, words.start, words.end, words.value))
            place = words.end
            continue
        match = _TOKEN.match(text, place)
        assert match and match.lastgroup
        kind, spelt = match.lastgroup, match[0]
        if kind == "skip" and "\n" in spelt:
            kind = "stop"
        value = Fraction(0)
        if kind == "number":
            value = Fraction(re.sub(r",|\{,\}|\\,", "", spelt))
        if kind != "skip":
            tokens.append(_Token(kind, spelt, place, match.end(), value))
        place = match.end()
    return tokens


def _lines(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """Tokens between stops, without the dash of a list at the beginning."""
    found: list[list[_Token]] = [[]]
    for token in tokens:
        if token.kind == "stop":
            found.append([])
        else:
            found[-1].append(token)
        if token.text == "?":  # What is asked isn't said.
            found[-2] = [one for one in found[-2] if one.kind != "relation"]
    for line in found:
        if len(line) > 1 and line[0].kind == "minus" and line[1].start > line[0].end:
            del line[0]
    return found


@dataclass(frozen=True)
class _Side:
    start: int
    end: int
    spelt: str
    value: Fraction
    has_operation: bool
    places: int | None
    is_percent: bool
    may_be_range: bool
    may_be_size: bool


_OPERATIONS = frozenset({"plus", "minus", "times", "over", "power", "of", "frac"})
_PARTS = frozenset({"number", "percent", "open", "close"}) | _OPERATIONS


def _side(tokens: Sequence[_Token], *, is_first: bool, is_last: bool) -> _Side | None:
    """The expression beside a relation; None where it can't be read for certain.

    Args:
        tokens: Between two relations, or a relation and a stop.
        is_first: Whether the expression ends the tokens, rather than being all of them.
        is_last: Whether it begins them.
    """
    kept = _without_units(tokens)
    if kept is None:
        return None
    if is_first:
        kept = _after(kept)
    if is_last:
        kept = _before(kept)
    if not kept or any(token.kind not in _PARTS for token in kept):
        return None
    try:
        value = _Parser(kept).value()
    except (_UnreadableError, ZeroDivisionError, OverflowError):
        return None
    kinds = [token.kind for token in kept]
    numbers = [token for token in kept if token.kind == "number"]
    percents = kinds.count("percent")
    if percents and {"plus", "minus"} & set(kinds) and percents < len(numbers):
        return None
    decimals = [_decimals(token.text) for token in numbers]
    return _Side(
        start=kept[0].start,
        end=kept[-1].end,
        spelt="".join(_spelt(token) for token in kept),
        value=value,
        has_operation=bool(_OPERATIONS & set(kinds[1:])) or kinds[0] == "frac",
        places=decimals[0] if len(numbers) == 1 and decimals[0] else None,
        is_percent=percents > 0,
        may_be_range=kinds == ["number", "minus", "number"]
        and numbers[0].value < numbers[1].value
        and kept[0].end == kept[1].start
        and kept[1].end == kept[2].start,
        may_be_size=any(token.text in ("x", "X") for token in kept),
    )


def _without_units(tokens: Sequence[_Token]) -> list[_Token] | None:
    """Tokens without words that follow a number or a bracket; None beside an unclear one."""
    kept: list[_Token] = []
    for token in tokens:
        if (
            token.kind == "unit"
            and kept
            and kept[-1].kind in ("number", "close", "percent", "unit")
        ):
            word = token.text.strip("\\").removeprefix("text").strip("{} ^23²³")
            if _UNCLEAR_UNITS.fullmatch(word):
                kept.append(_Token("unknown", token.text, token.start, token.end))
            continue
        kept.append(token)
    return kept


def _after(tokens: list[_Token]) -> list[_Token]:
    """What stands behind the last thing that is no part of an expression."""
    first = next((i + 1 for i in range(len(tokens) - 1, -1, -1) if tokens[i].kind not in _PARTS), 0)
    kept = tokens[first:]
    if first and kept and kept[0].kind in _OPERATIONS - {"frac"}:
        return []  # It goes on to the left: `n + 3 = 8`.
    if first and kept and tokens[first - 1].kind == "unknown":
        is_joined = tokens[first - 1].end == kept[0].start
        if is_joined or tokens[first - 1].text.startswith("\\"):
            return []  # `f(3)`, `x2`, `\sqrt 4`.
    if (
        first
        and tokens[first - 1].kind == "unit"
        and _UNCLEAR_UNITS.fullmatch(tokens[first - 1].text)
    ):
        return []
    return _balanced_suffix(kept)


def _balanced_suffix(tokens: list[_Token]) -> list[_Token]:
    """Without a number and bracket of a list in front: `2) 3 + 4`."""
    depth = 0
    for index in range(len(tokens) - 1, -1, -1):
        depth += (tokens[index].kind == "close") - (tokens[index].kind == "open")
        if depth < 0:
            return tokens[index + 1 :]
    if depth > 0:
        last = max(i for i, token in enumerate(tokens) if token.kind == "close")
        return tokens[last + 1 :] if last < 2 else []
    return tokens


def _before(tokens: list[_Token]) -> list[_Token]:
    """What stands before the first thing that is no part of an expression."""
    end = next((i for i, token in enumerate(tokens) if token.kind not in _PARTS), len(tokens))
    kept = tokens[:end]
    depth = 0
    for index, token in enumerate(kept):
        depth += (token.kind == "open") - (token.kind == "close")
        if depth < 0:  # A bracket that was opened before the left side.
            return kept[:index]
    if kept and kept[-1].kind in _OPERATIONS:
        return []  # It goes on to the right: `= 7 + n`.
    if end < len(tokens) and kept and tokens[end].kind in ("unknown", "date"):
        is_joined = tokens[end].start == kept[-1].end
        if is_joined or tokens[end].text.startswith("\\") or len(tokens[end].text) > 1:
            return []  # `= 7x`, `= 7 million`.
        if tokens[end].text.isalpha():
            return []
    return kept


def _joins(relation: _Token, left: _Side, right: _Side) -> bool:
    """Whether a relation says of two sides that they're equal."""
    if left.may_be_range or right.may_be_range:
        return False
    if relation.text not in ("=", "equals") and left.may_be_size:
        return False
    if relation.text in ("is", "makes", "gives") or relation.text.startswith("is "):
        return left.has_operation and not right.has_operation
    return left.has_operation or right.has_operation


def _is_equal(left: _Side, right: _Side, *, is_close: bool) -> bool:
    pairs = [(left.value, right.value)]
    if left.is_percent and not right.is_percent:
        pairs.append((left.value * 100, right.value))
    if right.is_percent and not left.is_percent:  # 1/4 = 25%, and 1/4 * 100 = 25%.
        pairs.append((left.value, right.value * 100))
    return any(_near(a, b, left, right, is_close=is_close) for a, b in pairs)


def _near(a: Fraction, b: Fraction, left: _Side, right: _Side, *, is_close: bool) -> bool:
    places = [side.places for side in (left, right) if side.places is not None]
    slack = max((Fraction(1, 10**p) for p in places), default=Fraction(0))
    if left.is_percent or right.is_percent:
        slack = slack if left.is_percent != right.is_percent else slack / 100
    if is_close:
        return abs(a - b) <= max(slack, _SLACK * max(abs(a), abs(b)), Fraction(1, 2))
    return a == b or abs(a - b) < slack


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _spelt(token: _Token) -> str:
    sign = {"plus": "+", "minus": "-", "times": "*", "over": "/", "of": "*", "power": "^"}
    if token.kind == "number":
        return str(token.value)
    return sign.get(token.kind, {"open": "(", "close": ")"}.get(token.kind, token.text))


class _Parser:
    """Value of tokens: sums of products of powers; a bracket behind a number is a factor."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens, self._at = tokens, 0

    def value(self) -> Fraction:
        """Of all tokens.

        Raises:
            _UnreadableError: They are no expression.
        """
        value = self._sum()
        if self._at < len(self._tokens):
            raise _UnreadableError
        return value

    def _next(self) -> str:
        return self._tokens[self._at].kind if self._at < len(self._tokens) else ""

    def _take(self, *kinds: str) -> _Token | None:
        if self._next() not in kinds:
            return None
        self._at += 1
        return self._tokens[self._at - 1]

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("plus", "minus"):
            other = self._product()
            value = value + other if sign.kind == "plus" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while True:
            if sign := self._take("times", "over", "of"):
                other = self._signed()
                value = value / other if sign.kind == "over" else value * other
            elif self._next() == "open":
                value *= self._power()
            else:
                return value

    def _signed(self) -> Fraction:
        if self._take("minus"):
            return -self._signed()
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if not self._take("power"):
            return base
        exponent = self._signed()
        if exponent.denominator != 1 or abs(exponent) > _LARGEST_POWER or base > 10**6:
            raise _UnreadableError
        return Fraction(base**exponent.numerator)

    def _atom(self) -> Fraction:
        if self._take("frac"):
            above, below = self._bracket(), self._bracket()
            return above / below
        if number := self._take("number"):
            if self._next() in ("number", "frac"):
                raise _UnreadableError  # A mixed number, or two numbers side by side.
            return number.value / (100 if self._take("percent") else 1)
        return self._bracket()

    def _bracket(self) -> Fraction:
        if not self._take("open"):
            raise _UnreadableError
        value = self._sum()
        if not self._take("close"):
            raise _UnreadableError
        return value
