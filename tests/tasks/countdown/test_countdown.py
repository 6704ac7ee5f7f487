"""Countdown in plain English: problems, narrations, and what a program reads out of them."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.compose import compose
from sae_reasoning.tasks.countdown.narrator import ALWAYS, Rates, guess, narrate
from sae_reasoning.tasks.countdown.parrot import parroted
from sae_reasoning.tasks.countdown.problems import draw_problems
from sae_reasoning.tasks.countdown.reader import answered, is_valid, read, rules, standing
from sae_reasoning.tasks.countdown.task import CountdownGrader, CountdownJudge
from sae_reasoning.tasks.countdown.wordings import (
    BACKTRACKING,
    BEHAVIOURS,
    REMARKS,
    SUBGOAL,
    UNCERTAINTY,
    VERIFICATION,
    WORDINGS,
    behaviour_of,
    held_out,
    opening,
    trained,
)
from sae_reasoning.tasks.countdown.world import (
    ADD,
    CountdownProblem,
    parse_prompt,
    sample_problem,
)
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Execution, Start
from sae_reasoning.tasks.text.annotators import CueAnnotator
from sae_reasoning.tasks.text.grading import COUNTDOWN

PROBLEM = CountdownProblem((3, 9, 5), 32, ADD, 9, "finish by adding a number, not 9.")
PROMPT = "Make 32 from 3, 9 and 5, each used once. Hint: finish by adding a number, not 9."


def problems(count: int, seed: int = 0) -> list[CountdownProblem]:
    rng = random.Random(seed)
    return [sample_problem(rng) for _ in range(count)]


def share_right(rates: Rates, count: int = 400) -> float:
    rng = random.Random(1)
    own = problems(count)
    return sum(p.grade(answered(narrate(p, rates, rng).text)) for p in own) / count


def test_a_problem_is_what_its_prompt_says() -> None:
    assert PROBLEM.prompt() == PROMPT and parse_prompt(PROMPT) == PROBLEM
    assert PROBLEM.subgoal(5) == "32-5=27"
    assert PROBLEM.expression(PROBLEM.pairs(5)[2], 5) == "(3*9)+5"
    with pytest.raises(ValueError, match="not a prompt of the countdown world"):
        parse_prompt("Make 32.")


@given(st.integers(0, 10_000))
def test_one_open_number_can_come_last_and_the_hint_is_true(seed: int) -> None:
    problem = sample_problem(random.Random(seed))
    assert parse_prompt(f"{problem.prompt()}\n\nThink.") == problem
    able = [number for number in problem.numbers if problem.solution(number)]
    assert len(able) == 1 and able[0] in problem.open_numbers
    pair = problem.solution(able[0])
    assert pair and problem.grade(problem.expression(pair, able[0]))


def test_a_full_narration_is_always_right_and_a_guess_hardly_ever() -> None:
    assert share_right(ALWAYS) == 1
    rng = random.Random(2)
    guessed = [p.grade(answered(guess(p, rng))) for p in problems(1000)]
    assert 0.06 < sum(guessed) / 1000 < 0.16


@pytest.mark.parametrize(("off", "most"), [("backtrack", 0.6), ("verify", 0.5), ("subgoal", 0.5)])
def test_without_a_behaviour_fewer_answers_are_right(off: str, most: float) -> None:
    assert share_right(replace(ALWAYS, **{off: 0.0})) < most


def test_weighing_saves_tries_of_the_number_that_the_hint_excludes() -> None:
    rng = random.Random(3)
    lengths = [
        sum(len(narrate(p, rates, rng).text) for p in problems(300))
        for rates in (ALWAYS, replace(ALWAYS, weigh=0.0))
    ]
    assert lengths[0] < lengths[1]


def test_the_reader_finds_the_spans_of_the_narrator_and_finds_them_right() -> None:
    rng = random.Random(4)
    for problem in problems(200):
        told = narrate(problem, ALWAYS, rng)
        found = read(problem, told.text, truncated=False)
        assert found.spans == told.spans and all(found.is_right) and found.correct
        taken = Counter((o.behaviour, o.char_end) for o in found.opportunities if o.taken)
        assert taken == Counter((s.behaviour, s.char_start - 1) for s in told.spans)


def test_no_rule_that_does_not_read_is_right_at_most_starts() -> None:
    """Of 60 % of any behaviour's starts; equations of subgoals are computed for the rule."""
    rng = random.Random(5)
    tally, starts = Counter[tuple[str, str]](), Counter[str]()
    for problem in problems(700):
        told = narrate(problem, ALWAYS, rng)
        for span in told.spans:
            before = told.text[: span.char_start - 1]
            at = standing(problem, before)
            starts[span.behaviour] += 1
            for name, sentence in rules(span.behaviour, at, before).items():
                tally[span.behaviour, name] += is_valid(span.behaviour, at, sentence)
    assert starts.keys() == set(BEHAVIOURS)
    shares = {key: count / starts[key[0]] for key, count in tally.items()}
    assert max(shares.values()) <= 0.6, shares
    assert {behaviour for behaviour, _ in shares} == set(BEHAVIOURS)


def test_each_behaviour_has_wordings_some_held_out_and_remarks_share_their_words() -> None:
    for behaviour, own in WORDINGS.items():
        assert len(own) >= 6 and len(set(map(opening, own))) == len(own)
        assert held_out(behaviour) and not set(held_out(behaviour)) & set(trained(behaviour))
        first = {opening(wording).split()[0].strip(":,") for wording in own}
        assert first & {remark.split()[0].strip(",") for remark in REMARKS}
    assert not [remark for remark in REMARKS if behaviour_of(remark.format(n=5))]


def test_no_held_out_wording_is_narrated() -> None:
    rng = random.Random(6)
    texts = " ".join(narrate(p, ALWAYS, rng).text for p in problems(300))
    for behaviour in BEHAVIOURS:
        assert not [w for w in held_out(behaviour) if f" {opening(w)} " in texts]
        assert all(f" {opening(w)} " in texts for w in trained(behaviour))


BEFORE = "<think> Say 3 is last, so 32-3=29. 9+5=14, 9-5=4, 9*5=45: none."
FOUND = f"{BEFORE} No luck with 3, so try 5. Say 5 is last, so 32-5=27. 3*9=27 fits."
SLIP = "<think> Say 5 is last, so 32-5=27. 3+9=27 fits."


@pytest.mark.parametrize(
    ("behaviour", "before", "sentence", "is_right"),
    [
        (SUBGOAL, "<think>", "I put 5 at the very end, since 32 - 5 = 27.", True),
        (SUBGOAL, "<think>", "I put 5 at the very end, since 32 − 5 = 26.", False),
        (SUBGOAL, "<think>", "With 9 last it takes 32-9=23.", False),
        (SUBGOAL, BEFORE, "With 3 last it takes 32-3=29.", False),
        (BACKTRACKING, BEFORE, "So let us end with 5 rather than 3.", True),
        (BACKTRACKING, BEFORE, "So let us end with 9 rather than 3.", False),
        (BACKTRACKING, BEFORE, "So let us end with 3.", False),
        (BACKTRACKING, BEFORE, "So not 5, let us end with 3.", False),
        (BACKTRACKING, BEFORE, "So 3 won't do.", False),
        (UNCERTAINTY, "<think>", "Is it 5 or 3?", True),
        (UNCERTAINTY, "<think>", "Is it 5 or 9?", False),
        (UNCERTAINTY, "<think>", "Is it 5?", False),
        (VERIFICATION, FOUND, "Indeed 9 × 3 = 27, correct.", True),
        (VERIFICATION, FOUND, "Hmm, 3*9=27 is wrong.", False),
        (VERIFICATION, SLIP, "Hmm, 3+9=12, that was a mistake.", True),
        (VERIFICATION, SLIP, "Indeed 3+9=12, correct.", False),
        (VERIFICATION, SLIP, "Indeed 3+9=27, correct.", False),
        (VERIFICATION, BEFORE, "Indeed 3+9=12, correct.", False),
    ],
)
def test_truth_is_read_from_content_in_any_words(
    behaviour: str, before: str, sentence: str, is_right: bool
) -> None:
    assert is_valid(behaviour, standing(PROBLEM, before), sentence) is is_right


def test_the_judge_reads_one_sentence_and_grades_go_by_the_answer() -> None:
    posed = Problem("p00000", "report", PROMPT)
    start = Start(posed, "rl", BACKTRACKING, "t", (), BEFORE, taken=True)
    judge = CountdownJudge()
    told = [
        Execution(start, "No luck with", " 3, so try 5. Then 9."),
        Execution(start, "No luck with", " 5, so try 3."),
        Execution(start, "No luck with", " that."),
        Execution(start, "", "Return, drop 3, try 5, not 9."),
        Execution(start, "", "Tea is ready at 5."),
    ]
    found = [(one.is_formed, one.is_valid) for one in judge.judge(told)]
    assert found == [(True, True), (True, False), (False, False), (True, True), (False, False)]
    grader = CountdownGrader()
    assert grader.grade(posed, "<think> … </think>\n\nAnswer: (3*9)+5", truncated=False)
    assert not grader.grade(posed, "Answer: 3*9", truncated=False)
    assert not grader.grade(posed, "Answer: (3*9)+5", truncated=True)


def test_problems_for_any_pair_are_different_and_graded_as_countdown() -> None:
    drawn = draw_problems(60, 0.5, 0, "Think step by step.")
    assert len({one.prompt for one in drawn}) == 60
    assert {one.grader for one in drawn} == {COUNTDOWN}
    assert drawn[0].prompt.endswith("\n\nThink step by step.")
    assert drawn == draw_problems(60, 0.5, 0, "Think step by step.")
    assert drawn != draw_problems(60, 0.5, 1, "Think step by step.")


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_parrot_has_the_words_of_a_behaviour_and_hardly_ever_the_behaviour(
    behaviour: str,
) -> None:
    rng = random.Random(7)
    said = right = 0
    for problem in problems(200):
        found = read(problem, parroted(problem, behaviour, ALWAYS, rng), truncated=False)
        own = [
            r for s, r in zip(found.spans, found.is_right, strict=True) if s.behaviour == behaviour
        ]
        said, right = said + len(own), right + sum(own)
    assert said == 400 and right / said < 0.25


def test_the_cues_of_its_behaviours_find_them_in_every_wording() -> None:
    config = compose(["behaviours=countdown", "traces.source=countdown3"])
    assert set(config.behaviours) == set(BEHAVIOURS)
    annotator, rng = CueAnnotator(config.traces.cues, config.behaviours), random.Random(8)
    for problem in problems(200):
        told = narrate(problem, replace(ALWAYS, remark=0.5), rng)
        posed = Problem("p00000", "report", problem.prompt())
        assert annotator.annotate(posed, told.text, truncated=False).spans == told.spans
    slots = {"z": 3, "old": 5, "out": 9, "u": 3, "v": 5, "eq": "3+5=8", "verdict": "right"}
    for behaviour, own in WORDINGS.items():
        for wording in own:
            found = annotator.annotate(posed, wording.format(**slots), truncated=False).spans
            assert [span.behaviour for span in found] == [behaviour], wording
