"""Random models, sequences and stores, made on the spot."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from sae_reasoning.bench.sizes import Sizes
from sae_reasoning.config import ModelConfig
from sae_reasoning.edges.activation_format import StoreAttributes
from sae_reasoning.edges.activation_layout import Layout, fill_shards
from sae_reasoning.edges.activation_store import StoreWriter
from sae_reasoning.edges.lm.create import (
    Shape,
    SpecialTokens,
    new_llama,
    save_model,
    word_tokenizer,
)
from sae_reasoning.edges.lm.load import LanguageModel, load
from sae_reasoning.edges.lm.read import read_residuals
from sae_reasoning.tasks.search import grammar


def language_model(
    folder: Path, d_model: int, num_layers: int, device: str, *, max_positions: int
) -> LanguageModel:
    """A random Llama that speaks the organisms' words, through the code path of any model."""
    words = grammar.vocabulary()
    tokenizer = word_tokenizer(words, SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS))
    heads = max(d_model // 64, 2)
    shape = Shape(d_model, num_layers, heads, 3 * d_model, max_positions)
    model = new_llama(shape, tokenizer, seed=0)
    save_model(model, tokenizer, folder, torch.float32)
    return load(ModelConfig(path=str(folder)), device)


def random_sequences(sizes: Sizes, vocab_size: int) -> list[list[int]]:
    """Random token ids, of 16 to 256 tokens each."""
    rng = random.Random(0)
    return [
        [rng.randrange(3, vocab_size) for _ in range(rng.randint(16, 256))]
        for _ in range(sizes.num_sequences)
    ]


def write_store(
    folder: Path, lm: LanguageModel, sequences: Sequence[Sequence[int]], sizes: Sizes
) -> None:
    """What `cache` does for one reader and layer."""
    layout = Layout.plan([len(s) for s in sequences], [1] * len(sequences), 65536)
    writer = StoreWriter(
        folder,
        StoreAttributes(
            model=lm.facts.name,
            revision="",
            model_fingerprint=lm.facts.fingerprint,
            tokenizer_fingerprint=lm.facts.tokenizer_fingerprint,
            traces_fingerprint="bench",
            layer=sizes.layer,
            dtype="float16",
            d_model=lm.facts.d_model,
            num_traces=len(sequences),
            num_tokens=layout.num_tokens,
            num_shards=len(layout.shards),
        ),
        [str(number) for number in range(len(sequences))],
    )
    read = partial(read_residuals, lm, layers=[sizes.layer], token_budget=sizes.token_budget)
    for _ in fill_shards({sizes.layer: writer}, layout, sequences, read):
        pass
