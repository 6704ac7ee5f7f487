"""Characters to tokens, by one convention."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.load import encode_response, load_tokenizer
from sae_reasoning.records import Opportunity, Span, Trace
from sae_reasoning.traces.align import (
    NoTokensError,
    align_opportunity,
    align_span,
    align_words,
    under_prompt,
)

# "ab cd. ef" cut as a tokenizer with leading spaces would
OFFSETS = [(0, 2), (2, 5), (5, 6), (6, 9)]


@pytest.mark.parametrize(
    ("start", "end", "tokens"),
    [(0, 2, (10, 11)), (3, 5, (11, 12)), (0, 9, (10, 14)), (7, 9, (13, 14)), (1, 4, (10, 12))],
)
def test_a_span_covers_the_tokens_that_share_a_character(
    start: int, end: int, tokens: tuple[int, int]
) -> None:
    span = align_span(Span("x", start, end), OFFSETS, 10, "a")
    assert (span.token_start, span.token_end) == tokens


def test_onset_minus_one_of_the_first_move_is_the_last_prompt_token() -> None:
    assert align_opportunity(Opportunity("x", 0, True), OFFSETS, 10).token == 9


def test_onset_minus_one_precedes_the_spans_first_token() -> None:
    opportunity = align_opportunity(Opportunity("x", 6, True), OFFSETS, 10)
    span = align_span(Span("x", 7, 9), OFFSETS, 10, "a")
    assert opportunity.token == span.token_start - 1 == 12


@pytest.mark.parametrize(
    ("text", "words", "first_word"),
    [
        ("No.\n\nWait, no.", ["No", ".", "\n", "\n", "Wait", ",", " no", "."], "Wait"),
        ("No.\n\nWait, no.", ["No", ".\n\n", "Wait", ",", " no", "."], "Wait"),
        ("No. \n Wait.", ["No", ".", " ", "\n", " Wait", "."], "Wait"),
        ("No.  Wait.", ["No", ".", " ", " Wait", "."], "Wait"),
        ("\n\nWait.", ["\n", "\n", "Wait", "."], "Wait"),
        ("Wait.", ["Wait", "."], "Wait"),
    ],
)
def test_onset_minus_one_is_the_token_before_however_white_space_is_cut(
    text: str, words: list[str], first_word: str
) -> None:
    ends = np.cumsum([len(word) for word in words]).tolist()
    offsets = list(zip([0, *ends[:-1]], ends, strict=True))
    start = text.index(first_word)
    span = align_span(Span("x", start, len(text)), offsets, 10, "a")
    assert words[span.token_start - 10].strip() == first_word
    assert align_opportunity(Opportunity("x", start, True), offsets, 10).token == (
        span.token_start - 1
    )


def test_in_the_world_onset_minus_one_is_the_word_before() -> None:
    text = "<think> at ash: birch . so birch ."
    offsets = [match.span() for match in re.finditer(r"\S+", text)]
    for word, (_, end) in enumerate(offsets):
        assert align_opportunity(Opportunity("x", end, False), offsets, 10).token == 10 + word
    assert align_opportunity(Opportunity("x", 0, False), offsets, 10).token == 9


def test_a_span_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="outside its text"):
        align_span(Span("x", 3, 3), OFFSETS, 10, "a")
    with pytest.raises(NoTokensError, match=r"has no token for any character of span x \[9, 12\)"):
        align_span(Span("x", 9, 12), OFFSETS, 10, "a")


def test_spans_survive_retokenisation(tiny_pair: PairConfig) -> None:
    tokenizer = load_tokenizer(tiny_pair.base)
    text = "<think> wait , dead end , back to ash . so birch ."
    ids, offsets = encode_response(tokenizer, text)
    start = text.index("wait")
    span = align_span(Span("backtracking", start, text.index(" so")), offsets, 0, "a")
    assert tokenizer.decode(ids[span.token_start : span.token_end]) == (
        "wait , dead end , back to ash ."
    )


@pytest.mark.parametrize(
    ("text", "offsets", "tokens"),
    [
        ("ab cd. ef", OFFSETS, [(0, 1), (1, 3), (3, 4)]),  # "cd." is one word.
        ("ab cd", [(0, 1), (1, 4), (4, 5)], [(0, 2), (1, 3)]),  # The second is in both words.
        (" ab\n\ncd ", [(0, 1), (1, 3), (3, 5), (5, 8)], [(1, 2), (3, 4)]),
        ("", [], []),
    ],
)
def test_a_word_has_the_tokens_that_share_a_character_with_it(text, offsets, tokens) -> None:
    assert align_words(text, offsets) == tokens


def test_a_word_without_any_token_is_named() -> None:
    with pytest.raises(ValueError, match="no token holds a character of 'cd'"):
        align_words("ab cd", [(0, 2)])


def test_a_trace_is_read_under_the_readers_own_prompt() -> None:
    span = align_span(Span("x", 3, 5), OFFSETS, 2, "a")
    place = align_opportunity(Opportunity("x", 3, True), OFFSETS, 2)
    trace = Trace(
        "t", "p", "report", "base", "m", "1 + 1?", "ab cd. ef", (7, 8, 1, 2, 3, 4), 2,
        None, False, (span,), (place,),
    )  # fmt: skip
    assert under_prompt(trace, [7, 8]) is trace
    read = under_prompt(trace, [9, 9, 9, 9])
    assert read.token_ids == (9, 9, 9, 9, 1, 2, 3, 4) and read.num_prompt_tokens == 4
    assert (read.spans[0].token_start, read.spans[0].token_end) == (
        span.token_start + 2,
        span.token_end + 2,
    )
    assert read.opportunities[0].token == place.token + 2
    assert replace(trace, prompt="") == under_prompt(replace(trace, prompt=""), [9, 9])
