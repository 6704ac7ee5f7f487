"""Causal language models by folder or hub id, or from a GGUF file; with an adapter or without."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.artifacts import fingerprint
from sae_reasoning.edges.lm.adapter import adapted
from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.ending import find_end_ids
from sae_reasoning.edges.lm.gguf import unpacked
from sae_reasoning.edges.lm.identity import identify, tokenizer_commit, weights_commit
from sae_reasoning.edges.lm.limits import context_of
from sae_reasoning.edges.lm.prompt import render_prompt, set_prompt
from sae_reasoning.edges.lm.refusals import first_line, require_whole

# Weights load in a moment; bars for it drown a stage's own progress. Downloads keep theirs.
transformers_logging.disable_progress_bar()
# Newer versions would have it called `cache`, which those that are supported too don't know.
warnings.filterwarnings("ignore", message="`past_key_values` is deprecated")


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before its weights are loaded.

    Attributes:
        name: Folder name or hub id, or the GGUF file's name.
        num_layers: Decoder blocks.
        d_model: Width of the residual stream.
        fingerprint: Changes with config or weights.
        tokenizer_fingerprint: Changes with the tokenizer's files.
        context: Tokens of the longest text that it was made for; None where nothing limits it.
        num_embeddings: Tokens that it has embeddings of; None where nobody says.
    """

    name: str
    num_layers: int
    d_model: int
    fingerprint: str
    tokenizer_fingerprint: str
    context: int | None = None
    num_embeddings: int | None = None


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, with its fast tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: ModelFacts
    device: torch.device

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end its turn, the tokenizer's EOS first; none where nothing says so."""
        config = self.model.config.get_text_config()
        return find_end_ids(self.tokenizer, config, self.model.generation_config)

    def decode(self, token_ids: list[int]) -> str:
        """Text of a response, without special tokens."""
        return decode(self.tokenizer, token_ids)


def describe(config: ModelConfig) -> ModelFacts:
    """Facts of a model from its config and file hashes; no weights are loaded.

    A GGUF file that is met for the first time is unpacked.

    Raises:
        ConfigError: There is no such folder or file, or it isn't a model.
    """
    found = identify(config)
    try:
        hf_config = AutoConfig.from_pretrained(**_source(config)).get_text_config()
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ConfigError(
            f"{config.named} can't be read ({reason}); name a model folder, or a hub "
            "id while the hub can be reached"
        ) from error
    return ModelFacts(
        name=found.name,
        num_layers=hf_config.num_hidden_layers,
        d_model=hf_config.hidden_size,
        fingerprint=found.fingerprint,
        tokenizer_fingerprint=found.tokenizer_fingerprint,
        context=context_of(hf_config),
        num_embeddings=getattr(hf_config, "vocab_size", None),
    )


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerFast:
    """A model's tokenizer; it has a chat template only where prompts are to be put into it.

    Raises:
        ConfigError: It can't be read, or can't say which characters a token covers, or has no chat
            template, or none that takes a question, where one is asked for.
    """
    source = _source(config)
    named = config.named
    if config.tokenizer:
        source = {
            "pretrained_model_name_or_path": config.tokenizer,
            "revision": tokenizer_commit(config),
            "trust_remote_code": config.trust_remote_code,
        }
        named = f"{config.option}.tokenizer={config.tokenizer}"
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError, ImportError) as error:
        reason = first_line(error)
        raise ConfigError(
            f"{named} has no readable tokenizer ({reason}); save one beside it"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{named} has a tokenizer without offsets, so spans can't be "
            "aligned; save its fast version (tokenizer.json) beside it"
        )
    set_prompt(cast(PreTrainedTokenizerFast, tokenizer), config.prompt)
    if not config.chat_template:
        tokenizer.chat_template = None
    elif not tokenizer.chat_template:
        raise ConfigError(
            f"{config.option}.chat_template=true, but the tokenizer of {named} has none; set it to "
            "false, or name a tokenizer that has one"
        )
    else:
        render_prompt(
            cast(PreTrainedTokenizerFast, tokenizer),
            "What is 2 plus 2?",
            f"{config.option}.chat_template",
        )
    return cast(PreTrainedTokenizerFast, tokenizer)


def said_configs(config: ModelConfig) -> tuple[Any, Any]:
    """A model's config, and its generation config if there is one; no weights are loaded."""
    source = _source(config)
    name, revision = source["pretrained_model_name_or_path"], source.get("revision") or "main"
    try:
        generation = GenerationConfig.from_pretrained(name, revision=revision)
    except OSError:
        generation = None
    return AutoConfig.from_pretrained(**source).get_text_config(), generation


def _source(config: ModelConfig) -> dict[str, Any]:
    """Where transformers finds a model, in its own arguments."""
    if config.gguf_file:
        return {"pretrained_model_name_or_path": unpacked(config)}
    return {
        "pretrained_model_name_or_path": config.path,
        "revision": weights_commit(config),
        "trust_remote_code": config.trust_remote_code,
    }


def encode_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """Token ids of a prompt, with BOS where the tokenizer adds one and no EOS.

    Args:
        tokenizer: With a chat template, the prompt is what a user says in it.
        prompt: What is asked, in the words for all models; the model gets it in its own.
    """
    rendered = render_prompt(tokenizer, prompt)
    if tokenizer.chat_template:
        # Some templates cut the white space at the end of what they open the response with, and
        # every one has its own BOS, so its text is encoded without.
        return tokenizer(rendered, add_special_tokens=False).input_ids
    ids = tokenizer(rendered).input_ids
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


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
        return str(tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def is_junction(before: int, after: int) -> bool:
        return says(before, after) != says(before).rstrip() + says(after).lstrip()

    return is_junction


def decode(tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int]) -> str:
    """Text of token ids, without special tokens, and with all the white space that they hold."""
    said = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return cast(str, said)


def expresses(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether every character of a text is left in its tokens, white space aside."""
    said = decode(tokenizer, encode_response(tokenizer, text)[0])
    return "".join(said.split()) == "".join(text.split())


def continuation_ids(lm: LanguageModel, text: str, before: Sequence[int] = ()) -> tuple[int, ...]:
    """Token ids of words that follow others.

    Args:
        lm: Whose tokens.
        text: The words.
        before: Tokens that they follow; after white space, as of a blank line, the words begin
            without it.
    """
    is_apart = lm.decode(list(before[-1:]))[-1:].isspace()
    lead, first = ("so\n", 3) if is_apart else ("so", 2)
    ids, offsets = encode_response(lm.tokenizer, f"{lead}{text}" if is_apart else f"{lead} {text}")
    return tuple(
        index for index, (start, end) in zip(ids, offsets, strict=True) if start >= first < end
    )


def load(config: ModelConfig, device: str = "auto") -> LanguageModel:
    """Load a model for reading and generating.

    Args:
        config: Which, and how.
        device: Where to, unless `config.device_map` spreads it.

    Raises:
        ConfigError: Folder, weights, adapter or tokenizer can't be read, or an option can't be had.
    """
    facts = describe(config)
    tokenizer = load_tokenizer(config)
    model = _load_weights(config)
    if config.adapter:
        model = adapted(model, config)
    if not config.device_map:
        nn.Module.to(model, torch.device(resolve_device(device)))
    if len(decoder_blocks(model)) != facts.num_layers:
        raise ConfigError(f"{config.named} has other blocks than its config says; save it again")
    return LanguageModel(model.eval().requires_grad_(False), tokenizer, facts, _entrance(model))


def _load_weights(config: ModelConfig) -> PreTrainedModel:
    options: dict[str, Any] = {"dtype": getattr(torch, config.dtype), "use_safetensors": True}
    if config.attention:
        options["attn_implementation"] = config.attention
    if config.device_map:
        if find_spec("accelerate") is None:
            raise ConfigError(
                f"{config.option}.device_map={config.device_map} needs accelerate; "
                "pip install 'sae_reasoning[gguf]', or leave it empty"
            )
        options["device_map"] = config.device_map
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **_source(config), **options, output_loading_info=True
        )
    except Exception as error:  # Cut-short weights surface as whatever their reader raises.
        reason = first_line(error)
        if config.attention and isinstance(error, (ImportError, ValueError)):
            raise ConfigError(
                f"{config.option}.attention={config.attention} can't be had for {config.path} "
                f"({reason}); set eager or sdpa, or leave it empty"
            ) from error
        if config.device_map and isinstance(error, (RuntimeError, ValueError)):
            raise ConfigError(
                f"{config.option}.device_map={config.device_map} can't be had for {config.path} "
                f"({reason}); set auto, balanced, sequential or one device, or leave it empty"
            ) from error
        raise ConfigError(
            f"{config.named} has unreadable weights ({type(error).__name__}: {reason}); "
            "save the model again"
        ) from error
    model, report = loaded
    require_whole(report, config.named, "save the model again, whole")
    return cast(PreTrainedModel, model)


def _entrance(model: PreTrainedModel) -> torch.device:
    """Where token ids go; of a model on several devices, the first one's."""
    embed: Any = model.get_input_embeddings()
    moved_by = getattr(embed, "_hf_hook", None)  # accelerate's, where weights wait elsewhere.
    found = getattr(moved_by, "execution_device", None)
    return torch.device(found if found is not None else embed.weight.device)


def resolve_device(device: str) -> str:
    """`auto` as cuda where there is one, else cpu.

    Raises:
        ConfigError: A CUDA device is asked for that isn't there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={device}, but torch finds no CUDA device here; set device=cpu")
    number = device.partition(":")[2]
    if number and int(number) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={device}, but torch finds {torch.cuda.device_count()} CUDA devices here, "
            "cuda:0 the first; set one of them, or device=auto"
        )
    return device


def random_twin(lm: LanguageModel, seed: int) -> LanguageModel:
    """A model of the same architecture with newly initialised weights: a baseline reader."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        twin = AutoModelForCausalLM.from_config(copy.deepcopy(lm.model.config))
    twin = twin.to(dtype=lm.model.dtype).eval().requires_grad_(False)
    placed = getattr(lm.model, "hf_device_map", {})
    if len(set(placed.values())) > 1:
        from accelerate import dispatch_model

        twin = dispatch_model(twin, placed)
    else:
        twin = twin.to(lm.device)
    facts = ModelFacts(
        name=f"{lm.facts.name}-random-{seed}",
        num_layers=lm.facts.num_layers,
        d_model=lm.facts.d_model,
        fingerprint=fingerprint([lm.facts.fingerprint, "random", seed]),
        tokenizer_fingerprint=lm.facts.tokenizer_fingerprint,
        context=lm.facts.context,
        num_embeddings=lm.facts.num_embeddings,
    )
    return LanguageModel(twin, lm.tokenizer, facts, lm.device)
