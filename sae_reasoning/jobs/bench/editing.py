"""Editing: generation in which most rows undergo an edit of their own, against none."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae_reasoning.config import SaeConfig
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.jobs.bench.material import language_model
from sae_reasoning.jobs.bench.sizes import Contender, Sizes
from sae_reasoning.steering.edits import NO_EDIT, Intervention, LatentChange, RowEdits
from sae_reasoning.steering.noise import keyed_sampler


def editors(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Generation with edits and without; amounts are tokens."""
    lm = language_model(
        scratch / "writer", sizes.edited_d_model, 4, device, max_positions=256 + sizes.new_tokens
    )
    layers = (1, 2)
    dictionaries = {}
    for layer in layers:
        config = SaeConfig(d_sae=sizes.edited_d_sae, k=min(16, sizes.edited_d_sae))
        sae = build_training_sae(
            config, d_in=sizes.edited_d_model, seed=layer, steps=1, device=lm.device
        )
        dictionary = finish(sae, 1.0)
        dictionaries[layer] = (dictionary.encode_sparse, dictionary.W_dec)
    interventions = _interventions(sizes, layers)
    rng = random.Random(0)
    prompts = [
        [rng.randrange(3, len(lm.tokenizer)) for _ in range(rng.randint(80, 120))]
        for _ in range(sizes.rows)
    ]
    keys = torch.tensor([[0, row, 0] for row in range(sizes.rows)])
    which = torch.arange(sizes.rows) % len(interventions)

    def roll_out(edits: Mapping[int, Any] | None = None) -> int:
        rollouts = generate(
            lm,
            prompts,
            sampler=keyed_sampler(keys, 1.0),
            max_new_tokens=sizes.new_tokens,
            batch_size=sizes.rows,
            edits=edits,
        )
        return sum(len(rollout.token_ids) for rollout in rollouts)

    def edit() -> int:
        return roll_out(RowEdits(interventions, which, dictionaries).by_layer)

    return {"edit": edit, "generate": roll_out}


def _interventions(sizes: Sizes, layers: Sequence[int]) -> list[Intervention]:
    """As in `ablate`: no edit, the edits of three behaviours, and their controls."""
    rng = random.Random(0)

    def latents() -> list[int]:
        return rng.sample(range(sizes.edited_d_sae), sizes.edited_latents)

    found = [NO_EDIT]
    for _ in range(3):
        ablated = {layer: LatentChange.ablate(latents()) for layer in layers}
        matched = {layer: LatentChange.ablate(latents()) for layer in layers}
        clamped = {
            layer: LatentChange.clamp(latents(), [4.0] * sizes.edited_latents) for layer in layers
        }
        along = {
            layer: nn.functional.normalize(torch.randn(sizes.edited_d_model), dim=0)
            for layer in layers
        }
        found += [
            Intervention(ablated),
            Intervention(clamped),
            Intervention(matched, norm_of=ablated),
            Intervention(norm_of=ablated, along=along),
        ]
    return found
