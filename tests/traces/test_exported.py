"""Whatever is exported is read back as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_reasoning.records import Annotation, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.align import Rollout
from sae_reasoning.traces.exported import span_lines
from sae_reasoning.traces.imported import ImportedTrace, parse_imported
from sae_reasoning.traces.offsets import UNITS
from sae_reasoning.traces.rows import read_rows

ANY = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = ANY.filter(bool)


def as_trace(one: ImportedTrace) -> Trace:
    """A trace whose tokens are its characters."""
    characters = [(place, place + 1) for place in range(len(one.text))]
    ids = list(range(len(one.text)))
    rollout = Rollout([0], ids, characters, None, one.text, one.truncated)
    return rollout.annotated(
        Problem(one.problem_id, one.split or "report", one.prompt),
        one.annotation,
        annotator="imported",
        writer=one.writer,
        model="m",
        sample="0",
    )


def read_back(path: Path, traces: list[Trace], behaviours: list[str], unit: str) -> Any:
    path.write_text("".join(f"{line}\n" for line in span_lines(traces, unit)), "utf-8")
    said: list[str] = []
    rows = read_rows(path, "traces.source", said.append)
    found, _ = parse_imported(rows, "traces.source=x", behaviours, offsets=unit, warn=said.append)
    return found, said


@st.composite
def imports(draw: st.DrawFn) -> tuple[list[ImportedTrace], list[str]]:
    """A trace of any text, with spans that don't overlap; and one that has a span for certain."""
    text = draw(ANY)
    behaviours = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    row = {
        "problem_id": draw(NAMES | st.integers()),
        "writer": draw(st.sampled_from(["base", "rl"])),
        "prompt": draw(ANY),
        "text": text,
        "spans": [
            {"behaviour": draw(st.sampled_from(behaviours)), "char_start": start, "char_end": end}
            for start, end in zip(cuts[::2], cuts[1::2], strict=False)
            if text[start:end].strip()
        ],
        "correct": draw(st.sampled_from([None, True, False])),
        "truncated": draw(st.booleans()),
        "split": draw(st.sampled_from(["select", "report"])),
    }
    other = {"problem_id": "other", "text": "x", "writer": "rl", "label": [[0, 1, behaviours[0]]]}
    found, _ = parse_imported([("line 1", row), ("line 2", other)], "x", behaviours)
    return found, behaviours


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(made=imports(), unit=st.sampled_from(sorted(UNITS)))
def test_an_export_of_any_text_and_names_is_read_back(
    tmp_path: Path, made: tuple[list[ImportedTrace], list[str]], unit: str
) -> None:
    traces, behaviours = made
    path = tmp_path / "spans.jsonl"
    (back, _), _ = read_back(path, list(map(as_trace, traces)), behaviours, unit)
    one = traces[0]
    assert (back.problem_id, back.writer, back.prompt, back.text, back.truncated, back.split) == (
        one.problem_id, one.writer, one.prompt, one.text, one.truncated, one.split,
    )  # fmt: skip
    assert back.annotation.spans == one.annotation.spans
    assert back.annotation.correct is one.annotation.correct
    assert places(back.annotation) == places(one.annotation)


def places(annotation: Annotation) -> list[tuple[int, str, bool]]:
    return sorted((o.char_end, o.behaviour, o.taken) for o in annotation.opportunities)


@pytest.mark.parametrize(("unit", "start"), [("codepoints", 14), ("utf16", 16), ("bytes", 20)])
def test_offsets_behind_emoji_come_back_in_the_unit_they_went_out(
    tmp_path: Path, unit: str, start: int
) -> None:
    text = "🤔🤔 So it's 5. Wait, no."
    row = {"text": text, "writer": "rl", "label": [[14, 23, "backtracking"]]}
    ((one,), _) = parse_imported([("line 1", row)], "x", ["backtracking"])
    (line,) = span_lines([as_trace(one)], unit)
    assert json.loads(line)["label"] == [[start, start + 9, "backtracking"]]
    (back,), said = read_back(tmp_path / "spans.jsonl", [as_trace(one)], ["backtracking"], unit)
    assert back.annotation.spans == one.annotation.spans
    assert back.annotation.opportunities == one.annotation.opportunities
    assert not said
