"""The answer that a response ends in, and what can be said of it without algebra."""

import ast
import re
from collections import Counter
from collections.abc import Sequence

from sae_reasoning.tasks.text.asides import (
    SENTENCE_END,
    is_heading,
    without_check,
    without_numbering,
    without_struck_out,
)
from sae_reasoning.tasks.text.numbers import (
    FOUR_OPERATIONS,
    Mention,
    are_several,
    in_words,
    is_number,
    mentions,
    plain_text,
    read_number,
    value_of,
)

_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HASHES = re.compile(r"(?:^|(?<=\s))####(?!#)[ \t]*([^\n]*)(\n?)", re.MULTILINE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>-?\d[\d.,/]*\d|\d))")
_JOINED = re.compile(
    r"[\s$.()\\\[\]]*(?:,|;|\band\b|\bor\b|\\text\{\s*(?:and|or)\s*\})+[\s$()\\\[\]]*"
)
_OPENED = r"<(?:think|thinking|thought)>|<\|begin_of_thought\|>|\[THINK\]"
_CLOSED = r"</(?:think|thinking|thought)>|<\|end_of_thought\|>|\[/THINK\]"
_THOUGHT, _END_OF_THOUGHT = (re.compile(one, re.IGNORECASE) for one in (_OPENED, _CLOSED))

_ORDINAL = re.compile(r"(\d{1,3})[.):]?\s*")
_ANSWER = re.compile(
    r"\b(?:answer|ans)\b[*_`]*"
    r"(?:[^.\n:=]{0,60}?\b(?:is|are|equals)\b(?:\s+(?:therefore|thus|then|hence|simply))?"
    r"|[*_`]*\s*[:=]|[*_`: ]*$)[*_`]*:?[ \t]*[*_`]*",
    re.IGNORECASE | re.MULTILINE,
)
_IS_THE_ANSWER = re.compile(
    r"([^\n.]{1,60}?)\s{1,9}is\s+(?:the|our|my)\s+(?:(?:final|correct|right)\s+)*answer\b",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:wait|actually|wrong|mistake|incorrect|correction|oops|sorry|instead|rather|hmm)\b",
    re.IGNORECASE,
)
_SECOND_THOUGHT = re.compile(
    r"(?:^|[.!?$)}\n])\W{0,10}(?:(?:oh|but|no|hmm+|oops),? ){0,3}"
    r"(?:wait|hmm+|oops|actually|sorry|correction)\s?(?:[,.:!\u2014\u2026-]|(?:I|no|that|the)\b)",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:(?:that|this|it)(?:'s| is| was) (?:wrong|incorrect|not (?:right|correct)|a mistake)"
    r"|(?:that|this|it) isn't (?:right|correct)|I made an? (?:\w+ )?(?:mistake|error))\b(?!\s?\?)",
    re.IGNORECASE,
)
_NEXT_PROBLEM = re.compile(
    r"\n\W{0,10}(?:question|problem|exercise|example|q|user|human)\b[ *#]{0,3}\d{0,4}[ *]{0,3}:",
    re.IGNORECASE,
)
_UNSOLVED = re.compile(
    r"(?:^|[\s$({:,;])(?:-[ ]?|-?\d+(?:\.\d+)?[ ]?\*?[ ]?(?=[a-z])|(?=[a-z](?:\^|[ ]?/)))"
    r"([abcefi-kn-rt-z])(?:\^[2-9])?(?:[ ]?/[ ]?\d+)?(?:[ ]?[-+][ ]?\d+)?\s*=\s*$"
)
"""The left of an equation that gives a multiple or a power of an unknown, not the unknown."""
_OF_PI = re.compile(r"[ \t]{0,3}\*?[ \t]{0,3}(?:pi\b|π|\\pi(?![A-Za-z]))")
_AS_OF = re.compile(r"\bas of (?:[A-Za-z]+ )?$", re.IGNORECASE)
_ADDS = re.compile(
    r"\b(?:so|therefore|thus|hence|total)\b[^.\n]*\d[^.\n]*\.\s+(?:that|this|it)(?:'s| is)"
    r"\s+[^\w\s]?[\d.,]+\W*$",
    re.IGNORECASE,
)
"""A remark on what a response concludes; which of both is the answer depends on the question."""
_DENIED = re.compile(r"\b(?:not|rather than|instead of)\s+[^\w\s]?$", re.IGNORECASE)
_BOUNDS = re.compile(
    r"(?:[<>≤≥≠]|!=|\\(?:[gln]eq?|[gln]eqslant|lt|gt)(?![A-Za-z]))=?\s*[^\w\s]?$"
    r"|(?:\b(?:not|cannot|never)|n't)\s+(?:(?!but\b)[A-Za-z]+\s+){0,2}?[^\w\s]?$"
    r"|\b(?:less|more|fewer|greater|larger|smaller|higher|lower|other) than\s+[^\w\s]?$"
    r"|\b(?:at least|at most|up to|minimum of|maximum of|over|under|above|below)\s+[^\w\s]?$"
    r"|\b(?:twice|double|triple|half of|root of)\s+[^\w\s]?$"
    r"|\d\s+(?:out of|in|remainder|r)\s+$|\b[A-Za-z]\($"
    r"|(?<![A-Za-z'])(?:[a-z][ \t]*[+*/]|[a-hj-z][ \t]*-)[ \t]*$",
    re.IGNORECASE,
)
"""What stands before a number that isn't what is given: a bound, a denial, part of something."""
_NO_SIGN = re.compile(r"(?:[=-]|<[^<>\n]{1,20}|^\s*)>\s*[^\w\s]?$", re.MULTILINE)
"""An arrow, a tag or a quotation's mark rather than a sign of order."""
_CHANGED = re.compile(
    r"^\s*(?:squared|cubed|factorial|remainder\b|out of\b|(?:feet|foot|ft)\s+\d"
    r"|(?:\w+\s+)?below (?:zero|freezing)|[ \t]*[-+*/][ \t]*[b-z](?![A-Za-z'])"
    r"|\W{0,4}(?:is|was) (?:incorrect|wrong|not (?:correct|right|the)\b))",
    re.IGNORECASE,
)
"""What follows such a number."""
_GIVES_UP = re.compile(
    r"\b(?:cannot|can't|couldn't|can not|unable to|not able to)\s+(?:be\s+)?"
    r"(?:determined?|solved?|computed?|find|found|answer|tell|say|know)",
    re.IGNORECASE,
)
_RANGE = re.compile(
    r"\bbetween\b[^.\n]{0,20}\d[^.\n]{0,15}\band\s+$|(?<!from )\b[\d.,]+\s+(?:to|or)\s+$"
    r"|\d\s+(?:dollars?|euros?|pounds?|hours?|minutes?|days?|weeks?|months?|years?|feet|foot)"
    r"\s*(?:,|and)?\s*$",
    re.IGNORECASE,
)
"""What stands before the second of two numbers that are one thing: a range, hours and minutes."""
FORMULA = re.compile(
    r"\$\$(?P<display>.{1,2000}?)\$\$|\\\[(?P<bracket>.{1,2000}?)\\\]|\\\((?P<inline>.{1,500}?)\\\)"
    r"|(?<![\\$\w])\$(?P<dollar>[^\s$](?:[^$\n]{0,500}?[^\s$\\])?)\$(?!\d)",
    re.DOTALL,
)
_EQUALS = re.compile(r"(?<![<>!\\])=")

CHOICE = re.compile(r"\W*\(?([A-J])\)?\W*")
_LETTER = re.compile(r"\W*[A-J]\b(?!(?<=A) [a-z])")
_DEFINITE = re.compile(r"(?:yes|no|true|false)\b|\S*[\d\\^$]", re.IGNORECASE)
WORDS_IN_TEX = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")


EDGES = " \t\n*_`.,;:!?\"'"
_WIDEST, _MOST = 2000, 100
"""Characters that a box may hold, and boxes that are looked at, from the last."""
_PRIVATE = 0xE000, 6000
"""First character of private use, and how many are taken."""
_SIGNS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "÷": "/", "−": "-"}
_SIGNS |= dict.fromkeys(("\\left", "\\right", "\\(", "\\)", "\\[", "\\]"), "")
_SIGNS |= dict.fromkeys(("\\frac", "\\dfrac", "\\tfrac"), "")
_SIGNS |= {"}{": ")/(", "{": "(", "}": ")", "[": "(", "]": ")"}
_CROSS = re.compile(r"(?<=[\d)\s])[xX](?=[\s\d(])")
_ARITHMETIC = re.compile(r"-?[\d(][\d\s()+*/-]*[\d)]")
_AROUND = re.compile(r"^[\s$.,]+|[\s$.,]+$")


class Answer(str):
    """What a response gives as its answer, as it stands there.

    Attributes:
        is_stated: Whether the response says that it's the answer; else it's what it ends in.
        is_unclear: Whether it could be two things, as a range or a time for a number.
    """

    is_stated: bool
    is_unclear: bool

    def __new__(cls, text: str, *, is_stated: bool, is_unclear: bool = False) -> "Answer":
        """An answer of a text."""
        made = super().__new__(cls, text)
        made.is_stated, made.is_unclear = is_stated, is_unclear
        return made


def find_answer(
    text: str, *, numeric: bool, truncated: bool, opened: bool = False
) -> Answer | None:
    r"""What a response gives as its answer, or None where it gives none.

    The first of these that is there, and of several the last:

    1. `<answer>…</answer>`;
    2. `\boxed{…}`, together with others that "and", "or" or a comma joins it to;
    3. a line that begins with `####` and reads as an answer, as in GSM8K, rather than as a heading;
    4. "the answer is …" or "Answer: …", unless it's taken back;
    5. the last number, or the last line where no number is asked for.

    What "the answer is" says on second thoughts behind the first three ("Wait, …") stands for them,
    and a check of the number that a response concludes with is passed over. What is struck out
    counts for nothing, and an equation that isn't solved (`2x = 42`) is unclear.

    Only the first three count where the response was cut. Numbers of steps, list items and
    headings, and how sure the writer is, are no answers. Nor is what stands in a thought: a
    response that never comes out of it has none.

    Args:
        text: The response.
        numeric: Whether the right answer is a number.
        truncated: Whether the response was cut.
        opened: Whether the prompt ends in an open thought, so that the response begins within it.
    """
    thoughts = _END_OF_THOUGHT.split(text)
    said = thoughts[-1]
    if (opened and len(thoughts) == 1) or _THOUGHT.search(said):
        return None  # It never came out of its thought.
    said = without_struck_out(said)
    if marked := _marked(said, numeric, truncated):
        given, end = marked
        later = None if truncated else _later(said[end:], given, numeric)
        return later or _stated(given, is_unclear=numeric and _is_unsolved(given, said))
    if truncated:
        return None
    said = without_numbering(said)
    return _last_number(said) if numeric else _last_text(said)


def _marked(said: str, numeric: bool, truncated: bool) -> tuple[str, int] | None:
    """What stands in the last tag, box or line behind `####`, and where what follows it begins."""
    if (tagged := _last_tagged(said)) is not None:
        inner, end = tagged
        return _boxed_text(inner) or inner, end
    return _last_boxed(said) or _hashed(said, numeric, truncated)


def _later(rest: str, given: str, numeric: bool) -> Answer | None:
    """The answer that is stated on second thoughts about one that was given; None without any."""
    if other := _NEXT_PROBLEM.search(rest):
        rest = rest[: other.start()]
    taken_back = _TAKEN_BACK.search(rest)
    second = _SECOND_THOUGHT.search(rest) or taken_back
    if not second:
        return None
    if statement := _statement(rest[second.end() :]):
        if numeric:
            if found := _stated_number(statement):
                return found
        elif (_LETTER if CHOICE.fullmatch(given) else _DEFINITE).match(statement):
            return Answer(statement, is_stated=True)
    return Answer(given, is_stated=True, is_unclear=True) if taken_back else None


def worked_answer(text: str) -> str:
    """What a worked solution gives as its answer in a box or behind `####`; "" where it doesn't."""
    if (tagged := _last_tagged(text)) is not None:
        return tagged[0]
    if (box := _boxed_text(text)) is not None:
        return box
    lines = [str(found[1]).strip() for found in _HASHES.finditer(text)]
    return next((line for line in reversed(lines) if line), "")


def is_plainly_equal(reference: str, answer: str) -> bool | None:
    """Whether two answers are the same as numbers or as texts; None where that doesn't decide."""
    one = read_number(reference) if is_number(reference) else None
    other = read_number(answer)
    if one is not None and other is not None:
        return one.equals(other)
    return True if bare_text(reference) == bare_text(answer) else None


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool | None:
    """Whether an expression uses each number exactly once and equals the target.

    None where it's no arithmetic of whole numbers with + - * / and brackets, and holds none among
    words.
    """
    plain = expression.partition("=")[0]
    for sign, stands_for in _SIGNS.items():
        plain = plain.replace(sign, stands_for)
    plain = _AROUND.sub("", _CROSS.sub("*", plain))
    among_words = [found for found in _ARITHMETIC.findall(plain) if set("+-*/") & set(found)]
    for arithmetic in (plain, *among_words[-1:]):
        try:
            tree = ast.parse(arithmetic, mode="eval").body
            if any(isinstance(n, ast.Constant) and type(n.value) is float for n in ast.walk(tree)):
                continue
            found = value_of(tree, FOUR_OPERATIONS)
            return found == target and _numbers_in(tree) == Counter(numbers)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
        except ZeroDivisionError:
            return False
    return None


def _numbers_in(tree: ast.expr) -> Counter[int]:
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return Counter(value for value in found if isinstance(value, int))


def _stated(text: str, *, is_unclear: bool = False) -> Answer | None:
    text = text.strip()
    return Answer(text, is_stated=True, is_unclear=is_unclear) if text else None


def _last_tagged(text: str) -> tuple[str, int] | None:
    """What stands in the last `<answer>` that is closed, and its end; None where none is."""
    start, inner = -1, None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start >= 0:
            start, inner = -1, (text[start : tag.start()].strip(), tag.end())
    return inner


def _boxed_text(text: str) -> str | None:
    """What stands in the last box, without its end."""
    box = _last_boxed(text)
    return box[0] if box else None


def _last_boxed(text: str) -> tuple[str, int] | None:
    """What stands in the last box that holds something, and in those joined to it, and its end."""
    boxes: list[tuple[int, int, str]] = []
    for opening in list(_BOX.finditer(text))[-_MOST:]:
        if boxes and opening.start() < boxes[-1][1]:
            continue  # Within the one before.
        if opening["bare"]:
            boxes.append((opening.start(), opening.end(), opening["bare"]))
            continue
        depth = 1
        for index in range(opening.end(), min(len(text), opening.end() + _WIDEST)):
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            if not depth:
                inner = text[opening.end() : index].strip()
                inner = _boxed_text(inner) or inner
                if inner:
                    boxes.append((opening.start(), index + 1, inner))
                break
    if not boxes:
        return None
    joined = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _JOINED.fullmatch(text[box[1] : joined[0][0]]):
            break
        joined.insert(0, box)
    return ", ".join(box[2] for box in joined), joined[-1][1]


def _hashed(said: str, numeric: bool, truncated: bool) -> tuple[str, int] | None:
    """What stands behind the last `####` that reads as an answer, and its end."""
    lines = list(_HASHES.finditer(said))
    alone = [int(found[1]) for line in lines if (found := _ORDINAL.fullmatch(line[1].strip("*_ ")))]
    is_numbering = len(alone) > 1 and alone == list(range(1, len(alone) + 1))
    for match in reversed(lines):
        line, is_last = str(match[1]).strip(), not said[match.end() :].strip()
        if not line or (truncated and not match[2]):
            continue
        bare = plain_text(line).strip("*_ ")
        if is_heading(bare):
            continue
        if is_numbering and _ORDINAL.fullmatch(bare) and not is_last:
            continue
        has_words = re.search(r"[A-Za-z]{2,}", bare) is not None
        if numeric:
            is_number = read_number(bare) is not None
            if is_last or (is_number and (not has_words or _ANSWER.search(bare))):
                return line, match.end()
        elif is_last or re.search(r"[\d\\$^=+(]", line) or CHOICE.fullmatch(bare):
            return line, match.end()
    return None


def _is_unsolved(given: str, said: str) -> bool:
    """Whether an answer is an equation for a multiple or a power of an unknown, as `2x = 42`."""
    left, equals, _ = given[-300:].rpartition("=")
    found = _UNSOLVED.search(plain_text(left + equals).lstrip()) if equals else None
    if found is None:
        return False
    named = rf"(?<![\w^*/+-])(?<![\d*/+-] ){found[1]}\s*(?:=|\bis\b|\bequals\b)"
    return not re.search(rf"{named}\s*(?:\\pm|[±−-])?\s*(?:\d|\\[dt]?frac)", said)


def _statement(said: str) -> str | None:
    """What "the answer is" is followed by, up to the sentence's end; None where it's taken back."""
    places, named = list(_ANSWER.finditer(said)), list(_IS_THE_ANSWER.finditer(said))
    if named and (not places or named[-1].end() > places[-1].end()):
        return None if _REVISED.search(said, named[-1].end()) else str(named[-1][1]).strip()
    if not places:
        return None
    rest = said[places[-1].end() :].lstrip(" \t\n*_`:#")
    maths = FORMULA.match(rest)
    ends = SENTENCE_END.search(rest, maths.end() if maths else 0)
    end = ends.start() if ends else len(rest)
    if _REVISED.search(rest, end):
        return None
    return rest[:end].strip().strip("*_`") or None


def _stated_number(statement: str, said: str = "") -> Answer | None:
    """The number that a statement of the answer gives; None where it gives none."""
    if (maths := FORMULA.match(statement)) and not statement[maths.end() :].strip(EDGES):
        inner = formula_of(maths)
        is_unclear = _is_unsolved(inner, said)
        return Answer(_EQUALS.split(inner)[-1].strip(), is_stated=True, is_unclear=is_unclear)
    return _first_value(statement, said)


def _last_number(said: str) -> Answer | None:
    if (statement := _statement(said)) and (chosen := _stated_number(statement, said)):
        return chosen
    said = without_check(said)
    segments: list[str] = []

    def hidden(found: re.Match[str]) -> str:
        """Formulas that aren't plain numbers stay whole, as a character of private use."""
        inner = formula_of(found)
        if all(one.number for one in mentions(plain_text(inner))) or len(segments) == _PRIVATE[1]:
            return f" {inner} "
        segments.append(inner.strip(" .,"))
        return chr(_PRIVATE[0] + len(segments) - 1)

    plain = plain_text(FORMULA.sub(hidden, said))
    places = [
        place for place, sign in enumerate(plain) if 0 <= ord(sign) - _PRIVATE[0] < len(segments)
    ]
    found = mentions(plain)
    while len(found) > 1 and _DENIED.search(plain[max(0, found[-1].start - 20) : found[-1].start]):
        found.pop()
    if len(found) > 1 and _AS_OF.search(plain[max(0, found[-1].start - 30) : found[-1].start]):
        found.pop()
    if places and (not found or places[-1] > found[-1].start):
        inner = segments[ord(plain[places[-1]]) - _PRIVATE[0]]
        formula = _EQUALS.split(inner)[-1].strip(" .,")
        return Answer(formula, is_stated=False, is_unclear=_is_unsolved(inner, said))
    if found:
        last = found[-1]
        before = plain[max(0, last.start - 200) : last.start]
        after = plain[last.end :]
        if _OF_PI.match(after):
            return Answer(rf"{last.text}\pi", is_stated=False)
        is_unclear = (
            _is_unclear(last)
            or _RANGE.search(before)
            or _ADDS.search(plain[max(0, last.start - 200) : last.end])
            or _is_bounded(before)
            or _is_unsolved(before, said)
            or _CHANGED.search(after)
            or _GIVES_UP.search(after)
            or (
                len(found) > 1
                and not after.strip(f"{EDGES})]}}$")
                and not _is_bounded(plain[: found[-2].start])
                and are_several(plain[found[-2].start : last.end])
            )
        )
        return Answer(last.text, is_stated=False, is_unclear=bool(is_unclear))
    spoken = in_words(plain)
    return Answer(spoken.text, is_stated=False) if spoken else None


def _first_value(statement: str, said: str) -> Answer | None:
    """The number that a statement begins with, or what it's said to equal."""
    plain = plain_text(statement)
    found = mentions(plain)
    if not found:
        return Answer(statement, is_stated=True) if read_number(statement) else None
    first, *others = found
    before, after = plain[: first.start], plain[first.end :]
    if _is_bounded(before) or _CHANGED.search(after):
        return Answer(first.text, is_stated=True, is_unclear=True)
    if len(before.split()) > 3 or re.search(r"\b(?:not|that)\b|n't", before):
        return None
    if others and are_several(plain[: others[0].end]):
        return Answer(plain[: others[0].end], is_stated=True)
    for other in others:
        if plain[first.end : other.start].strip() != "=":
            break
        first = other
    if _is_unsolved(plain[: first.start], said):
        return Answer(first.text, is_stated=True, is_unclear=True)
    if _OF_PI.match(plain[first.end :]):
        return Answer(rf"{first.text}\pi", is_stated=True)
    if len(found) == 1 and first.number and read_number(statement):
        return Answer(statement, is_stated=True)
    return Answer(first.text, is_stated=True, is_unclear=_is_unclear(first))


def _is_bounded(before: str) -> bool:
    """Whether what stands before a number makes it a bound, or denies it."""
    before = before[-200:]
    return bool(_BOUNDS.search(before)) and not _NO_SIGN.search(before)


def _is_unclear(mention: Mention) -> bool:
    """Whether it isn't a number, nor a formula or a pair: a range, a time, a date."""
    return mention.number is None and not re.search(r"[\\^*!([±]|[A-Za-z]", mention.text)


def _last_text(said: str) -> Answer | None:
    if statement := _statement(said):
        return Answer(statement, is_stated=True)
    maths = list(FORMULA.finditer(said))
    if maths and not said[maths[-1].end() :].strip(EDGES):
        line = said[: maths[-1].start()].rpartition("\n")[2]
        return Answer(line + said[maths[-1].start() :].strip(), is_stated=False)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Answer(lines[-1], is_stated=False) if lines else None


def formula_of(maths: re.Match[str]) -> str:
    """What stands between the marks of a `FORMULA`."""
    return next(inner for inner in maths.groups() if inner is not None).strip()


def bare_text(text: str) -> str:
    """A text without white space, TeX's dress of words and a final stop, in small letters."""
    plain = WORDS_IN_TEX.sub(r"\1", re.sub(r"([_^])\{(\w)\}", r"\1\2", text.strip()))
    return re.sub(r"\s+|[$.]$|^\$", "", plain).casefold()
