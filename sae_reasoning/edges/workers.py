"""One piece of work on many items, shared among forked processes of one thread each.

On a CPU, two threads within one forward pass of a small model do 1.5 times what one does; two
processes make 1.6 times what two threads do. A worker is a fork, as torch's data loaders make them,
so it has the models without loading or copying them; what it finds is sent back. Where nobody can
fork safely (a GPU, another operating system than Linux) or one thread is all there is, the work is
done here.
"""

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 16
"""Processes at once: each holds keys and values of its own batch."""
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG.

_shared: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def num_workers(device: torch.device, num_items: int) -> int:
    """Processes that share so many items; 1 where the work is done here."""
    if device.type != "cpu" or sys.platform != "linux" or torch.cuda.is_initialized():
        return 1
    return max(1, min(torch.get_num_threads(), num_items, _MOST))


def shared_out(
    work: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> Iterator[Result]:
    """What `work` makes of each item, in the items' order, each as soon as it and those before are.

    What `work` changes elsewhere is lost where a worker did it; all that counts must be returned,
    and what is returned is pickled between processes of this run. An exception comes back as it is.

    Args:
        work: Takes an item; may be a closure over models.
        items: The items; the largest first is the fairest where they differ much.
        device: Where the work computes.
    """
    global _shared
    count = num_workers(device, len(items))
    if count == 1:
        yield from map(work, items)
        return
    _shared = work, items
    try:
        pool = multiprocessing.get_context("fork").Pool(count, _begin)
    finally:
        _shared = None
    try:
        yield from pool.imap(_do, range(len(items)))
    finally:
        pool.terminate()
        pool.join()


def _begin() -> None:
    """Take one thread, leave interrupts to the parent, and end with it, however it ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _do(index: int) -> Any:
    assert _shared is not None
    work, items = _shared
    return work(items[index])
