"""A new model with byte-level pairs, as most models have, trained on a few sentences."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sae_reasoning.edges.lm.generate import Sampler
from sae_reasoning.edges.lm.load import LanguageModel, ModelFacts, encode_response

TEXTS = [
    "So 3 + 4 = 7. Wait, is 7.5 right?\n\nNo. Let me check that again. Let me think.\n",
    "Yes — 🤔 wait. Hmm, naïve. The answer is 42.\n\nThe answer is 42.",
    "The question is this. He said 'yes.' Then the answer is 12.\n\n",
]
SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|custom_end|>"]


def byte_level_tokenizer(
    vocab_size: int = 400,
    eos: str | None = "</s>",
    special: Sequence[str] = SPECIAL,
    texts: Sequence[str] = TEXTS,
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(special),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos, pad_token="<pad>"
    )


def new_lm(tokenizer: PreTrainedTokenizerFast, **options: object) -> LanguageModel:
    """A Llama of two blocks."""
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **options,
        }
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    facts = ModelFacts("bytes", 2, 16, fingerprint="", tokenizer_fingerprint="")
    return LanguageModel(model, tokenizer, facts, torch.device("cpu"))


def saying(*scripts: Sequence[int]) -> Sampler:
    """A sampler that writes what stands in the script of each row, and then its last token."""

    def sample(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        own = [scripts[row] for row in rows.tolist()]
        return torch.tensor([script[min(step, len(script) - 1)] for script in own])

    return sample


def ids(lm: LanguageModel, text: str) -> list[int]:
    return encode_response(lm.tokenizer, text)[0]
