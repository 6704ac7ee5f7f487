"""Where two models differ, small enough to check by hand."""

from dataclasses import replace

import numpy as np
import pytest

from sae_reasoning.contrast.divergence import (
    ELSEWHERE,
    ENRICHMENT,
    FROM_BASE,
    MEAN,
    ONSET,
    OTHER_START,
    SHARE,
    TOKENS,
    TOP_DIFFERS,
    WITHIN,
    kl_by_place,
    sentence_tokens,
)
from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.records import TokenSpan, Trace

HOW = Resampling(num_resamples=100, seed=0)
BACK, CHECK = "backtracking", "verification"

TRACE = Trace(
    trace_id="t",
    problem_id="p0",
    split="report",
    writer="rl",
    model="rl",
    prompt="p",
    text="...",
    token_ids=(1, 2, *range(10, 20)),
    num_prompt_tokens=2,
    correct=True,
    truncated=False,
    # Sentences of the ten tokens start at 0, 3, 6 and 8; two of them are behaviours.
    spans=(TokenSpan(BACK, 0, 0, 5, 8, "hand"), TokenSpan(CHECK, 0, 0, 10, 12, "hand")),
    opportunities=(),
)
STARTS = [0, 3, 6, 8]
NATS = np.array([0.5, 0.1, 0.1, 4.0, 1.0, 1.0, 0.5, 0.1, 2.0, 0.7])
DIFFERS = np.array([0, 0, 0, 1, 0, 1, 1, 0, 1, 0], bool)


def by_name(measures: list[Measure]) -> dict[tuple[str, str, str], Measure]:
    assert {m.model for m in measures} == {FROM_BASE}
    return {(m.behaviour, m.measure, m.condition): m for m in measures}


def test_divergence_is_shared_out_to_onsets_spans_other_starts_and_the_rest() -> None:
    found = by_name(kl_by_place([TRACE], [STARTS], [NATS], [DIFFERS], [BACK, CHECK], HOW))
    places = (ONSET, WITHIN, OTHER_START, ELSEWHERE)
    assert [found["", SHARE, p].value for p in places] == pytest.approx([0.6, 0.27, 0.1, 0.03])
    assert [found["", TOKENS, p].value for p in places] == pytest.approx([0.2, 0.3, 0.2, 0.3])
    assert [found["", MEAN, p].value for p in places] == pytest.approx([3.0, 0.9, 0.5, 0.1])
    assert [found["", ENRICHMENT, p].value for p in (ONSET, WITHIN)] == pytest.approx([6.0, 1.8])
    assert [found["", TOP_DIFFERS, p].value for p in places] == pytest.approx([1, 1 / 3, 0.5, 0])
    assert ("", ENRICHMENT, OTHER_START) not in found
    assert [found["", MEAN, p].items for p in places] == [2, 3, 2, 3]


def test_a_behaviour_is_held_against_sentence_starts_without_it() -> None:
    found = by_name(kl_by_place([TRACE], [STARTS], [NATS], [DIFFERS], [BACK, CHECK], HOW))
    # The other starts are those of tokens 0 and 6, and the onset of verification.
    assert found[BACK, MEAN, OTHER_START].value == pytest.approx(1.0)
    assert found[BACK, ENRICHMENT, ONSET].value == pytest.approx(4.0)
    assert found[BACK, SHARE, WITHIN].value == pytest.approx(0.2)
    assert found[BACK, SHARE, ELSEWHERE].value == pytest.approx(0.1)


def test_problems_are_resampled_and_a_behaviour_that_never_occurs_has_no_onset() -> None:
    traces = [replace(TRACE, problem_id=f"p{n}", trace_id=f"t{n}") for n in range(12)]
    rng = np.random.default_rng(0)
    nats = [NATS * rng.uniform(0.5, 1.5) for _ in traces]
    found = by_name(
        kl_by_place(traces, [STARTS] * 12, nats, [DIFFERS] * 12, [BACK, "hesitation"], HOW)
    )
    one = found[BACK, MEAN, ONSET]
    assert one.n == 12 and one.low < one.value < one.high and one.items == 12
    assert found[BACK, SHARE, ONSET].low == pytest.approx(found[BACK, SHARE, ONSET].high)
    assert ("hesitation", MEAN, ONSET) not in found
    assert not kl_by_place([], [], [], [], [BACK], HOW)


def test_the_first_token_of_a_sentence_holds_its_first_character() -> None:
    text = "So it is. Wait, no."
    offsets = [(0, 2), (2, 5), (5, 8), (8, 9), (9, 14), (14, 15), (15, 18), (18, 19), (19, 19)]
    assert sentence_tokens([(0, 9), (10, 19)], offsets) == [0, 4]
    assert text[10:14] == "Wait"
