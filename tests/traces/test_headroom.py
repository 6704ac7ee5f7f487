"""Both models' accuracy, and what is said where nothing is left to explain."""

import pytest

from sae_reasoning.config import TracesConfig
from sae_reasoning.records import Trace
from sae_reasoning.traces.headroom import (
    ENOUGH,
    NONE_LEFT,
    NONE_YET,
    UNKNOWN,
    accuracy_of,
    advice,
    headroom_of,
    writers_in_words,
)


def _traces(rights: dict[str, list[bool | None]], *, truncated: bool = False) -> list[Trace]:
    """Two rollouts a problem, by writer."""
    return [
        Trace(
            f"{number}/{writer}", f"p{number // 2}", "report", writer, "m", "?", "!", (1, 2), 1,
            right, truncated, (), (),
        )
        for writer, own in rights.items()
        for number, right in enumerate(own)
    ]  # fmt: skip


def test_the_interval_of_an_accuracy_resamples_problems_and_leaves_out_what_has_no_grade():
    """Two rollouts a problem that always agree say no more than one: 12 problems, not 24."""
    made = _traces({"base": [n % 4 < 2 for n in range(24)] + [None, None], "rl": []})
    found = accuracy_of(made, "base")
    assert (found.value, found.problems, found.graded, found.traces) == (0.5, 12, 24, 26)
    half = 1.96 * (0.25 / 12) ** 0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


@pytest.mark.parametrize(
    ("base", "rl", "kind"),
    [
        ([True] * 40, [True] * 40, NONE_LEFT),
        ([True] * 38 + [False] * 2, [True] * 40, NONE_LEFT),
        ([True] * 37 + [False] * 3, [True] * 40, ENOUGH),
        ([False] * 40, [True] * 40, ENOUGH),
        ([False] * 40, [False] * 38 + [True] * 2, NONE_YET),
        ([None] * 4, [None] * 4, UNKNOWN),
        ([None] * 4, [True] * 4, NONE_LEFT),
    ],
)
def test_headroom_is_missing_where_both_are_at_the_same_end(base, rl, kind):
    found = headroom_of(_traces({"base": base, "rl": rl}), 0.05, 0.95)
    assert found.kind == kind
    assert bool(advice(found, TracesConfig(), 5)) == (kind in (NONE_LEFT, NONE_YET))
    assert found.as_json()["headroom"] == kind


@pytest.mark.parametrize(
    ("source", "right", "remedy"),
    [
        ("search", True, "task.max_edges=7"),
        ("search", False, "task.max_edges=3"),
        ("gsm8k", True, "traces.source=math500"),
        ("gsm8k:folder", True, "traces.source=math500"),
        ("aime", False, "traces.source=math500"),
        ("gym:chain_sum", False, "traces.source=gym:chain_sum"),
        ("mine.jsonl", True, "those that the base solves between 0.1 and 0.9"),
    ],
)
def test_the_advice_names_the_next_difficulty(source, right, remedy):
    found = headroom_of(_traces({"base": [right] * 4, "rl": [right] * 4}), 0.05, 0.95)
    said = advice(found, TracesConfig(source=source), 5)
    assert remedy in said and "no headroom" in said


def test_rollouts_that_are_cut_are_made_longer_before_problems_are_made_easier():
    made = _traces({"base": [False] * 4, "rl": [False] * 4}, truncated=True)
    said = advice(headroom_of(made, 0.05, 0.95), TracesConfig(max_new_tokens=64), 5)
    assert "raise traces.max_new_tokens=64" in said


def test_words_give_grades_and_truncation():
    made = _traces({"base": [True, False, False, False], "rl": [None, None]})
    assert writers_in_words(headroom_of(made, 0.05, 0.95)) == (
        "base 4 traces, 25.0% right [0.0%, 50.0%], 0.0% truncated; "
        "rl 2 traces, none graded, 0.0% truncated"
    )
