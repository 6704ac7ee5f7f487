"""Boundaries moved by lot."""

import numpy as np

from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace
from sae_reasoning.traces.jitter import jitter


def trace(*bounds: tuple[int, int]) -> Trace:
    return Trace(
        trace_id="t", problem_id="p", split="report", writer="rl", model="m", prompt="",
        text="x" * 40, token_ids=tuple(range(30)), num_prompt_tokens=5, correct=None,
        truncated=False,
        spans=tuple(TokenSpan("a", s, e, s, e, "x") for s, e in bounds),
        opportunities=tuple(
            TokenOpportunity("a", s, token, taken)
            for s, _ in bounds
            for token, taken in ((s - 1, True), (s, False))
        ),
    )  # fmt: skip


def test_boundaries_move_by_no_more_than_asked_and_every_distance_occurs() -> None:
    given = trace((12, 18))
    moved = [jitter(given, 2, np.random.default_rng(seed)).spans[0] for seed in range(200)]
    assert {span.token_start for span in moved} == {10, 11, 12, 13, 14}
    assert {span.token_end for span in moved} == {16, 17, 18, 19, 20}
    assert all((span.char_start, span.char_end) == (12, 18) for span in moved)


def test_spans_keep_a_token_stay_inside_and_never_overlap() -> None:
    given = trace((5, 6), (6, 7), (8, 30))
    for seed in range(200):
        spans = jitter(given, 4, np.random.default_rng(seed)).spans
        bounds = [edge for span in spans for edge in (span.token_start, span.token_end)]
        assert bounds == sorted(bounds)
        assert bounds[0] >= 5 and bounds[-1] <= 30
        assert all(span.token_start < span.token_end for span in spans)


def test_a_taken_opportunity_goes_with_its_onset() -> None:
    for seed in range(20):
        moved = jitter(trace((12, 18)), 3, np.random.default_rng(seed))
        taken, other = moved.opportunities
        assert taken.token == moved.spans[0].token_start - 1
        assert other.token == 12


def test_no_jitter_changes_nothing() -> None:
    given = trace((12, 18), (20, 22))
    assert jitter(given, 0, np.random.default_rng(0)) == given
