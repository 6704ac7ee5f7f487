"""Latents built by hand come out of the attacks as what they are."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from behaviours.examples import made_up_trace, rows_of

from sae_reasoning.behaviours.matched_windows import draw_matched_windows
from sae_reasoning.behaviours.streams import Active, MaximaStream
from sae_reasoning.behaviours.windows import Rows, cell_index, label_bits, onset_intervals
from sae_reasoning.config import AttackConfig
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, TokenOpportunity, Trace
from sae_reasoning.robustness.attacks import attack_onset_predictor, attack_span_detector
from sae_reasoning.robustness.outcomes import (
    ALL,
    ANY_WORDING,
    BIGRAM,
    CONTEXTUAL,
    EXCLUDED,
    INCONCLUSIVE,
    INJECTED,
    KINDS,
    LABELS,
    LENGTH,
    LEXICAL,
    NOT_REPLICATED,
    NOT_TESTABLE,
    PARAPHRASE,
    PARTLY_LEXICAL,
    PHRASE_INJECTED,
    PHRASE_PLANTED,
    PLANTED,
    POSITION,
    POSITIONAL,
    REPLICATION,
    TOKEN,
    WEAK,
    WORDING,
    Target,
    Thresholds,
    label_of,
)
from sae_reasoning.robustness.strata import contents, most_active_token

WORD, FIRST, SECOND = 1, 2, 3
BUILT = {
    "fires on a word": LEXICAL,
    "fires on a pair of words": PARTLY_LEXICAL,
    # Their words are put into no text here, so nobody knows what these do (test_hand_built puts).
    "fires in the behaviour": INCONCLUSIVE,
    "fires once a behaviour": INCONCLUSIVE,
    "fires on a word, in the behaviour only": INCONCLUSIVE,
    "fires late in a trace": POSITIONAL,
    "fires in long traces": POSITIONAL,
    "fires by lot": WEAK,
}


def written(rng: np.random.Generator, problems: int = 110) -> list[Trace]:
    """Traces whose behaviours come late, in long traces, and use some words more than the rest."""
    traces = []
    for number in range(2 * problems):
        length = int(rng.choice([50, 90, 150]))
        spans, tokens, place = [], [0, 0, 0], 3
        while place < length - 12:
            late, long = place / length, length / 150
            is_move = rng.random() < 0.9 * late * long**1.5
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
        is_move & ~np.concatenate([[False], is_move[:-1]]),
        is_move & (token == WORD),
        place > 80,
        np.repeat(sizes, sizes) > 120,
        rng.random(len(token)) < 0.3,
    ]
    fires = np.stack(causes, axis=1)
    noise = rng.random(fires.shape)
    fires = np.where(fires, noise < 0.8, noise < 0.01)
    return np.where(fires, rng.gamma(4.0, 0.5, fires.shape), 0.0)


def names(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    traces = written(rng)
    rows = rows_of(traces)
    dense = built(traces, rows, rng)
    return [label_of(outcomes) for outcomes in attacked(traces, rows, dense, {}, seed)]


def attacked(
    traces: list[Trace], rows: Rows, dense: np.ndarray, held: dict, seed: int
) -> list[dict[str, str]]:
    """Outcome of every kind of attack on each latent [row, latent]."""
    drawn = draw_matched_windows(traces, rows, ["a"], held, seed)
    stream = MaximaStream(drawn.intervals, dense.shape[1])
    stream.add(Active.of(0, dense, np.tile(np.arange(dense.shape[1]), (len(dense), 1))))
    attacks = list(
        attack_span_detector(
            Target(SPAN_DETECTORS, "a", "rl", "rl", 1, 0),
            range(dense.shape[1]),
            cell_index(0, "rl", "report"),
            drawn,
            stream.result(),
            rows.token_id,
            Thresholds(AttackConfig(), num_resamples=200, seed=seed),
        )
    )
    return [
        {a.kind: a.outcome for a in attacks if a.latent == latent}
        for latent in range(dense.shape[1])
    ]


@pytest.mark.slow
def test_hand_built_latents_come_out_as_what_they_are() -> None:
    draws = 40
    right: Counter[str] = Counter()
    for seed in range(draws):
        for (kind, expected), given in zip(BUILT.items(), names(seed), strict=True):
            right[kind] += given == expected
    assert set(BUILT.values()) < set(LABELS)
    for kind in BUILT:
        assert right[kind] >= 0.95 * draws, right


def test_windows_are_like_their_spans_and_clear_of_the_behaviour() -> None:
    traces = written(np.random.default_rng(0))
    rows = rows_of(traces)
    is_move = label_bits(traces, rows, ["a"]) > 0
    drawn = draw_matched_windows(traces, rows, ["a"], {}, seed=0)
    intervals = drawn.intervals
    sizes = Counter()
    for start, stop, positive in zip(
        intervals.start, intervals.stop, intervals.is_positive, strict=True
    ):
        assert is_move[start:stop].all() if positive else not is_move[start:stop].any()
        sizes[int(stop - start), bool(positive)] += 1
    assert sum(n for (_, positive), n in sizes.items() if not positive) > 2 * sum(
        n for (_, positive), n in sizes.items() if positive
    )
    assert not drawn.unseen.any()
    # One token in four of a behaviour is the word, so one window in five is drawn around it.
    has_word = [
        (rows.token_id[a:b] == WORD).any()
        for a, b in zip(intervals.start, intervals.stop, strict=True)
    ]
    plain = rows.token_id[~is_move]
    by_lot = 1 - (1 - (plain == WORD).mean()) ** 6
    assert np.mean(np.array(has_word)[~intervals.is_positive]) > by_lot + 0.05


def test_the_stratum_is_the_word_in_whose_intervals_a_latent_is_most_active() -> None:
    rng = np.random.default_rng(0)
    traces = written(rng)
    rows = rows_of(traces)
    drawn = draw_matched_windows(traces, rows, ["a"], {}, seed=0)
    here = slice(0, len(drawn.intervals.start))
    for pairs, code in ((False, WORD), (True, (FIRST << 24) | SECOND)):
        held = contents(drawn.intervals, here, rows.token_id, pairs=pairs)
        token = rows.token_id.astype(np.int64)
        if pairs:
            token = (np.concatenate([[0], token[:-1]]) << 24) | token
        has = np.array(
            [
                (token[a:b] == code).any()
                for a, b in zip(drawn.intervals.start, drawn.intervals.stop, strict=True)
            ]
        )
        found = most_active_token(has.astype(float), held, fewest=10)
        assert len(set((found[has] // 3).tolist())) == 1  # However often it is said.
        assert not set(found[has].tolist()) & set(found[~has].tolist())


def test_what_cannot_be_compared_is_not_labelled_contextual() -> None:
    outcomes = dict.fromkeys(KINDS, "robust")
    elsewhere = dict.fromkeys((INJECTED, PLANTED), NOT_TESTABLE)
    words = dict.fromkeys((WORDING, PARAPHRASE, BIGRAM), NOT_TESTABLE)
    assert label_of(outcomes) == CONTEXTUAL
    assert label_of(outcomes | {WORDING: NOT_TESTABLE}) == CONTEXTUAL
    assert label_of(outcomes | {BIGRAM: NOT_TESTABLE}) == CONTEXTUAL
    assert label_of(outcomes | {TOKEN: NOT_TESTABLE}) == CONTEXTUAL
    assert label_of(outcomes | elsewhere) == "inconclusive"  # Its words could be tried nowhere.
    assert label_of(outcomes | elsewhere | {INJECTED: EXCLUDED}) == "inconclusive"
    assert label_of({k: o for k, o in outcomes.items() if k not in elsewhere}) == "inconclusive"
    assert label_of(outcomes | {INJECTED: EXCLUDED, PLANTED: NOT_TESTABLE}) == "inconclusive"
    assert label_of(outcomes | {TOKEN: NOT_TESTABLE, PLANTED: NOT_TESTABLE}) == ANY_WORDING
    assert label_of(outcomes | {TOKEN: NOT_TESTABLE} | elsewhere) == ANY_WORDING
    unread = {TOKEN: NOT_TESTABLE, INJECTED: EXCLUDED, PHRASE_INJECTED: EXCLUDED}
    assert label_of(outcomes | unread) == CONTEXTUAL  # Its token was put mid-trace.
    assert label_of(outcomes | unread | {PLANTED: NOT_TESTABLE}) == ANY_WORDING
    assert label_of(outcomes | unread | {PLANTED: EXCLUDED}) == ANY_WORDING
    assert label_of(outcomes | unread | {PLANTED: "refuted"}) == LEXICAL
    read_nowhere = dict.fromkeys((INJECTED, PLANTED), EXCLUDED)
    assert label_of(outcomes | read_nowhere) == "inconclusive"  # By text alone it'd be contextual.
    assert label_of(outcomes | read_nowhere | {BIGRAM: "refuted"}) == PARTLY_LEXICAL
    assert label_of(outcomes | {TOKEN: NOT_TESTABLE} | elsewhere | words) == NOT_TESTABLE
    assert label_of(outcomes | words) == NOT_TESTABLE
    assert label_of(outcomes | {BIGRAM: "inconclusive"}) == "inconclusive"
    assert label_of(outcomes | {REPLICATION: "refuted"}) == NOT_REPLICATED
    for kind in (TOKEN, INJECTED, PLANTED, WORDING, PARAPHRASE):
        assert label_of(outcomes | {kind: "refuted", BIGRAM: "inconclusive"}) == LEXICAL
    for kind in (BIGRAM, PHRASE_INJECTED, PHRASE_PLANTED):
        assert label_of(outcomes | {kind: "refuted", POSITION: "refuted"}) == PARTLY_LEXICAL
        assert label_of(outcomes | {kind: "refuted", PLANTED: "refuted"}) == LEXICAL
        assert label_of(outcomes | {kind: "refuted", PARAPHRASE: "refuted"}) == PARTLY_LEXICAL
    assert label_of(outcomes | {POSITION: "refuted"}) == POSITIONAL
    assert label_of(outcomes | {LENGTH: "refuted"}) == POSITIONAL
    assert label_of(outcomes | {ALL: "refuted", TOKEN: "refuted"}) == WEAK
    at_onset = dict.fromkeys((ALL, TOKEN, POSITION, LENGTH), "robust")
    assert label_of(at_onset, ONSET_PREDICTORS) == CONTEXTUAL
    assert label_of(at_onset | {TOKEN: NOT_TESTABLE}, ONSET_PREDICTORS) == NOT_TESTABLE


def test_an_onset_predictor_of_the_word_before_is_told_from_one_of_the_choice() -> None:
    """One latent fires after a word that often precedes the behaviour, the other at its start."""
    rng = np.random.default_rng(0)
    traces, chosen = [], []
    for number in range(120):
        tokens, spans, opportunities = [0, 0, 0], [], []
        for _ in range(6):
            before = int(rng.choice([WORD, FIRST]))
            taken = rng.random() < (0.8 if before == WORD else 0.2)
            tokens += [SECOND, before]
            opportunities.append(TokenOpportunity("a", 0, len(tokens) - 1, bool(taken)))
            chosen.append(taken)
            tokens += [9] * int(rng.integers(3, 6))
        made = made_up_trace(
            number % 60, spans=spans, length=len(tokens), split="report", token_ids=tuple(tokens)
        )
        traces.append(replace(made, opportunities=tuple(opportunities)))
    rows = rows_of(traces)
    onsets = onset_intervals(traces, rows, ["a"], 0)
    dense = np.zeros((len(rows.token_id), 2))
    dense[:, 0] = rows.token_id == WORD
    dense[onsets.start[onsets.is_positive], 1] = 1
    stream = MaximaStream(onsets, 2)
    stream.add(Active.of(0, dense, np.tile([0, 1], (len(dense), 1))))
    found = list(
        attack_onset_predictor(
            Target(ONSET_PREDICTORS, "a", "rl", "rl", 1, 0),
            [0, 1],
            cell_index(0, "rl", "report"),
            stream.result(),
            rows,
            Thresholds(AttackConfig(), num_resamples=200, seed=0),
        )
    )
    names = [
        label_of({a.kind: a.outcome for a in found if a.latent == latent}, ONSET_PREDICTORS)
        for latent in (0, 1)
    ]
    assert names == [LEXICAL, CONTEXTUAL]


def test_a_behaviour_of_its_own_words_is_not_testable() -> None:
    rng = np.random.default_rng(0)
    traces = [
        made_up_trace(
            i,
            spans=[("a", 10, 15)],
            split="report",
            token_ids=tuple([5] * 10 + [7] * 5 + rng.integers(20, 24, 25).tolist()),
        )
        for i in range(40)
    ]
    rows = rows_of(traces)
    dense = (label_bits(traces, rows, ["a"]) > 0)[:, None].astype(float)
    (outcomes,) = attacked(traces, rows, dense, {}, 0)
    assert outcomes[ALL] == "robust"
    assert outcomes[TOKEN] == outcomes[BIGRAM] == outcomes[WORDING] == NOT_TESTABLE
    assert label_of(outcomes) == NOT_TESTABLE


def test_no_trace_on_the_report_split_leaves_nothing_to_compare() -> None:
    traces = [made_up_trace(0, spans=[("a", 10, 15)], split="select")]
    assert len(draw_matched_windows(traces, rows_of(traces), ["a"], {}, 0).intervals.start) == 0
