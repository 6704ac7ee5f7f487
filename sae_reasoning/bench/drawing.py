"""Drawing tokens of a large vocabulary by keyed noise, against taking the likeliest."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.bench.sizes import Contender, Sizes
from sae_reasoning.edges.lm.create import (
    Shape,
    SpecialTokens,
    as_learner,
    new_llama,
    word_tokenizer,
)
from sae_reasoning.edges.lm.generate import Sampler, generate
from sae_reasoning.steering.noise import keyed_sampler

_PROMPT = 8
_TEMPERATURE = 0.1
"""At which a random model's likeliest tokens hold nearly all, as a language model's do at 1."""


def drawers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Generation by either sampler, of a model with the shape of Qwen2.5-0.5B; in tokens."""
    special = SpecialTokens("<pad>", "<bos>", "<eos>")
    words = [special.pad, special.bos, special.eos]
    words += [f"w{number}" for number in range(sizes.large_vocabulary - len(words))]
    tokenizer = word_tokenizer(words, special)
    shape = Shape(sizes.large_d_model, sizes.large_layers, 14, 4864 * sizes.large_d_model // 896)
    lm = as_learner(new_llama(shape, tokenizer, 0).eval(), tokenizer, "large vocabulary", device)
    prompts = [
        [1, *(3 + (97 * row + 31 * place) % (len(words) - 3) for place in range(_PROMPT))]
        for row in range(sizes.large_rows)
    ]
    keys = torch.tensor([[0, row, 0] for row in range(len(prompts))])

    def likeliest(
        logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, "batch"], step: int
    ) -> Int[Tensor, "batch"]:
        return logits.argmax(-1)

    def run(sampler: Sampler) -> int:
        def go_on(logits: Tensor, rows: Tensor, step: int) -> Tensor:
            # No rollout ends early, or contenders would have other batches.
            return sampler(logits, rows, step).clamp_min(3)

        rollouts = generate(
            lm,
            prompts,
            sampler=go_on,
            max_new_tokens=sizes.large_tokens,
            batch_size=len(prompts),
        )
        return sum(len(rollout.token_ids) for rollout in rollouts)

    return {
        "drawn": lambda: run(keyed_sampler(keys, _TEMPERATURE)),
        "likeliest": lambda: run(likeliest),
    }
