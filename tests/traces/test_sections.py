"""Bracketed sections, well formed and not."""

import pytest

from sae_reasoning.traces.sections import VENHOFF_LABELS, Section, parse_sections


def parsed(text: str) -> list[tuple[str, str]]:
    return [(s.label, s.text) for s in parse_sections(text, VENHOFF_LABELS)]


@pytest.mark.parametrize(
    "header",
    ['["deduction"]', "[deduction]", "[1. deduction]", '[ "Deduction" ]', "[“deduction”]"],
)
def test_a_header_is_read_however_it_is_written(header: str) -> None:
    assert parsed(f'{header} So it is 4. ["end-section"]') == [("deduction", "So it is 4.")]


def test_a_header_ends_what_was_left_open() -> None:
    assert parsed('["deduction"] One.\n["backtracking"] No. [end-section]\n["deduction"] Two.') == [
        ("deduction", "One."), ("backtracking", "No."), ("deduction", "Two."),
    ]  # fmt: skip


def test_a_section_without_a_header_is_kept_without_a_label() -> None:
    text = '["deduction"] One. ["end-section"] No. ["end-section"] ["end-section"]'
    assert parsed(text) == [("deduction", "One."), ("", "No.")]


def test_mathematics_in_brackets_is_text() -> None:
    text = '["deduction"] \\[ r = p + q \\] and [x] and [30 * ln(365)] [a]. ["end-section"]'
    assert parsed(text) == [("deduction", "\\[ r = p + q \\] and [x] and [30 * ln(365)] [a].")]


def test_an_unknown_label_in_quotation_marks_is_a_header() -> None:
    assert parse_sections('["self-praise"] Good. ["end-section"]', []) == [
        Section("self-praise", "Good.")
    ]
