"""How a model's logits are read while it learns."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel


def plain_reader(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits [place, vocab] at the places, a mask [batch, token], of right-padded token ids."""
    # Without a mask the fast kernel of attention is taken.
    return lambda token_ids, places: model(input_ids=token_ids, use_cache=False).logits[places]


def compiled_reader(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """As `plain_reader`, compiled, and multiplying in bfloat16 while weights stay in float32.

    Half the time of a plain step on a CPU that multiplies bfloat16. Attention is written out: the
    backward pass of its fast kernel is slow there in bfloat16. The model itself stays as it is, so
    it generates as before; the reader shares its weights.
    """
    assert isinstance(model, PreTrainedModel)
    twin = AutoModelForCausalLM.from_config(
        copy.deepcopy(model.config), attn_implementation="eager"
    )
    twin.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    compiled = torch.compile(twin, dynamic=True)
    device = next(model.parameters()).device.type

    def read(token_ids: Tensor, places: Tensor) -> Tensor:
        twin.train(model.training)
        with torch.autocast(device, torch.bfloat16):
            logits: Tensor = compiled(input_ids=token_ids, use_cache=False).logits
        return logits[places]

    return read
