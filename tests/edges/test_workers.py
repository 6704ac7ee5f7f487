"""Work shared among processes: the same results in order, errors as they are, and nobody left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.generate import Rollout, generate
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.workers import num_workers, shared_out
from sae_reasoning.steering.noise import keyed_sampler

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is forked")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_from_other_processes_of_one_thread() -> None:
    def work(item: int) -> tuple[int, int, int]:
        time.sleep(0.05 * (item % 3))
        return item * item, os.getpid(), torch.get_num_threads()

    found = list(shared_out(work, range(9), CPU))
    assert [square for square, *_ in found] == [item * item for item in range(9)]
    assert os.getpid() not in {process for _, process, _ in found}
    assert len({process for _, process, _ in found}) == 2
    assert {threads for *_, threads in found} == {1}


def test_with_one_thread_or_one_item_the_work_is_done_here() -> None:
    assert torch.get_num_threads() == 1
    assert set(shared_out(lambda _: os.getpid(), range(3), CPU)) == {os.getpid()}
    torch.set_num_threads(2)
    try:
        assert num_workers(CPU, 1) == 1
        assert num_workers(CPU, 8) == 2
        assert num_workers(torch.device("cuda"), 8) == 1
    finally:
        torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_an_error_comes_back_as_it_is_and_ends_the_others(tmp_path: Path) -> None:
    def work(item: int) -> int:
        Path(tmp_path, str(os.getpid())).touch()
        if item == 1:
            raise ConfigError("train.sae.k=0 must be positive; raise it")
        if item > 1:
            time.sleep(600)
        return item

    found = shared_out(work, range(50), CPU)
    assert next(found) == 0
    with pytest.raises(ConfigError, match=r"train\.sae\.k=0 must be positive"):
        list(found)
    assert not [path.name for path in tmp_path.iterdir() if _runs(int(path.name))]


class _UnreadableError(Exception):
    """An error that can't be made again from what is sent of it."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise_unreadable(_: int) -> None:
    raise _UnreadableError("one", "two")


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("work", "said"),
    [(_die, "threads=2: one of 2 .* killed"), (_raise_unreadable, "sent what can't be read")],
)
def test_a_worker_that_is_lost_is_an_error_and_no_endless_wait(
    work: Callable[[int], None], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        list(shared_out(work, range(4), CPU))


@pytest.mark.usefixtures("two_threads")
def test_numpy_has_one_thread_in_a_worker_as_well() -> None:
    def work(_: int) -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info()}

    assert list(shared_out(work, range(2), CPU)) == [{1}, {1}]


def test_few_items_are_left_to_many_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        assert num_workers(CPU, 3) == 1
        assert num_workers(CPU, 4) == 4
        assert num_workers(CPU, 40) == 6
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_worker_shares_nothing_out_itself() -> None:
    def work(_: int) -> set[int]:
        return {os.getpid(), *shared_out(lambda _: os.getpid(), range(3), CPU)}

    assert [len(processes) for processes in shared_out(work, range(2), CPU)] == [1, 1]


@pytest.mark.usefixtures("two_threads")
def test_who_stops_listening_leaves_no_worker() -> None:
    found = shared_out(lambda item: (time.sleep(0.01), os.getpid())[1], range(1000), CPU)
    worker = next(found)
    found.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, time, pathlib, torch
torch.set_num_threads(2)
from sae_reasoning.edges.workers import shared_out
def work(item):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(600)
list(shared_out(work, range(2), torch.device("cpu")))
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
        assert parent.poll() is None
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 20
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
        )
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.usefixtures("two_threads")
def test_shared_rollouts_are_those_of_one_process(tiny_pair: PairConfig, tmp_path: Path) -> None:
    lm = load(tiny_pair.base, "cpu")
    prompts = [[3 + n % 5] * (2 + n % 7) for n in range(24)]
    draw = keyed_sampler(torch.tensor([[0, n, 0] for n in range(24)]), 1.0)

    def sampler(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        Path(tmp_path, str(os.getpid())).touch()
        return draw(logits, rows, step)

    def rollouts(shared: bool) -> list[Rollout]:
        made = generate(
            lm,
            prompts,
            sampler=sampler,
            max_new_tokens=12,
            batch_size=5,
            shared=shared,
        )
        return sorted(made, key=lambda one: one.row)

    apart = rollouts(shared=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert not Path(tmp_path, str(os.getpid())).exists()
    assert apart == rollouts(shared=False)
