"""The search world as a task: what it says is what its grammar and programs say."""

import random

import pytest

from sae_reasoning.records import BASE, RL
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Execution, Start
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.forced import ForcedStart, fixed_rules, is_valid
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.parser import read
from sae_reasoning.tasks.search.task import search_task
from sae_reasoning.tasks.search.world import TRAINED, parse_prompt, sample_problem

TASK = search_task()
PROBLEMS = [
    Problem(f"p{n:05d}", "report", sample_problem(random.Random(n), TRAINED).prompt())
    for n in range(30)
]


def narrated(problem: Problem) -> str:
    return narrate(parse_prompt(problem.prompt), ALWAYS, random.Random(0)).text


def starts(behaviour: str) -> list[tuple[Start, str]]:
    """Where narrated traces take a behaviour, and what they go on to say."""
    found = []
    for problem in PROBLEMS:
        text = narrated(problem)
        annotation = TASK.annotate(problem, text, truncated=False, model=RL)
        for one in annotation.opportunities:
            if (one.behaviour, one.taken) == (behaviour, True):
                before = text[: one.char_end]
                ids = tuple(range(one.char_end))
                start = Start(problem, RL, behaviour, problem.problem_id, ids, before, True)
                found.append((start, text[one.char_end :]))
    assert len(found) > 5
    return found


def test_nothing_is_missing_in_the_search_world():
    optional = ("openings", "judge", "null", "content", "problem_baselines", "tutor", "paraphraser")
    assert TASK.missing(*optional) == ()
    assert TASK.formats[BASE] == TASK.formats[RL]
    thought, answer = TASK.formats[RL].split(narrated(PROBLEMS[0]))
    assert thought.startswith(grammar.THINK)
    assert answer.strip().startswith(TASK.formats[RL].answer_prefix)


def test_annotations_are_the_grammars_with_the_grade_of_the_map():
    for problem in PROBLEMS:
        text = narrated(problem)
        reading = read(parse_prompt(problem.prompt), text)
        found = TASK.annotate(problem, text, truncated=False, model=RL)
        assert (found.spans, found.is_right) == (reading.narration.spans, reading.is_right)
        assert found.correct is True
        assert not TASK.grade(problem, "answer : ash .", truncated=False, model=BASE)


@pytest.mark.parametrize("behaviour", grammar.BEHAVIOURS)
def test_what_a_narrator_goes_on_to_say_is_judged_valid(behaviour):
    assert TASK.judge
    own = starts(behaviour)
    free = TASK.judge.judge_free([s for s, _ in own], [text for _, text in own])
    judged = [one for one in free if one.is_formed]  # A bare look has no opening.
    assert judged and all(one.is_valid for one in judged)
    for (start, text), one in zip(own, free, strict=True):
        opening = next((o for o in TASK.openings.of(behaviour) if text[1:].startswith(f"{o} ")), "")
        assert bool(opening) == one.is_formed
        execution = Execution(start, opening, text[1:].removeprefix(opening))
        assert TASK.judge.judge([execution]) == [one]
        nonsense = Execution(start, TASK.openings.of(behaviour)[0], "rain .")
        (found,) = TASK.judge.judge([nonsense])
        assert not found.is_valid


@pytest.mark.parametrize("behaviour", grammar.BEHAVIOURS)
def test_chance_is_the_same_whichever_starts_stand_beside_and_grows_with_tries(behaviour):
    assert TASK.null
    own = [start for start, _ in starts(behaviour)]
    once = TASK.null.chance(own, 1, 0)
    assert (TASK.null.chance(own[3:], 1, 0) == once[3:]).all()
    assert (TASK.null.chance(own, 1, 1) != once).any()
    assert (TASK.null.chance(own, 4, 0) >= once).all()
    assert 0 < once.mean() < 1


def test_heuristics_are_right_where_their_continuation_is_valid():
    assert TASK.null
    own = [start for start, _ in starts(grammar.BACKTRACKING)]
    found = TASK.null.heuristics(own)
    assert set(found) == {"the nearest fork", "the start"}
    for number, start in enumerate(own):
        opening = grammar.ALL_OPENINGS[start.behaviour][0]
        forced = ForcedStart(start.problem.prompt, start.text, opening, start.behaviour)
        for rule, continuation in fixed_rules(forced).items():
            assert found[rule][number] == is_valid(forced, continuation)
    assert TASK.null.heuristics([start for start, _ in starts(grammar.INITIALIZING)]) == {}


def test_sentences_cut_a_text_at_its_full_stops():
    text = f"{grammar.THINK} okay let me find gold from ash . so birch . {grammar.END_THINK} answer"
    cut = [text[start:end] for start, end in TASK.sentences(text)]
    assert cut == ["okay let me find gold from ash .", "so birch .", f"{grammar.END_THINK} answer"]
    first = TASK.sentences(text)[0][1]
    assert TASK.sentence_end.find(text, is_last=False) == first
    assert TASK.content
    assert [text[a:b] for a, b in TASK.content(text)] == ["gold", "ash", "birch"]


def test_random_walks_answer_what_their_maps_allow():
    for problem in PROBLEMS:
        blind, keen = (odds(problem) for odds in TASK.problem_baselines.values())
        assert 0 < blind <= keen <= 1
