"""Words put elsewhere: which, where, and against whom."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
from behaviours.examples import made_up_trace, rows_of

from sae_reasoning.behaviours.wordings import HELD_OUT
from sae_reasoning.records import TokenOpportunity, Trace
from sae_reasoning.robustness.injection import (
    PROMPT,
    RESPONSE,
    HostText,
    host_texts,
    inject,
    injection_effect,
    matched_by_mass,
    openings,
    plain,
    top_ngrams,
)
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.parser import parse
from sae_reasoning.tasks.search.world import Difficulty, sample_problem


def _trace(problem: int, token_ids: tuple[int, ...], spans: list[tuple[str, int, int]]) -> Trace:
    return made_up_trace(problem, spans=spans, length=len(token_ids), token_ids=token_ids)


def test_the_top_ngram_is_the_one_with_the_highest_mean_and_the_behaviour_itself_is_excluded() -> (
    None
):
    ids = (0, 0, 0, *([5, 6, 7, 9, 5, 6, 8, 9] * 5))
    trace = _trace(0, ids, [("a", 3, 6)])
    rows = rows_of([trace])
    token = rows.token_id
    after_six = np.where(token == 7, 3.0, np.where(token == 8, 2.0, 0.0))
    barred = openings([trace], ["a"])
    assert barred == {"a": frozenset({(5, 6)})}
    assert top_ngrams(after_six, rows, 1, barred["a"], fewest=5) == (7,)
    assert top_ngrams(after_six, rows, 2, barred["a"], fewest=5) == (6, 7)
    assert (
        top_ngrams(after_six, rows, 3, barred["a"], fewest=5) is None
    )  # 5 6 begins the behaviour.
    assert top_ngrams(after_six, rows, 3, (), fewest=5) == (5, 6, 7)
    assert top_ngrams(np.zeros(len(token)), rows, 1, barred["a"], fewest=5) is None
    held = _trace(0, ids, [(f"{HELD_OUT}a", 5, 8)])
    assert openings([held], ["a"]) == {"a": frozenset({(7, 9)})}  # Hidden from selection only.


def test_an_ngram_that_is_rare_or_spans_two_traces_is_not_put_in() -> None:
    traces = [_trace(i, (0, 0, 1, 2, 2, 3), []) for i in range(6)]
    rows = rows_of(traces)
    first_of_trace = np.zeros(len(rows.token_id))
    first_of_trace[rows.row_of_trace[:-1]] = 1.0  # The last prompt token: nothing stands before.
    assert top_ngrams(first_of_trace, rows, 2, (), fewest=5) is None
    once = np.zeros(len(rows.token_id))
    once[1] = 9.0
    assert top_ngrams(once, rows, 1, (), fewest=5) == (
        2,
    )  # 12 times; its mean is above the others'.
    four = [_trace(i, (0, 0, 1, 7), []) for i in range(4)]
    assert top_ngrams(np.ones(8), rows_of(four), 1, (), fewest=5) is None


def host_texts_of(trace: Trace, kind: str, **options: Any) -> list[HostText]:
    """Of one trace, for windows of four tokens."""
    any_place = {"num": 1, "most_tokens": 0, "is_junction": lambda before, after: True, "seed": 0}
    writer = options.pop("writer", trace.writer)
    return host_texts([trace], "a", kind, "select", writer, length=4, **any_place | options)


def test_places_lie_between_words_outside_the_behaviour_and_where_no_behaviour_begins() -> None:
    ids = tuple(range(60))
    trace = _trace(0, ids, [("a", 20, 30), ("b", 30, 36)])
    trace = replace(trace, opportunities=(TokenOpportunity("b", 0, 44, False),))
    seen: set[int] = set()
    for seed in range(40):
        (found,) = host_texts_of(
            trace, RESPONSE, num=5, is_junction=lambda before, after: after % 2 == 0, seed=seed
        )
        seen.update(found.places)
        assert found.token_ids == ids[: found.places[-1] + 4]
        assert all(b - a > 8 for a, b in zip(found.places, found.places[1:], strict=False))
    assert seen
    assert not {place % 2 for place in seen} - {0}
    touching = {place for place in seen if set(range(place, place + 4)) & set(range(20, 30))}
    assert not touching
    assert 30 not in seen  # There another behaviour begins.
    assert 45 not in seen
    (prompt,) = host_texts_of(replace(trace, num_prompt_tokens=40), PROMPT)
    assert max(prompt.places) + 4 < 40
    assert not host_texts_of(trace, RESPONSE, num=5, writer="nobody")


def test_places_are_among_the_first_tokens_of_their_kind_where_those_are_asked_for() -> None:
    trace = replace(_trace(0, tuple(range(60)), [("a", 20, 30)]), num_prompt_tokens=31)
    for kind, begin in ((PROMPT, 1), (RESPONSE, 31)):
        (found,) = host_texts_of(trace, kind, most_tokens=12)
        assert found.first == begin
        assert found.places[-1] + 4 <= begin + 12


def test_injection_adds_the_words_and_behaviours_the_windows_along() -> None:
    host = HostText((1, 2, 3, 4, 5, 6, 7, 8), (2, 5), problem=7, first=1)
    made = inject(host, (90, 91), 3)
    assert made.token_ids == (1, 2, 90, 91, 3, 4, 5, 90, 91, 6, 7, 8)
    assert made.windows == ((2, 5), (7, 10))
    assert all(made.token_ids[start] == 90 for start, _ in made.windows)
    assert plain(host, 3).windows == ((2, 5), (5, 8))
    assert made.problem == 7


def test_the_strategy_is_chosen_on_select_and_its_effect_compared_with_the_others_best() -> None:
    rng = np.random.default_rng(0)

    def windows(*means: float) -> tuple[np.ndarray, np.ndarray]:
        shape = (200, len(means))
        return rng.normal(size=shape) + np.array(means), rng.normal(size=shape)

    # Latent 0 responds to strategy 1; of twenty others one responds to strategy 0, the rest never.
    others = [0.0] * 19
    select = [windows(0.0, 4.0, *others), windows(3.0, 0.0, *others)]
    report = [windows(4.0, 4.0, *others), windows(1.0, 0.0, *others)]
    effect = injection_effect(select, report)
    assert effect.strategy == 1
    assert 0.7 < effect.auroc < 0.83  # Of strategy 1 on report: one standard deviation.
    assert effect.num_others == 20
    assert effect.p == 2 / 21  # One other responds more.
    assert effect.null_95 > effect.auroc  # So it is no more than they do, as p says.


def test_the_others_are_of_like_mass_and_not_selected() -> None:
    mass = np.array([1.0, 1.1, 0.0, 5.0, 0.9, 1.3])
    assert matched_by_mass(0, mass, {1}, 2).tolist() == [4, 5]
    assert matched_by_mass(0, mass, {1, 3, 4, 5}, 2).tolist() == []


def test_a_lone_opening_word_inside_a_sentence_is_not_the_behaviour() -> None:
    """So it's put elsewhere like any word, and a latent that fires on it there knows a word."""
    rng = random.Random(0)
    tried = 0
    for _ in range(20):
        problem = sample_problem(rng, Difficulty(), grammar.REMARKS)
        narration = narrate(problem, ALWAYS, rng)
        text = narration.text
        begins = {span.char_start for span in narration.spans}
        begins |= {o.char_end + gap for o in narration.opportunities for gap in (0, 1)}
        for behaviour in grammar.BEHAVIOURS:
            own = [(s.char_start, s.char_end) for s in narration.spans if s.behaviour == behaviour]
            places = [
                at + 1
                for at, sign in enumerate(text)
                if sign == " "
                and at + 1 not in begins
                and not any(start <= at + 1 < end for start, end in own)
            ]
            for word in sorted({opening.split()[0] for opening in grammar.ALL_OPENINGS[behaviour]}):
                at = rng.choice(places)
                found = parse(problem, f"{text[:at]}{word} {text[at:]}")
                tried += 1
                assert not any(
                    span.behaviour == behaviour and span.char_start <= at < span.char_end
                    for span in found.spans
                ), (behaviour, word)
    assert tried > 500
