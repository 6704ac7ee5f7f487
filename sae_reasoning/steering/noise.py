"""Common random numbers: sampling noise that depends only on what it is for.

A token is drawn as argmax(logits / temperature + Gumbel noise), and the noise is a hash of (seed,
problem, sample, step, token id). Two runs of the same rollout under different edits thus share
their noise, whatever batch they are in, until their texts diverge.

Of a large vocabulary noise is hashed for the likeliest tokens alone. The others share one draw: the
largest of their perturbed logits is Gumbel about the logarithm of their summed probabilities, and
which of them it belongs to doesn't depend on how large it is (Maddison et al. 2014, 1411.0030,
section 3). Only where it is the largest of all, their own noise says which. What is drawn follows
the softmax all the same.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TOP = 1024
"""Tokens whose noise is hashed at every step, the likeliest."""

# Odd constants of SplitMix64 (Steele et al. 2014), as signed 64-bit integers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True)
class Noise:
    """A named stream of sampling noise: what other streams draw says nothing of it.

    Attributes:
        stream: Name of what is sampled, as `traces` or `contrast/rollouts`.
        seed: Of the stage.
    """

    stream: str
    seed: int

    def keys(self, rows: Sequence[tuple[int, int]]) -> Int[Tensor, "row 3"]:
        """What the noise of each rollout is keyed by.

        Args:
            rows: Of each rollout, the key of its problem or start, and its sample from 0.
        """
        first = int.from_bytes(hashlib.sha256(self.stream.encode()).digest()[:5], "big") << 20
        keys = [(self.seed, key, first + sample) for key, sample in rows]
        return torch.tensor(keys, dtype=torch.int64).reshape(-1, 3)


def _shift_right(x: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical shift of signed integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    x = x + _GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _state(keys: Int[Tensor, "batch key"], step: int) -> Int[Tensor, "batch"]:
    state = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)
    for part in range(keys.shape[1]):
        state = _mix(state ^ keys[:, part])
    return _mix(state + step)


def _uniform(bits: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    return (_shift_right(bits, 11).double() + 0.5) / (1 << 53)


def keyed_uniform(keys: Int[Tensor, "batch key"], step: int) -> Float[Tensor, "batch"]:
    """Noise between 0 and 1 for keys at one step, apart from what tokens are drawn by."""
    return _uniform(_mix(_mix(_state(keys, step))))


def keyed_gumbel(
    keys: Int[Tensor, "batch 3"], step: int, vocab_size: int
) -> Float[Tensor, "batch vocab"]:
    """Standard Gumbel noise for (seed, problem, sample) keys at one step, per token id."""
    tokens = torch.arange(vocab_size, device=keys.device)
    return _gumbel(_uniform(_mix(_state(keys, step)[:, None] ^ _mix(tokens))))


def _gumbel(uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return -torch.log(-torch.log(uniform)).float()


def keyed_draw(
    logits: Float[Tensor, "batch vocab"], keys: Int[Tensor, "batch 3"], step: int
) -> Int[Tensor, "batch"]:
    """Tokens drawn from the softmax of logits, by noise of (seed, problem, sample) keys."""
    vocab = logits.shape[-1]
    if vocab <= _TOP:
        return (logits + keyed_gumbel(keys, step, vocab)).argmax(-1)
    state = _state(keys, step)
    likeliest, tokens = logits.topk(_TOP, dim=-1, sorted=False)
    best, place = (likeliest + _gumbel(_uniform(_mix(state[:, None] ^ _mix(tokens))))).max(-1)
    chosen = tokens.gather(1, place[:, None])[:, 0]
    # One mix less is `keyed_uniform`'s.
    lead = best - _gumbel(_uniform(_mix(_mix(_mix(state)))))
    # Elsewhere all others together are too unlikely, whatever they are.
    rows = (likeliest.amin(-1) + math.log(vocab - _TOP) > lead).nonzero()[:, 0]
    others = logits[rows].scatter(1, tokens[rows], float("-inf"))
    drawn = (others + keyed_gumbel(keys[rows], step, vocab)).argmax(-1)
    chosen[rows] = torch.where(others.logsumexp(-1) > lead[rows], drawn, chosen[rows])
    return chosen


def keyed_sampler(
    keys: Int[Tensor, "prompts 3"], temperature: float
) -> Callable[[Float[Tensor, "batch vocab"], Int[Tensor, "batch"], int], Int[Tensor, "batch"]]:
    """A sampler for generation whose noise is keyed by (seed, problem, sample) of each row.

    Args:
        keys: One key a prompt.
        temperature: Positive; small values approach greedy decoding.
    """

    def sample(
        logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, "batch"], step: int
    ) -> Int[Tensor, "batch"]:
        return keyed_draw(logits / temperature, keys.to(logits.device)[rows], step)

    return sample
