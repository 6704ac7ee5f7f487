"""Where a causal language model keeps its parts: found by structure, not by a list of names.

The decoder blocks are the one list of as many modules as the config has layers; the final norm
stands beside that list and comes after it; the head is what transformers says turns residuals into
logits.
"""

from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from sae_reasoning.config import ConfigError


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, in order; their outputs are the residual stream.

    Raises:
        ConfigError: The architecture has no one list of them.
    """
    return _holder_and_blocks(model)[1]


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last block and the head.

    Raises:
        ConfigError: There is none, or it can't be told from others.
    """
    holder, blocks = _holder_and_blocks(model)
    width = model.config.get_text_config(decoder=True).hidden_size
    before: list[nn.Module] = []
    after: list[nn.Module] = []
    place = before
    for part in holder.children():
        if part is blocks:
            place = after
        elif _is_norm(part, width):
            place.append(part)
    found = after or before
    if len(found) != 1:
        raise ConfigError(
            f"model of class {type(model).__name__} has {len(found) or 'no'} norms beside its "
            "blocks, and one final norm is needed; use another architecture"
        )
    return found[0]


def head(model: PreTrainedModel) -> nn.Module:
    """What makes logits of normed residuals.

    Raises:
        ConfigError: There is none, or it reads something else.
    """
    found: Any = model.get_output_embeddings()
    width = model.config.get_text_config(decoder=True).hidden_size
    if found is None or found.weight.shape[1] != width:
        raise ConfigError(
            f"model of class {type(model).__name__} has no head that reads residuals of width "
            f"{width}; use a causal language model"
        )
    return cast(nn.Module, found)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Logits of one position; there may be more than the tokenizer has tokens."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _holder_and_blocks(model: PreTrainedModel) -> tuple[nn.Module, nn.ModuleList]:
    body = model.get_decoder()
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    found = [pair for pair in _outer_lists(body) if len(pair[1]) == count]
    if len(found) != 1:
        raise ConfigError(
            f"model of class {type(model).__name__} has {len(found) or 'no'} lists of {count} "
            "modules, and its decoder blocks should be the only one; use another architecture"
        )
    return found[0]


def _outer_lists(module: nn.Module) -> Iterator[tuple[nn.Module, nn.ModuleList]]:
    """Every list of modules that stands in no other list, with what holds it."""
    for part in module.children():
        if isinstance(part, nn.ModuleList):
            yield module, part
        else:
            yield from _outer_lists(part)


def _is_norm(module: nn.Module, width: int) -> bool:
    """Some norms have no weights, and then only their class says what they are."""
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    return "norm" in type(module).__name__.lower() or (
        bool(shapes) and all(shape == (width,) for shape in shapes)
    )
