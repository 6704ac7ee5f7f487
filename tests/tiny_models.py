"""Real models of seconds: random Llamas and GPT-NeoXes, and a pair that babbles."""

import random
from pathlib import Path

import torch
from byte_level import byte_level_tokenizer
from transformers import (
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sae_reasoning.config import PretrainConfig
from sae_reasoning.edges.lm.create import (
    Shape,
    SpecialTokens,
    bpe_tokenizer,
    new_gpt_neox,
    new_llama,
    save_model,
    word_tokenizer,
)
from sae_reasoning.edges.lm.learn import plain_reader
from sae_reasoning.edges.lm.load import encode_prompt, encode_response
from sae_reasoning.organisms.corpus import CorpusConfig, Share, example, full_traces
from sae_reasoning.organisms.pretrain import Run, learn, pretrain
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import BehaviourRates

SPECIAL = SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS)
CHATML = (
    "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = Shape(d_model=32, num_layers=3, num_heads=2, d_mlp=64, max_positions=1024)


def save_tiny(folder: Path) -> None:
    """Two random Llamas of three blocks that speak the organisms' words."""
    for seed, name in enumerate(("tiny_base", "tiny_rl")):
        save_model(_new_tiny(seed), _tokenizer(), folder / name, torch.float32)


def save_tiny_neox(folder: Path) -> None:
    """Two random GPT-NeoXes of three blocks with a byte-pair tokenizer."""
    rng = random.Random(0)
    texts = [text for _ in range(40) for text in example(rng, full_traces(), 0.0)]
    tokenizer = bpe_tokenizer(texts, 260, SPECIAL)
    for seed, name in enumerate(("tiny_base", "tiny_rl")):
        save_model(new_gpt_neox(SHAPE, tokenizer, seed), tokenizer, folder / name, torch.float32)


def save_talking(folder: Path) -> None:
    """Two stages of one short training: they babble, with behaviours in it, and find nothing."""
    tokenizer, model = _tokenizer(), _new_tiny(0)
    config = PretrainConfig(
        steps=150,
        batch_size=12,
        lr=1e-2,
        warmup=10,
        checkpoint_every=150,
    )
    corpus = CorpusConfig(
        reading=Share(0.0, 0.0, hold=0.0, settle=1.0),
        thinking=Share(1.0, 1.0, hold=0.0, settle=1.0),
        rates=BehaviourRates(backtrack=0.9, weigh=0.9, verify=0.9),
    )
    for progress in pretrain(
        model,
        config,
        corpus,
        Run(0, plain_reader, tokenizer.pad_token_id, folder / "state"),
        encode_prompt=lambda text: encode_prompt(tokenizer, text),
        encode_response=lambda text: [
            *encode_response(tokenizer, text)[0],
            tokenizer.eos_token_id,
        ],
    ):
        name = {100: "talking_base", 150: "talking_rl"}.get(progress.step)
        if name:
            save_model(model, tokenizer, folder / name, torch.float32)


def sum_example(rng: random.Random, share: float) -> tuple[str, str]:
    """A sum of two digits, and a response of which a share leaves a wrong attempt."""
    one, two = rng.randrange(1, 5), rng.randrange(1, 5)
    total = one + two
    thought = f"I add {one} and {two}."
    if rng.random() < share:
        wrong = total + rng.choice((-1, 1))
        thought += f" That makes {wrong}. Wait, {wrong} is wrong. I try it again."
    return f"What is {one} + {two}?", f"{thought} That makes {total}. The answer is {total}."


def save_sums(folder: Path) -> None:
    """Two stages of one short training on sums in plain words: byte-level tokens, a chat template.

    Both write sentences that end and are right now and then; the second backtracks nearly always.
    """
    tokenizer = _sums_tokenizer()
    tokenizer.chat_template = "<s>{{ messages[0].content }}\n"
    _learn_sums(folder, tokenizer, new_llama(SHAPE, tokenizer, 0), [tokenizer.eos_token_id])


def save_qwen_sums(folder: Path) -> None:
    """The same of Qwen2's shape, with its chat template; texts end in one of two tokens."""
    tokenizer = _sums_tokenizer()
    tokenizer.chat_template = CHATML
    model = new_qwen(tokenizer, SHAPE.d_model, 0)
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    model.generation_config.eos_token_id = ends
    _learn_sums(folder, tokenizer, model, ends, lr=6e-3)


def new_qwen(tokenizer: PreTrainedTokenizerFast, d_model: int, seed: int) -> Qwen2ForCausalLM:
    """A random Qwen2 of three blocks."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def _sums_tokenizer() -> PreTrainedTokenizerFast:
    rng = random.Random(0)
    examples = [sum_example(rng, 0.5) for _ in range(60)]
    return byte_level_tokenizer(texts=[text for both in examples for text in both])


def _learn_sums(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    model: PreTrainedModel,
    ends: list[int],
    lr: float = 1e-2,
) -> None:
    steps = {80: "sums_base", 240: "sums_rl"}
    config = PretrainConfig(
        steps=max(steps), batch_size=12, lr=lr, warmup=10, checkpoint_every=max(steps)
    )
    for progress in learn(
        model,
        config,
        lambda rng, progress: sum_example(rng, 0.15 if progress < 1 / 3 else 0.9),
        Run(0, plain_reader, tokenizer.pad_token_id, folder / "state"),
        encode_prompt=lambda text: encode_prompt(tokenizer, text),
        encode_response=lambda text: [
            *encode_response(tokenizer, text)[0],
            ends[ord(text[-2]) % len(ends)],  # By the last figure of the answer.
        ],
        yield_every=40,
    ):
        if progress.step in steps:
            save_model(model, tokenizer, folder / steps[progress.step], torch.float32)


def _new_tiny(seed: int) -> LlamaForCausalLM:
    return new_llama(SHAPE, _tokenizer(), seed)


def _tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(grammar.vocabulary(), SPECIAL)
