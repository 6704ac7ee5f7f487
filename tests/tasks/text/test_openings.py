"""Openings mined from annotated text."""

import random

import pytest

from sae_reasoning.records import BASE, MODELS, RL, TokenSpan, Trace
from sae_reasoning.tasks.text.openings import MinedOpenings, mine_openings
from sae_reasoning.tasks.text.sentences import sentences

BACK, CHECK = "backtracking", "verification"


def annotated(said: list[tuple[str, str]], writer: str = RL, split: str = "select") -> Trace:
    """A trace of sentences, each with its behaviour or ""."""
    text = " ".join(sentence for sentence, _ in said)
    places = sentences(text)
    assert len(places) == len(said)
    spans = tuple(
        TokenSpan(behaviour, start, end, 0, 0, "people")
        for (_, behaviour), (start, end) in zip(said, places, strict=True)
        if behaviour
    )
    return Trace(
        trace_id=f"{writer}/{split}/{text}",
        problem_id="p00000",
        split=split,
        writer=writer,
        model=writer,
        prompt="?",
        text=text,
        token_ids=(1,),
        num_prompt_tokens=1,
        correct=None,
        truncated=False,
        spans=spans,
        opportunities=(),
    )


def numbered(template: str, behaviour: str, count: int) -> list[tuple[str, str]]:
    return [(template.format(n), behaviour) for n in range(count)]


def mined(*said: tuple[str, str]) -> MinedOpenings:
    return mine_openings([annotated(list(said))], [BACK, CHECK])


def test_an_opening_is_the_shortest_prefix_that_tells():
    found = mined(
        *numbered("Wait, that was {}.", BACK, 60),
        *numbered("Let me go back to {}.", BACK, 30),
        *numbered("Let me add {} now.", "", 30),
    )
    assert found.of(BACK) == ("Wait,", "Let me go")
    assert found.usual(BACK) == found.of(BACK)
    assert found.of(CHECK) == () and not found.is_closed


def test_precision_and_coverage_are_those_of_wordings_that_did_not_select():
    said = [
        *numbered("Wait, that was {}.", BACK, 400),
        *numbered("Wait, {} people come.", "", 80),
        *numbered("No good at {}.", BACK, 100),
    ]
    found = mined(*said)
    wait, no = found.mined
    # 400 of 480 sentences with "Wait," and 400 of 500 spans, on about a third of them.
    assert wait.text == "Wait,"
    assert wait.precision == pytest.approx(5 / 6, abs=0.07)
    assert wait.coverage == wait.coverage_rl == pytest.approx(0.8, abs=0.08)
    assert no.precision == 1 and no.coverage == pytest.approx(0.2, abs=0.08)
    assert wait.coverage + no.coverage == pytest.approx(1)
    assert 0.25 < wait.num_sentences / 480 < 0.42 and 0.25 < wait.num_spans / 500 < 0.42
    # A wording is on one side only, however often it is written.
    once = mined(*(said * 3))
    assert [one.text for one in once.mined] == [one.text for one in found.mined]
    assert once.mined[0].precision == wait.precision
    assert once.mined[0].num_sentences == 3 * wait.num_sentences


def test_what_was_selected_for_noise_is_not_precise_on_held_out_wordings():
    rng = random.Random(0)
    behaviours = [rng.choice([BACK, ""]) for _ in range(400)]
    said = [(f"Word{n % 40} so {n} ends.", behaviour) for n, behaviour in enumerate(behaviours)]
    found = mined(*said)
    assert len(found.mined) > 2
    hits = sum(one.precision * one.num_sentences for one in found.mined if one.num_sentences)
    assert hits / sum(one.num_sentences for one in found.mined) == pytest.approx(0.5, abs=0.15)


def test_the_words_of_a_writer_that_seldom_does_it_are_found_too():
    own = {
        BASE: [*numbered("That fails at {}.", BACK, 9), *numbered("Then {} more.", "", 300)],
        RL: [*numbered("Wait, that was {}.", BACK, 600)],
    }
    found = mine_openings([annotated(own[writer], writer) for writer in MODELS], [BACK])
    assert set(found.of(BACK)) == {"That fails", "Wait,"}
    by_text = {one.text: one for one in found.mined}
    assert by_text["That fails"].coverage < 0.05
    assert by_text["That fails"].coverage_base == 1 and by_text["That fails"].coverage_rl == 0


def test_the_report_split_is_left_alone_and_openings_leave_something_to_say():
    said = numbered("Wait, that was {}.", BACK, 60)
    assert mine_openings([annotated(said, split="report")], [BACK]).mined == ()
    short = [(f"{'Hm' + 'm' * n}.", BACK) for n in range(60)]
    assert mined(*short).of(BACK) == ()


def test_where_no_prefix_tells_the_most_precise_is_taken():
    found = mined(
        *numbered("So it is {} again.", BACK, 60),
        *numbered("So it is {} again, I add.", "", 120),
        *numbered("Now it is {} again.", BACK, 20),
        *numbered("Now it is {} again, I add.", "", 400),
    )
    (only,) = found.mined
    assert only.text == "So it"
    assert only.precision == pytest.approx(1 / 3, abs=0.15)


def test_no_opening_begins_another():
    found = mined(
        *numbered("Wait, no, it is {}.", BACK, 60),
        *numbered("Wait, {} of them.", BACK, 60),
        *numbered("Wait, what is {} now?", CHECK, 60),
    )
    openings = found.of(BACK)
    assert openings
    assert not [(a, b) for a in openings for b in openings if a != b and b.startswith(a)]


def test_a_span_that_starts_within_a_sentence_counts_from_there():
    texts = [f"So it is {n}, but wait, it was {n + 1}." for n in range(60)]
    traces = []
    for text in texts:
        start = text.index("but")
        span = TokenSpan(BACK, start, len(text), 0, 0, "people")
        traces.append(annotated([(text, "")]))
        object.__setattr__(traces[-1], "spans", (span,))
    assert mine_openings(traces, [BACK]).of(BACK) == ("but wait",)
