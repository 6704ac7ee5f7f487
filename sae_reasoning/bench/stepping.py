"""Lockstep: a base and another model that reads along, against both generating by themselves."""

import random
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sae_reasoning.bench.material import language_model
from sae_reasoning.bench.sizes import Contender, Sizes
from sae_reasoning.edges.lm.generate import Sampler, generate
from sae_reasoning.edges.lm.lockstep import lockstep
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.steering.policies import RANDOM, Policy, RowPolicies
from sae_reasoning.steering.readout import Foreseen
from sae_reasoning.steering.vectors import Steer

_SHARE = 0.1
"""Of tokens that are steered: about as many as an oracle steers where models differ."""


def steppers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Both models in lockstep, and one after the other; amounts are tokens of one of them."""
    room = 256 + sizes.new_tokens
    base, other = (
        language_model(scratch / name, sizes.edited_d_model, 4, device, max_positions=room)
        for name in ("first", "second")
    )
    rng = random.Random(0)
    prompts = [
        [rng.randrange(3, len(base.tokenizer)) for _ in range(rng.randint(80, 120))]
        for _ in range(sizes.rows)
    ]
    keys = torch.tensor([[0, row, 0] for row in range(sizes.rows)])

    def sampler() -> Sampler:
        draw = keyed_sampler(keys, 1.0)

        def go_on(logits: Tensor, rows: Tensor, step: int) -> Tensor:
            # No rollout ends early, or contenders would have other batches.
            return draw(logits, rows, step).clamp_min(base.tokenizer.eos_token_id + 1)

        return go_on

    def alone() -> int:
        made = 0
        for lm in (base, other):
            made = sum(
                len(rollout.token_ids)
                for rollout in generate(
                    lm,
                    prompts,
                    sampler=sampler(),
                    max_new_tokens=sizes.new_tokens,
                    batch_size=sizes.rows,
                )
            )
        return made

    def together() -> int:
        def unasked(_residuals: Mapping[int, Tensor]) -> Foreseen:
            raise AssertionError("random times ask nobody")

        policies = RowPolicies(
            [Policy(RANDOM, shares=[_SHARE], vectors=[Steer(1, torch.ones(sizes.edited_d_model))])],
            torch.zeros(sizes.rows, dtype=torch.int64),
            keys,
            num_behaviours=2,
            d_model=sizes.edited_d_model,
            by_rl=lambda residuals: unasked(residuals).behaviours,
            by_base=unasked,
        )
        rollouts = lockstep(
            base,
            other,
            prompts,
            policy=policies,
            layers=[1, 2],
            sampler=sampler(),
            max_new_tokens=sizes.new_tokens,
            batch_size=sizes.rows,
        )
        return sum(len(rollout.token_ids) for rollout in rollouts)

    return {"lockstep": together, "both_alone": alone}
