import numpy as np
import pytest
import torch
from torch import Tensor

from sae_reasoning.config import PairConfig, SaeConfig, TrainConfig
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.lm.read import read_residuals
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.edges.sae_quality import (
    CrossEntropyProbe,
    Recovery,
    describe_quality,
    measure_fit,
    measure_recovery,
)
from sae_reasoning.edges.sae_training import train_sae


def small_dictionary(x: Tensor, k: int, steps: int = 30) -> Dictionary:
    config = TrainConfig(sae=SaeConfig(d_sae=4 * x.shape[1], k=k), steps=steps, lr=1e-2)
    return train_sae(config, iter([x] * steps), d_in=x.shape[1], seed=0, metadata={"layer": 1})


def test_fit_streams_to_the_figures_of_the_whole() -> None:
    x = 5 + 3 * torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    dictionary = small_dictionary(x, k=2)
    fit = measure_fit(dictionary, x.split(70))
    latents = dictionary.encode(x).double().numpy()
    error = x.double().numpy() - dictionary.decode(dictionary.encode(x)).double().numpy()
    variance = x.double().numpy() - x.double().numpy().mean(0)
    assert fit.fvu == pytest.approx(np.square(error).sum() / np.square(variance).sum(), rel=1e-5)
    assert fit.l0 == pytest.approx((latents > 0).sum(1).mean())
    assert fit.dead_share == pytest.approx(1 - (latents > 0).any(0).mean())
    assert fit.num_tokens == 300
    torch.testing.assert_close(fit.mean, x.mean(0))


WHOLE = Recovery(1, 1, cross_entropy=2.0, spliced=2.0, mean_ablated=5.0)


@pytest.mark.parametrize(("k", "passes"), [(2, True), (3, False)])  # 16 / 8 = 2
def test_a_dictionary_that_is_too_dense_fails_the_gate(k: int, passes: bool) -> None:
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    fit = measure_fit(small_dictionary(x, k), [x])
    said = describe_quality(fit, WHOLE, 16, TrainConfig(gate_fvu=1.0))
    assert said["passes"] is passes
    assert list(said["failed"]) == ([] if passes else ["l0"])


def test_recovery_is_one_when_nothing_is_lost_and_zero_at_the_mean() -> None:
    none = Recovery(1, 1, cross_entropy=2.0, spliced=5.0, mean_ablated=5.0)
    assert (WHOLE.recovered, none.recovered) == (1.0, 0.0)


def test_a_dictionary_that_reconstructs_almost_everything_recovers_the_loss(
    tiny_pair: PairConfig,
) -> None:
    lm = load(tiny_pair.base, "cpu")
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(4, 60, (6, 20), generator=generator).tolist()
    reads = read_residuals(lm, sequences, [1], 1024)
    x = torch.cat([batch.residuals[1][batch.is_token] for batch in reads])
    # Twice the width in latents, each with its opposite: everything can be written.
    dictionary = small_dictionary(x, k=32, steps=300)
    probe = CrossEntropyProbe(lm, sequences, [0] * 6, [5] * 6, 1024)
    recovery = measure_recovery(1, dictionary.reconstruct, probe, x.mean(0))
    assert recovery.num_tokens == 6 * 15
    assert abs(recovery.spliced - recovery.cross_entropy) < 0.1 * abs(
        recovery.mean_ablated - recovery.cross_entropy
    )
