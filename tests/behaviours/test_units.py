"""Tokens and words as both sides see them, counted by hand."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from behaviours.examples import made_up_trace

from sae_reasoning.behaviours.units import Language, token_units, word_units
from sae_reasoning.behaviours.windows import response_rows
from sae_reasoning.records import Trace
from sae_reasoning.traces.align import Offsets


def language(pattern: str, known: str) -> Language:
    """Tokens are matches of a pattern, their ids the number of their first letter."""

    def response(text: str) -> tuple[list[int], Offsets]:
        found = list(re.finditer(pattern, text))
        return [ord(match[0].strip()[0]) for match in found], [match.span() for match in found]

    def offsets(token_ids: Sequence[int], text: str) -> Offsets:
        ids, found = response(text)
        end = (len(text), len(text))
        return [*found, end] if list(token_ids[: len(ids)]) == ids else []

    return Language(
        expresses=lambda text: set(text) <= set(known),
        prompt=lambda text: [1, *response(text)[0]],
        response=response,
        offsets=offsets,
    )


WORDS = language(r" ?\S+", "abcdef ")
LETTERS = language(r"\S", "abcde ")


def trace(problem: int, text: str) -> Trace:
    """Three prompt tokens, one a word of the text, and an end."""
    ids = (1, 97, 97, *WORDS.response(text)[0], 2)
    made = made_up_trace(problem, spans=[], split="report", token_ids=ids)
    return replace(made, prompt="a a", text=text)


def test_words_are_runs_of_tokens_on_both_sides_and_texts_that_cannot_be_told_are_left_out() -> (
    None
):
    traces = [trace(0, "ab c"), trace(1, "fa"), trace(1, "c  de ab")]
    found = word_units(
        {4: traces[0], 5: traces[1], 6: traces[2]}, rows_with(traces), WORDS, LETTERS
    )
    # Rows of a trace: the last prompt position, its words, the end. The second one has f.
    assert found.own.start.tolist() == [1, 2, 8, 9, 10]
    assert found.own.stop.tolist() == [2, 3, 9, 10, 11]
    assert found.other.start.tolist() == [0, 2, 3, 4, 6]
    assert found.other.stop.tolist() == [2, 3, 4, 6, 8]
    assert found.trace.tolist() == [0, 0, 1, 1, 1]
    assert found.problem.tolist() == [0, 0, 1, 1, 1]
    assert found.kind.tolist() == [0, 1, 1, 2, 0]
    assert found.prompts == [[1, 97, 97]] * 2
    assert [len(ids) for ids in found.responses] == [3, 5]
    assert (found.num_traces, found.num_left_out) == (2, 1)


def test_tokens_are_units_from_the_last_prompt_position_on() -> None:
    traces = [trace(0, "ab c"), trace(1, "fa")]
    found = token_units({4: traces[0], 5: traces[1]}, rows_with(traces))
    assert found.own.start.tolist() == list(range(7))
    assert (found.own.stop - found.own.start).tolist() == [1] * 7
    assert found.trace.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.kind.tolist() == [97, 97, 99, 2, 97, 102, 2]


def rows_with(traces: list[Trace]):
    """Rows of the traces, numbered from 4 on, as if four before them kept nothing."""
    rows = response_rows(traces)
    return replace(
        rows,
        row_of_trace=np.concatenate([np.zeros(4, int), rows.row_of_trace]),
        first_position=np.concatenate([np.zeros(4, int), rows.first_position]),
    )


def test_a_trace_whose_tokens_are_of_another_text_is_refused() -> None:
    broken = replace(trace(0, "ab c"), text="ab d")
    with pytest.raises(ValueError, match="trace 0/rl has other tokens than its text"):
        word_units({4: broken}, rows_with([broken]), WORDS, LETTERS)


def test_no_text_at_all_makes_no_unit() -> None:
    left = trace(0, "f")
    found = word_units({4: left}, rows_with([left]), WORDS, LETTERS)
    assert len(found.trace) == len(found.own.start) == found.num_traces == 0
    assert found.num_left_out == 1
