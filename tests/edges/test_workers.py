"""Work shared among processes: the same results in order, errors as they are, and nobody left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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
def test_an_error_comes_back_as_it_is_and_ends_the_others() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise ConfigError("train.sae.k=0 must be positive; raise it")
        return item

    found = shared_out(work, range(50), CPU)
    assert next(found) == 0
    with pytest.raises(ConfigError, match=r"train\.sae\.k=0 must be positive"):
        list(found)


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
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.usefixtures("two_threads")
def test_shared_rollouts_are_those_of_one_process(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    prompts = [[3 + n % 5] * (2 + n % 7) for n in range(24)]
    keys = torch.tensor([[0, n, 0] for n in range(24)])

    def rollouts(shared: bool) -> list[Rollout]:
        made = generate(
            lm,
            prompts,
            sampler=keyed_sampler(keys, 1.0),
            max_new_tokens=12,
            batch_size=5,
            shared=shared,
        )
        return sorted(made, key=lambda one: one.row)

    assert rollouts(shared=True) == rollouts(shared=False)
