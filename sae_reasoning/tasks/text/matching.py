"""Whether an answer is the right one, as far as that can be said without algebra."""

import re

from sae_reasoning.records import Comparison
from sae_reasoning.tasks.text.answers import (
    CHOICE,
    EDGES,
    FORMULA,
    WORDS_IN_TEX,
    Answer,
    bare_text,
    formula_of,
    is_plainly_equal,
)
from sae_reasoning.tasks.text.numbers import are_several, plain_text, read_number

_GROUP = re.compile(r"[(\[{][^()\[\]{}]*,[^()\[\]{}]*[)\]}]")
_LEADING_CHOICE = re.compile(
    r"\W*(?:(?:option|choice|answer)\W+)?\(?([A-J])\)?(?=$|[\s.,:;)])", re.IGNORECASE
)
_CHOICES = re.compile(
    r"(?<![\w'])(?:\(([A-J])\)|(?<!\d )([A-HJ])(?![\w'])(?!(?<=A) (?!or\b|and\b|nor\b|is\b)[a-z]))"
)
_TIME = re.compile(r"(?<![\d:])(\d{1,4}):(\d{1,4})(?![\d:])\s*(?:([ap])\.?\s?m\b)?", re.IGNORECASE)
_IN_BASE = re.compile(r"[\dA-F]+_\{?\d+\}?")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ '-]\w+)*")
_SAYS = re.compile(r"^.*\b(?:is|are|was|were|be)\b|^.*(?::(?!\d)|=)", re.DOTALL)
_ARTICLE = re.compile(
    r"^(?:(?:therefore|thus|hence|so|it's|that's|an?|the)\b[,\s]*)+", re.IGNORECASE
)
_NAMES = frozenset("sqrt frac dfrac tfrac cdot times pi sin cos tan log ln exp left right".split())
_BETWEEN = re.compile(
    r"\s*\\text\s*\{\s*(?:and|or)\s*\}\s*|(?<=[\d})])\s+(?:and|or)\s+(?=[\d\\({-])"
)
_TAG = re.compile(r"</?[A-Za-z]+>")
_ONE_SIDED = re.compile(
    r"(?<![=-])[<>](?!\s*\Z)|[≤≥≠]|!=|\\(?:[gln]eq?|[gln]eqslant|lt|gt)(?![A-Za-z])"
)
_RULED_OUT = re.compile(
    r"^\W*(?:isn't|can't|cannot|won't|(?:is|seems|looks|was)\b[^.;,]*"
    r"\b(?:wrong|incorrect|false|impossible|out|not (?:correct|right|true|possible|valid|the))\b)",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    r"n't\b|\b(?:not|neither|nor|cannot|eliminat\w+|exclud\w+|reject\w*|rul\w+ out|wrong|"
    r"incorrect|except)\b",
    re.IGNORECASE,
)
_DENIES = re.compile(r"\b(?:not|never|cannot)\b|n't\b", re.IGNORECASE)
_TAKEN_BACK = re.compile(r"\b(?:wait|actually|hmm)\b|\b(?:and|or) (?:yes|no)\b", re.IGNORECASE)
_NO_VERDICT = re.compile(r"^no\W+(?:longer|idea|clue|way|one|matter|doubt)\b", re.IGNORECASE)
_JOINS = re.compile(r"\s*(?:,|\bor\b|,\s*or\b)\s*", re.IGNORECASE)
_TIMES_PI = re.compile(r"\d\s*\*?\s*(?:\\pi|pi|π)(?:\s+[A-Za-z]+(?:\^\d)?){0,3}[$.)\s]*$")
_INTERVAL = re.compile(r"[(\[][^,()\[\]]+,[^,()\[\]]+[)\]]")
_LESS = r"<=|<|≤|\\leq?(?![A-Za-z])|\\lt(?![A-Za-z])"
_MORE = r">=|>|≥|\\geq?(?![A-Za-z])|\\gt(?![A-Za-z])"
_END = r"-?(?:\\[A-Za-z]++(?:\{[^{}\s]*\})*+|[\w./])++"
_FROM_TO = [
    re.compile(rf"(?:^|[\s:(])({_END})\s*({sign})\s*[a-z]\s*({sign})\s*({_END})$")
    for sign in (_LESS, _MORE)
]
_ON_ONE_SIDE = re.compile(rf"(?:^|[\s:(])[a-z]\s*({_LESS}|{_MORE})\s*({_END})$")
_STRICT = re.compile(r"[<>]|\\[lg]t")
_AMBIGUOUS = re.compile(r"!|/\s*0+(?![\d.])|\d:\d|\d\.\d+\.\d|\.\.\.|\d\s+\d")
_LARGE_POWER = re.compile(r"(?:\^|\*\*)[\s{(]*-?\d{4,}|\d{4,}\s*!|(?:\^|\*\*)[^+=,]*(?:\^|\*\*)")


def match_number(reference: str, answer: Answer) -> Comparison | None:
    """An answer beside the number that is right; None where algebra has to tell.

    Several numbers are not the one that is asked for.
    """
    if answer.is_unclear or _ONE_SIDED.search(_TAG.sub("", answer)):
        return Comparison.UNREADABLE
    if (found := is_plainly_equal(reference, answer)) is not None:
        return _compared(found)
    if are_several(answer) or _TIMES_PI.search(plain_text(answer)[-60:]):
        return Comparison.DIFFERENT
    if re.search(r"\d_", answer):
        return Comparison.UNREADABLE
    is_pointed = re.search(r"^[^(\[{]*\d,\d", re.sub(r"\d{1,3}(?:,\d{3})+(?![\d,])", "", answer))
    return Comparison.UNREADABLE if is_pointed else None


def as_asked(reference: str, answer: Answer) -> Answer:
    """An inequality as an interval where an interval is right: [1, 2] for 1 <= x <= 2."""
    if not _INTERVAL.fullmatch(plain_text(reference).strip()):
        return answer
    plain = plain_text(answer).strip(EDGES)[-100:]
    less, more = (pattern.search(plain) for pattern in _FROM_TO)
    if less:
        low, above, below, high = less.groups()
    elif more:
        high, below, above, low = more.groups()
    elif one := _ON_ONE_SIDE.search(plain):
        is_less = re.fullmatch(_LESS, one[1]) is not None
        low, above, below, high = (
            (r"-\infty", "<", one[1], one[2]) if is_less else (one[2], one[1], "<", r"\infty")
        )
    else:
        return answer
    opens, closes = (
        "(" if _STRICT.fullmatch(above) else "[",
        ")" if _STRICT.fullmatch(below) else "]",
    )
    interval = f"{opens}{low},{high}{closes}"
    return Answer(interval, is_stated=answer.is_stated, is_unclear=answer.is_unclear)


def match_text(reference: str, answer: Answer) -> Comparison | None:
    """An answer beside a choice among letters, a time or ratio, or words that are right.

    None where it takes algebra.
    """
    if is_plainly_equal(reference, answer):
        return Comparison.EQUAL
    plain = plain_text(reference).strip()
    if choice := CHOICE.fullmatch(plain):
        return _match_choice(choice[1], answer)
    if (time := _TIME.match(plain)) and not plain[time.end() :].strip(" ."):
        return _match_time(time, answer)
    if _IN_BASE.fullmatch(plain):  # math-verify takes 25_8 for 25.
        is_other = _IN_BASE.fullmatch(plain_text(answer).strip(EDGES)) or read_number(answer)
        return Comparison.DIFFERENT if is_other else Comparison.UNREADABLE
    if _are_words(plain):
        return _match_words(plain, answer)
    if _ONE_SIDED.search(plain) and read_number(answer):
        return Comparison.DIFFERENT  # math-verify takes a bound for its number.
    return None


def expression_in(answer: str) -> str | None:
    """The mathematical expression that an answer is, or ends in; None where there's none."""
    answer = _BETWEEN.sub(", ", answer)
    formulas = list(FORMULA.finditer(answer))
    if formulas:
        *others, last = formulas
        before = answer[others[-1].end() if others else 0 : last.start()]
        if re.search(r"(?:\bnot|n't)\s*$", before, re.IGNORECASE):
            return None
        if others and _JOINS.fullmatch(before):
            return None  # Two of them, of which neither is the answer alone.
        return formula_of(last) if _is_expression(formula_of(last)) else None
    plain = answer.strip(EDGES.replace("!", "") if re.search(r"[\d)]!", answer) else EDGES)
    if _is_expression(plain):
        return plain
    tail = _SAYS.sub("", plain).strip()
    if _is_expression(tail):
        return None if _DENIES.search(plain.removesuffix(tail)) else tail
    groups = _GROUP.findall(plain_text(plain))
    return str(groups[-1]) if groups and _is_expression(groups[-1]) else None


def _is_expression(text: str) -> bool:
    """Whether algebra may tell what a text is worth: no prose, no two readings, no giant."""
    if len(text) > 300 or _LARGE_POWER.search(text) or not re.search(r"\d|\\[a-zA-Z]|[a-z]", text):
        return False
    text = re.sub(r"\\(?:begin|end)\{[a-z]*\}", " ", text)
    bare = re.sub(r"\\[a-zA-Z]+", "*", WORDS_IN_TEX.sub(r" \1 ", text.replace("{,}", ",")))
    if _AMBIGUOUS.search(bare):
        return False
    words = re.findall(r"[A-Za-z]{2,}", bare)
    return not [word for word in words if word not in _NAMES]


def _compared(is_equal: bool) -> Comparison:
    return Comparison.EQUAL if is_equal else Comparison.DIFFERENT


def _match_choice(right: str, answer: Answer) -> Comparison:
    plain = plain_text(answer).strip(EDGES)
    leading = _LEADING_CHOICE.match(plain)
    if leading and leading[1].islower() and len(re.sub(r"\W", "", plain)) > 1:
        leading = None  # A word.
    if leading and re.match(r"I [a-z]" if answer.is_stated else r"[AI] [a-z]", plain):
        leading = None  # An article or a pronoun.
    if not leading and _AGAINST.search(plain):
        return Comparison.UNREADABLE
    letters = {one or other for one, other in _CHOICES.findall(plain)}
    if leading:
        rest = plain[leading.end() :]
        if _RULED_OUT.match(rest):
            return Comparison.UNREADABLE
        if re.match(r"\W*(?:,|&|\bor\b|\band\b)\s*(?:(?:maybe|perhaps) )?\(?[A-J]\b", rest):
            return Comparison.DIFFERENT if answer.is_stated else Comparison.UNREADABLE
        return _compared(leading[1].upper() == right)
    return _compared(letters == {right}) if len(letters) == 1 else Comparison.UNREADABLE


def _match_time(right: re.Match[str], answer: Answer) -> Comparison:
    plain = plain_text(answer)
    given = list(_TIME.finditer(plain))
    if not given:
        is_number = read_number(answer) is not None
        return Comparison.DIFFERENT if is_number else Comparison.UNREADABLE
    one, other = ([int(found[1]), int(found[2])] for found in (right, given[-1]))
    halves = {(found[3] or "").lower() for found in (right, given[-1])} - {""}
    return _compared(one == other and len(halves) < 2)


def _are_words(plain: str) -> bool:
    """Whether a text is words, rather than letters that stand for numbers."""
    if not _WORDS.fullmatch(plain):
        return False
    words = re.findall(r"[^\W\d_]+", plain.lower())
    return words == ["no"] or all(
        len(word) > 1 + (len(words) == 1) and re.search("[aeiouy]", word) for word in words
    )


def _match_words(right: str, answer: Answer) -> Comparison:
    given = plain_text(answer).strip(EDGES)
    verdicts = ("yes", "no", "true", "false")
    first = re.match(r"\w*", given.lower())
    if right.lower() in verdicts and first and first[0] in verdicts:
        if _TAKEN_BACK.search(given) or _NO_VERDICT.match(given):
            return Comparison.UNREADABLE
        return _compared(first[0] == right.lower())
    tail = _SAYS.sub("", given).strip(EDGES)
    if _DENIES.search(given.removesuffix(tail)):
        return Comparison.UNREADABLE
    wanted = bare_text(_ARTICLE.sub("", right))
    if any(bare_text(_ARTICLE.sub("", one)) == wanted for one in (given, tail)):
        return Comparison.EQUAL
    is_short = len(tail.split()) <= len(right.split()) + 2
    return Comparison.DIFFERENT if answer.is_stated or is_short else Comparison.UNREADABLE
