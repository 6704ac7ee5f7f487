"""The answer that a response ends in, and what can be said of it without algebra."""

import ast
import operator
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_HASHES = re.compile(r"^\s*####\s*(\S.*)$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+(?![\d.]))?")
_BOXED = ("\\boxed{", "\\fbox{")
_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"
_DECORATION = re.compile(r"\\text\{[^{}]*\}|\\(?:left|right|[,;! ])|[$€£%°*_\s]")
_WORDS_IN_TEX = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")
_SEVERAL = re.compile(r"\d\s+\d|\d\s*\\[dt]?frac")
_THOUSANDS = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])")
_EDGES = re.compile(r"^[\s$.,]+|[\s$.,]+$")
_SIGNS = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "÷": "/", "−": "-"}
_SIGNS |= dict.fromkeys(("\\left", "\\right", "\\(", "\\)", "\\[", "\\]"), "")
_SIGNS |= dict.fromkeys(("\\frac", "\\dfrac", "\\tfrac"), "")
_SIGNS |= {"}{": ")/(", "{": "(", "}": ")", "[": "(", "]": ")"}
_CROSS = re.compile(r"(?<=[\d)\s])[xX](?=[\s\d(])")
_ARITHMETIC = re.compile(r"-?[\d(][\d\s()+*/-]*[\d)]")
_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")


def find_answer(text: str, *, numeric: bool, truncated: bool) -> str | None:
    r"""What a response gives as its answer, or None where it gives none.

    The last of, in this order: `<answer>…</answer>`; `\boxed{…}`; a line that begins with `####`;
    and, unless the response was cut, the last number, or the last line where no number is asked
    for. What stands in thoughts isn't given as an answer.

    Args:
        text: The response.
        numeric: Whether the right answer is a number.
        truncated: Whether the response was cut.
    """
    said = text.rpartition(_END_OF_THOUGHT)[2]
    if _THOUGHT in said:
        return None  # It never came to an end.
    if tags := _TAG.findall(said):
        return str(tags[-1]).strip() or None
    if (box := _last_boxed(said)) is not None:
        return box.strip() or None
    if lines := _HASHES.findall(said):
        return str(lines[-1]).strip()
    if truncated:
        return None
    if numeric:
        numbers = _NUMBER.findall(said)
        return str(numbers[-1]) if numbers else None
    rest = [line.strip() for line in said.splitlines() if line.strip()]
    return rest[-1] if rest else None


def as_number(text: str) -> Fraction | None:
    """The number that a text is, units and signs of money aside; None where it isn't one."""
    if _SEVERAL.search(text) or ("," in text.replace("\\,", "") and not _THOUSANDS.search(text)):
        return None  # A mixed number, or a list: not for us to say.
    plain = _FRACTION.sub(r"\1/\2", text.strip().rstrip("."))
    plain = _DECORATION.sub("", plain).replace(",", "")
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


def may_be_number(text: str) -> bool:
    """Whether somebody who knows algebra might find a number in an answer: it has a digit, or TeX.

    Plain words have neither, nor have letters that stand for anything.
    """
    return re.search(r"\d|\\[a-zA-Z]", text) is not None


def is_plainly_equal(reference: str, answer: str) -> bool | None:
    """Whether two answers are the same as numbers or as texts; None where that doesn't decide."""
    one, other = as_number(reference), as_number(answer)
    if one is not None and other is not None:
        return one == other
    if _bare(reference) == _bare(answer):
        return True
    return None


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool | None:
    """Whether an expression uses each number exactly once and equals the target.

    None where it's no arithmetic of whole numbers with + - * / and brackets, and holds none among
    words.
    """
    plain = expression.partition("=")[0]
    for sign, stands_for in _SIGNS.items():
        plain = plain.replace(sign, stands_for)
    plain = _EDGES.sub("", _CROSS.sub("*", plain))
    among_words = [found for found in _ARITHMETIC.findall(plain) if set("+-*/") & set(found)]
    for arithmetic in (plain, *among_words[-1:]):
        try:
            tree = ast.parse(arithmetic, mode="eval").body
            return _value(tree) == target and _numbers_in(tree) == Counter(numbers)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
        except ZeroDivisionError:
            return False
    return None


_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return Fraction(_OPERATIONS[type(node.op)](_value(node.left), _value(node.right)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    raise TypeError(f"{type(node).__name__} is no arithmetic")


def _numbers_in(tree: ast.expr) -> Counter[int]:
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return Counter(value for value in found if isinstance(value, int))


def _last_boxed(text: str) -> str | None:
    """What stands between the braces of the last box; None where none is closed."""
    found = None
    for opening in _BOXED:
        place = text.rfind(opening)
        if place < 0:
            continue
        depth, start = 1, place + len(opening)
        for index in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            if not depth:
                found = text[start:index]
                break
    return found


def _bare(text: str) -> str:
    plain = _WORDS_IN_TEX.sub(r"\1", text.strip())
    return re.sub(r"\s+|[$.]$|^\$", "", plain).casefold()
