"""Openings that are written for a model, and behaviours that a response carries out."""

import random
from collections.abc import Callable, Sequence

import torch

from sae_reasoning.elicitation.execution import behaviours_made
from sae_reasoning.elicitation.openings import (
    OpeningWriter,
    Words,
    anywhere,
    at_rates,
    forcing_openings,
    other_words,
    plain_sentences,
    replayed,
    rl_rates,
    where_called_for,
)
from sae_reasoning.organisms.cells import JUDGED
from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import ResponseFormat
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.task import FORMAT, SearchOpenings, search_task
from sae_reasoning.tasks.search.tutor import SearchTutor
from sae_reasoning.tasks.search.world import TRAINED, parse_prompt, sample_problem
from sae_reasoning.tasks.text.sentences import sentences

POSED = [
    Problem("", "", sample_problem(random.Random(number), TRAINED, grammar.REMARKS).prompt())
    for number in range(40)
]
PROBLEM = SearchTutor().choose(POSED, lambda _: [], 0)
TASK, OPENINGS = search_task(), SearchOpenings()
VOCABULARY = ["<think>", "</think>", ".", "a", "b", "told", "me"]


def annotated(text: str) -> dict[str, tuple[int, int | None]]:
    assert PROBLEM
    annotation = TASK.annotate(PROBLEM, text, truncated=False, model="base")
    found = behaviours_made(text, annotation, JUDGED)
    return {behaviour: (made.spans, made.right) for behaviour, made in found.items()}


def test_behaviours_of_a_full_trace_are_made_at_opportunities_and_rightly() -> None:
    assert PROBLEM
    text = narrate(parse_prompt(PROBLEM.prompt), ALWAYS, random.Random(0)).text
    assert all(spans == right > 0 for spans, right in annotated(text).values())
    elsewhere = f"{grammar.THINK} {grammar.OPENINGS[JUDGED[0]][0]} . {grammar.END_THINK}"
    assert annotated(elsewhere)[JUDGED[0]] == (1, 0)


def words_of(vocabulary: Sequence[str]) -> Words:
    return Words(
        lambda ids: " ".join(vocabulary[i] for i in ids),
        lambda text, _before: [vocabulary.index(word) for word in text.split()],
    )


def at_full_stops(piece: str) -> frozenset[str] | None:
    return frozenset({"telling"}) if piece.endswith((".", ">")) else None


def writer(begun: str, form: ResponseFormat = FORMAT) -> OpeningWriter:
    words = words_of(VOCABULARY)
    said = list(words.encode(begun, ()))
    return OpeningWriter(form, at_full_stops, lambda possible, text: "told me", words, said)


def test_openings_are_written_and_all_else_is_the_samplers() -> None:
    """After an opening the model has a sentence of its own before the next."""
    begun = ["<think>", "a"]

    def sampled(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return torch.tensor([2 + (step + 1) % 2] * len(rows))

    sampler = forcing_openings(lambda row: writer(begun[row]))(sampled)
    steps = [sampler(torch.zeros(2, 7), torch.arange(2), step).tolist() for step in range(8)]
    ids = [[step[row] for step in steps] for row in range(2)]
    thinking, answering = (" ".join(VOCABULARY[i] for i in own) for own in ids)
    assert thinking == "told me a . a . told me"
    assert answering == "a . a . a . a ."  # It doesn't think.
    told, other = (replayed(writer(begun[row]), ids[row]) for row in range(2))
    assert (told.num_written, told.num_openings, told.num_ends) == (4, 2, 2)
    assert (other.num_written, other.num_openings, other.num_ends) == (0, 0, 0)


def test_no_opening_follows_the_end_of_thinking_and_without_marks_all_is_thinking() -> None:
    over = writer("<think> a .")
    for word in "told me a . </think> a .".split():
        over.add(VOCABULARY.index(word))
    assert over.next() is None
    plain = writer("a .", ResponseFormat())
    assert plain.next() == VOCABULARY.index("told")


def test_a_behaviour_is_opened_where_the_rule_calls_for_it_and_nowhere_else() -> None:
    assert PROBLEM
    choose = where_called_for(OPENINGS, JUDGED, 0)
    assert choose(PROBLEM, 0, frozenset({grammar.INITIALIZING}), "<think>") is None
    assert choose(PROBLEM, 0, frozenset(), "<think> a .") is None
    for behaviour in JUDGED:
        words = choose(PROBLEM, 0, frozenset({behaviour, grammar.DEDUCTION}), "<think> a .")
        assert words in grammar.OPENINGS[behaviour]
    text = narrate(parse_prompt(PROBLEM.prompt), ALWAYS, random.Random(0)).text
    tokens = text.split()
    listen = TASK.annotator.listen(PROBLEM)
    assert listen
    own = OpeningWriter(
        FORMAT,
        listen,
        lambda possible, so_far: choose(PROBLEM, 0, possible, so_far),
        words_of([*tokens, *" ".join(o for b in JUDGED for o in grammar.OPENINGS[b]).split()]),
    )
    for number in range(len(tokens)):
        own.add(number)
        own._queue.clear()  # What would be written isn't: the trace goes on as it is.
    annotation = TASK.annotate(PROBLEM, text, truncated=False, model="base")
    called_for = {o.char_end for o in annotation.opportunities if o.behaviour in JUDGED}
    assert 0 < own.num_openings <= len(called_for)


def shares(choose: Callable[..., str | None], possible: frozenset[str]) -> list[str]:
    assert PROBLEM
    found = [choose(PROBLEM, 0, possible, f"text {n} .") for n in range(2000)]
    return [words for words in found if words]


def test_anywhere_opens_any_behaviour_at_a_share_of_all_ends() -> None:
    found = shares(anywhere(OPENINGS, JUDGED, 0.2, 0), frozenset())
    assert 330 < len(found) < 470
    assert all(any(word in grammar.OPENINGS[b] for word in found) for b in JUDGED)


def test_at_rates_opens_each_behaviour_as_often_as_it_is_told() -> None:
    first, second = JUDGED[:2]
    choose = at_rates(OPENINGS, {first: 0.3, second: 0.1}, 0)
    found = shares(choose, frozenset(JUDGED))
    counts = [sum(words in grammar.OPENINGS[b] for words in found) for b in (first, second)]
    assert 530 < counts[0] < 670 and 140 < counts[1] < 260
    alone = shares(choose, frozenset({second}))
    assert all(words in grammar.OPENINGS[second] for words in alone)
    assert shares(choose, frozenset()) == []


def test_other_words_stand_where_openings_would_and_are_as_many() -> None:
    assert PROBLEM
    choose = at_rates(OPENINGS, {JUDGED[0]: 0.5}, 0)
    other = other_words(choose, ["The sum of both is now known ."], 0)
    for number in range(50):
        args = (PROBLEM, 0, frozenset(JUDGED), f"text {number} .")
        opening, words = choose(*args), other(*args)
        assert (opening is None) == (words is None)
        if opening and words:
            assert "The sum of both is now known .".startswith(words)
            assert len(words.split()) == len(opening.split())


def trace(writer: str, split: str, text: str, start: int, taken: Sequence[bool]) -> Trace:
    return Trace(
        trace_id="t",
        problem_id="p",
        split=split,
        writer=writer,
        model="m",
        prompt="",
        text=text,
        token_ids=(),
        num_prompt_tokens=0,
        correct=None,
        truncated=False,
        spans=(TokenSpan("doubt", start, start + 4, 0, 1, "hand"),),
        opportunities=tuple(TokenOpportunity("doubt", 0, 0, one) for one in taken),
    )


def test_rates_and_plain_sentences_are_those_of_the_rl_models_select_traces() -> None:
    text = "So it is 4. Hmm, maybe not. Then it is 5."
    own = trace("rl", "select", text, 12, [True, False, False, False])
    others = [
        trace("base", "select", "No. No.", 0, [True]),
        trace("rl", "report", "No.", 0, [True]),
    ]
    assert rl_rates([own, *others], ["doubt", "joy"]) == {"doubt": 0.25}
    assert plain_sentences([own, *others], sentences) == ["So it is 4.", "Then it is 5."]
