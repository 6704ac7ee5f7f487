"""Outside programs that judge answers, from any thread, and only so long."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.scoring import OutsideScorers, gym_entries

pytest.importorskip("math_verify")
pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="module")
def scorers() -> Iterator[OutsideScorers]:
    with OutsideScorers() as made:
        yield made


@pytest.mark.parametrize(
    ("reference", "answer", "equal"),
    [
        (r"\frac{x}{2}", "x/2", True),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        ("x+1", "x+2", False),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        (r"\frac{1}{2}", "what?", False),
        (r"\frac{1}{2}", "", None),
    ],
)
def test_expressions_are_equal_whatever_they_look_like(
    scorers: OutsideScorers, reference: str, answer: str, equal: bool | None
) -> None:
    assert scorers.equal(reference, answer) is equal


def test_any_thread_may_ask(scorers: OutsideScorers) -> None:
    with ThreadPoolExecutor(3) as threads:
        answers = ["1+x", "x+1", "x+2", "x"]
        found = threads.map(lambda answer: scorers.equal("x+1", answer), answers)
        assert list(found) == [True, True, False, False]


def test_what_takes_too_long_has_no_grade_and_stops_nothing_else(scorers: OutsideScorers) -> None:
    assert scorers.equal("x", "x") is True
    assert scorers._process is not None and scorers._process.pid
    os.kill(scorers._process.pid, signal.SIGSTOP)  # Busy for ever.
    scorers._seconds, patience = 0.3, scorers._seconds
    try:
        assert scorers.equal("x+1", "1+x") is None
    finally:
        scorers._seconds = patience
    assert scorers.equal("x+1", "1+x") is True


def test_gym_makes_the_same_problems_and_grades_them() -> None:
    entries = gym_entries("gsm_symbolic", 3, 0)
    assert [e["question"] for e in entries] == [
        e["question"] for e in gym_entries("gsm_symbolic", 3, 0)
    ]
    scorers = OutsideScorers()
    for entry in entries:
        assert scorers.gym("gsm_symbolic", entry["answer"], entry) == 1
        assert scorers.gym("gsm_symbolic", "-5", entry) < 1


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="gym:telepathy is no task of reasoning-gym"):
        gym_entries("telepathy", 1, 0)
