"""Outside programs that judge answers: math-verify for expressions, reasoning-gym's own scorers.

math-verify ends what takes too long by an alarm, which only a main thread may set, and what it and
some of reasoning-gym's scorers ask of sympy may take for ever. So a process of its own judges,
whichever thread asks; one that is late is ended, and the next question starts another.
"""

import difflib
import importlib
import importlib.util
import logging
import multiprocessing
import os
import threading
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from sae_reasoning.config import ConfigError
from sae_reasoning.records import Comparison

_SECONDS, _SECONDS_TO_START = 10.0, 60.0


class OutsideScorers:
    """Judges answers; close it, or use it as a context manager, to end its process.

    Args:
        seconds: A comparison may take.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._imported: set[str] = set()
        self._owner = os.getpid()
        self.has_algebra = importlib.util.find_spec("math_verify") is not None

    def __enter__(self) -> "OutsideScorers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def compare(self, reference: str, answer: str) -> Comparison:
        """An answer beside the right one, both in LaTeX or plain.

        Undecided where the right one can't be read, where it takes too long, and where math-verify
        isn't installed.
        """
        if not self.has_algebra:
            return Comparison.UNDECIDED
        found = self._asked("math_verify", (reference, answer))
        return found if isinstance(found, Comparison) else Comparison.UNDECIDED

    def gym(self, task: str, answer: str, entry: dict[str, Any]) -> float | None:
        """Score by the scorer of a reasoning-gym task; 1 is right, None takes too long."""
        check_gym_task(task)
        found = self._asked("reasoning_gym", (task, answer, entry))
        return found if isinstance(found, float) else None

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _asked(self, library: str, question: tuple[Any, ...]) -> Comparison | float | None:
        """What the process says; None where that takes it too long, or it dies of it."""
        with self._lock:
            pipe = self._started(library)
            try:
                pipe.send(question)
                if pipe.poll(self._seconds):
                    found: Comparison | float = pipe.recv()
                    return found
            except (EOFError, BrokenPipeError, ConnectionResetError):
                pass
            self._end()
            return None

    def _started(self, library: str) -> Connection:
        """The pipe to the process, which has imported a library."""
        if self._owner != os.getpid():  # A fork's answers would be another's; it asks its own.
            self._process, self._pipe, self._owner = None, None, os.getpid()
            self._imported.clear()
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_judge, args=(other,), daemon=True)
            self._process.start()
            other.close()
        if library not in self._imported:  # Slow, and no part of a question's time.
            flaw = f"not within {_SECONDS_TO_START:g} s"
            try:
                self._pipe.send((library,))
                if self._pipe.poll(_SECONDS_TO_START):
                    flaw = self._pipe.recv()
            except (EOFError, BrokenPipeError, ConnectionResetError) as error:
                flaw = f"{type(error).__name__} of its process"
            if flaw:
                self._end()
                raise ConfigError(
                    f"{library}, which grades, can't be imported ({flaw}); see whether "
                    f"`python -c 'import {library}'` works, and run it again"
                )
            self._imported.add(library)
        return self._pipe

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None
        self._imported.clear()


def gym_entries(task: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Problems of a reasoning-gym task, generated here: question, answer, metadata.

    Raises:
        ConfigError: reasoning-gym isn't installed, or has no such task.
    """
    made = _gym_dataset(task, count, seed)
    return [dict(made[index]) for index in range(count)]


def check_gym_task(task: str) -> None:
    """Refuse a task that reasoning-gym doesn't have.

    Raises:
        ConfigError: reasoning-gym isn't installed, or has no such task.
    """
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(
            f"traces.source=gym:{task} needs reasoning-gym; pip install 'sae_reasoning[gym]'"
        ) from error
    if task not in DATASETS:
        near = difflib.get_close_matches(task, DATASETS, n=1) or ["gsm_symbolic"]
        raise ConfigError(
            f"traces.source=gym:{task} is no task of reasoning-gym; did you mean gym:{near[0]}?"
        )


@cache
def _gym_dataset(task: str, count: int = 1, seed: int = 0) -> Any:
    check_gym_task(task)
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=count, seed=seed)


def _judge(pipe: Connection) -> None:
    """The process's life: questions in, what comes of them out."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    while True:
        try:
            question = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        match question:
            case (library,):
                pipe.send(_flaw_of(library))
            case (reference, answer):
                pipe.send(_compared(reference, answer))
            case (task, answer, entry):
                pipe.send(_scored(task, answer, entry))


def _flaw_of(library: str) -> str:
    """Why a library can't be imported, or ""."""
    try:
        importlib.import_module(library)
    except Exception as error:  # Whatever it runs on being imported.
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def _scored(task: str, answer: str, entry: dict[str, Any]) -> float:
    try:
        return float(_gym_dataset(task).score_answer(answer, entry))
    except Exception:  # A scorer that an answer breaks doesn't take it for right.
        return 0.0


def _compared(reference: str, answer: str) -> Comparison:
    import math_verify

    right, given = _read(reference), _read(answer)
    if not _has_mathematics(right):
        return Comparison.UNDECIDED
    if not _has_mathematics(given):
        return Comparison.UNREADABLE
    try:
        is_equal = math_verify.verify(right, given, timeout_seconds=None)
    except Exception:  # Whatever sympy raises, nothing can be said.
        return Comparison.UNDECIDED
    return Comparison.EQUAL if is_equal else Comparison.DIFFERENT


def _read(text: str) -> list[Any]:
    """What math-verify makes of a text: expressions, and the text itself where it finds any."""
    import math_verify

    try:
        return list(math_verify.parse(f"${text.strip('$ ')}$", parsing_timeout=None))
    except Exception:  # Whatever its parser raises, it's nothing that it can read.
        return []


def _has_mathematics(read: list[Any]) -> bool:
    return any(not isinstance(one, str) for one in read)
