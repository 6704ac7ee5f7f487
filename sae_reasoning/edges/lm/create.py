"""New small models and tokenizers, and how a model is saved."""

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from sae_reasoning.edges.lm.load import LanguageModel, ModelFacts, resolve_device


@dataclass(frozen=True)
class SpecialTokens:
    """Padding, the beginning of every prompt, and the end of every response."""

    pad: str
    bos: str
    eos: str


@dataclass(frozen=True)
class Shape:
    """Size of a new model.

    Attributes:
        d_model: Width of the residual stream.
        num_layers: Decoder blocks.
        num_heads: Attention heads.
        d_mlp: Width of the MLPs.
        max_positions: Longest text, in tokens.
    """

    d_model: int
    num_layers: int
    num_heads: int
    d_mlp: int
    max_positions: int = 512


def word_tokenizer(words: Sequence[str], special: SpecialTokens) -> PreTrainedTokenizerFast:
    """A fast tokenizer with one token a word of space-separated text; `words` hold the special."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special.pad))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast(tokenizer, special)


def bpe_tokenizer(
    texts: Iterable[str], vocab_size: int, special: SpecialTokens
) -> PreTrainedTokenizerFast:
    """A fast byte-pair tokenizer trained on `texts`; merges stay within words.

    A word begins with a mark of the space before it, so a text and its continuation are encoded
    apart as they would be together.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[special.pad, special.bos, special.eos],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _fast(tokenizer, special)


def _fast(tokenizer: Tokenizer, special: SpecialTokens) -> PreTrainedTokenizerFast:
    """With BOS before every prompt."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special.bos} $A",
        special_tokens=[(special.bos, tokenizer.token_to_id(special.bos))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special.pad,
        bos_token=special.bos,
        eos_token=special.eos,
        clean_up_tokenization_spaces=False,
    )


def new_llama(shape: Shape, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A new Llama with tied embeddings."""
    config = LlamaConfig(**_common(shape, tokenizer), num_key_value_heads=shape.num_heads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def new_gpt_neox(shape: Shape, tokenizer: PreTrainedTokenizerFast, seed: int) -> GPTNeoXForCausalLM:
    """A new GPT-NeoX: attention and MLP side by side, layer norms with biases, tied embeddings."""
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    config = GPTNeoXConfig(**_common(shape, tokenizer), rope_parameters=rope)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(config)


def _common(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Options that every architecture calls the same."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_mlp,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def as_learner(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str, device: str
) -> LanguageModel:
    """A new model on a device, to be trained."""
    target = torch.device(resolve_device(device))
    nn.Module.to(model, target)
    facts = ModelFacts(
        name=name,
        num_layers=model.config.num_hidden_layers,
        d_model=model.config.hidden_size,
        fingerprint="",
        tokenizer_fingerprint="",
    )
    return LanguageModel(model, tokenizer, facts, target)


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, dtype: torch.dtype
) -> None:
    """Save weights as `dtype` and the tokenizer, in the ordinary Hugging Face layout."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = copy.deepcopy(model)
    nn.Module.to(saved, dtype)
    saved.config.dtype = dtype
    saved.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        os.chmod(path, 0o644)
