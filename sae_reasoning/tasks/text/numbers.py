"""Numbers as people and models write them, in plain text, Markdown or TeX: read exactly, or not.

Decimals, fractions, mixed numbers, thousands set apart by commas, blanks, apostrophes or TeX,
scientific notation, products and powers, percents, money and units, words. What could be two
things, as `3,5`, `12:30` or `2_3`, is no number here. Exponents are bounded before anything is
computed, so no text takes long.
"""

import ast
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from sae_reasoning.tasks.text.number_words import number_words

_LONGEST = 500
"""Characters of a text that may be a number."""
_EXPONENT, _EXPONENT_DIGITS, _BITS, _FACTORIAL, _REPEATED = 1000, 15, 20_000, 200, 60
"""Powers of ten up to which values are exact; digits of an exponent; bits of a power's value; what
a factorial is of; characters of a repeating decimal."""

_LOOKALIKES = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63", "-")
    | dict.fromkeys("×·⋅∙∗", "*")
    | dict.fromkeys("÷∕⁄", "/")
    | {"’": "'", "≈": "=", "°": " degrees ", "¢": " cents "}
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile(r"(?:(?<=\d)\s?)?([¼-¾⅐-⅞])")
_REPEATING = re.compile(r"(?<!\d)(\d*)\.(\d*)\\overline\s*\{?(\d+)\}?")

_ARGUMENT = r"\s*(?:\{\s*(-?[\d., ]*\d)\s*\}|(\d))"
_FRAC = re.compile(r"\\[dtc]?frac" + _ARGUMENT + _ARGUMENT)
_TEX = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\\\", "\n"),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|boxed|fbox)(?![A-Za-z])", ""),
        (r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split)\*?\}", " "),
        (r"\\!", ""),
        (r"\{,\}", ","),
        (r"\\(?:[,;:> ()\[\]]|q?quad(?![A-Za-z]))|~", " "),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])", " degrees "),
        (r"(?<=\d)\s*\\[dt]?frac\{\s*([A-Za-z]+)\s*\}\{\s*([A-Za-z]+)\s*\}", r" \1/\2"),
        (r"\\([$%#&])", r"\1"),
        (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\pm(?![A-Za-z])", "±"),
        (r"(?<=\d)\s*\\Omega(?![A-Za-z])", " ohms "),
        (r"\\approx(?![A-Za-z])", "="),
        (r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1"),
        (r"(?<=[A-Za-z])\s+\^(?=-?\d)", "^"),
        (r"&", " "),
    )
]
_EMPHASIS = (
    re.compile(r"(?<![\w*])(\*{1,3}|`+)(?=\S)([^\n]{1,300}?)(?<=\S)\1(?![\w*])"),
    re.compile(r"(?<![\w])(_{1,2})(?=\S)([^\n]{1,300}?)(?<=\S)\1(?!\w)"),
)
_IN_WORDS = [
    (re.compile(pattern, re.IGNORECASE), by)
    for pattern, by in (
        (r"(?<=\d) and a half\b", " 1/2"),
        (r"(?<=\d) and a quarter\b", " 1/4"),
        (r"(?<=\d) plus (?=\d)", " + "),
        (r"(?<=\d) minus (?=\d)", " - "),
        (r"(?<=\d) times (?=\d)", " * "),
        (r"(?<=\d) divided by (?=\d)", " / "),
        (r"\b(?:minus|negative)\s+(?=[\d.])", "-"),
        (r"\b(?:Rs\.?|USD|EUR|GBP|INR|US\$) ?(?=[\d.])", ""),
        (r"(?<=-) ?[$€£¥₹₩₽] ?(?=[\d.])", ""),
        (r"[$€£¥₹₩₽]", " "),
    )
]

_WHOLE = (
    r"(?>[1-9]\d{0,2}(?:,\d{3})+(?!\d)|[1-9]\d{0,2}(?: \d{3})+(?!\d)|[1-9]\d{0,2}(?:'\d{3})+(?!\d)"
    r"|[1-9]\d{0,2}(?:_\d{3})+(?!\d)|[1-9]\d?(?:,\d{2})+,\d{3}(?!\d)|\d+)"
)
_POINTED = r"[1-9]\d{0,2}(?:\.\d{3})+,\d{1,2}(?!\d)|[1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)"
_DECIMAL = rf"(?>{_POINTED}|{_WHOLE}(?:\.\d+(?!\.\.))?|\.\d+(?!\.\.))"
_SCIENTIFIC = rf"{_DECIMAL}(?:[eE][-+]?\d+|\s*[*xX]\s*10\s?\^\s?[-+]?\d+)"
_ONE = rf"(?>{_SCIENTIFIC}|{_DECIMAL})"
_SIGN = r"(?:(?<![\w)\]}.])[-+]|(?:^|(?<=is )|(?<=be )|(?<=are )|(?<==)|(?<== )|(?<=: ))[-+] )?"
_SUM = rf"{_ONE}(?:(?:\s?(?:\*\*|[*/^+])\s?|\s-\s)-?{_ONE})+"
_MIXED = r"\d+(?: | and )\d+/\d+"
_OPEN_END = r"(?!\.?\d|[,:'_/-]\d|\s?[xyzn](?![A-Za-z'])|[A-Zabcdefijkopqrtuvw](?![A-Za-z'])|[(\\])"
_OPEN_END += r"(?!\s?(?:\*\*|[*^])\s?[A-Za-z\\(]|_)"
_SCALES = {
    "%": Fraction(1, 100),
    "percent": Fraction(1, 100),
    "cent": Fraction(1, 100),
    "cents": Fraction(1, 100),
    "dozen": Fraction(12),
}
_MULTIPLES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "k": 1000,
}
"""Words that belong to the number, unlike those that may be left out."""
_SCALE_WORDS = [key for key in (*_SCALES, *_MULTIPLES) if key not in ("%", "k")]
_SCALE = rf"(?:\s?%|(?:\s+(?:{'|'.join(_SCALE_WORDS)})\b){{1,2}})?"
_THOUSANDS = rf"{_DECIMAL}k(?![\w'(\\^-]|\s?[-+*/^=])"
_NUMBER = rf"{_SIGN}(?>{_THOUSANDS}|(?>{_MIXED}|{_SUM}|{_ONE}){_OPEN_END}{_SCALE})"
_PAIR = r"[(\[]\s*-?[\w./\\]+\s*(?:,\s*-?[\w./\\]+\s*)+[)\]]"
"""A tuple or an interval."""
_MENTION = re.compile(
    rf"(?P<pair>(?=[^)\]\n]{{0,60}}\d){_PAIR})|(?P<number>(?<![A-Za-z0-9_.^\\{{±]){_NUMBER})"
    r"|(?P<unit>(?<![A-Za-z])(?:[A-Za-z]+\^-?\d+|[A-Za-z]\w*\d\w*))"
    r"|(?P<opaque>[±]\s?\d[\w.,:'/-]*|(?<!\w)[-+]?\.?\d(?:[\w.,:'/(){}^\\-]*[\w)}])?"
    r"|\\[A-Za-z]+(?:\s*\{[^{}]*\})*)",
    re.MULTILINE,
)
_ARITHMETIC = re.compile(r"[\d\s.,+*/()^!-]+")

_UNIT_LETTERS = frozenset("mgshlLKJWVNCF")
_UNITS = frozenset(
    "cm mm km dm nm kg mg lb lbs ft in oz hr hrs min mins sec secs ms ml mL cl dl kWh kW mph kph "
    "bpm rpm fps "
    "sq pts pcs yr yrs yd yds mi st nd rd th pt qt gal am pm Hz kHz MHz GB MB KB TB".split()
)
_BETWEEN_UNITS = frozenset(("of", "a", "an", "the", "per", "for", "each"))
_UNIT = re.compile(r"[A-Za-z][A-Za-z'-]*\.?(?:\^-?\d)?")
_BEFORE = re.compile(
    r"\b(?:not|or|and|nor|either|neither|never)\b|n't\b"
    r"|\b(?:over|under|above|below|least|most|than|up to|between|from|within|by)\s*$"
    r"|\b(?:cannot|impossible|twice|double|triple|half of|(?:root|square|cube|power) of)\b"
    r"|\b(?:half|log|ln|sqrt|sin|cos|tan|exp|abs|hex)\s*$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\b(?:or|and|nor|not|than|plus|minus)\b"
    r"|^\s*(?:squared|cubed|factorial|halves|thirds|quarters|tenths|hundredths|pi|sqrt|root)\b"
    r"|^\s*(?:short of|out of|less than|fewer than|remainder)\b",
    re.IGNORECASE,
)
_LISTED = re.compile(r"\b(?:or|and)\b|[,;]", re.IGNORECASE)
_SIDE_BY_SIDE = re.compile(
    r"\s*(?:[A-Za-z]+\s*)?(?:,|;|\band\b|\bor\b|,\s*(?:and|or)\b)\s*(?:[A-Za-z]\s*=\s*)?",
    re.IGNORECASE,
)
_REMARK = re.compile(r"\s*\([^()\d]*\)\s*$")


@dataclass(frozen=True)
class Number:
    """A number that was read.

    Attributes:
        value: What it's worth, before `scale`; a Decimal where it's too large or small to expand.
        text: As it was written, without what stands around it and between its digits.
        scale: What a word behind it multiplies it by: 1/100 for percents and cents, 12 for dozens.
    """

    value: Fraction | Decimal
    text: str
    scale: Fraction = Fraction(1)

    def equals(self, other: "Number") -> bool:
        """Whether both are the same, where one may leave out its percent sign or its dozens."""
        if self.scale == other.scale:
            return self.value == other.value
        if 1 in (self.scale, other.scale):
            return bool(self._worths & other._worths)
        return self._worths - {self.value} == other._worths - {other.value}

    @property
    def spellings(self) -> list[str]:
        """As it was written, and plainly where that differs; a fraction isn't reduced."""
        plain = self.text
        if isinstance(self.value, Fraction) and "/" not in plain and self.value.denominator == 1:
            plain = str(self.value)
        return list(dict.fromkeys((self.text, plain)))

    @property
    def _worths(self) -> set[Fraction | Decimal]:
        if isinstance(self.value, Decimal):
            return {self.value}
        return {self.value, self.value * self.scale}


@dataclass(frozen=True)
class Mention:
    """A place in a text where a number stands, or what can't be read as one.

    Attributes:
        text: What stands there.
        start: Its first character in the plain text.
        end: One past its last.
        number: What was read.
    """

    text: str
    start: int
    end: int
    number: Number | None


def plain_text(text: str) -> str:
    """A text without Markdown's emphasis and TeX's dress, and with one sign for each thing."""
    text = _SUPERSCRIPT.sub(lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    text = _VULGAR.sub(_spelt, text)
    text = unicodedata.normalize("NFKC", text).translate(_LOOKALIKES)
    for pattern, by in _TEX:
        text = pattern.sub(by, text)
    text = _REPEATING.sub(_repeated, _FRAC.sub(_slashed, text))
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\2", text)
    for pattern, by in _IN_WORDS:
        text = pattern.sub(by, text)
    return text


def mentions(plain: str) -> list[Mention]:
    """The numbers of a plain text in order, and what looks like one and isn't; no units."""
    found = []
    for match in _MENTION.finditer(plain):
        if match["unit"]:
            if len(match["unit"].partition("^")[0]) > 1 or match["unit"][0] in _UNIT_LETTERS:
                continue
            found.append(Mention(match["unit"], match.start(), match.end(), None))
            continue
        number = _number(match["number"]) if match["number"] else None
        found.append(Mention(match[0].strip(), match.start(), match.end(), number))
    return found


def read_number(text: str) -> Number | None:
    """The number that a whole text is, with its unit, currency or name; None where it isn't one."""
    if len(text) > _LONGEST or re.search(r"\d\.\d+(?:\.\.|…|\\[cl]?dots)", text):
        return None
    plain = plain_text(text).lstrip(" \t\n,;:").rstrip(" \t\n.,;:?")
    plain = plain if re.search(r"[\d)]!$", plain) else plain.rstrip("!")
    sides = plain.split("=")
    if len(sides) > 1:
        if any(map(_LISTED.search, sides[:-1])) or re.search(r"[<>≤≥]", plain):
            return None
        plain = sides[-1].strip()
    if re.fullmatch(r"\([^()]*\)", plain) and "," not in plain:
        plain = plain[1:-1].strip()
    return _with_unit(plain) or _computed(plain) or _spoken(plain)


def is_number(reference: str) -> bool:
    """Whether a right answer is a number, rather than words with one, as a date."""
    is_named = re.match(r"[A-Za-z]{2,}[^=:]*\d", plain_text(reference).strip()) is not None
    return not is_named and read_number(reference) is not None


def in_words(text: str) -> Number | None:
    """The last number in a text of words only; a mere "one" is none."""
    runs = number_words(text)
    if not runs or runs[-1].words == ("one",):
        return None
    return Number(runs[-1].value, str(runs[-1].value))


def are_several(text: str) -> bool:
    """Whether a text names two or more numbers side by side: a list, a pair, one of either sign."""
    plain = plain_text(text)
    found = [one for one in mentions(plain) if one.number]
    if re.search(rf"±|(?=[^)\]\n]{{0,60}}\d){_PAIR}", plain):
        return True
    between = (plain[a.end : b.start] for a, b in pairwise(found))
    return len(found) > 1 and any(map(_SIDE_BY_SIDE.fullmatch, between))


Operations = Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]]


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    size = base.numerator.bit_length() + base.denominator.bit_length()
    if exponent.denominator != 1 or abs(exponent) > _EXPONENT or size * abs(exponent) > _BITS:
        raise ValueError("the power is too large to be computed")
    return Fraction(base ** int(exponent))


FOUR_OPERATIONS: Operations = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_OPERATIONS: Operations = {**FOUR_OPERATIONS, ast.Pow: _power}


def value_of(node: ast.expr, operations: Operations) -> Fraction:
    """What arithmetic of whole numbers and decimals comes to.

    Raises:
        TypeError: It's something else.
        ValueError: A power of it is too large.
        ZeroDivisionError: It divides by nought.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in operations:
        left, right = value_of(node.left, operations), value_of(node.right, operations)
        return Fraction(operations[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value_of(node.operand, operations)
    raise TypeError(f"{type(node).__name__} is no arithmetic")


def _spelt(found: re.Match[str]) -> str:
    value = Fraction(unicodedata.numeric(found[1])).limit_denominator(10)
    joins = found.start() and found.string[found.start() - 1].isdigit()
    return f"{' ' if joins else ''}{value.numerator}/{value.denominator}"


def _repeated(found: re.Match[str]) -> str:
    whole, once, over = found.groups()
    if len(found[0]) > _REPEATED:
        return found[0]
    nines = Fraction(int(over), (10 ** len(over) - 1) * 10 ** len(once))
    return str(Fraction(f"{whole or 0}.{once or 0}") + nines)


def _slashed(found: re.Match[str]) -> str:
    above, below = found[1] or found[2], found[3] or found[4]
    joins = found.start() and found.string[found.start() - 1].isdigit()
    return f"{' ' if joins else ''}{above}/{below}"


def _with_unit(plain: str) -> Number | None:
    """A number with words before it and its unit behind, and nothing else."""
    plain = _REMARK.sub("", plain)
    found = [one for one in mentions(plain) if one.number or one.text]
    if len(found) != 1 or found[0].number is None:
        return None
    before, after = plain[: found[0].start], plain[found[0].end :]
    if _BEFORE.search(before) or _AFTER.search(after):
        return None
    if not re.fullmatch(r"[A-Za-z][A-Za-z',.: ]*|\s*", before):
        return None
    is_apart = not after or not after[0].isalpha()
    words = after.replace("/", " ").split()
    if not all(_is_unit(word, is_apart or index > 0) for index, word in enumerate(words)):
        return None
    return found[0].number


def _is_unit(word: str, is_apart: bool) -> bool:
    if not _UNIT.fullmatch(word):
        return False
    name = word.partition("^")[0].rstrip(".")
    if name in _UNITS or name in _UNIT_LETTERS or (is_apart and name in _BETWEEN_UNITS):
        return True
    return len(name) > (1 if name.lower() == "a" else 2 if is_apart else 3) and bool(
        re.search("[aeiouy]", name, re.IGNORECASE)
    )


def _computed(plain: str) -> Number | None:
    """What arithmetic in digits comes to."""
    if not _ARITHMETIC.fullmatch(plain) or not re.search(r"\d", plain):
        return None
    if re.search(r"\d,\d|\d\s+[\d.]", plain):
        return None
    plain = re.sub(r"(?<![\d.])(\d{1,3})!", _factorial, plain)
    plain = re.sub(r"(?<=[\d)])\s*(?=\()", "*", plain).replace("^", "**")
    try:
        tree = ast.parse(plain, mode="eval").body
        value = value_of(tree, _OPERATIONS)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, ArithmeticError):
        return None
    return Number(value, str(value))


def _factorial(found: re.Match[str]) -> str:
    number = int(found[1])
    return str(math.factorial(number)) if number <= _FACTORIAL else found[0]


def _number(text: str) -> Number | None:
    """A text that the pattern of a number matches."""
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    for name, multiple in _MULTIPLES.items():
        if text.endswith(name) and (one := _number(text.removesuffix(name))):
            if isinstance(one.value, Decimal):  # Out of its arithmetic's range.
                parts = one.value.as_tuple()
                power = int(parts.exponent) + len(str(multiple)) - 1
                worth: Fraction | Decimal = Decimal((parts.sign, parts.digits, power))
            else:
                worth = one.value * multiple
            return Number(worth, str(worth))
    scale = Fraction(1)
    for name, factor in _SCALES.items():
        if text.endswith(name) and not text[: -len(name)].endswith("per"):
            text, scale = text[: -len(name)].strip(), factor
            break
    sign = -1 if text.startswith("-") else 1
    bare = text.lstrip("+-").strip()
    prefix = "-" if sign < 0 else ""
    if mixed := re.fullmatch(r"(\d+)(?: | and )(\d+)/(\d+)", bare):
        whole, above, below = map(int, mixed.groups())
        if not 0 < above < below:
            return None
        value: Fraction | Decimal | None = whole + Fraction(above, below)
        written = f"{prefix}{whole * below + above}/{below}"
    elif re.fullmatch(_ONE, bare):
        value, written = _one(bare)
        written = prefix + written
    else:
        digits = re.sub(_ONE, lambda found: _one(found[0])[1] or "?", bare)
        written = prefix + re.sub(r"\s", "", digits)
        found = _computed(written)
        if found is None:
            return None
        is_fraction = re.fullmatch(r"-?\d+/\d+", written)
        return Number(found.value, written if is_fraction else found.text, scale)
    if value is None:
        return None
    if isinstance(value, Decimal):
        return Number(Decimal(f"{prefix}{value}"), written)
    return Number(sign * value, written, scale)


def _one(text: str) -> tuple[Fraction | Decimal | None, str]:
    """Value and plain digits of one number without a sign; None where it's too long."""
    mantissa, exponent = text, "0"
    if parts := re.fullmatch(r"(.+?)(?:[eE]|\s*[*xX]\s*10\s?\^\s?)([-+]?\d+)", text):
        mantissa, exponent = parts[1], parts[2]
    if re.fullmatch(_POINTED, mantissa):
        mantissa = mantissa.replace(".", "").replace(",", ".")
    digits = re.sub(r"[ ,'_]", "", mantissa)
    written = digits if exponent == "0" else f"{digits}e{exponent}"
    value = Fraction(digits)
    if not value or exponent == "0":
        return value, written
    if len(exponent) > _EXPONENT_DIGITS:
        return None, written
    if abs(int(exponent)) > _EXPONENT:
        return Decimal(f"{digits}e{exponent}"), written
    return value * Fraction(10) ** int(exponent), written


def _spoken(plain: str) -> Number | None:
    """The one number in words that a text is, with its unit."""
    if found := re.fullmatch(r"([A-Za-z -]+?)\s*\(\s*([^()]*\d[^()]*)\)", plain):
        number, words = read_number(found[2]), _spoken(found[1])
        return number if number and words and number.equals(words) else None
    runs = number_words(plain)
    if len(runs) != 1 or re.search(r"\d|\\", plain):
        return None
    run = runs[0]
    if _BEFORE.search(plain[: run.start]) or _AFTER.search(plain[run.end :]):
        return None
    return Number(run.value, str(run.value))
