"""Attention of one new token a row on a CPU, for which torch's kernel is slow.

At each step of generation a row has one query, so attention is two products of a matrix and a
vector, and its bound is how fast keys and values come from memory. For 128 rows of 135 tokens (four
heads of width 32) torch's kernel takes 2.6 ms on one thread, 2.0 where the memory has no gaps; two
batched products over memory without gaps take 1.0.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "sdpa_one_query"


def is_quick_for_one_query(model: PreTrainedModel) -> bool:
    """Whether a model attends by torch's kernel on a CPU, and lets that be exchanged."""
    return (
        model.device.type == "cpu"
        and model.config._attn_implementation == "sdpa"
        and model._supports_attention_backend
    )


@contextmanager
def quick_for_one_query(model: PreTrainedModel) -> Iterator[None]:
    """Within it, such a model attends by `_attend`."""
    config: Any = model.config
    config._attn_implementation = {"": _NAME}  # Not of configs within it.
    try:
        yield
    finally:
        config._attn_implementation = {"": "sdpa"}


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What one query a row [batch, head, 1, d_head] attends to [batch, 1, head, d_head].

    Keys and values [batch, key_head, token, d_head] may have fewer heads, of which each serves as
    many queries. Whatever else a model asks for is left to the library's own function.
    """
    batch, heads, length, width = query.shape
    masked_alike = attention_mask is None or attention_mask.shape[1] == 1
    if (
        length > 1
        or query.dtype not in (torch.float32, torch.float64)
        or query.requires_grad
        or not masked_alike
        or any(options.get(name) is not None for name in ("softcap", "position_bias", "s_aux"))
        or options.get("dropout")
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    key_heads, tokens = key.shape[1], key.shape[2]
    folded = query.reshape(batch * key_heads, heads // key_heads, width)
    scores = torch.bmm(folded, key.flatten(0, 1).transpose(1, 2)).view(batch, heads, 1, tokens)
    scores *= width**-0.5 if scaling is None else scaling
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores.masked_fill_(~attention_mask, -torch.inf)
        else:
            scores += attention_mask
    weights = scores.softmax(-1).view(batch * key_heads, heads // key_heads, tokens)
    found = torch.bmm(weights, value.flatten(0, 1))
    return found.view(batch, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
