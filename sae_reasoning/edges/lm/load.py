"""Causal language models by folder or hub id, or unpacked from a GGUF file."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.artifacts import fingerprint, fingerprint_files
from sae_reasoning.edges.lm.gguf import content_of, unpacked

# Weights load in a moment; bars for it drown a stage's own progress. Downloads keep theirs.
transformers_logging.disable_progress_bar()
# Newer versions would have it called `cache`, which those that are supported too don't know.
warnings.filterwarnings("ignore", message="`past_key_values` is deprecated")

_TOKENIZER_FILES = "tokenizer*"
_WEIGHT_FILES = ("config.json", "*.safetensors")


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before its weights are loaded.

    Attributes:
        name: Folder name or hub id, or the GGUF file's name.
        num_layers: Decoder blocks.
        d_model: Width of the residual stream.
        fingerprint: Changes with config or weights.
        tokenizer_fingerprint: Changes with the tokenizer's files.
    """

    name: str
    num_layers: int
    d_model: int
    fingerprint: str
    tokenizer_fingerprint: str


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, with its fast tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: ModelFacts
    device: torch.device

    def decode(self, token_ids: list[int]) -> str:
        """Text of a response, without special tokens."""
        return cast(str, self.tokenizer.decode(token_ids, skip_special_tokens=True))


def describe(config: ModelConfig) -> ModelFacts:
    """Facts of a model from its config and file hashes; no weights are loaded.

    A GGUF file that is met for the first time is unpacked.

    Raises:
        ConfigError: There is no such folder or file, or it isn't a model.
    """
    folder = Path(config.path)
    name = folder.name if folder.is_dir() else config.path
    if config.gguf_file:
        name = Path(config.gguf_file).stem
        weights = fingerprint([content_of(config), "gguf"])
        tokenizer = fingerprint_files(unpacked(config), _TOKENIZER_FILES)
    elif folder.is_dir():
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"{config.named} holds no config.json; name a folder written by save_pretrained"
            )
        weights = fingerprint([fingerprint_files(folder, p) for p in _WEIGHT_FILES])
        tokenizer = fingerprint_files(folder, _TOKENIZER_FILES)
    elif folder.is_absolute() or config.path.count("/") != 1 or folder.parent.is_dir():
        raise ConfigError(
            f"{config.named} is no folder; name a model folder, or a hub id (owner/name)"
        )
    else:
        weights = fingerprint([config.path, config.revision])
        tokenizer = weights
    try:
        hf_config = AutoConfig.from_pretrained(**_source(config)).get_text_config()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{config.named} can't be read ({reason}); name a model folder, or a hub "
            "id while the hub can be reached"
        ) from error
    return ModelFacts(
        name=name,
        num_layers=hf_config.num_hidden_layers,
        d_model=hf_config.hidden_size,
        fingerprint=weights,
        tokenizer_fingerprint=tokenizer,
    )


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerFast:
    """A model's tokenizer.

    Raises:
        ConfigError: It can't be read, or can't say which characters a token covers.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**_source(config))
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{config.named} has no readable tokenizer ({reason}); save one beside it"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{config.named} has a tokenizer without offsets, so spans can't be "
            "aligned; save its fast version (tokenizer.json) beside it"
        )
    return cast(PreTrainedTokenizerFast, tokenizer)


def _source(config: ModelConfig) -> dict[str, Any]:
    """Where transformers finds a model, in its own arguments."""
    if config.gguf_file:
        return {"pretrained_model_name_or_path": unpacked(config)}
    return {
        "pretrained_model_name_or_path": config.path,
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
    }


def encode_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """Token ids of a prompt, with BOS where the tokenizer adds one and no EOS."""
    ids = tokenizer(prompt).input_ids
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def encode_question(tokenizer: PreTrainedTokenizerFast, prompt: str, in_turns: bool) -> list[int]:
    """Token ids of a prompt; `in_turns` as a user's turn with the assistant's opened behind it.

    Raises:
        ConfigError: The tokenizer has no chat template.
    """
    if not in_turns:
        return encode_prompt(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"traces.chat_template=true, but the tokenizer of {tokenizer.name_or_path} has no chat "
            "template; set it to false"
        )
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    # The template writes BOS itself, where there is one.
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def encode_response(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a response, without special tokens, and each token's characters."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return encoded.input_ids, [tuple(offset) for offset in encoded.offset_mapping]


def word_junction(tokenizer: PreTrainedTokenizerFast) -> Callable[[int, int], bool]:
    """Whether white space stands between two tokens, whichever of them holds it."""

    @cache
    def says(*token_ids: int) -> str:
        return str(tokenizer.decode(list(token_ids)))

    def is_junction(before: int, after: int) -> bool:
        return says(before, after) != says(before).rstrip() + says(after).lstrip()

    return is_junction


def expresses(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether every character of a text is left in its tokens, white space aside."""
    said = tokenizer.decode(
        encode_response(tokenizer, text)[0],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return "".join(str(said).split()) == "".join(text.split())


def continuation_ids(lm: LanguageModel, text: str) -> tuple[int, ...]:
    """Token ids of words that follow others."""
    before, _ = encode_response(lm.tokenizer, "so")
    both, _ = encode_response(lm.tokenizer, f"so {text}")
    return tuple(both[len(before) :])


def load(config: ModelConfig, device: str = "auto") -> LanguageModel:
    """Load a model for reading and generating.

    Raises:
        ConfigError: Folder, weights or tokenizer can't be read.
    """
    facts = describe(config)
    tokenizer = load_tokenizer(config)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **_source(config), dtype=getattr(torch, config.dtype), output_loading_info=True
        )
    except Exception as error:  # Cut-short weights surface as whatever their reader raises.
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{config.named} has unreadable weights ({type(error).__name__}: {reason}); "
            "save the model again"
        ) from error
    model, report = loaded
    if absent := sorted(report["missing_keys"]):
        raise ConfigError(
            f"{config.named} lacks {len(absent)} of its weights ({absent[0]}, …), which would be "
            "drawn by lot; save the model again, whole"
        )
    target = torch.device(resolve_device(device))
    nn.Module.to(model, target)
    return LanguageModel(model.eval().requires_grad_(False), tokenizer, facts, target)


def resolve_device(device: str) -> str:
    """`auto` as cuda where there is one, else cpu."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, in order; their outputs are the residual stream.

    Raises:
        ConfigError: The architecture keeps them where this project doesn't know.
    """
    for path in ("model.layers", "gpt_neox.layers", "transformer.h", "model.language_model.layers"):
        module: nn.Module | None = model
        for name in path.split("."):
            module = getattr(module, name, None)
        if isinstance(module, nn.ModuleList):
            return module
    raise ConfigError(
        f"model of class {type(model).__name__} keeps no known list of decoder blocks; use a "
        "Llama-, Qwen-, Gemma-, GPT-NeoX- or GPT-2-like model"
    )


def random_twin(lm: LanguageModel, seed: int) -> LanguageModel:
    """A model of the same architecture with newly initialised weights: a baseline reader."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        twin = AutoModelForCausalLM.from_config(copy.deepcopy(lm.model.config))
    twin = twin.to(lm.device, lm.model.dtype).eval().requires_grad_(False)
    facts = ModelFacts(
        name=f"{lm.facts.name}-random-{seed}",
        num_layers=lm.facts.num_layers,
        d_model=lm.facts.d_model,
        fingerprint=fingerprint([lm.facts.fingerprint, "random", seed]),
        tokenizer_fingerprint=lm.facts.tokenizer_fingerprint,
    )
    return LanguageModel(twin, lm.tokenizer, facts, lm.device)
