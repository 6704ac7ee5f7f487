"""Traces that somebody brings along."""

import json
from pathlib import Path

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.traces.imported import read_imported, sentence_starts

GOOD = {
    "problem_id": "q1",
    "writer": "base",
    "prompt": "2+2?",
    "text": "It is five. Wait, no. It is four.",
    "spans": [{"behaviour": "backtracking", "char_start": 12, "char_end": 21}],
    "correct": True,
}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_every_sentence_start_is_an_opportunity_and_onsets_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD, GOOD | {"writer": "rl"})
    first, second = read_imported(path, ["backtracking", "deduction"])
    assert (first.writer, second.writer) == ("base", "rl")
    taken = [(o.char_end, o.taken) for o in first.annotation.opportunities if o.behaviour[0] == "b"]
    assert taken == [(0, False), (12, True), (22, False)]
    assert not any(o.taken for o in first.annotation.opportunities if o.behaviour[0] == "d")


def test_sentences_start_after_stops_and_line_breaks() -> None:
    text = " One. Two?\nThree \n \n Four"
    assert [text[start:][:3] for start in sentence_starts(text)] == ["One", "Two", "Thr", "Fou"]


def test_a_span_that_begins_with_white_space_starts_once_at_its_first_word(
    tmp_path: Path,
) -> None:
    spans = [{"behaviour": "backtracking", "char_start": 11, "char_end": 21}]
    row = GOOD | {"spans": spans}
    path = write(tmp_path / "t.jsonl", row, row | {"writer": "rl"})
    first, _ = read_imported(path, ["backtracking"])
    assert first.annotation.spans[0].char_start == 12
    assert [o.char_end for o in first.annotation.opportunities] == [0, 12, 22]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"spans": [{"behaviour": "x", "char_start": 5, "char_end": 99}]}, "outside its text"),
        ({"spans": [{"behaviour": "x", "char_start": 11, "char_end": 12}]}, "white space only"),
        ({"writer": "human"}, "must be base or rl"),
        ({"spans": [GOOD["spans"][0], GOOD["spans"][0]]}, "overlap"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, change: dict, says: str) -> None:
    path = write(tmp_path / "t.jsonl", GOOD | {"writer": "rl"}, GOOD | change)
    with pytest.raises(ConfigError, match=f"line 2.*{says}"):
        read_imported(path, ["backtracking"])


def test_one_writer_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs both writers"):
        read_imported(write(tmp_path / "t.jsonl", GOOD), ["backtracking"])


def test_a_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"traces\.source"):
        read_imported(tmp_path / "absent.jsonl", ["backtracking"])
