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


def test_a_large_vocabulary_is_sampled_by_its_softmax_too() -> None:
    """A third of the probability of this one lies outside of the likeliest tokens."""
    count, vocab = 4_000, 3_000
    keys = torch.stack([torch.zeros(count), torch.arange(count), torch.zeros(count)], 1).long()
    order = torch.randperm(vocab, generator=torch.Generator().manual_seed(0))
    logits = torch.linspace(1.5, -1.5, vocab)[order]
    drawn = keyed_sampler(keys, 0.9)(logits.expand(count, vocab), torch.arange(count), 0)
    share = (logits / 0.9).softmax(0)
    ordered = share.sort(descending=True)
    assert 0.2 < ordered.values[1024:].sum() < 0.4
    tenths = torch.zeros(vocab, dtype=torch.long)
    tenths[ordered.indices] = (ordered.values.cumsum(0) * 10).long().clamp_max(9)
    expected = torch.zeros(10).index_add(0, tenths, share) * count
    seen = torch.bincount(tenths[drawn], minlength=10)
    assert scipy_stats.chisquare(seen.numpy(), expected.numpy(), sum_check=False).pvalue > 0.01


def test_an_edit_of_logits_changes_few_tokens_of_a_large_vocabulary_likely_or_not() -> None:
    count, vocab = 400, 20_000
    generator = torch.Generator().manual_seed(1)
    keys = torch.stack([torch.zeros(count), torch.arange(count), torch.zeros(count)], 1).long()
    logits = 2 * torch.randn(count, vocab, generator=generator)
    edited = logits + 0.01 * torch.randn(count, vocab, generator=generator)
    sample, rows = keyed_sampler(keys, 1.0), torch.arange(count)
    before, after = sample(logits, rows, 2), sample(edited, rows, 2)
    is_unlikely = ~(logits.topk(1024).indices == before[:, None]).any(1)
    assert is_unlikely.sum() > 50
    same = (before == after).float()
    assert min(same[is_unlikely].mean(), same[~is_unlikely].mean()) > 0.9
    fresh = keyed_sampler(keys + 1, 1.0)(logits, rows, 2)
    assert (before == fresh).float().mean() < 0.1
    alone = torch.cat([sample(logits[i : i + 1], torch.tensor([i]), 2) for i in range(20)])
    assert alone.tolist() == before[:20].tolist()
    banned = logits.clone()
    banned[:, 1:] = float("-inf")
    assert sample(banned, rows, 2).eq(0).all()
