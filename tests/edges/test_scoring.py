"""Outside programs that judge answers, from any thread, and only so long."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.scoring import OutsideScorers, gym_entries
from sae_reasoning.records import Comparison

pytest.importorskip("math_verify")
pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="module")
def scorers() -> Iterator[OutsideScorers]:
    with OutsideScorers() as made:
        yield made


@pytest.mark.parametrize(
    ("reference", "answer", "found"),
    [
        (r"\frac{x}{2}", "x/2", Comparison.EQUAL),
        (r"2\sqrt{3}", r"\sqrt{12}", Comparison.EQUAL),
        ("x+1", "x+2", Comparison.DIFFERENT),
        (r"\{1, 2\}", r"\{2, 1\}", Comparison.EQUAL),
        (r"\frac{1}{2}", "what?", Comparison.UNREADABLE),
        (r"\frac{1}{2}", r"\frac{", Comparison.UNREADABLE),
        (r"\frac{1}{2}", "", Comparison.UNREADABLE),
        ("what?", r"\frac{1}{2}", Comparison.UNDECIDED),
    ],
)
def test_expressions_are_equal_whatever_they_look_like(
    scorers: OutsideScorers, reference: str, answer: str, found: Comparison
) -> None:
    assert scorers.compare(reference, answer) is found


def test_a_fork_asks_a_process_of_its_own(scorers: OutsideScorers) -> None:
    assert scorers.compare("2x", "x+x") is Comparison.EQUAL
    assert scorers._process is not None
    fork = multiprocessing.get_context("fork")
    there, here = fork.Pipe()

    def ask() -> None:
        found = scorers.compare("2x", "x+x")
        assert scorers._process is not None
        there.send((found, scorers._process.pid))
        scorers.close()

    child = fork.Process(target=ask)
    child.start()
    found, asked = here.recv()
    child.join()
    assert found is Comparison.EQUAL
    assert asked != scorers._process.pid
    assert scorers.compare("x^2", "x^3") is Comparison.DIFFERENT


def test_without_math_verify_nothing_is_decided() -> None:
    scorers = OutsideScorers()
    scorers.has_algebra = False
    assert scorers.compare("x+1", "1+x") is Comparison.UNDECIDED


def test_any_thread_may_ask(scorers: OutsideScorers) -> None:
    with ThreadPoolExecutor(3) as threads:
        answers = ["1+x", "x+1", "x+2", "x"]
        found = threads.map(lambda answer: scorers.compare("x+1", answer), answers)
        assert list(found) == 2 * [Comparison.EQUAL] + 2 * [Comparison.DIFFERENT]


def test_what_takes_too_long_has_no_grade_and_stops_nothing_else(scorers: OutsideScorers) -> None:
    assert scorers.compare("x", "x") is Comparison.EQUAL
    assert scorers._process is not None and scorers._process.pid
    os.kill(scorers._process.pid, signal.SIGSTOP)  # Busy for ever.
    scorers._seconds, patience = 0.3, scorers._seconds
    try:
        assert scorers.compare("x+1", "1+x") is Comparison.UNDECIDED
    finally:
        scorers._seconds = patience
    assert scorers.compare("x+1", "1+x") is Comparison.EQUAL


def test_gym_makes_the_same_problems_and_grades_them() -> None:
    entries = gym_entries("gsm_symbolic", 3, 0)
    assert [e["question"] for e in entries] == [
        e["question"] for e in gym_entries("gsm_symbolic", 3, 0)
    ]
    scorers = OutsideScorers()
    for entry in entries:
        assert scorers.gym("gsm_symbolic", entry["answer"], entry) == 1
        assert scorers.gym("gsm_symbolic", "-5", entry) < 1


def test_a_scorer_that_takes_too_long_has_no_score(scorers: OutsideScorers) -> None:
    entry = gym_entries("simple_integration", 1, 0)[0]
    scorers.gym("simple_integration", "x", entry)
    scorers._seconds, patience = 0.5, scorers._seconds
    try:
        assert scorers.gym("simple_integration", "9**9**9**9", entry) is None
    finally:
        scorers._seconds = patience
    assert scorers.gym("simple_integration", "X**77", entry) != 1


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="gym:telepathy is no task of reasoning-gym"):
        gym_entries("telepathy", 1, 0)
    with pytest.raises(ConfigError, match=r"did you mean gym:gsm_symbolic\?"):
        gym_entries("gsm_symbolc", 1, 0)


def test_a_library_that_does_not_come_is_named() -> None:
    with OutsideScorers() as scorers:
        with pytest.raises(
            ConfigError, match=r"no_such_library, .* \(ModuleNotFoundError: .*; see whether"
        ):
            scorers._asked("no_such_library", ("1", "1"))
        assert scorers.compare("x+1", "1+x") is Comparison.EQUAL
