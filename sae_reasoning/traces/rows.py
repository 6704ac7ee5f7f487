"""Rows that somebody brings along in a file, and what single values of them mean."""

import codecs
import json
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from sae_reasoning.config import ConfigError
from sae_reasoning.texts import silent

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # Before UTF-16, whose mark it begins with.
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_YES, _NO = {"true", "1", "1.0"}, {"false", "0", "0.0"}
_NOTHING = {"", "nan", "none", "null", "<na>", "nat", "n/a"}


def read_rows(
    path: Path, option: str, warn: Callable[[str], None] = silent
) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a JSON array or of JSON lines, each with what to call it in a message.

    Args:
        path: The file; UTF-8, or UTF-16 or UTF-32 where a byte-order mark says so.
        option: What named it, for messages.
        warn: Told of characters that had to be replaced.

    Raises:
        ConfigError: It isn't JSON of objects; the message names the line.
    """
    content = _decoded(path, option)
    rows: list[tuple[str, Any]]
    try:
        if content.lstrip().startswith("["):
            rows = [(f"record {n}", row) for n, row in enumerate(_loads(content, 1), start=1)]
        else:
            # Only \n ends a line: JSON strings may hold U+2028 and what else str.splitlines parts.
            rows = [
                (f"line {number}", _loads(line, number))
                for number, line in enumerate(content.split("\n"), start=1)
                if line.strip("\ufeff \t\r")
            ]
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{option}={path}, line {error.lineno}: {error.msg.removesuffix(' at')} at column "
            f"{error.colno}; write one JSON object a line, or one array of objects"
        ) from error
    for where, row in rows:
        if not isinstance(row, dict):
            raise ConfigError(
                f"{option}={path}, {where}: {type(row).__name__} where an object belongs; write "
                "one JSON object a line"
            )
    if not rows:
        raise ConfigError(f"{option}={path} holds nothing; name a file with a trace a line")
    if _ESCAPED_SURROGATE.search(content):
        rows = _without_surrogates(rows, f"{option}={path}", warn)
    return rows


def _decoded(path: Path, option: str) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{option}={path} isn't UTF-8 text ({error.reason} at byte {error.start}); name JSON, "
            "JSON lines or Parquet"
        ) from error
    if "\0" in text:
        raise ConfigError(
            f"{option}={path} isn't UTF-8 text (it has zero bytes, as UTF-16 does); save it as "
            "UTF-8"
        )
    return text


def _loads(text: str, line: int) -> Any:
    """JSON that begins on a line of its file; control characters in its strings are forgiven."""
    try:
        # Files that were joined have a byte-order mark within.
        return json.loads(text.lstrip("\ufeff"), strict=False)
    except json.JSONDecodeError as error:
        error.lineno += line - 1  # Within the file, not within its line.
        raise
    except (ValueError, RecursionError) as error:  # A number of thousands of digits; deep nesting.
        reason = "too deeply nested" if isinstance(error, RecursionError) else "a number too long"
        found = json.JSONDecodeError(reason, text, 0)
        found.lineno = line
        raise found from error


def _without_surrogates(
    rows: list[tuple[str, Any]], named: str, warn: Callable[[str], None]
) -> list[tuple[str, Any]]:
    """Rows whose halves of characters, which no tokenizer takes, are U+FFFD; offsets stay."""
    whole = [(where, _whole(row)) for where, row in rows]
    changed = [where for (where, old), (_, new) in zip(rows, whole, strict=True) if old != new]
    if changed:
        warn(
            f"{named}: {len(changed)} rows (first: {changed[0]}) hold half a character (a lone "
            "surrogate, as JavaScript leaves when it cuts an emoji); U+FFFD stands there instead"
        )
    return whole


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return value


def present(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the columns that are null in it, or NaN as pandas writes it."""
    return {key: value for key, value in row.items() if not _is_null(value)}


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A value that has to be a text.

    Raises:
        TypeError: It isn't.
    """
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {type(value).__name__}, not a text")
    return value


def objects_of(row: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """A value that has to be a list of objects; empty where there's none.

    Raises:
        ValueError: It's something else.
    """
    value = row.get(key)
    if value is not None and not isinstance(value, (list, tuple)):
        raise ValueError(f"{key} is {value!r} where a list of objects belongs")
    for one in value or ():
        if not isinstance(one, Mapping):
            raise ValueError(f"{key} holds {one!r} where an object belongs")
    return list(value or ())


def flag_of(row: Mapping[str, Any], key: str) -> bool | None:
    """A value that has to be true or false, however it's written; None where it says nothing.

    Raises:
        ValueError: It's something else.
    """
    value = row.get(key)
    if _is_null(value) or isinstance(value, bool):
        return None if not isinstance(value, bool) else value
    said = str(value).strip().casefold()
    if said in _NOTHING:
        return None
    if said not in _YES | _NO:
        raise ValueError(f"{key}={value!r} must be true, false or null")
    return said in _YES


def integer_of(value: Any, what: str) -> int:
    """A value that has to be a whole number, such as an offset.

    Raises:
        ValueError: It isn't.
    """
    try:
        if isinstance(value, bool) or (number := int(value)) != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what} is {value!r}, not a whole number") from error
    return number


def problem_id_of(row: Mapping[str, Any]) -> str | None:
    """Which problem a row answers, as a text; None where it doesn't say.

    What pandas makes of whole numbers where some are missing, 1.0, is 1.

    Raises:
        TypeError: It's neither text nor number.
    """
    value = row.get("problem_id")
    if _is_null(value) or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, dict, bytes)):
        raise TypeError(f"problem_id is {type(value).__name__}, not a text or a number")
    if isinstance(value, (float, Decimal)) and value == value // 1:
        return str(int(value))
    return str(value)


def says_nothing(problem_id: str) -> bool:
    """Whether an id reads like a missing value that was written out."""
    return problem_id.strip().casefold() in _NOTHING
