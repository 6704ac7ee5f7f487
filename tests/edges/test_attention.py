"""Attention of one query a row against torch's own kernel, and where it is used."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm import attention
from sae_reasoning.edges.lm.attention import is_quick_for_one_query, quick_for_one_query
from sae_reasoning.edges.lm.generate import Reader, Reading
from sae_reasoning.edges.lm.load import load

BATCH, HEADS, TOKENS, WIDTH = 3, 4, 37, 8


def masks() -> dict[str, torch.Tensor | None]:
    keep = torch.rand(BATCH, 1, 1, TOKENS, generator=torch.Generator().manual_seed(5)) < 0.7
    keep[..., 3] = True
    scores = torch.where(keep, 0.0, torch.finfo(torch.float32).min)
    return {"none": None, "bool": keep, "float": scores}


def both(
    monkeypatch: pytest.MonkeyPatch,
    *,
    key_heads: int = HEADS,
    queries: int = 1,
    mask: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """What ours and the library's find, and whether ours asked the library."""
    rng = torch.Generator().manual_seed(key_heads)
    query = torch.randn(BATCH, HEADS, queries, WIDTH, generator=rng)
    room = torch.randn(2, BATCH, key_heads, TOKENS + 11, WIDTH, generator=rng)
    key, value = room[:, :, :, :TOKENS]
    module = nn.Module()
    module.num_key_value_groups = HEADS // key_heads  # type: ignore[assignment]
    asked = []

    def library(*args: Any, **given: Any) -> Any:
        asked.append(True)
        return sdpa_attention_forward(*args, **given)

    monkeypatch.setattr(attention, "sdpa_attention_forward", library)
    ours, _ = attention._attend(module, query, key, value, mask, **options)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
    return ours, theirs, bool(asked)


@pytest.mark.parametrize("kind", masks())
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("scaling", [None, 0.05])
def test_one_query_finds_what_the_library_finds(
    monkeypatch: pytest.MonkeyPatch, kind: str, key_heads: int, scaling: float | None
) -> None:
    ours, theirs, asked = both(
        monkeypatch, key_heads=key_heads, mask=masks()[kind], scaling=scaling
    )
    assert not asked
    assert ours.shape == theirs.shape == (BATCH, 1, HEADS, WIDTH)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_more_queries_and_masks_of_their_own_for_each_head_are_left_to_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs, asked = both(monkeypatch, queries=2)
    assert asked and torch.equal(ours, theirs)
    by_head = torch.ones(BATCH, HEADS, 1, TOKENS, dtype=torch.bool)
    by_head[:, 1, :, 4:] = False
    ours, theirs, asked = both(monkeypatch, mask=by_head)
    assert asked and torch.equal(ours, theirs)


def test_a_model_is_read_so_only_while_it_is_read(tiny_pair: PairConfig) -> None:
    lm = load(tiny_pair.base, "cpu")
    seen = []

    def look(*_: object) -> None:
        seen.append(lm.model.config._attn_implementation)

    lm.model.register_forward_pre_hook(look)
    ids = torch.tensor([[3, 4, 5]])
    Reader(lm).read(Reading(ids, torch.ones_like(ids), torch.arange(3)[None]))
    assert seen == ["sdpa_one_query"]
    assert lm.model.config._attn_implementation == "sdpa"
    with pytest.raises(ZeroDivisionError), quick_for_one_query(lm.model):
        1 / 0  # noqa: B018
    assert lm.model.config._attn_implementation == "sdpa"


def test_configs_within_a_config_are_left_alone(tiny_pair: PairConfig) -> None:
    model = load(tiny_pair.base, "cpu").model
    inner = copy.deepcopy(model.config)
    inner._attn_implementation = "eager"
    type(model.config).sub_configs = {"inner": type(inner)}
    try:
        model.config.inner = inner
        with quick_for_one_query(model):
            assert inner._attn_implementation == "eager"
        assert inner._attn_implementation == "eager"
    finally:
        type(model.config).sub_configs = {}


def test_a_model_that_attends_otherwise_is_left_alone(tiny_pair: PairConfig) -> None:
    assert is_quick_for_one_query(load(tiny_pair.base, "cpu").model)
    eager = load(replace(tiny_pair.base, attention="eager"), "cpu").model
    assert not is_quick_for_one_query(eager)
