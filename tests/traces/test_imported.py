"""Traces that somebody brings along."""

import json
from pathlib import Path

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace
from sae_reasoning.tasks.text.sentences import sentence_starts, sentences
from sae_reasoning.traces.exported import span_lines
from sae_reasoning.traces.imported import (
    ImportedTrace,
    is_trace,
    parse_imported,
    with_prompts,
)
from sae_reasoning.traces.imported_notes import note_problems, note_single_writer
from sae_reasoning.traces.rows import read_rows

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"

GOOD = {
    "problem_id": "q1",
    "writer": "base",
    "prompt": "2+2?",
    "text": "It is five. Wait, no. It is four.",
    "spans": [{"behaviour": "backtracking", "char_start": 12, "char_end": 21}],
    "correct": True,
}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def read_imported(path: Path, behaviours: list[str], **options: object) -> list[ImportedTrace]:
    rows = read_rows(path, "traces.source")
    return parse_imported(rows, f"traces.source={path}", behaviours, **options)[0]


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


def test_one_writer_alone_is_taken_with_a_word_about_what_it_serves(tmp_path: Path) -> None:
    (trace,) = read_imported(write(tmp_path / "t.jsonl", GOOD), ["backtracking"])
    said: list[str] = []
    note_single_writer([trace.writer], said.append)
    assert "all traces are base's: cache and train read them" in said[0]
    note_single_writer(["base", "rl"], said.append)
    assert len(said) == 1


def test_a_line_without_a_writer_needs_the_option(tmp_path: Path) -> None:
    row = {key: value for key, value in GOOD.items() if key != "writer"}
    path = write(tmp_path / "t.jsonl", row)
    with pytest.raises(ConfigError, match=r"line 1: no writer; .*set traces\.writer=base or rl"):
        read_imported(path, ["backtracking"])
    assert read_imported(path, ["backtracking"], writer="rl")[0].writer == "rl"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}\n{"a": \n', r"line 2: .*one JSON object a line"),
        ('[{"a": 1},\n {"a" 1}]', r"line 2: .*one array of objects"),
        ('{"a": 1}\n[1]\n', r"line 2: list where an object belongs"),
        ("\n", "holds nothing"),
    ],
)
def test_what_is_no_json_is_named_by_its_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        read_rows(path, "traces.source")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"isn't UTF-8 text"):
        read_rows(path, "traces.source")


def test_a_row_without_moves_names_the_annotators_and_without_text_its_keys(tmp_path: Path) -> None:
    bare = {key: value for key, value in GOOD.items() if key != "spans"}
    path = write(tmp_path / "t.jsonl", bare)
    with pytest.raises(
        ConfigError, match=r"line 1: its behaviours are missing; .*annotator=cues or llm"
    ):
        read_imported(path, ["backtracking"])
    assert not read_imported(path, ["backtracking"], marked=False)[0].annotation.spans
    path = write(tmp_path / "p.jsonl", {"question": "2+2?"})
    with pytest.raises(ConfigError, match=r"it has only question; put the response under `text`"):
        read_imported(path, ["backtracking"])


def test_moves_that_nobody_tracks_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD)
    with pytest.raises(ConfigError, match=r"labels none of .*, but backtracking \(1\)"):
        read_imported(path, ["deduction"])


def test_span_lines_of_doccano_are_read(tmp_path: Path) -> None:
    row = {"text": GOOD["text"], "label": [[12, 21, "backtracking"], [22, 33, "deduction"]]}
    path = write(tmp_path / "t.jsonl", row)
    (trace,) = read_imported(path, ["backtracking", "deduction"], writer="rl")
    assert trace.problem_id == "q00000"
    assert [(s.behaviour, s.char_start, s.char_end) for s in trace.annotation.spans] == [
        ("backtracking", 12, 21), ("deduction", 22, 33),
    ]  # fmt: skip
    wrong = write(tmp_path / "w.jsonl", row | {"label": [[12, 21]]})
    with pytest.raises(ConfigError, match=r"\[start, end, name\] belongs"):
        read_imported(wrong, ["backtracking"], writer="rl")


def parsed(
    *rows: dict,
    source: str = "traces.source=f",
    behaviours: tuple[str, ...] = ("backtracking",),
    **options: object,
) -> tuple[list[ImportedTrace], list[str]]:
    said: list[str] = []
    numbered = [(f"line {n}", row) for n, row in enumerate(rows, start=1)]
    return parse_imported(numbered, source, behaviours, warn=said.append, **options)[0], said


def test_a_row_without_an_id_is_a_problem_of_its_own_where_others_have_one() -> None:
    rows = [GOOD, *(GOOD | {"problem_id": none} for none in (None, float("nan"), ""))]
    traces, said = parsed(*rows)
    assert len({trace.problem_id for trace in traces}) == 4
    assert (
        "3 rows have no problem_id where others have one (first: traces.source=f, line 2)"
        in said[0]
    )
    others, _ = parsed(*rows, source="traces.base_source=g")
    assert {t.problem_id for t in traces} & {t.problem_id for t in others} == {"q1"}


def test_rows_are_numbered_where_none_has_an_id() -> None:
    traces, said = parsed(*[GOOD | {"problem_id": None}] * 3)
    assert [trace.problem_id for trace in traces] == ["q00000", "q00001", "q00002"]
    assert not said


def test_numbered_rows_that_seem_to_be_of_other_problems_are_told() -> None:
    bare = {key: value for key, value in GOOD.items() if key != "problem_id"}
    base, _ = parsed(bare, bare | {"prompt": "3+3?"}, bare)
    rl, _ = parsed(*(bare | {"prompt": p, "writer": "rl"} for p in ("3+3?", "2+2?", None)))
    said: list[str] = []
    note_problems([*base, *rl], said.append)
    assert "1 rows without problem_id have the prompt of an earlier row (first: tra" in said[0]
    assert "2 rows without problem_id are taken for the problem in the same place" in said[1]
    same, _ = parsed(*(bare | {"prompt": None, "writer": "rl"} for _ in range(2)))
    note_problems([*base[:2], *same], said.append)
    assert len(said) == 2


def test_an_id_that_reads_like_none_is_told() -> None:
    traces, said = parsed(*[GOOD | {"problem_id": "None"}] * 3)
    assert {trace.problem_id for trace in traces} == {"None"}
    assert "3 rows have problem_id='None', and count as one problem" in said[0]


def test_whole_numbers_are_the_same_problem_as_floats_and_texts() -> None:
    traces, _ = parsed(*(GOOD | {"problem_id": one} for one in (7, 7.0, "7")))
    assert {trace.problem_id for trace in traces} == {"7"}


def test_writers_that_share_few_problems_are_told() -> None:
    base = [GOOD | {"problem_id": str(n)} for n in range(4)]
    traces, _ = parsed(*base, *(GOOD | {"problem_id": f"{n}.0", "writer": "rl"} for n in range(4)))
    said: list[str] = []
    note_problems(traces, said.append)
    assert "base and rl share 0 of their 4 and 4 problems (base has '0', rl '0.0')" in said[0]
    traces, _ = parsed(*base, *(GOOD | {"problem_id": n, "writer": "rl"} for n in range(2)))
    note_problems(traces, said.append)
    assert len(said) == 1


def test_a_problem_in_two_splits_is_refused_and_one_with_two_prompts_told() -> None:
    rows = [GOOD, GOOD | {"prompt": "3+3?"}, GOOD | {"writer": "rl", "prompt": None}]
    traces, _ = parsed(*rows)
    said: list[str] = []
    note_problems(traces, said.append)
    assert "1 rows have another prompt than an earlier row" in said[0]
    assert [trace.prompt for trace in with_prompts(traces)] == ["2+2?", "3+3?", ""]
    traces, _ = parsed(GOOD | {"split": "select"}, GOOD, GOOD | {"split": "report"})
    with pytest.raises(ConfigError, match=r"line 3: split=report of problem q1.*select.*line 1"):
        note_problems(traces, said.append)


def test_a_prompt_is_taken_from_the_same_writer_first() -> None:
    rows = [GOOD, GOOD | {"writer": "rl", "prompt": "Think. 2+2?"}]
    bare = [row | {"prompt": ""} for row in rows]
    traces, _ = parsed(*rows, *bare)
    assert [trace.prompt for trace in with_prompts(traces)] == ["2+2?", "Think. 2+2?"] * 2
    traces, _ = parsed(bare[1], GOOD)
    assert [trace.prompt for trace in with_prompts(traces)] == ["2+2?"] * 2


EMOJI = {"writer": "rl", "text": "🤔🤔 So it's 5. Wait, no."}


def test_offsets_in_another_unit_are_read_as_such_and_suspected_otherwise() -> None:
    utf16 = EMOJI | {"label": [[16, 24, "backtracking"]]}
    (trace,), said = parsed(utf16, offsets="utf16")
    (span,) = trace.annotation.spans
    assert (trace.text[span.char_start : span.char_end], said) == ("Wait, no", [])
    codepoints = EMOJI | {"label": [[14, 22, "backtracking"]]}
    assert parsed(codepoints) == parsed(codepoints, offsets="codepoints")
    long = utf16 | {"text": EMOJI["text"] + " It is 4."}
    _, said = parsed(long)
    assert "in 1 rows (first: line 1) spans begin or end within words as characters" in said[0]
    assert "UTF-16 units; if that is what they count, set traces.offsets=utf16" in said[0]
    _, said = parsed(EMOJI | {"label": [[14, 22, "backtracking"]]}, offsets="utf16")
    assert "as UTF-16 units, but not, or less, as characters" in said[0]


def test_text_of_one_unit_a_character_raises_no_suspicion() -> None:
    row = EMOJI | {"text": "Écoute. Wait, no.", "label": [[9, 12, "backtracking"]]}
    assert parsed(row)[1] == []


def test_a_span_that_would_fit_in_another_unit_says_so() -> None:
    row = EMOJI | {"label": [[16, 25, "backtracking"]]}
    with pytest.raises(
        ConfigError, match=r"outside its text of 23 characters, but would fit as UTF"
    ):
        parsed(row)


def test_opportunities_are_counted_in_the_rows_unit() -> None:
    given = [{"behaviour": "backtracking", "char_end": 15}]
    (trace,), _ = parsed(
        EMOJI | {"label": [[16, 25, "backtracking"]], "opportunities": given}, offsets="utf16"
    )
    (one,) = trace.annotation.opportunities
    assert (one.char_end, one.taken) == (13, True)


def test_only_tracked_moves_may_not_overlap() -> None:
    spans = [[0, 33, "deduction"], [12, 21, "backtracking"]]
    row = {"text": GOOD["text"], "writer": "rl", "label": spans}
    (trace,), _ = parsed(row)
    assert [span.behaviour for span in trace.annotation.spans] == ["backtracking"]
    with pytest.raises(ConfigError, match=r"spans deduction \[0, 33\) and backtracking .* overlap"):
        parsed(row, behaviours=("backtracking", "deduction"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"spans": "x"}, "spans is 'x' where a list of objects belongs"),
        ({"spans": [[0, 1, "x"]]}, r"spans holds \[0, 1, 'x'\] where an object belongs"),
        ({"spans": [{"behaviour": "x"}]}, "'char_start' is missing"),
        ({"spans": [GOOD["spans"][0] | {"char_end": None}]}, "char_end is None, not a whole"),
        ({"opportunities": 5}, "opportunities is 5 where"),
        ({"spans": None, "label": [[0, 1, None]]}, r"label holds .*, whose label isn't a name"),
        (
            {"spans": None, "label": "x"},
            r"label is 'x' where \[\[start, end, name\], ...\] belongs",
        ),
        ({"spans": None, "label": [[0.5, 1, "x"]]}, r"start of x is 0.5, not a whole number"),
    ],
)
def test_marks_of_another_form_are_named(change: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=f"traces.source=f, line 1: {says}"):
        parsed(GOOD | change)


def test_null_columns_are_absent() -> None:
    nothing = dict.fromkeys(
        ["spans", "labels", "text", "annotated_response", "split", "opportunities", "question"]
    )
    row = nothing | {"response": GOOD["text"], "label": [[12, 21, "backtracking"]], "writer": "rl"}
    (trace,), _ = parsed(row | {"truncated": float("nan"), "correct": None})
    assert (trace.text, trace.truncated, trace.annotation.correct) == (GOOD["text"], False, None)
    assert not is_trace({"question": "2+2?", "response": None, "text": float("nan")})
    assert not is_trace({"question": "2+2?", "response": ""})
    assert is_trace({"question": "2+2?", "response": "", "spans": []})


def test_grades_of_other_types_are_read_or_named() -> None:
    (trace,), _ = parsed(GOOD | {"correct": 1.0, "truncated": "false"})
    assert (trace.annotation.correct, trace.truncated) == (True, False)
    with pytest.raises(ConfigError, match=r"line 1: correct=0\.5 must be true, false or null"):
        parsed(GOOD | {"correct": 0.5})


def test_rows_without_a_grade_are_counted_where_others_have_one_or_nan_stands_there() -> None:
    nan, ungraded = GOOD | {"correct": float("nan")}, GOOD | {"correct": None}
    (trace, *_), said = parsed(nan, GOOD, ungraded)
    assert trace.annotation.correct is None
    assert said == [
        "traces.source=f: 2 of 3 rows have no grade in `correct`, 1 of them with NaN or the like "
        "there; they count as ungraded, and no accuracy has them"
    ]
    assert "1 of 1 rows have no grade" in parsed(nan)[1][0]
    assert parsed(GOOD)[1] == parsed(ungraded)[1] == []  # Who grades nothing need not be told.


def test_labels_that_nobody_tracks_are_told_with_what_they_may_stand_for() -> None:
    spans = [
        {"behaviour": name, "char_start": start, "char_end": start + 2}
        for start, name in enumerate(["backtracking", "summary", "Backtraking", "backtracking"])
    ]
    row = GOOD | {"spans": [*spans[:3]]}
    (trace, other), said = parsed(row, row | {"spans": spans[:2]})
    assert [len(t.annotation.spans) for t in (trace, other)] == [1, 1]
    assert said == [
        "traces.source=f: spans of labels that behaviours doesn't name are left out: Backtraking "
        "(1; did you mean backtracking?), summary (2); if they are meant, add them to behaviours "
        "or mend them in the file"
    ]
    many = [GOOD["spans"][0], *({**GOOD["spans"][0], "behaviour": f"x{n}"} for n in range(12))]
    assert "x7 (1), 4 more; if" in parsed(GOOD | {"spans": many})[1][0]
    with pytest.raises(ConfigError, match=r"but Backtraking \(1; did you mean backtracking\?\);"):
        parsed(GOOD | {"spans": spans[2:3]})


def test_sections_are_placed_in_the_response_and_counted() -> None:
    row = {
        "response": "system\nBe good.\nuser\nWhat is 2+2?\nassistant\nIt is five. Wait, no. 4.",
        "annotated_response": '[deduction]It is five.[end-section] ["backtracking"] Wait ,no. '
        '["end-section"] lost ["end-section"] ["backtracking"] Nobody said that. ["end-section"]',
    }
    (trace,), placement = parse_imported(
        [("record 1", row)], "x", ["backtracking", "deduction"], writer="rl"
    )
    assert (trace.prompt, trace.text) == ("What is 2+2?", "It is five. Wait, no. 4.")
    assert [trace.text[s.char_start : s.char_end] for s in trace.annotation.spans] == [
        "It is five.", "Wait, no.",
    ]  # fmt: skip
    assert dict(placement.quoted) == {"deduction": 1, "backtracking": 2, "": 1}
    assert placement.share == 0.5
    lost = {row["label"]: row["lost"] for row in placement.rows()}
    assert lost == {"deduction": 0, "backtracking": 1, "(no readable header)": 1}


@pytest.mark.parametrize(
    "name", ["annotated_deepseek-r1-distill-qwen-1.5b", "annotated_qwen2.5-1.5b-instruct"]
)
def test_of_real_sections_at_least_97_percent_are_placed(name: str) -> None:
    path = SHARED / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/{path.name}, which isn't part of the project")
    rows = read_rows(path, "traces.source")
    behaviours = ["backtracking", "uncertainty-estimation", "deduction"]
    traces, placement = parse_imported(rows, str(path), behaviours, writer="rl")
    assert len(traces) == len(rows) == 100
    assert placement.quoted.total() > 1000
    assert placement.share >= 0.97


def test_what_was_exported_comes_back_whole(tmp_path: Path) -> None:
    text = "at ash . wait , dead end ."
    trace = Trace(
        trace_id="p1/rl/0",
        problem_id="p1",
        split="report",
        writer="rl",
        model="m",
        prompt="find birch",
        text=text,
        token_ids=tuple(range(9)),
        num_prompt_tokens=2,
        correct=None,
        truncated=True,
        spans=(TokenSpan("backtracking", 9, 26, 5, 9, "search"),),
        opportunities=(
            TokenOpportunity("backtracking", 8, 4, True),
            TokenOpportunity("deduction", 8, 4, False),
            TokenOpportunity("backtracking", 6, 3, False),
        ),
    )
    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join(span_lines([trace])))
    (back,) = read_imported(path, ["backtracking", "deduction"])
    assert (back.split, back.writer, back.truncated) == ("report", "rl", True)
    assert back.annotation.correct is None
    assert [(s.behaviour, s.char_start, s.char_end) for s in back.annotation.spans] == [
        ("backtracking", 9, 26)
    ]
    assert [(o.behaviour, o.char_end, o.taken) for o in back.annotation.opportunities] == [
        ("backtracking", 6, False), ("backtracking", 8, True), ("deduction", 8, False),
    ]  # fmt: skip


def test_sentences_end_before_the_white_space_that_parts_them() -> None:
    text = " One. Two?\nThree \n \n Four"
    assert [text[start:end] for start, end in sentences(text)] == ["One.", "Two?", "Three", "Four"]
