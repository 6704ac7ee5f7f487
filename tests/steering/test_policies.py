"""Who steers when: by hand-made logits and latents."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from sae_reasoning.steering.policies import (
    ALWAYS,
    DIFFERS,
    GATE,
    NEVER,
    ORACLE,
    RANDOM,
    RANDOM_DIFFERS,
    SCALE,
    SWAP,
    WRITE,
    Policy,
    RowPolicies,
    disagreement,
    threshold_for,
)
from sae_reasoning.steering.readout import Foreseen
from sae_reasoning.steering.vectors import Steer

A, B, C = [4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 1.0, 0.0]
"""Logits: sure of token 0, sure of token 1, leaning to token 1."""


@dataclass
class Seen:
    logits: Tensor
    residuals: dict[int, Tensor] = field(default_factory=dict)


def says(residuals: dict[int, Tensor]) -> Tensor:
    """Two behaviours; which one starts stands in the residual."""
    return torch.eye(3)[residuals[0][:, 0].long()].clamp_min(1e-9).log()


def foresees(residuals: dict[int, Tensor]) -> Foreseen:
    return Foreseen(says(residuals), residuals[0][:, 1])


def decide(
    policies: list[Policy],
    base: list[list[float]],
    rl: list[list[float]],
    resid: list[list[float]],
    steps: int = 1,
):
    rows = torch.arange(len(base))
    own = RowPolicies(
        policies,
        rows % len(policies),
        torch.stack([torch.zeros_like(rows), rows, torch.zeros_like(rows)], dim=1),
        num_behaviours=3,
        d_model=2,
        by_rl=says,
        by_base=foresees,
    )
    seen = [Seen(torch.tensor(logits), {0: torch.tensor(resid)}) for logits in (base, rl)]
    return own, [own(rows, step, *seen) for step in range(steps)]


VECTORS = [Steer(1, torch.tensor([1.0, 0.0])), Steer(2, torch.tensor([0.0, 2.0]))]


def test_the_oracle_steers_to_the_named_behaviour_where_models_differ_enough() -> None:
    divergence = float(disagreement(torch.tensor(A), torch.tensor(C))[1])
    policy = Policy(ORACLE, threshold=divergence + 0.1, vectors=VECTORS)
    _, (found,) = decide(
        [policy],
        base=[A, A, A, A],
        rl=[B, B, A, C],  # differ, differ, agree, differ too little
        resid=[[2.0, 0], [0.0, 0], [2.0, 0], [2.0, 0]],  # named: second, none, second, second
    )
    assert found.layer.tolist() == [2, -1, -1, -1]
    assert found.change[0].tolist() == [0.0, 2.0]
    assert not found.is_swapped.any()


def test_divergence_is_of_the_rl_model_from_the_base() -> None:
    base, rl = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    differs, divergence = disagreement(base, rl)
    assert float(divergence) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert not differs or rl.argmax() != base.argmax()


def test_each_row_follows_its_own_policy() -> None:
    policies = [
        Policy(NEVER),
        Policy(ALWAYS, SWAP),
        Policy(DIFFERS, SWAP),
        Policy(ALWAYS, vectors=VECTORS),
        Policy(GATE, threshold=0.5, vectors=VECTORS),
        Policy(GATE, threshold=0.9, vectors=VECTORS),
    ]
    _, (found,) = decide(policies, base=[A] * 6, rl=[A] * 6, resid=[[1.0, 0.7]] * 6)
    assert found.is_swapped.tolist() == [False, True, False, False, False, False]
    assert found.layer.tolist() == [-1, -1, -1, 1, 1, -1]


def test_a_behaviour_without_a_vector_is_not_steered_to() -> None:
    policy = Policy(GATE, threshold=0.0, vectors=[None, VECTORS[1]])
    own, (found,) = decide([policy], base=[A, A], rl=[A, A], resid=[[1.0, 1.0], [2.0, 1.0]])
    assert found.layer.tolist() == [-1, 2]
    positions, decided = own.tally(torch.tensor([1, 1]))
    assert positions == ((), (0,))
    assert decided.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_an_opening_is_written_to_its_end_before_another_begins() -> None:
    policy = Policy(ORACLE, WRITE, threshold=-math.inf, words=[(7, 8, 9), (5,)])
    own, found = decide([policy], base=[A, A], rl=[B, B], resid=[[1.0, 0], [2.0, 0]], steps=4)
    written = torch.stack([decision.token for decision in found], dim=1)
    assert written.tolist() == [[7, 8, 9, 7], [5, 5, 5, 5]]
    positions, decided = own.tally(torch.tensor([4, 2]))
    assert positions == ((0, 1, 2, 3), (0, 1))
    # Three tokens of one opening are one decision; what comes after a row's end doesn't count.
    assert decided.tolist() == [[2, 2, 0], [0, 0, 2]]


def test_random_times_have_their_shares_and_depend_on_the_row_alone() -> None:
    policy = Policy(RANDOM, shares=(0.1, 0.3), vectors=VECTORS)
    count, steps = 400, 5
    own, found = decide([policy], [A] * count, [B] * count, [[0.0, 0.0]] * count, steps)
    _, decided = own.tally(torch.full((count,), steps))
    shares = decided.sum(0) / decided.sum()
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.1, 0.3]), atol=0.04, rtol=0)
    _, alone = decide([policy], [A] * 7, [B] * 7, [[0.0, 0.0]] * 7, steps)
    for together, apart in zip(found, alone, strict=True):
        assert together.layer[:7].tolist() == apart.layer.tolist()


def test_at_random_where_models_differ_nothing_is_swapped_where_they_agree() -> None:
    policy, count, steps = Policy(RANDOM_DIFFERS, SWAP, shares=(0.4, 0.0)), 400, 5
    _, found = decide([policy], [A] * count, [A, B] * (count // 2), [[0.0, 0.0]] * count, steps)
    swapped = torch.stack([decision.is_swapped for decision in found])
    assert not swapped[:, ::2].any()
    assert float(swapped[:, 1::2].float().mean()) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(
    ("budget", "threshold"), [(0.2, 3.0), (0.39, 3.0), (0.4, 2.0), (0.5, 2.0), (0.6, -math.inf)]
)
def test_a_threshold_keeps_candidates_within_the_budget(budget: float, threshold: float) -> None:
    scores = torch.tensor([3.0, 4.0, 2.0])
    # Of five positions two tenths are one.
    assert threshold_for(scores, 5, budget) == threshold
    assert (scores > threshold).sum() <= budget * 5


def test_tokens_are_swapped_where_models_differ_by_more_than_a_threshold() -> None:
    _, divergence = disagreement(torch.tensor([A, A]), torch.tensor([B, C]))
    between = float(divergence.mean())
    policies = [Policy(DIFFERS, SWAP, between), Policy(DIFFERS, SWAP, -math.inf)]
    base, resid = [A] * 6, [[0.0, 0.0]] * 6
    _, (found,) = decide(policies, base, [B, B, C, C, A, A], resid)
    assert found.is_swapped.tolist() == [True, True, False, True, False, False]


def test_the_length_alone_is_changed_at_the_same_places_as_the_vector_would_be_added() -> None:
    policies = [Policy(ALWAYS, SCALE, vectors=VECTORS), Policy(ALWAYS, vectors=VECTORS)]
    _, (found,) = decide(policies, [A, A], [A, A], [[2.0, 0], [2.0, 0]])
    assert found.is_scaled.tolist() == [True, False]
    assert found.layer.tolist() == [2, 2]
    assert found.change.tolist() == [[0.0, 2.0]] * 2
