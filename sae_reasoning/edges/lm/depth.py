"""How many blocks a model has, from its config file alone: nothing heavy is imported for it."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sae_reasoning.config import ConfigError, ModelConfig

_CONFIG_FILE = "config.json"
_NAMES = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What architectures call it."""


def check_layers(layers: Sequence[int], num_layers: int, model: str) -> None:
    """Raise `ConfigError` unless the model has all `layers`."""
    if any(not 0 <= layer < num_layers for layer in layers):
        raise ConfigError(
            f"layers={list(layers)} out of range: {model} has {num_layers} blocks, "
            f"0..{num_layers - 1}; choose layers below {num_layers}"
        )


def too_shallow(layers: Sequence[int], num_layers: int, model: str) -> str:
    """What is to be said of layers that all lie in the first quarter of a deep model, or "".

    The default, blocks 1 and 2, is for the organisms, which have four.
    """
    if num_layers < 8 or max(layers) >= num_layers / 4:
        return ""
    deeper = ",".join(str(round(num_layers * share)) for share in (1 / 3, 1 / 2, 2 / 3))
    return (
        f"layers={list(layers)} all lie in the first quarter of {model}'s {num_layers} blocks; "
        f"behaviours are read a third to two thirds deep: set layers=[{deeper}]"
    )


def num_blocks_here(model: ModelConfig) -> int | None:
    """Decoder blocks of a model whose config is on this machine; None where it isn't, or is odd."""
    file = _config_file(model)
    if file is None:
        return None
    with suppress(OSError, ValueError):
        config = json.loads(file.read_text())
        own = config.get("text_config", config)
        found = next((own[name] for name in _NAMES if name in own), None)
        return found if isinstance(found, int) else None
    return None


def _config_file(model: ModelConfig) -> Path | None:
    if model.gguf_file:
        return None
    if Path(model.path).is_dir():
        return Path(model.path) / _CONFIG_FILE
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # Neither a folder nor a hub id; whoever loads it says so.
        found = try_to_load_from_cache(model.path, _CONFIG_FILE, revision=model.revision)
        return Path(found) if isinstance(found, str) else None
    return None
