import errno
import os
import resource
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_reasoning.config import ConfigError, SaeConfig, TrainConfig
from sae_reasoning.edges.sae_training import StepRecord, batches_done, train_sae

D_IN = 8


def batches(skip: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        batch = torch.randn(64, D_IN, generator=generator).exp()
        if skip:
            skip -= 1
        else:
            yield batch


def config(architecture: str = "topk", **values: float) -> TrainConfig:
    sae = SaeConfig(architecture=architecture, d_sae=48, k=3)
    return TrainConfig(sae=sae, **{"steps": 40, "checkpoint_every": 10} | values)


def train_and_kill(checkpoint: Path, architecture: str, at: int) -> None:
    """Train in a child process that is killed, without warning, after step `at`."""

    def kill(record: StepRecord) -> None:
        if record.step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            train_sae(
                config(architecture),
                batches(),
                d_in=D_IN,
                seed=0,
                checkpoint=checkpoint,
                on_step=kill,
            )
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_killed_training_resumes_to_the_same_weights_and_curve(
    architecture: str, tmp_path: Path
) -> None:
    whole: list[StepRecord] = []
    uninterrupted = train_sae(
        config(architecture), batches(), d_in=D_IN, seed=0, on_step=whole.append
    )
    checkpoint = tmp_path / "checkpoint.safetensors"
    train_and_kill(checkpoint, architecture, at=27)
    assert batches_done(checkpoint) == 20
    assert list(tmp_path.iterdir()) == [checkpoint]

    curve: list[StepRecord] = []
    resumed = train_sae(
        config(architecture),
        batches(skip=batches_done(checkpoint)),
        d_in=D_IN,
        seed=0,
        checkpoint=checkpoint,
        on_step=curve.append,
    )
    x = next(batches())
    assert torch.equal(resumed.W_dec, uninterrupted.W_dec)
    assert torch.equal(resumed.b_dec, uninterrupted.b_dec)
    assert torch.equal(resumed.encode(x), uninterrupted.encode(x))
    assert curve == whole


def test_training_lowers_the_unexplained_variance_and_records_it() -> None:
    curve: list[StepRecord] = []
    train_sae(config(steps=400), batches(), d_in=D_IN, seed=0, on_step=curve.append)
    assert [record.step for record in curve] == list(range(2, 401, 2))
    assert curve[-1].fvu < 0.5 * curve[0].fvu
    assert all(0 < record.l0 <= 3 for record in curve)
    assert curve[0].lr == 1e-3
    assert curve[-1].lr == pytest.approx(1e-3 / 80)


def test_the_auxiliary_loss_keeps_latents_alive() -> None:
    def dead_share(coefficient: float) -> float:
        curve: list[StepRecord] = []
        training = config(steps=300, lr=3e-3)
        training.sae.aux_loss_coefficient = coefficient
        train_sae(training, batches(), d_in=D_IN, seed=0, on_step=curve.append)
        return curve[-1].dead_share

    assert dead_share(1.0) < dead_share(0.0)


def test_same_seed_same_weights_other_seed_other_weights() -> None:
    one, same, other = (
        train_sae(config(steps=3), islice(batches(), 3), d_in=D_IN, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one.W_dec, same.W_dec)
    assert not torch.equal(one.W_dec, other.W_dec)


def test_a_loss_that_is_not_finite_names_learning_rate_and_remedy(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(ConfigError, match=r"train\.lr=1e\+30 made the loss .*lower train\.lr"):
        train_sae(config(lr=1e30), batches(), d_in=D_IN, seed=0, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_a_full_disk_is_an_error_of_the_disk_and_costs_nothing_already_made(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(record: StepRecord) -> None:
        if record.step == 15:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))

    try:
        with pytest.raises(OSError, match="File too large") as raised:
            train_sae(
                config(), batches(), d_in=D_IN, seed=0, checkpoint=checkpoint, on_step=fill_disk
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert batches_done(checkpoint) == 10
    assert list(tmp_path.iterdir()) == [checkpoint]
