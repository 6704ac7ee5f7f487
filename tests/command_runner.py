"""Runs the command line as a newcomer would, in a process that can be killed at a chosen moment.

Children are forked from a server that has imported what is slow, so that a command costs its work
and not ten seconds of imports.
"""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [f"sae_reasoning.jobs.{job}" for job in ("traces", "cache", "train", "rank", "ablate")]
    + ["sae_lens", "matplotlib.figure", "sae_reasoning.__main__", "sae_reasoning.compose"]
)

_spent = 0.0


def seconds_of_commands() -> float:
    """CPU seconds of all commands so far: they're the server's children, and not of this process.

    One that was killed from outside isn't counted.
    """
    return _spent


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (negative the signal that killed it), what it printed."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """The one line of its error, without `error: `.

        Raises:
            AssertionError: It didn't end with one such line.
        """
        lines = self.output.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert self.code == 2, self.output
        assert len(errors) == 1, self.output
        assert lines[-1] == errors[0], self.output
        assert "Traceback" not in self.output, self.output
        return errors[0].removeprefix("error: ")


def run_command(
    arguments: Sequence[str],
    folder: Path,
    *,
    die_at: int | None = None,
    max_file_bytes: int | None = None,
) -> Outcome:
    """Run `python -m sae_reasoning <arguments>` in `folder`.

    Args:
        arguments: As on the command line.
        folder: Where the command is run.
        die_at: Kill the process by signal 9 when it's about to give a file of an unfinished stage
            its final name for this many-th time.
        max_file_bytes: Size at which the disk is full for any one file.
    """
    global _spent
    log = folder / "output.txt"
    receiver, spent = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(
        target=_child, args=(list(arguments), str(folder), str(log), spent, die_at, max_file_bytes)
    )
    process.start()
    spent.close()
    process.join(600)  # Far beyond what any takes, on a busy machine too.
    if process.is_alive():
        process.kill()
    process.join()
    code = process.exitcode
    output = log.read_text()
    process.close()
    with receiver, suppress(EOFError):
        _spent += receiver.recv() if receiver.poll() else 0.0
    assert code is not None
    return Outcome(code, output)


def _child(
    arguments: list[str],
    folder: str,
    log: str,
    spent: Connection,
    die_at: int | None,
    max_file_bytes: int | None,
) -> None:
    import torch

    from sae_reasoning.__main__ import main

    for name in [name for name in os.environ if name.startswith("WANDB_SERVICE")]:
        del os.environ[name]  # Of a run that a test opened itself; a command starts its own.
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    if die_at is not None:
        _die_at_rename(die_at, spent)
    if max_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    code = main(arguments)
    sys.stdout.flush()
    _tell_seconds(spent)
    os._exit(code)


def _tell_seconds(spent: Connection) -> None:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    spent.send(sum(one.ru_utime + one.ru_stime for one in usage))


def _die_at_rename(count: int, spent: Connection) -> None:
    seen = 0

    def watch(event: str, details: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "os.rename" and ".partial-" in str(details[1]):
            seen += 1
            if seen == count:
                _tell_seconds(spent)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
