"""Latents built by hand come out of the attacks as what they are."""

from collections import Counter

import numpy as np
import pytest
from behaviours.examples import made_up_trace, rows_of

from sae_reasoning.behaviours.attacks import (
    CHANCE,
    CONTEXTUAL,
    LEXICAL,
    NAMES,
    NOT_TESTABLE,
    PARTLY_LEXICAL,
    POSITIONAL,
    attack,
    name_of,
)
from sae_reasoning.behaviours.strata import (
    KINDS,
    LENGTH,
    POSITION,
    TOKEN,
    WORDING,
    comparable_share,
    stratified_rows,
)
from sae_reasoning.behaviours.streams import Active, MaximaStream, SparseMaxima
from sae_reasoning.behaviours.windows import Rows, label_bits
from sae_reasoning.records import Trace

WORD, FIRST, SECOND = 1, 2, 3
BUILT = {
    "fires on a word": LEXICAL,
    "fires on a pair of words": PARTLY_LEXICAL,
    "fires in the move": CONTEXTUAL,
    "fires late in a trace": POSITIONAL,
    "fires in long traces": POSITIONAL,
    "fires by lot": CHANCE,
}


def written(rng: np.random.Generator, problems: int = 80) -> list[Trace]:
    """Traces whose moves come late and in long traces, and use some words more than other text."""
    traces = []
    for number in range(2 * problems):
        length = int(rng.choice([50, 90, 150]))
        spans, tokens, place = [], [0, 0, 0], 3
        while place < length - 12:
            late, long = place / length, length / 150
            is_move = rng.random() < 0.9 * late * long
            size = int(rng.integers(4, 9))
            if is_move:
                spans.append(("a", place, place + size))
            while size > 0:
                pair = rng.random() < (0.25 if is_move else 0.06)
                if pair and size > 1:
                    tokens += [FIRST, SECOND]
                    place, size = place + 2, size - 2
                    continue
                lean = 0.3 if is_move else 0.08
                tokens.append(
                    WORD if rng.random() < lean else int(rng.choice([FIRST, SECOND, *range(4, 16)]))
                )
                place, size = place + 1, size - 1
        tokens += rng.integers(4, 16, length - len(tokens)).tolist()
        traces.append(
            made_up_trace(
                number % problems,
                spans=spans,
                length=length,
                split="report",
                token_ids=tuple(tokens),
            )
        )
    return traces


def built(traces: list[Trace], rows: Rows, rng: np.random.Generator) -> np.ndarray:
    """Activations [row, latent] of one latent of each kind, with misses and false alarms."""
    is_move = label_bits(traces, rows, ["a"]) > 0
    token = rows.token_id
    pair = np.concatenate([[False], (token[:-1] == FIRST) & (token[1:] == SECOND)])
    sizes = np.diff(rows.row_of_trace)
    place = np.concatenate([np.arange(size) for size in sizes])
    causes = [
        token == WORD,
        pair,
        is_move,
        place > 80,
        np.repeat(sizes, sizes) > 120,
        rng.random(len(token)) < 0.3,
    ]
    fires = np.stack(causes, axis=1)
    noise = rng.random(fires.shape)
    fires = np.where(fires, noise < 0.8, noise < 0.03)
    return np.where(fires, rng.gamma(4.0, 0.5, fires.shape), 0.0)


def names(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    traces = written(rng)
    rows = rows_of(traces)
    dense = built(traces, rows, rng)
    found: dict[str, SparseMaxima] = {}
    for kind, intervals in stratified_rows(traces, rows, ["a"], {}, seed).items():
        stream = MaximaStream(intervals, len(BUILT))
        stream.add(Active.of(0, dense, np.tile(np.arange(len(BUILT)), (len(dense), 1))))
        found[kind] = stream.result()
    attacks = attack(
        ["a"],
        "a",
        "rl",
        "rl",
        1,
        range(len(BUILT)),
        lambda kind, reader, layer: found[kind],
        keep=0.5,
        num_resamples=200,
        seed=seed,
    )
    return [
        name_of({a.kind: a.outcome for a in attacks if a.latent == latent})
        for latent in range(len(BUILT))
    ]


@pytest.mark.slow
def test_hand_built_latents_come_out_as_what_they_are() -> None:
    draws = 200
    right: Counter[str] = Counter()
    for seed in range(draws):
        for (kind, expected), given in zip(BUILT.items(), names(seed), strict=True):
            right[kind] += given == expected
    assert set(BUILT.values()) < set(NAMES)
    for kind in BUILT:
        assert right[kind] >= 0.95 * draws, right


def test_rows_are_compared_with_rows_that_are_alike() -> None:
    traces = written(np.random.default_rng(0))
    rows = rows_of(traces)
    is_move = label_bits(traces, rows, ["a"]) > 0
    place = np.concatenate([np.arange(size) for size in np.diff(rows.row_of_trace)])
    drawn = stratified_rows(traces, rows, ["a"], {}, seed=0)
    assert set(drawn) == set(KINDS)
    assert not drawn.pop(WORDING).is_positive.any()  # None was held out.
    for kind, intervals in drawn.items():
        assert (intervals.stop - intervals.start == 1).all()
        assert (is_move[intervals.start] == intervals.is_positive).all()
        inside = Counter(intervals.stratum[intervals.is_positive].tolist())
        outside = Counter(intervals.stratum[~intervals.is_positive].tolist())
        assert all(outside[stratum] <= count for stratum, count in inside.items())
        assert set(outside) <= set(inside)
        if kind == TOKEN:
            assert (rows.token_id[intervals.start] == intervals.stratum).all()
        if kind in (POSITION, LENGTH):
            assert comparable_share(intervals.is_positive, intervals.stratum) > 0.9
        if kind == POSITION:
            spread = [np.ptp(place[intervals.start[intervals.stratum == s]]) for s in inside]
            assert max(spread) < 0.5 * np.ptp(place)


def test_a_move_of_its_own_words_is_not_testable() -> None:
    rng = np.random.default_rng(0)
    traces = [
        made_up_trace(
            i,
            spans=[("a", 10, 15)],
            split="report",
            token_ids=tuple([5] * 10 + [7] * 5 + rng.integers(20, 24, 25).tolist()),
        )
        for i in range(20)
    ]
    rows = rows_of(traces)
    dense = (label_bits(traces, rows, ["a"]) > 0)[:, None].astype(float)
    found = {}
    for kind, intervals in stratified_rows(traces, rows, ["a"], {}, 0).items():
        stream = MaximaStream(intervals, 1)
        stream.add(Active.of(0, dense, np.zeros((len(dense), 1), np.int64)))
        found[kind] = stream.result()
    attacks = attack(
        ["a"],
        "a",
        "rl",
        "rl",
        1,
        [0],
        lambda kind, reader, layer: found[kind],
        keep=0.5,
        num_resamples=50,
        seed=0,
    )
    outcomes = {a.kind: a.outcome for a in attacks}
    assert outcomes[TOKEN] == NOT_TESTABLE
    assert name_of(outcomes) == NOT_TESTABLE


def test_no_trace_on_the_report_split_leaves_nothing_to_compare() -> None:
    traces = [made_up_trace(0, spans=[("a", 10, 15)], split="select")]
    for intervals in stratified_rows(traces, rows_of(traces), ["a"], {}, 0).values():
        assert len(intervals.start) == 0
