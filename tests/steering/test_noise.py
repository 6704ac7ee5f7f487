"""Common random numbers: the same for the same key, Gumbel, and blind to the batch."""

import numpy as np
import torch
from scipy import stats as scipy_stats

from sae_reasoning.steering.noise import keyed_gumbel, keyed_sampler


def test_noise_is_standard_gumbel() -> None:
    keys = torch.stack([torch.zeros(200), torch.arange(200), torch.zeros(200)], dim=1).long()
    noise = keyed_gumbel(keys, step=3, vocab_size=200).flatten().numpy()
    assert scipy_stats.kstest(noise, "gumbel_r").pvalue > 0.01


def test_neighbouring_keys_steps_and_tokens_are_independent() -> None:
    keys = torch.tensor([[s, p, r] for s in range(8) for p in range(8) for r in range(8)])
    here, next_step = keyed_gumbel(keys, 0, 50), keyed_gumbel(keys, 1, 50)
    pairs = {
        "step": (here, next_step),
        "row": (here[:-1], here[1:]),
        "token": (here[:, :-1], here[:, 1:]),
    }
    for name, (left, right) in pairs.items():
        r = np.corrcoef(left.flatten().numpy(), right.flatten().numpy())[0, 1]
        assert abs(r) < 0.03, name


def test_a_row_draws_the_same_tokens_in_any_batch() -> None:
    keys = torch.tensor([[0, 5, 1], [0, 6, 1], [7, 5, 0]])
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    sample = keyed_sampler(keys, temperature=0.8)
    together = sample(logits, torch.tensor([0, 1, 2]), 4)
    alone = torch.cat([sample(logits[i : i + 1], torch.tensor([i]), 4) for i in (2, 0, 1)])
    assert together.tolist() == alone[[1, 2, 0]].tolist()


def test_sampling_follows_the_softmax() -> None:
    count = 20_000
    keys = torch.stack([torch.zeros(count), torch.arange(count), torch.zeros(count)], 1).long()
    logits = torch.tensor([0.0, 1.0, 2.0])
    drawn = keyed_sampler(keys, temperature=0.5)(logits.expand(count, 3), torch.arange(count), 0)
    shares = torch.bincount(drawn, minlength=3) / count
    torch.testing.assert_close(shares, (logits / 0.5).softmax(0), atol=0.012, rtol=0)
