"""Generation: against the library's own, shared among processes, and with edits of its rows.

Edits are those of one batch, most of its rows with one of their own; and of a grid, every problem
under every condition, cut into batches.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae_reasoning.bench.material import language_model
from sae_reasoning.bench.sizes import Contender, Sizes
from sae_reasoning.config import SaeConfig
from sae_reasoning.edges.lm.generate import generate, padded_left
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.edges.workers import num_workers
from sae_reasoning.steering.edits import NO_EDIT, Intervention, LatentChange, RowEdits
from sae_reasoning.steering.noise import keyed_sampler


def editors(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Generation by others and by us, with edits and without, of one batch and of a grid.

    Amounts are tokens.
    """
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
    rng = random.Random(0)
    distinct = [
        [rng.randrange(3, len(lm.tokenizer)) for _ in range(rng.randint(80, 120))]
        for _ in range(max(sizes.rows, sizes.grid_problems))
    ]

    def roll_out(
        prompts: Sequence[list[int]],
        batch_size: int,
        edits: Mapping[int, Any] | None = None,
        shared: bool = False,
    ) -> int:
        rollouts = generate(
            lm,
            prompts,
            sampler=keyed_sampler(torch.tensor([[0, row, 0] for row in range(len(prompts))]), 1.0),
            max_new_tokens=sizes.new_tokens,
            batch_size=batch_size,
            edits=edits,
            shared=shared,
        )
        return sum(len(rollout.token_ids) for rollout in rollouts)

    few = _interventions(sizes, layers, behaviours=3)
    which = torch.arange(sizes.rows) % len(few)

    def edit() -> int:
        edits = RowEdits(few, which, dictionaries).by_layer
        return roll_out(distinct[: sizes.rows], sizes.rows, edits)

    def plain() -> int:
        return roll_out(distinct[: sizes.rows], sizes.rows)

    def peer() -> int:
        return _sampled_by_transformers(lm, distinct[: sizes.rows], sizes.new_tokens)

    many = _interventions(sizes, layers, behaviours=sizes.grid_conditions)[: sizes.grid_conditions]
    problems = distinct[: sizes.grid_problems]
    cells = [(number, prompt) for number in range(len(many)) for prompt in problems]
    prompts = [prompt for _, prompt in cells]
    batch_size = _fastest(lambda size: roll_out(prompts[:size], size), len(prompts))

    def grid() -> int:
        made = 0
        for start in range(0, len(cells), batch_size):
            batch = cells[start : start + batch_size]
            conditions = sorted({number for number, _ in batch})
            edits = RowEdits(
                [many[number] for number in conditions],
                torch.tensor([conditions.index(number) for number, _ in batch]),
                dictionaries,
            )
            made += roll_out([prompt for _, prompt in batch], len(batch), edits.by_layer)
        return made

    def plain_grid() -> int:
        return sum(
            roll_out(prompts[start : start + batch_size], batch_size)
            for start in range(0, len(prompts), batch_size)
        )

    processes = num_workers(lm.device, len(prompts))

    def shared() -> int:
        return roll_out(prompts, -(-batch_size // processes), shared=True)

    contest = {
        "edit": edit,
        "generate": plain,
        "transformers": peer,
        "grid": grid,
        "plain_grid": plain_grid,
    }
    return contest | ({"shared": shared} if processes > 1 else {})


def _sampled_by_transformers(
    lm: LanguageModel, prompts: Sequence[list[int]], new_tokens: int
) -> int:
    token_ids, mask = padded_left(lm, prompts)
    model: Any = lm.model
    made = model.generate(
        token_ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new_tokens,
        eos_token_id=lm.tokenizer.eos_token_id,
        pad_token_id=lm.tokenizer.pad_token_id,
    )[:, token_ids.shape[1] :]
    return int(((made == lm.tokenizer.eos_token_id).cumsum(1) == 0).sum())


def _fastest(roll_out: Callable[[int], int], most: int) -> int:
    """Rows at once with which plain generation makes most tokens a second."""
    rates = {}
    for size in sorted({min(size, most) for size in (64, 128, 256, 512)}):
        started = time.perf_counter()
        made = roll_out(size)
        rates[made / (time.perf_counter() - started)] = size
    return rates[max(rates)]


def _interventions(sizes: Sizes, layers: Sequence[int], behaviours: int) -> list[Intervention]:
    """As in `ablate`: no edit, the edits of some behaviours, and their controls."""
    rng = random.Random(0)

    def latents() -> list[int]:
        return rng.sample(range(sizes.edited_d_sae), sizes.edited_latents)

    found = [NO_EDIT]
    for _ in range(behaviours):
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
