"""Logits are made where they are wanted, a few at a time, and are the model's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm import branch, logits
from sae_reasoning.edges.lm.anatomy import vocabulary_size
from sae_reasoning.edges.lm.attribute import onset_gradients
from sae_reasoning.edges.lm.branch import Branch, BranchingText, branch_log_probs
from sae_reasoning.edges.lm.compare import compare
from sae_reasoning.edges.lm.load import LanguageModel, ModelFacts, load, load_tokenizer
from sae_reasoning.edges.lm.logits import head_inputs, logits_of
from sae_reasoning.edges.lm.read import splice_losses, token_log_probs
from sae_reasoning.steering.policies import disagreement

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
KINDS = {
    "Llama": SIZES,
    "Gemma2": SIZES | {"head_dim": 8, "final_logit_softcapping": 3.0},
    "Cohere": SIZES | {"logit_scale": 0.25},
    "Granite": SIZES | {"logits_scaling": 5.0},
    "OPT": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 16,
    },
}
TEXTS = [(1, 7, 8, 9, 10, 11, 12), (1, 12, 13, 6), (1, 20, 21, 22, 9)]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_pieces_are_the_models_own(kind: str, tiny_pair: PairConfig) -> None:
    tokenizer = load_tokenizer(tiny_pair.base)
    config = getattr(transformers, f"{kind}Config")(
        **KINDS[kind], vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(std=0.3)
    lm = LanguageModel(model, tokenizer, ModelFacts(kind, 2, 32, "", ""), torch.device("cpu"))
    token_ids = torch.tensor([TEXTS[0], TEXTS[0][::-1]])
    expected = model(token_ids).logits
    assert expected.std() > 0.1
    rows, positions = torch.tensor([1, 0, 1, 0, 0]), torch.tensor([6, 0, 2, 6, 3])
    read = head_inputs(lm, {"input_ids": token_ids}, rows, positions)
    pieces = list(logits_of(lm, read, at_once=2))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(pieces), expected[rows, positions])


def branches(models: dict[str, LanguageModel]) -> list[Any]:
    texts = [
        BranchingText(ids, (Branch(1, (7, 9, 11)), Branch(3, (8,)), Branch(2, (5, 6))))
        for ids in TEXTS
    ]
    return branch_log_probs(models["base"], texts, 64)


def predicted(models: dict[str, LanguageModel]) -> list[Any]:
    return token_log_probs(models["base"], TEXTS, 64)


def spliced(models: dict[str, LanguageModel]) -> list[Any]:
    def halve(resid: Tensor) -> Tensor:
        return resid / 2

    found = splice_losses(
        models["base"],
        TEXTS,
        layer=1,
        transform=halve,
        keep_from=[1, 1, 2],
        response_from=[2, 1, 0],
        token_budget=64,
    )
    return [found.summed]


def compared(models: dict[str, LanguageModel]) -> list[Any]:
    is_kept = torch.arange(10) % 3 == 0
    found = compare(
        models,
        TEXTS,
        [3, 1, 2],
        [0, 1],
        64,
        disagreement,
        lambda own: own[0][:, :3] + own[1][:, :3],
        is_kept,
    )
    return [
        found.differs.float(),
        found.divergence,
        *found.summary.values(),
        *(mean for of_model in found.means.values() for mean in of_model.values()),
        *(resid for of_model in found.residuals.values() for resid in of_model.values()),
    ]


def sloped(models: dict[str, LanguageModel]) -> list[Any]:
    wanted = [[(7, 9), (8,)], [(9,)], [(5, 6, 7)]]
    (found,) = onset_gradients(models["base"], TEXTS, wanted, [0, 1], 4096)
    return [found.log_probability, *found.gradients.values()]


@pytest.fixture(scope="module")
def models(tiny_pair: PairConfig) -> dict[str, LanguageModel]:
    return {"base": load(tiny_pair.base, "cpu"), "rl": load(tiny_pair.rl, "cpu")}


@pytest.mark.parametrize("read", [branches, predicted, spliced, compared, sloped])
def test_no_more_logits_than_allowed_are_made_at_once_and_results_stay(
    read: Callable[[dict[str, LanguageModel]], list[Any]],
    models: dict[str, LanguageModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = read(models)
    allowed = 2 * vocabulary_size(models["base"].model)
    monkeypatch.setattr(logits, "MAX_LOGITS", allowed)
    made: list[int] = []
    handles = [
        lm.model.get_output_embeddings().register_forward_hook(
            lambda _head, _args, output: made.append(output.numel())
        )
        for lm in models.values()
    ]
    try:
        pieces = read(models)
    finally:
        for handle in handles:
            handle.remove()
    assert max(made) == allowed
    assert len(made) > 3
    for found, expected in zip(pieces, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("widest", "most"), [(9, 1 << 27), (1 << 13, 150), (1, 1)])
def test_branches_read_in_parts_are_as_likely_as_all_at_once(
    models: dict[str, LanguageModel], monkeypatch: pytest.MonkeyPatch, widest: int, most: int
) -> None:
    whole = branches(models)
    monkeypatch.setattr(branch, "_WIDEST", widest)
    monkeypatch.setattr(branch, "_MAX_MASK", most)
    masks: list[torch.Size] = []
    make = branch._mask

    def look(*args: Any) -> Tensor:
        masks.append((mask := make(*args)).shape)
        return mask

    monkeypatch.setattr(branch, "_mask", look)
    parts = branches(models)
    assert len(masks) > 1
    assert all(shape[0] == 1 or shape.numel() <= most for shape in masks)
    assert all(shape[-1] <= max(widest, 7 + 3) for shape in masks)
    for found, expected in zip(parts, whole, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_residuals_that_were_not_kept_are_refused(models: dict[str, LanguageModel]) -> None:
    found = compare(
        models,
        TEXTS,
        [3, 1, 2],
        [1],
        64,
        disagreement,
        lambda own: own[1][:, :1],
        torch.arange(10) % 3 == 0,
    )
    places = torch.tensor([9, 3])
    kept = found.residuals["rl"][1]
    assert torch.equal(found.residuals_at("rl", 1, places), kept[torch.tensor([3, 1])])
    with pytest.raises(IndexError, match="kept"):
        found.residuals_at("rl", 1, torch.tensor([3, 4]))
