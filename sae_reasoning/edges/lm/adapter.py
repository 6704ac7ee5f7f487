"""PEFT adapters on a base: what GRPO with LoRA leaves, merged into the weights or beside them."""

import warnings
from importlib.util import find_spec
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.lm.identity import adapter_commit, adapter_named
from sae_reasoning.edges.lm.refusals import first_line


def adapted(model: PreTrainedModel, config: ModelConfig) -> PreTrainedModel:
    """A base with its adapter; its blocks are the base's own either way.

    Merged, the update is added to the weights, in their dtype; beside them, every adapted layer
    computes it again.

    Raises:
        ConfigError: PEFT isn't there, the adapter can't be read or was made for another base, or it
            changes the text rather than the weights.
    """
    if find_spec("peft") is None:
        raise ConfigError(f"{adapter_named(config)} needs peft; pip install 'sae_reasoning[peft]'")
    from peft import PeftConfig, PeftModel

    where: dict[str, Any] = {"revision": adapter_commit(config)}
    try:
        described = PeftConfig.from_pretrained(config.adapter, **where)
        if described.is_prompt_learning:
            raise ConfigError(
                f"{adapter_named(config)} is {described.peft_type.value.lower()}, which puts "
                "vectors into the text, where tokens and residuals wouldn't match; use LoRA or "
                "another that changes weights"
            )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            both = PeftModel.from_pretrained(model, config.adapter, **where)
    except ConfigError:
        raise
    except Exception as error:  # Whatever PEFT raises where names or shapes don't fit.
        reason = first_line(error)
        raise ConfigError(
            f"{adapter_named(config)} doesn't fit {config.named} ({reason}); name the base that it "
            "was trained on"
        ) from error
    if any("missing adapter keys" in str(one.message) for one in said):
        raise ConfigError(
            f"{adapter_named(config)} lacks weights for some layers of {config.named}; name the "
            "base that it was trained on"
        )
    base = cast(PreTrainedModel, both.get_base_model())
    _untie(base)
    if config.merge_adapter:
        return cast(PreTrainedModel, both.merge_and_unload(safe_merge=True))
    return base


def _untie(model: PreTrainedModel) -> None:
    """Give an adapted head or embedding a matrix of its own, where both share one.

    Each of the two is updated by itself, so a shared matrix can't hold what is merged into it.
    """
    head: Any = model.get_output_embeddings()
    embed: Any = model.get_input_embeddings()
    if not any(layer in (head, embed) for layer in _adapted_layers(model)):
        return
    own, other = (getattr(module, "base_layer", module) for module in (head, embed))
    if own.weight is other.weight:
        own.weight = nn.Parameter(own.weight.detach().clone(), requires_grad=False)
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False


def compared_parameters(
    one: PreTrainedModel, other: PreTrainedModel
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two models' weights under the same names; a head that only one shares counts in both."""
    models, found = (one, other), (plain_parameters(one), plain_parameters(other))
    for model, own, others in zip(models, found, found[::-1], strict=True):
        head: Any = model.get_output_embeddings()
        shared = [name for name in others.keys() - own.keys() if name.endswith("lm_head.weight")]
        own.update(dict.fromkeys(shared, head.weight))
    return found


def plain_parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """A model's weights under its base's names; an adapter beside them is added in, in copies."""
    layers = _adapted_layers(model)
    if not layers:
        return dict(model.named_parameters())
    own = {name for layer in layers for name in layer.adapter_layer_names}
    for layer in layers:
        layer.merge()
    try:
        return {
            name.replace(".base_layer", ""): weight.detach().clone()
            for name, weight in model.named_parameters()
            if not own & set(name.split("."))
        }
    finally:
        for layer in layers:
            layer.unmerge()


def _adapted_layers(model: PreTrainedModel) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "adapter_layer_names")]
