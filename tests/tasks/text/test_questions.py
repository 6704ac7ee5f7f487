"""Problems in words, from rows of whatever has them, and grades of responses to them."""

import json
from typing import Any

import pytest

from sae_reasoning.config import DATASET_NAMES, ConfigError
from sae_reasoning.records import Comparison, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.grading import (
    NO_ANSWER,
    RIGHT,
    UNGRADED,
    UNREADABLE,
    WRONG,
    Grader,
    grade_all,
    uneven_answers,
)
from sae_reasoning.tasks.text.questions import DATASETS, Draw, pose_gym, pose_rows

DRAW = Draw(num_problems=4, report_share=0.5, instruction="", seed=0)
ROWS: list[dict[str, Any]] = [
    {"question": "One and one?", "answer": "1+1\n#### 2"},
    {"problem": "Half of x?", "solution": r"It is \boxed{\frac{x}{2}}.", "answer": r"\frac{x}{2}"},
    {"nums": [2, 3, 4], "target": 14},
    {"prompt": "Anything?"},
]


class Plain:
    """Scorers that know one equality and one task, and read letters."""

    def compare(self, reference: str, answer: str) -> Comparison:
        known = {"x/2": Comparison.EQUAL, "x": Comparison.DIFFERENT, "?": Comparison.UNREADABLE}
        return known.get(answer, Comparison.UNDECIDED)

    def gym(self, task: str, answer: str | None, entry: dict[str, Any]) -> float:
        return float(task == "sums" and answer == entry["answer"])


def _posed(rows: list[dict[str, Any]], draw: Draw = DRAW) -> list[Problem]:
    return pose_rows([(f"row {n}", row) for n, row in enumerate(rows)], "traces.source=x", draw)


def test_every_known_dataset_has_its_place_and_no_other_has() -> None:
    assert tuple(DATASETS) == DATASET_NAMES


def test_problems_are_drawn_alike_each_time_and_split_once() -> None:
    problems = _posed(ROWS)
    assert problems == _posed(ROWS)
    assert [p.problem_id for p in problems] == ["p00000", "p00001", "p00002", "p00003"]
    assert [p.split for p in problems] == ["select", "select", "report", "report"]
    assert {p.reference for p in problems} == {
        "2",
        r"\frac{x}{2}",
        json.dumps({"numbers": [2, 3, 4], "target": 14}),
        "",
    }
    assert {p.prompt for p in _posed(ROWS[:2] * 3)} == {"One and one?", "Half of x?"}


def test_a_question_with_two_answers_is_left_out_aloud() -> None:
    rows = [
        ("line 1", {"question": "1+1?", "answer": "2"}),
        ("line 2", {"question": "2+2?", "answer": None}),
        ("line 3", {"question": "1+1?", "answer": "3"}),
        ("line 4", {"question": "2+2?", "answer": "4"}),
        ("line 5", {"question": "3+3?", "answer": "6"}),
        ("line 6", {"question": "3+3?", "answer": "6.0"}),
    ]
    said: list[str] = []
    posed = pose_rows(rows, "traces.source=x", Draw(10, 0.5, "", 0), said.append)
    assert {p.prompt: p.reference for p in posed} == {"2+2?": "4", "3+3?": "6"}
    assert said == [
        "traces.source=x: 1 questions have several answers and are left out (of the first, line 1 "
        "says '2', line 3 '3'); keep one row of each"
    ]


@pytest.mark.parametrize("answer", [None, float("nan"), "nan", "NaN", "None", " ", [], [None]])
def test_an_answer_that_is_missing_in_any_way_is_none(answer: Any) -> None:
    posed = _posed([{"question": "a?", "answer": answer}, {"question": "b?", "answer": "1"}])
    assert {p.prompt: p.reference for p in posed} == {"a?": "", "b?": "1"}
    worked = {"question": "a?", "answer": answer, "solution": "2 + 3\n#### 5"}
    assert {p.reference for p in _posed([worked, ROWS[0]])} == {"5", "2"}


def test_an_instruction_stands_behind_every_question() -> None:
    draw = Draw(4, 0.5, "Think.", 0)
    assert all(p.prompt.endswith("\n\nThink.") for p in _posed(ROWS, draw))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], {"text_of": "?"}], "traces.source=x, row 1: it has only text_of"),
        ([ROWS[0]], "holds 1 different problem"),
        ([ROWS[0], {"nums": ["two"], "target": 3}], "row 1: invalid literal"),
    ],
)
def test_rows_without_a_question_are_named(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _posed(rows)


def _grader() -> Grader:
    problems = {p.prompt.split()[0]: p for p in _posed(ROWS)}
    entries = {"sums": [{"question": f"{n}+1?", "answer": str(n + 1)} for n in (1, 1999)]}
    problems |= {p.prompt: p for p in pose_gym(entries, DRAW)}
    return Grader(problems, Plain())


@pytest.mark.parametrize(
    ("problem", "text", "truncated", "outcome"),
    [
        ("One", "so 2.", False, RIGHT),
        ("One", "so 3.", False, WRONG),
        ("One", "so 2", True, NO_ANSWER),
        ("One", "I give up.", False, NO_ANSWER),
        ("Half", r"\boxed{x/2}", False, RIGHT),
        ("Half", r"\boxed{x}", False, WRONG),
        ("Half", r"\boxed{?}", False, UNREADABLE),
        ("Half", r"\boxed{x^9}", False, UNGRADED),
        ("Half", r"\boxed{late}", False, UNREADABLE),
        ("Write", r"\boxed{(3+4)*2}", False, RIGHT),
        ("Write", r"\boxed{3+4+2}", False, WRONG),
        ("Write", r"\boxed{all of them}", False, UNREADABLE),
        ("Write", "I'd say (3 + 4) * 2 = 14.", False, RIGHT),
        ("One", r"\boxed{many}", False, UNREADABLE),
        ("One", r"\boxed{\sqrt{4}}", False, UNGRADED),
        ("Anything?", "so 2.", False, UNGRADED),
        ("1999+1?", "that is 2,000", False, RIGHT),
        ("1+1?", "that is 3", False, WRONG),
        ("unknown", "so 2.", False, UNGRADED),
    ],
)
def test_grades_tell_what_the_model_left_unreadable_from_what_cannot_be_graded(
    problem: str, text: str, truncated: bool, outcome: str
) -> None:
    grader = _grader()
    assert grader.outcome(problem, text, truncated) == outcome
    grade = None if outcome == UNGRADED else outcome == RIGHT
    assert grader.correct(problem, text, truncated) is grade


def test_shares_of_outcomes_are_of_each_writers_rollouts() -> None:
    traces = [
        Trace("t", "One", "select", writer, "m", "One", text, (1, 2), 1, None, False, (), ())
        for writer, text in (
            *(("base", "2"), ("rl", "3"), ("rl", "2"), ("rl", "?"), ("rl", "2")),
            ("rl", r"\boxed{many}"),
        )
    ]
    graded, shares = grade_all(traces, _grader())
    assert [trace.answer_status for trace in graded] == [
        *("found", "found", "found", "none", "found", "unreadable")
    ]
    assert [trace.correct for trace in graded] == [True, False, True, False, True, False]
    rows = shares.set_index("writer")
    assert rows.loc["rl"].to_dict() == {
        "traces": 5,
        RIGHT: 0.4,
        WRONG: 0.2,
        NO_ANSWER: 0.2,
        UNREADABLE: 0.2,
        UNGRADED: 0.0,
    }


def test_a_cut_thought_that_the_prompt_opened_gives_no_answer() -> None:
    grader, text = _grader(), r"Perhaps \boxed{2}, but I have to check"
    assert grader.grade("One", text, True).answer_status == "found"
    cut = grader.grade("One", text, True, opened=True)
    assert (cut.outcome, cut.answer_status, cut.correct) == (NO_ANSWER, "truncated", False)


def test_a_difference_in_what_can_be_read_is_named() -> None:
    def rollouts(writer: str, unreadable: int, read: int) -> list[Trace]:
        texts = [r"\boxed{many}"] * unreadable + ["2"] * read
        return [
            Trace("t", "One", "select", writer, "m", "One", text, (1, 2), 1, None, False, (), ())
            for text in texts
        ]

    graded, _ = grade_all(rollouts("base", 5, 95) + rollouts("rl", 0, 100), _grader())
    (said,) = uneven_answers(graded)
    assert "5.0% of base's and 0.0% of rl's rollouts have an answer that can't be read" in said
    assert "(difference 5.0 points [0.3, 11.2])" in said
    graded, _ = grade_all(rollouts("base", 1, 99) + rollouts("rl", 0, 100), _grader())
    assert not uneven_answers(graded)
