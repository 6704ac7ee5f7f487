"""Which model a config names, from its files alone.

Nothing heavy is imported for a folder; a hub id takes transformers' cache, a new GGUF torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    fingerprint,
    fingerprint_files,
    read_json,
)
from sae_reasoning.edges.lm.commits import commit_of
from sae_reasoning.edges.lm.gguf import content_of, unpacked

_TOKENIZER_FILES = "tokenizer*"
_TEMPLATE_FILES = "chat_template*"
_WEIGHT_FILES = ("config.json", "*.safetensors")
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class ModelIdentity:
    """Which model it is.

    Attributes:
        name: Folder name or hub id, or the GGUF file's name, and the adapter's.
        fingerprint: Changes with config, weights or adapter.
        tokenizer_fingerprint: Changes with the tokenizer's files.
    """

    name: str
    fingerprint: str
    tokenizer_fingerprint: str


def identify(config: ModelConfig) -> ModelIdentity:
    """Which model a config names, by hashes of its files or its commit on the hub.

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
        if is_adapter(folder):
            raise ConfigError(
                f"{config.named} holds an adapter; name its base there, and the adapter as "
                f"{config.option}.adapter={config.path}"
            )
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"{config.named} holds no config.json; name a folder written by save_pretrained"
            )
        weights = fingerprint(
            [*(fingerprint_files(folder, p) for p in _WEIGHT_FILES), *_added_ends(folder)]
        )
        tokenizer = _tokenizer_in(folder, config.chat_template)
    else:
        require_folder(config)
        commit = weights_commit(config)
        if commit is None:
            raise ConfigError(
                f"{config.named} is neither a folder nor known to the hub, as far as it can be "
                "reached; name a model folder, or a hub id while the hub can be reached"
            )
        weights = fingerprint([config.path, commit])
        tokenizer = weights
    if config.tokenizer:
        own = Path(config.tokenizer)
        tokenizer = (
            _tokenizer_in(own, config.chat_template)
            if own.is_dir()
            else fingerprint([config.tokenizer, tokenizer_commit(config)])
        )
    if config.adapter:
        name = f"{name}+{Path(config.adapter).name}"
        weights = fingerprint([weights, adapter_fingerprint(config)])
    return ModelIdentity(name, weights, tokenizer)


def require_folder(config: ModelConfig) -> None:
    """Refuse a path that can't be a hub id, and is no folder.

    Raises:
        ConfigError: It's mistyped, or the folder isn't on this machine.
    """
    folder = Path(config.path)
    is_path = folder.is_absolute() or config.path.count("/") != 1 or folder.parent.is_dir()
    if is_path and not folder.is_dir():
        raise ConfigError(
            f"{config.named} is no folder; name a model folder, or a hub id (owner/name)"
        )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / _ADAPTER_CONFIG).exists() and not (folder / "config.json").exists()


def adapter_fingerprint(config: ModelConfig) -> str:
    """Changes with an adapter's config or weights; of one on the hub, with its id or commit.

    Raises:
        ConfigError: There is no such folder, or it isn't an adapter.
    """
    folder = Path(config.adapter)
    if folder.is_dir():
        for file in (_ADAPTER_CONFIG, _ADAPTER_WEIGHTS):
            if not (folder / file).exists():
                raise ConfigError(
                    f"{adapter_named(config)} holds no {file}; name a folder written by PEFT's "
                    "save_pretrained"
                )
        return fingerprint_files(folder, "adapter_*")
    if folder.is_absolute() or config.adapter.count("/") != 1:
        raise ConfigError(
            f"{adapter_named(config)} is no folder; name an adapter's folder, or a hub id "
            "(owner/name)"
        )
    return fingerprint([config.adapter, adapter_commit(config)])


def adapter_named(config: ModelConfig) -> str:
    """Option and value of an adapter."""
    return f"{config.option}.adapter={config.adapter}"


def weights_commit(config: ModelConfig) -> str | None:
    """The commit that is read of a model on the hub."""
    return commit_of(config.path, "config.json", config.revision)


def tokenizer_commit(config: ModelConfig) -> str | None:
    """The commit that is read of a tokenizer on the hub."""
    return commit_of(config.tokenizer, "tokenizer.json", None)


def adapter_commit(config: ModelConfig) -> str | None:
    """The commit that is read of an adapter on the hub."""
    return commit_of(config.adapter, _ADAPTER_CONFIG, config.adapter_revision)


def _added_ends(folder: Path) -> list[Any]:
    """End tokens that a generation config names otherwise than the config; none if it doesn't."""
    try:
        said = [read_json(folder / name) for name in ("generation_config.json", "config.json")]
    except (OSError, BrokenArtifact):  # Whoever reads the model says so.
        return []
    ends, known = (one.get("eos_token_id") for one in said)
    return [] if ends in (None, known) else [ends]


def _tokenizer_in(folder: Path, has_template: bool) -> str:
    """Fingerprint of a tokenizer, with a template that stands in a file of its own if it's used."""
    own = fingerprint_files(folder, _TOKENIZER_FILES)
    apart = has_template and any(folder.glob(_TEMPLATE_FILES))
    return fingerprint([own, fingerprint_files(folder, _TEMPLATE_FILES)]) if apart else own
