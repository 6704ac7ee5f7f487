"""GGUF files, unpacked once into ordinary model folders outside the project.

transformers reads one in half a minute and more, safetensors in a moment. What lies in a GGUF's
blocks is unpacked as it would be on every load, and kept under a name that changes with the file's
content and with the type that it's unpacked to.
"""

import glob
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.artifacts import fingerprint, fingerprint_files
from sae_reasoning.edges.hashing import cache_home
from sae_reasoning.edges.lm.refusals import first_line, require_whole
from sae_reasoning.edges.lock import Lock

_FORMAT = 1
"""Of unpacked folders; a change makes them again."""
_PACKAGES = ("gguf", "accelerate")


def content_of(config: ModelConfig) -> str:
    """Fingerprint of a GGUF's name and content.

    Raises:
        ConfigError: There is no such file.
    """
    return _content(_find(config))


def unpacked(config: ModelConfig) -> Path:
    """Folder with a GGUF's weights as safetensors, its config and its tokenizer.

    One process unpacks it; others that need it wait.

    Raises:
        ConfigError: There is no such file, or transformers can't read it.
    """
    file = _find(config)
    key = fingerprint([_content(file), config.dtype, _FORMAT])
    folder = cache_home() / "gguf" / f"{file.stem}-{key}"
    if folder.is_dir():
        return folder
    lock = Lock(folder, key)
    lock.take()
    try:
        if not folder.is_dir():
            _unpack(config, file, folder)
    finally:
        lock.free()
    return folder


def _find(config: ModelConfig) -> Path:
    """The file itself, fetched where it's on the hub."""
    assert config.gguf_file
    folder = Path(config.path)
    if folder.is_dir():
        file = folder / config.gguf_file
        if not file.is_file():
            there = ", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "none"
            raise ConfigError(
                f"{_named(config)} isn't in {config.named}; GGUF files there: {there}"
            )
        return file
    from transformers.utils import cached_file

    try:
        found = cached_file(config.path, config.gguf_file, revision=config.revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{_named(config)} can't be fetched from {config.named} ({first_line(error)}); name "
            "a file of that repository while the hub can be reached, or a local folder"
        ) from error
    return Path(str(found))


def _content(file: Path) -> str:
    return fingerprint_files(file.parent, glob.escape(file.name))


def _unpack(config: ModelConfig, file: Path, folder: Path) -> None:
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ConfigError(
            f"{_named(config)} needs {' and '.join(missing)} to be read; "
            "pip install 'sae_reasoning[gguf]'"
        )
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"dtype": getattr(torch, config.dtype)}
    if dense := getattr(transformers, "GgufConfig", None):
        # Newer versions keep some architectures in their blocks, which can't be saved.
        options["quantization_config"] = dense(dequantize=True)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # Whatever the reader of a cut-short or unknown file raises.
        raise ConfigError(
            f"{_named(config)} can't be read by transformers ({first_line(error)}); use a "
            "whole file of an architecture that it supports"
        ) from error
    model, report = loaded
    require_whole(report, _named(config), "use a whole file")
    _forget_quantisation(model)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        os.replace(partial, folder)
    except OSError as error:
        raise ConfigError(
            f"{_named(config)} can't be unpacked to {folder} ({error.strerror}); free disk there, "
            "or set SAE_REASONING_CACHE to a folder elsewhere"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _forget_quantisation(model: Any) -> None:
    """Make of a model that was read from blocks one that can be saved: its weights are dense."""
    for owner, names in (
        (model, ("hf_quantizer", "quantization_method", "is_quantized")),
        (model.config, ("quantization_config",)),
    ):
        for name in names:
            owner.__dict__.pop(name, None)


def _named(config: ModelConfig) -> str:
    return f"{config.option}.gguf_file={config.gguf_file}"
