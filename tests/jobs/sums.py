"""A random pair with byte-level tokens and a chat template, and sums for it to answer."""

import json
from pathlib import Path

import torch
from byte_level import byte_level_tokenizer
from tiny_models import SHAPE

from sae_reasoning.config import Config, ModelConfig, PairConfig
from sae_reasoning.edges.lm.create import new_llama, save_model


def pose_sums(cfg: Config, folder: Path) -> None:
    """Make a pair, write a file of sums with their answers, and have a config name both."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "<s>{{ messages[0].content }}\n"
    models = []
    for seed, name in enumerate(("base", "rl")):
        save_model(new_llama(SHAPE, tokenizer, seed), tokenizer, folder / name, torch.float32)
        models.append(ModelConfig(path=str(folder / name), chat_template=True))
    sums = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(2, 10)]
    source = folder / "sums.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in sums))
    cfg.pair = PairConfig(name="natural", base=models[0], rl=models[1])
    cfg.traces.source = str(source)
