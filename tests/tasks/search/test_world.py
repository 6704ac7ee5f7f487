"""The world: problems, traces, and a parser that finds what the narrator wrote."""

import random
import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import (
    ALL_OPENINGS,
    BACKTRACKING,
    BEHAVIOURS,
    OPENINGS,
    REWORDED,
    UNCERTAINTY,
    VERIFICATION,
    answered_path,
)
from sae_reasoning.tasks.search.narrator import ALWAYS, NEVER, BehaviourRates, guess, narrate
from sae_reasoning.tasks.search.parser import parse, replay
from sae_reasoning.tasks.search.task import SearchAnnotator
from sae_reasoning.tasks.search.world import (
    LONGER,
    NEW_PLACES,
    PLACES,
    Difficulty,
    SearchProblem,
    parse_prompt,
    sample_problem,
)

SEEDS = st.integers(0, 2**32)
PROBLEM = SearchProblem(
    remark="",
    entries={
        "ash": ("birch", "cedar"),
        "birch": ("none",),
        "cedar": ("elm",),
        "elm": ("gold",),
    },
    notes={"birch": "open", "cedar": "open", "elm": "real"},
    start="ash",
    goal="gold",
)


def problem_of(seed: int) -> SearchProblem:
    return sample_problem(random.Random(seed), Difficulty(), grammar.REMARKS)


@given(SEEDS)
def test_a_prompt_tells_its_problem(seed: int) -> None:
    problem = problem_of(seed)
    assert parse_prompt(problem.prompt()) == problem


@given(
    SEEDS,
    st.sampled_from([NEVER, BehaviourRates(), BehaviourRates(0.6, 0.6, 0.6), ALWAYS]),
    st.sampled_from([OPENINGS, REWORDED]),
)
def test_the_parser_returns_the_narrators_spans_and_opportunities_exactly(
    seed: int, rates: BehaviourRates, openings: Mapping[str, Sequence[str]]
) -> None:
    problem = problem_of(seed)
    narration = narrate(problem, rates, random.Random(seed + 1), openings)
    assert parse(problem, narration.text) == narration
    ends = [0, *(span.char_end for span in narration.spans)]
    assert all(s.char_start >= end for s, end in zip(narration.spans, ends, strict=False))


@given(SEEDS, st.floats(0, 1))
def test_a_cut_response_parses_and_its_spans_stay_inside(seed: int, share: float) -> None:
    problem = problem_of(seed)
    text = narrate(problem, ALWAYS, random.Random(seed)).text
    text = text[: int(share * len(text))]
    for span in parse(problem, text).spans:
        assert 0 <= span.char_start < span.char_end <= len(text)


@given(SEEDS, st.lists(st.sampled_from(grammar.vocabulary()), max_size=60))
def test_any_words_parse(seed: int, words: list[str]) -> None:
    text = " ".join([grammar.THINK, *words])
    for span in parse(problem_of(seed), text).spans:
        assert 0 <= span.char_start < span.char_end <= len(text)


@given(SEEDS)
def test_a_trace_that_makes_every_behaviour_is_right(seed: int) -> None:
    problem = problem_of(seed)
    text = narrate(problem, ALWAYS, random.Random(seed)).text
    assert problem.grade(answered_path(text))


@pytest.mark.parametrize("without", ["backtrack", "weigh", "verify"])
def test_leaving_out_one_behaviour_costs_answers(without: str) -> None:
    rates = BehaviourRates(
        **{"backtrack": 1.0, "weigh": 1.0, "verify": 1.0, without: 0.0}, elsewhere=1.0
    )
    problems = [problem_of(seed) for seed in range(300)]
    texts = [narrate(p, rates, random.Random(i)).text for i, p in enumerate(problems)]
    right = sum(p.grade(answered_path(t)) for p, t in zip(problems, texts, strict=True))
    assert right < 0.85 * len(problems)


def test_direct_guesses_are_mostly_wrong() -> None:
    problems = [problem_of(seed) for seed in range(500)]
    right = sum(p.grade(answered_path(guess(p, random.Random(1)))) for p in problems)
    assert right < 0.25 * len(problems)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        (["ash", "cedar", "elm"], True),
        (["ash", "birch"], False),
        (["ash", "elm"], False),
        (["cedar", "elm"], False),
        ([], False),
    ],
)
def test_the_grader_takes_a_path_from_start_to_find_and_nothing_else(
    path: list[str], right: bool
) -> None:
    assert PROBLEM.grade(path) is right


def test_a_path_through_a_shut_place_or_to_a_fake_find_is_wrong() -> None:
    for place, note in (("cedar", "shut"), ("elm", "fake")):
        spoiled = SearchProblem("", PROBLEM.entries, {**PROBLEM.notes, place: note}, "ash", "gold")
        assert not spoiled.grade(["ash", "cedar", "elm"])


def test_opportunities_are_where_the_map_allows_the_behaviour() -> None:
    text = (
        "<think> the task is gold from ash . at ash: either birch or cedar . so birch . "
        "at birch: none . "
        "wait , dead end , back to ash . at ash: either birch or cedar . so cedar . "
        "at cedar: elm . "
        "so elm . at elm: gold . </think> answer : ash cedar elm ."
    )
    found = {
        behaviour: [
            (text[: o.char_end].rsplit(" at ", 1)[-1], o.taken)
            for o in parse(PROBLEM, text).opportunities
            if o.behaviour == behaviour
        ]
        for behaviour in (BACKTRACKING, UNCERTAINTY, VERIFICATION)
    }
    assert found == {
        BACKTRACKING: [("birch: none .", True)],
        UNCERTAINTY: [("ash: either birch or cedar .", False)],
        VERIFICATION: [("elm: gold .", False)],
    }


def test_where_a_response_is_cut_nothing_was_declined() -> None:
    text = "<think> the task is gold from ash . at ash: either birch or cedar ."
    whole, cut = parse(PROBLEM, text), parse(PROBLEM, text, truncated=True)
    assert {o.behaviour for o in whole.opportunities if o.char_end == len(text)} == {
        grammar.DEDUCTION,
        UNCERTAINTY,
    }
    assert cut.opportunities == tuple(o for o in whole.opportunities if o.char_end < len(text))
    assert (cut.spans, len(cut.opportunities)) == (whole.spans, 2)
    posed, annotate = Problem("", "", PROBLEM.prompt()), SearchAnnotator().annotate
    assert annotate(posed, text, truncated=True).opportunities == cut.opportunities
    assert annotate(posed, text, truncated=False).opportunities == whole.opportunities


def test_a_place_that_was_read_without_being_chosen_is_tried() -> None:
    walk = replay(PROBLEM, "<think> at ash: either birch or cedar . at birch: none .")
    assert walk.untried("ash") == ["cedar"]


def test_a_malformed_behaviour_counts_as_a_behaviour() -> None:
    text = (
        "<think> at ash: either birch or cedar . wait , dead end , back to nowhere at all . "
        "so cedar ."
    )
    spans = parse(PROBLEM, text).spans
    assert [span.behaviour for span in spans] == ["deduction", "backtracking", "deduction"]
    assert text[spans[1].char_start : spans[1].char_end].endswith("at all .")


@pytest.mark.parametrize(
    ("sentence", "behaviour"),
    [
        ("fails , dead , let me retrace to ash .", "backtracking"),
        ("fails , dead , let me retrace to elm .", None),
        ("no sure , cedar# open .", "uncertainty-estimation"),
        ("let either , elm# real , good .", "verification"),
        ("back to rest .", None),
    ],
)
def test_a_behaviour_with_garbled_words_counts_by_what_it_does(
    sentence: str, behaviour: str | None
) -> None:
    text = f"<think> at ash: either birch or cedar . so birch . at birch: none . {sentence}"
    spans = parse(PROBLEM, text).spans[2:]
    assert [span.behaviour for span in spans] == ([behaviour] if behaviour else [])


def test_every_behaviour_has_wordings_and_every_cue_word_is_also_harmless() -> None:
    harmless = {word for remark in grammar.REMARKS for word in remark.split()}
    for behaviour in BEHAVIOURS:
        assert len(set(OPENINGS[behaviour])) >= 4 and len(set(REWORDED[behaviour])) >= 4
        assert not set(OPENINGS[behaviour]) & set(REWORDED[behaviour])
        if behaviour != grammar.DEDUCTION:
            # the definite article and the like are no cues
            cues = {opening.split()[0] for opening in ALL_OPENINGS[behaviour]} - {"the"}
            assert cues <= harmless, (behaviour, cues - harmless)


def test_no_remark_reads_as_a_behaviour() -> None:
    for remark in (*grammar.REMARKS, *grammar.NEW_REMARKS):
        assert parse(PROBLEM, f"{grammar.THINK} {remark}").spans == ()


def test_openings_are_prefix_free() -> None:
    openings = [f"{opening} " for behaviour in BEHAVIOURS for opening in ALL_OPENINGS[behaviour]]
    clashes = [(a, b) for a in openings for b in openings if a != b and b.startswith(a)]
    assert not clashes


@given(SEEDS)
def test_every_word_is_in_the_vocabulary(seed: int) -> None:
    problem = problem_of(seed)
    text = narrate(problem, BehaviourRates(), random.Random(seed)).text
    assert set(re.split(" ", f"{problem.prompt()} {text}")) <= set(grammar.vocabulary())


def test_a_foreign_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="not a prompt"):
        parse_prompt("What is 2 + 2?")


def test_other_wordings_use_words_that_every_base_has_met() -> None:
    met = set(grammar.vocabulary())
    assert {word for remark in grammar.NEW_REMARKS for word in remark.split()} <= met
    assert not set(grammar.NEW_REMARKS) & set(grammar.REMARKS)
    assert {w for m in BEHAVIOURS for o in REWORDED[m] for w in o.split()} <= met


@given(SEEDS)
def test_longer_paths_than_any_base_has_met_can_be_drawn(seed: int) -> None:
    problem = sample_problem(random.Random(seed), LONGER, grammar.REMARKS)
    narration = narrate(problem, ALWAYS, random.Random(seed))
    assert problem.grade(answered_path(narration.text))
    assert parse(problem, narration.text) == narration


@pytest.mark.parametrize("edges", [(0, 3), (4, 3), (3, 24)])
def test_a_difficulty_that_no_problem_can_have_is_refused(edges: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="can't be drawn"):
        Difficulty(*edges)


@given(SEEDS)
def test_problems_of_new_places_read_like_any(seed: int) -> None:
    rng = random.Random(seed)
    problem = sample_problem(rng, Difficulty(), grammar.REMARKS, NEW_PLACES)
    assert not set(problem.entries) & set(PLACES)
    narration = narrate(problem, ALWAYS, rng)
    assert parse(problem, narration.text) == narration
    assert parse_prompt(problem.prompt()) == problem
