"""One piece of work on many items, shared among forked processes of one thread each.

On a CPU, threads within one forward pass of a small model wait for each other much of the time;
processes don't (`shared_over_generate` of `make bench`). A worker is a fork, so it has the models
without loading or copying them; what it finds is sent back. The work is done here instead where
nobody can fork safely (an accelerator in the machine, another operating system than Linux), where
one thread is all there is, and where the items are too few to keep half of the threads busy.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.console import draw_no_bars

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 16
"""Processes at once: each holds keys and values of its own batch."""
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG.

_shared: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def num_workers(device: torch.device, num_items: int) -> int:
    """Processes that share so many items; 1 where the work is done here."""
    # Where an accelerator is in sight, a backward pass leaves threads that no fork survives.
    can_fork = device.type == "cpu" and sys.platform == "linux"
    is_child = _shared is not None or multiprocessing.current_process().daemon
    if not can_fork or is_child or torch.accelerator.is_available():
        return 1
    threads = torch.get_num_threads()
    count = min(threads, num_items, _MOST)
    return count if 2 * count > threads and count > 1 else 1


def shared_out(
    work: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> Iterator[Result]:
    """What `work` makes of each item, in the items' order, each as soon as it and those before are.

    What `work` changes elsewhere is lost where a worker did it; all that counts must be returned,
    and what is returned is pickled between processes of this run. An exception comes back as it is.

    Args:
        work: Takes an item; may be a closure over models. It mustn't talk to processes that were
            started before.
        items: The items; the largest first is the fairest where they differ much.
        device: Where the work computes.

    Raises:
        ConfigError: A worker was killed, or raised what can't be sent back.
    """
    global _shared
    count = num_workers(device, len(items))
    if count == 1:
        yield from map(work, items)
        return
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        count, multiprocessing.get_context("fork"), initializer=_begin, initargs=(os.getpid(),)
    )
    _shared = work, items
    try:
        futures = [executor.submit(_do, index) for index in range(len(items))]
    finally:
        _shared = None  # The workers were forked by the first of these.
    workers = set(multiprocessing.active_children()) - before
    try:
        for future in futures:
            yield future.result()
    except BaseException as error:  # Or nobody listens any more.
        for worker in workers:
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise ConfigError(_what_broke(error, count)) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _what_broke(error: BrokenProcessPool, count: int) -> str:
    if error.__cause__ is not None:
        return f"one of {count} processes that shared the work sent what can't be read: {error}"
    return (
        f"threads={torch.get_num_threads()}: one of {count} processes that shared the work was "
        "killed, most likely for want of memory; lower threads, or the batch size"
    )


def _begin(parent: int) -> None:
    """Take one thread, leave interrupts to the parent, and end with it, however it ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    draw_no_bars()
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's as well.


def _do(index: int) -> Any:
    assert _shared is not None
    work, items = _shared
    return work(items[index])
