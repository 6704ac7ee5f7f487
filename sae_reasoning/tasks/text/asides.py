"""What a response holds beside its answer: numbering, confidence, checks, what is struck out."""

import re

from sae_reasoning.tasks.text.numbers import mentions, plain_text

_TITLE = re.compile(
    r"\W*(?:step|solution|final answer|answer|conclusion|result|explanation|summary|verification|"
    r"check|calculations?|part|case|note|method|approach|plan)\b(?![^\n]*(?:is\b|[:=])\W*\w)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\W*\d+[.):]\s+[^\W\d]|\W*\d+\)\s*$")
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]*(?P<title>[^\n]*)$", re.MULTILINE)
_MARKER = re.compile(r"^([ \t]*(?:[-*+][ \t]+)?)(\d{1,2})[.)][ \t]+(?=\S)", re.MULTILINE)
_REFERS = re.compile(
    r"\b(?:step|part|case|equation|figure|problem|question|exercise|example|method)s?"
    r"\s+\(?\d+(?:\.\d+)?\)?:?",
    re.IGNORECASE,
)
_SURE = re.compile(r"\b(?:confiden(?:t|ce)|sure|certain(?:ty)?)\b", re.IGNORECASE)
_DEGREE = re.compile(r"\d\s*%|\d/\d|\d\.\d|\bconfidence\b\W*\d", re.IGNORECASE)
_HOW_SURE = re.compile(
    r"(?:\b(?:about|around|only|at least) )?\b\d+(?:\.\d+)?\s?% (?:sure|confident|certain)\b",
    re.IGNORECASE,
)
_SAYS_WHAT = re.compile(
    r"\b(?:it(?:'s| is| was| equals)|there (?:are|were|is)"
    r"|(?:answer|total|sum|result|value)\b[^.\n]{0,40}\b(?:is|are|equals)"
    r"|\b(?:is|are|was|were|equals)(?=\s[^\w\s]?\d))\s",
    re.IGNORECASE,
)
_SURE_OF = re.compile(r"\b(?:sure|certain|confident) (?:that|it|the)\b", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?])(?=\s)|(?=\n)")
_BULLET = re.compile(r"[ \t]*[-+*][ \t]+(?=[$\d.*])")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,2}[.)])[ \t]+\S")
_INTRODUCES = re.compile(r"[ \t]*#{1,6}\s.*|.*:[*_ \t]*|[ \t]*(\*\*|__)[^*_]+\1[ \t]*")
_STRUCK_OUT = re.compile(
    r"(?<![\w\\~}$])~~(?=[^\s~])[^~\n]{1,300}(?<=\S)~~(?![\w~\\])"
    r"|<(?P<tag>del|strike)>[^<\n]{0,300}</(?P=tag)>|\\sout\{[^{}\n]{0,300}\}"
)
_CHECK = re.compile(
    r"(?:(?<=[.!?])[ \t]|\n)[*_#( \t]{0,10}"
    r"(?:(?:let's|let me|we can|to) (?:double-?check|check|verify)\b[^.:\n]{0,30}"
    r"|(?:double-|sanity |quick )?check|verification|proof)[*_ \t]{0,5}:",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:is|are|was|were|has|have|had|left|remains?|leaves|makes|gives|equals|gets?|total)\b|=",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<!\bRs)(?<!\b[ap]\.m)[.!?](?=[\s*_\"')]|$)(?!\s*\d)|\n")


def is_heading(line: str) -> bool:
    """Whether a line, without its marks, reads as a heading rather than as an answer."""
    return bool(_NUMBERED.match(line) or _TITLE.match(line))


def without_struck_out(said: str) -> str:
    """A response without what is struck out, in Markdown, HTML or TeX."""
    return _STRUCK_OUT.sub("", said)


def without_numbering(said: str) -> str:
    """A response without the numbers of its steps, list items and headings, and its confidence."""
    said = _HEADING.sub(
        lambda found: (
            "" if re.search(r"\d", found["title"]) and is_heading(found["title"]) else found[0]
        ),
        said,
    )
    seen = 0

    def unmarked(found: re.Match[str]) -> str:
        nonlocal seen
        number = int(found[2])
        if number not in (1, seen + 1):
            return found[0]
        seen = number
        return found[1]

    said = _REFERS.sub("", _without_bullets(_MARKER.sub(unmarked, said)))
    if not _SURE.search(said):
        return said
    return "".join(map(_without_confidence, _SENTENCES.split(said)))


def _without_confidence(sentence: str) -> str:
    """A sentence without how sure the writer is, but with the answer that they're sure of."""
    if not (_SURE.search(sentence) and _DEGREE.search(sentence)):
        return sentence
    rest = _HOW_SURE.sub("sure", sentence)
    says_of_what = rest != sentence or _SURE_OF.search(sentence)
    said = _SAYS_WHAT.search(rest) if says_of_what else None
    is_told = said and "%" not in rest[said.end() :] and re.search(r"\d", rest[said.end() :])
    return rest if is_told else ""


def _without_bullets(said: str) -> str:
    """A text without the dashes before numbers in lists that something introduces."""
    lines, before = [], ""
    is_list = False
    for line in said.split("\n"):
        if not line.strip():
            lines.append(line)
            continue
        bullet = _BULLET.match(line)
        is_list = bool(_LIST_ITEM.match(line)) and (is_list or bool(_INTRODUCES.fullmatch(before)))
        lines.append(line[bullet.end() :] if bullet and is_list else line)
        before = line
    return "\n".join(lines)


def without_check(said: str) -> str:
    """A text up to the check that it ends in, where that's of the number that it concludes with."""
    checks = list(_CHECK.finditer(said))
    if not checks:
        return said
    concluded, check = said[: checks[-1].start()].strip(), said[checks[-1].end() :].strip()
    last = re.split(r"(?<=[.!?])\s|\n", concluded[-500:])[-1]
    found = mentions(plain_text(last))
    if not (found and found[-1].number and _CONCLUDES.search(last)):
        return said
    _, *others = SENTENCE_END.split(check)
    if any(re.search(r"\d", one) and re.search(r"[A-Za-z]{2}|^[^=]*$", one) for one in others):
        return said  # It goes on.
    is_of_it = rf"(?<![\d.]){re.escape(found[-1].text)}(?!\.?\d)"
    return concluded if re.search(is_of_it, plain_text(check)) else said
