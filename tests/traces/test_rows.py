"""Files as other programs write them, and the types that their values come in."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.traces.rows import (
    flag_of,
    integer_of,
    present,
    problem_id_of,
    read_rows,
)

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


def rows_of(path: Path, content: bytes) -> list[dict[str, Any]]:
    path.write_bytes(content)
    return [row for _, row in read_rows(path, "traces.source")]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str) -> None:
    rows = [{"text": f"So{separator}it is."}, {"text": "b"}]
    written = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    raw = written.replace(json.dumps(separator)[1:-1], separator)  # Not escaped, either.
    for content in (written, raw):
        assert rows_of(tmp_path / "t.jsonl", content.encode()) == rows


def test_a_control_character_in_a_string_is_forgiven(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "t.json", b'[{"text": "a\tb\nc"}]') == [{"text": "a\tb\nc"}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "form", ['{"text": "é🤔"}\n{"text": "b"}\n', '[{"text": "é🤔"}, {"text": "b"}]']
)
def test_a_byte_order_mark_says_how_a_file_is_written(
    tmp_path: Path, encoding: str, form: str
) -> None:
    assert rows_of(tmp_path / "t", form.encode(encoding)) == [{"text": "é🤔"}, {"text": "b"}]


def test_files_with_a_mark_that_were_joined_are_read(tmp_path: Path) -> None:
    content = '{"text": "a"}\n'.encode("utf-8-sig") * 2 + "\ufeff\n".encode()
    assert rows_of(tmp_path / "t", content) == [{"text": "a"}] * 2


def test_utf_16_without_a_mark_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has zero bytes, as UTF-16 does.*save it as UTF-8"):
        rows_of(tmp_path / "t", '{"text": "a"}'.encode("utf-16-le"))


def test_half_an_emoji_becomes_one_character_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"text": "ok"}\n{"text": "a\\ud83d b\\ud83e\\udd14", "\\udc00": ["\\udfff"]}\n'
    )
    said: list[str] = []
    (_, first), (_, second) = read_rows(path, "traces.source", said.append)
    assert (first, second) == ({"text": "ok"}, {"text": "a\ufffd b🤔", "\ufffd": ["\ufffd"]})
    assert len(said) == 1 and "1 rows (first: line 2) hold half a character" in said[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}\n{"a": "b', r"line 2: Unterminated string starting at column 7;"),
        ('{"a": ' + "9" * 5000 + "}", r"line 1: a number too long"),
        ('{"a": 1}\n' + "[" * 200_000, r"line 2: too deeply nested"),
    ],
)
def test_what_no_json_reader_takes_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rows_of(tmp_path / "t", content.encode())


def test_null_is_absent_however_it_is_written() -> None:
    row = {"text": "", "prompt": None, "correct": float("nan"), "spans": [], "writer": "rl"}
    assert present(row) == {"text": "", "spans": [], "writer": "rl"}


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), (1, True), (1.0, True), ("true", True), ("True", True), ("1", True),
     (False, False), (0, False), (0.0, False), ("false", False), ("FALSE ", False), ("0.0", False),
     (None, None), (float("nan"), None), ("", None), ("nan", None), ("null", None)],
)  # fmt: skip
def test_a_grade_is_read_as_pandas_and_others_write_it(value: Any, flag: bool | None) -> None:
    assert flag_of({"correct": value}, "correct") is flag


@pytest.mark.parametrize("value", [2, 0.5, "yes!", [True], {}])
def test_what_is_no_grade_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"correct=.* must be true, false or null"):
        flag_of({"correct": value}, "correct")


@pytest.mark.parametrize(
    ("value", "found"),
    [(1, "1"), (1.0, "1"), ("1", "1"), (Decimal("1.0"), "1"), (1e16, "10000000000000000"),
     (-2.0, "-2"), (1.5, "1.5"), ("math-12", "math-12"), ("1.0", "1.0"), (None, None),
     (float("nan"), None), ("", None), (0, "0")],
)  # fmt: skip
def test_a_whole_number_is_one_problem_however_it_is_written(value: Any, found: str | None) -> None:
    assert problem_id_of({"problem_id": value}) == found


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"1"])
def test_a_problem_id_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="problem_id is"):
        problem_id_of({"problem_id": value})


def test_an_offset_is_a_whole_number() -> None:
    assert [integer_of(value, "x") for value in (3, 3.0, "3")] == [3, 3, 3]
    for wrong in (3.5, None, "a", True, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"x is .*, not a whole number"):
            integer_of(wrong, "x")
