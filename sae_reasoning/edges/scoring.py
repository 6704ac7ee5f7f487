"""Outside programs that judge answers: math-verify for expressions, reasoning-gym's own scorers.

math-verify ends what takes too long by an alarm, which only a main thread may set, and what it asks
of sympy may take for ever. So a process of its own compares, whichever thread asks; one that is
late is ended, and the next question starts another.
"""

import importlib.util
import logging
import multiprocessing
import threading
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from sae_reasoning.config import ConfigError

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
        self.has_algebra = importlib.util.find_spec("math_verify") is not None

    def __enter__(self) -> "OutsideScorers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def equal(self, reference: str, answer: str) -> bool | None:
        """Whether two expressions, in LaTeX or plain, are equal.

        None where either can't be read, it takes too long, or math-verify isn't installed.
        """
        if not self.has_algebra:
            return None
        with self._lock:
            pipe = self._started()
            try:
                pipe.send((reference, answer))
                if pipe.poll(self._seconds):
                    found: bool | None = pipe.recv()
                    return found
            except (EOFError, BrokenPipeError, ConnectionResetError):
                pass
            self._end()
            return None

    def gym(self, task: str, answer: str | None, entry: dict[str, Any]) -> float:
        """Score by the scorer of a reasoning-gym task; 1 is right."""
        return float(_gym_dataset(task).score_answer(answer, entry))

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_compare, args=(other,), daemon=True)
            self._process.start()
            other.close()
            if not self._pipe.poll(_SECONDS_TO_START):
                self._end()
                raise TimeoutError(f"math-verify didn't start within {_SECONDS_TO_START:g} s")
            self._pipe.recv()
        return self._pipe

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def gym_entries(task: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Problems of a reasoning-gym task, generated here: question, answer, metadata.

    Raises:
        ConfigError: reasoning-gym isn't installed, or has no such task.
    """
    made = _gym_dataset(task, count, seed)
    return [dict(made[index]) for index in range(count)]


@cache
def _gym_dataset(task: str, count: int = 1, seed: int = 0) -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(
            f"traces.source=gym:{task} needs reasoning-gym; pip install 'sae_reasoning[gym]'"
        ) from error
    try:
        return reasoning_gym.create_dataset(task, size=count, seed=seed)
    except ValueError as error:
        raise ConfigError(
            f"traces.source=gym:{task} is no task of reasoning-gym ({error}); take another, as "
            "gym:gsm_symbolic"
        ) from error


def _compare(pipe: Connection) -> None:
    """The process's life: expressions in, whether they're equal out."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    pipe.send(True)
    while True:
        try:
            reference, answer = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            read = [
                math_verify.parse(f"${text.strip('$ ')}$", parsing_timeout=None)
                for text in (reference, answer)
            ]
            is_equal = math_verify.verify(*read, timeout_seconds=None) if all(read) else None
        except Exception:  # Whatever its parser or sympy raises, nothing can be said.
            is_equal = None
        pipe.send(is_equal)
