"""How much each contest does."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Contender = Callable[[], int]
"""Does its work once and returns how much it was (tokens, steps)."""

BEHAVIOURS = tuple(f"behaviour {number}" for number in range(6))
"""Whose tokens latents are ranked by."""


@dataclass(frozen=True)
class Sizes:
    """How much each contest does.

    Attributes:
        repeats: Turns of each contender, after one that isn't counted.
        d_model: Width of the model that reads.
        num_layers: Its blocks.
        layer: The one whose output is kept.
        num_sequences: Read at a time, of 16 to 256 tokens.
        token_budget: Tokens of one pass, padding included.
        d_sae: Latents of the SAEs that train.
        k: Active latents a token.
        batch_size: Tokens a step.
        steps: A turn.
        rows: Generated at a time.
        new_tokens: A row.
        edited_d_model: Width of the model that generates, four blocks deep.
        edited_d_sae: Latents of the dictionaries that edit, after two of its blocks.
        edited_latents: Latents of one edit, by layer.
        grid_conditions: Conditions of a grid.
        grid_problems: Its problems, each under every condition.
        ranked_tokens: Tokens ranked on, with six behaviours; and ten times as many.
        narrow: Width of the activations where ranking is held against itself.
        peer_latents: Latents of which scikit-learn computes the figures.
        grown_repeats: Turns on ten times as many tokens.
        large_vocabulary: Words of the model that shows what drawing a token costs.
        large_d_model: Its width.
        large_layers: Its blocks.
        large_rows: It generates at a time.
        large_tokens: A row.
    """

    repeats: int = 5
    d_model: int = 512
    num_layers: int = 8
    layer: int = 3
    num_sequences: int = 48
    token_budget: int = 4096
    d_sae: int = 2048
    k: int = 32
    batch_size: int = 1024
    steps: int = 20
    rows: int = 128
    new_tokens: int = 64
    edited_d_model: int = 128
    edited_d_sae: int = 512
    edited_latents: int = 5
    grid_conditions: int = 64
    grid_problems: int = 32
    ranked_tokens: int = 100_000
    narrow: int = 64
    peer_latents: int = 8
    grown_repeats: int = 2
    large_vocabulary: int = 151_936
    large_d_model: int = 896
    large_layers: int = 24
    large_rows: int = 64
    large_tokens: int = 4

    def lines(self) -> dict[str, str]:
        """What will be measured, in words."""
        return {
            "reading": f"{self.num_sequences} sequences, block {self.layer} of {self.num_layers}, "
            f"width {self.d_model}",
            "training": f"{self.d_model} -> {self.d_sae} latents, k={self.k}, {self.steps} steps "
            f"of {self.batch_size} tokens",
            "editing": f"{self.rows} rows of {self.new_tokens} tokens, width "
            f"{self.edited_d_model}, two layers; a grid of {self.grid_conditions} conditions and "
            f"{self.grid_problems} problems",
            "lockstep": "as many rows of both models",
            "drawing": f"{self.large_rows} rows of {self.large_tokens} tokens out of "
            f"{self.large_vocabulary:,} words, width {self.large_d_model}, {self.large_layers} "
            "blocks",
            "ranking": f"{self.ranked_tokens:,} tokens, width {self.d_model}, {self.d_sae:,} "
            f"latents, k={self.k}, {len(BEHAVIOURS)} behaviours; ten times as many of width "
            f"{self.narrow}",
            "turns": f"{self.repeats} each ({self.grown_repeats} where tokens are ten times as "
            f"many), {torch.get_num_threads()} threads",
        }
