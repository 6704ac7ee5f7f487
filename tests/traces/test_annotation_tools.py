"""What annotation tools export is read as it is."""

from typing import Any

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.traces.imported import ImportedTrace, is_trace, parse_imported

TEXT = "🤔 So it is 5.\nWait, no."
WAIT, END = TEXT.index("Wait"), len(TEXT)


def imported(*rows: dict[str, Any], **options: Any) -> tuple[list[ImportedTrace], list[str]]:
    said: list[str] = []
    numbered = [(f"record {n}", row) for n, row in enumerate(rows, start=1)]
    moves = ["backtracking", "deduction"]
    options = {"writer": "rl", "warn": said.append} | options
    return parse_imported(numbered, "traces.source=f", moves, **options)[0], said


def marked(trace: ImportedTrace) -> list[tuple[str, str]]:
    return [
        (span.behaviour, trace.text[span.char_start : span.char_end])
        for span in trace.annotation.spans
    ]


def region(start: int, end: int, *labels: str, text: str | None = None) -> dict[str, Any]:
    value = {"start": start, "end": end, "labels": list(labels)}
    value |= {} if text is None else {"text": text}
    return {"value": value, "from_name": "label", "to_name": "text", "type": "labels"}


def task(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"id": 9, "result": list(regions), "was_cancelled": False, "ground_truth": False}
    data = {"text": TEXT, "problem_id": 3, "prompt": "2+2?", "correct": "false"}
    return {"id": 1, "data": data, "annotations": [annotation], "predictions": []} | more


def test_entities_of_newer_doccano_are_read() -> None:
    entities = [{"id": 7, "label": "backtracking", "start_offset": WAIT, "end_offset": END}]
    row = {"id": 6, "text": TEXT, "entities": entities, "relations": [], "Comments": []}
    (trace,), _ = imported(row)
    assert is_trace(row)
    assert marked(trace) == [("backtracking", "Wait, no.")]


def test_older_doccano_calls_the_text_data() -> None:
    row = {"id": 6, "data": TEXT, "label": [[WAIT, END, "backtracking"]]}
    (trace,), _ = imported(row)
    assert is_trace(row)
    assert (trace.text, marked(trace)) == (TEXT, [("backtracking", "Wait, no.")])


def test_a_label_that_is_a_number_has_no_name() -> None:
    row = {"text": TEXT, "annotations": [{"label": 3, "start_offset": 0, "end_offset": 4}]}
    with pytest.raises(ConfigError, match=r"record 1: annotations holds .* label isn't a name"):
        imported(row)


def test_a_task_of_label_studio_is_read_with_its_data() -> None:
    rating = {"value": {"choices": ["good"]}, "type": "choices"}
    row = task(region(WAIT, END, "backtracking", text="Wait, no."), rating)
    (trace,), said = imported(row)
    assert is_trace(row) and not said
    assert marked(trace) == [("backtracking", "Wait, no.")]
    assert (trace.problem_id, trace.prompt, trace.annotation.correct) == ("3", "2+2?", False)


def test_json_min_of_label_studio_is_read() -> None:
    row = {"id": 1, "text": TEXT, "label": [region(WAIT, END, "backtracking")["value"]]}
    assert marked(imported(row)[0][0]) == [("backtracking", "Wait, no.")]


@pytest.mark.parametrize("shift", [0, 1], ids=["code points", "UTF-16"])
def test_quotes_tell_what_offsets_count(shift: int) -> None:
    """Label Studio has counted both, in different versions; breaks in quotes are escaped."""
    whole = region(2 + shift, END + shift, "deduction", text="So it is 5.\\nWait, no.")
    for unit in ("codepoints", "utf16", "bytes"):
        (trace,), said = imported(task(whole), offsets=unit)
        assert marked(trace) == [("deduction", TEXT[2:])] and not said
    with pytest.raises(ConfigError, match=r"record 1: deduction \[2, 9\) quotes 'Never'"):
        imported(task(region(2, 9, "deduction", text="Never")))


def test_a_skipped_annotation_counts_for_nothing_and_a_bare_task_is_left_out_aloud() -> None:
    good = task(region(WAIT, END, "backtracking"))
    skipped = {"result": [region(0, 4, "deduction")], "was_cancelled": True}
    both = good | {"annotations": [skipped, *good["annotations"]]}
    (trace,), said = imported(both, good | {"annotations": [skipped]}, task(annotations=[]))
    assert marked(trace) == [("backtracking", "Wait, no.")]
    assert "2 tasks (first: record 2) bear no annotation and are left out" in said[0]


def test_annotations_that_differ_are_refused_unless_one_is_the_truth() -> None:
    one = {"result": [region(WAIT, END, "backtracking")]}
    other = {"result": [region(2, 13, "deduction")], "ground_truth": True}
    (trace,), _ = imported(task(annotations=[one, other]))
    assert marked(trace) == [("deduction", "So it is 5.")]
    assert len(imported(task(annotations=[one, dict(one)]))[0]) == 1
    with pytest.raises(ConfigError, match="record 1: it has 2 annotations that differ"):
        imported(task(annotations=[one, other | {"ground_truth": False}]))


def test_the_one_text_of_a_task_is_found_whatever_it_is_called() -> None:
    row = task(region(WAIT, END, "backtracking"), data={"reasoning": TEXT, "writer": "base"})
    (trace,), _ = imported(row)
    assert (trace.text, trace.writer) == (TEXT, "base")
    with pytest.raises(ConfigError, match="its data has a, b; call the text `text`"):
        imported(task(data={"a": TEXT, "b": TEXT}))
