"""Architectures by structure: what is read and edited as layer L is layer L, whatever its names."""

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.anatomy import decoder_blocks, final_norm, head, vocabulary_size
from sae_reasoning.edges.lm.generate import edited, generate
from sae_reasoning.edges.lm.load import LanguageModel, ModelFacts, load_tokenizer, random_twin
from sae_reasoning.edges.lm.read import read_continuations, read_residuals
from sae_reasoning.edges.lm.unembed import output_logits

LAYERS = 3
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
HEADED = GROUPED | {"head_dim": 8}
GEMMA = HEADED | {"query_pre_attn_scalar": 8, "sliding_window": 8}
KINDS = {
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": HEADED,
    "Gemma2": GEMMA | {"final_logit_softcapping": None},
    "Gemma3Text": GEMMA | {"layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
    "GPTNeoX": COMMON,
    "GPT2": {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64},
    "Mistral": GROUPED | {"sliding_window": 8},
    "Olmo2": GROUPED,
    "Olmo3": GROUPED | {"sliding_window": 8},
    "Phi": COMMON,
    "Gemma3": {
        "text_config": GEMMA,
        "vision_config": COMMON | {"image_size": 28, "patch_size": 14, "num_channels": 3},
        "mm_tokens_per_image": 4,
    },
    # Not asked for, but of other names again, and one whose final norm comes before its blocks.
    "Bloom": {"hidden_size": 32, "n_layer": LAYERS, "n_head": 4},
    "OPT": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
}


@pytest.fixture(scope="module", params=KINDS)
def lm(request: pytest.FixtureRequest, tiny_pair: PairConfig) -> LanguageModel:
    """A new model of one kind; its weights are large enough for layers to matter."""
    tokenizer = load_tokenizer(tiny_pair.base)
    options = dict(KINDS[request.param])
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if "text_config" in options:
        options["text_config"] = options["text_config"] | special
        special = {"image_token_index": 7, "boi_token_index": 8, "eoi_token_index": 9}
    config = getattr(transformers, f"{request.param}Config")(**options, **special)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(std=0.2)
    facts = ModelFacts(request.param, LAYERS, 32, fingerprint="", tokenizer_fingerprint="")
    return LanguageModel(model, tokenizer, facts, torch.device("cpu"))


LONG, SHORT = list(range(20, 34)), list(range(40, 45))
"""One is longer than the sliding windows."""


@torch.no_grad()
def states(lm: LanguageModel, ids: list[int]) -> tuple[Tensor, ...]:
    """transformers' own: after the embeddings, after each block, the last one normed."""
    return lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states


@torch.no_grad()
def logits(lm: LanguageModel, ids: list[int]) -> Tensor:
    return lm.model(torch.tensor([ids])).logits[0]


def test_what_is_read_as_a_layer_is_transformers_hidden_state_of_it(lm):
    for batch in read_residuals(lm, [LONG, SHORT], range(LAYERS), token_budget=64):
        for place, row in enumerate(batch.rows):
            ids = (LONG, SHORT)[row]
            expected = [state[0] for state in states(lm, ids)]
            for layer in range(LAYERS):
                found = batch.residuals[layer][place, : len(ids)]
                if layer == LAYERS - 1:
                    found = final_norm(lm.model)(found)
                torch.testing.assert_close(found, expected[layer + 1], atol=1e-4, rtol=1e-4)


def test_what_follows_a_prefix_is_read_as_if_the_prefix_were_read_with_it(lm):
    """Windows of sliding attention, eight tokens, end within what is read."""
    prefix, ways = tuple(range(5, 14)), [(20, 21, 22, 23), (30, 31), (40,) * 7]
    whole = [prefix + own for own in ways]
    expected = {}
    for batch in read_residuals(lm, whole, [0, 1], token_budget=100):
        for place, row in enumerate(batch.rows):
            expected[row] = {
                x: r[place, len(prefix) : len(whole[row])] for x, r in batch.residuals.items()
            }
    for batch in read_continuations(lm, prefix, ways, [0, 1], token_budget=100):
        for place, row in enumerate(batch.rows):
            for layer, resid in batch.residuals.items():
                own = resid[place, : len(ways[row])]
                torch.testing.assert_close(own, expected[row][layer], atol=1e-5, rtol=1e-4)


def test_head_of_the_final_norm_of_the_last_layer_is_the_logits(lm):
    (batch,) = read_residuals(lm, [LONG], [LAYERS - 1], token_budget=64)
    found = head(lm.model)(final_norm(lm.model)(batch.residuals[LAYERS - 1][0]))
    torch.testing.assert_close(found, logits(lm, LONG), atol=1e-4, rtol=1e-4)
    assert found.shape[-1] == vocabulary_size(lm.model)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_layer_that_is_given_anothers_residual_says_what_the_other_says(lm, layer):
    """All that follows a block of a text of one token comes from what is read as that layer."""
    (one,), (other,) = ([SHORT[0]], [SHORT[1]])
    (batch,) = read_residuals(lm, [[other]], [layer], token_budget=64)
    theirs = batch.residuals[layer][:, 0]
    with edited(lm, {layer: lambda resid, rows: theirs}, torch.tensor([0])):
        found = logits(lm, [one])
    torch.testing.assert_close(found, logits(lm, [other]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, logits(lm, [one]), atol=1e-2)

    heard = []

    def sampler(predicted: Tensor, rows: Tensor, step: int) -> Tensor:
        heard.append(predicted)
        return predicted.argmax(-1)

    edits = {layer: lambda resid, rows: theirs}
    list(generate(lm, [[one]], sampler=sampler, max_new_tokens=1, batch_size=1, edits=edits))
    torch.testing.assert_close(heard[0][0], logits(lm, [other])[0], atol=1e-5, rtol=1e-4)


def test_an_edit_reaches_the_last_position_and_later_layers_only(lm):
    seen = {}

    def note(name):
        return lambda _block, args, kwargs: seen.__setitem__(
            name, args[0] if args else kwargs["hidden_states"]
        )

    push = 3 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    before = states(lm, LONG)
    handles = [
        block.register_forward_pre_hook(note(number), with_kwargs=True)
        for number, block in enumerate(decoder_blocks(lm.model))
    ]
    try:
        with edited(lm, {0: lambda resid, rows: resid + push}, torch.tensor([0])):
            after = logits(lm, LONG)
    finally:
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(seen[0], before[0])
    moved = seen[1][0] - before[1][0]
    torch.testing.assert_close(moved[-1], push, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved[:-1], torch.zeros_like(moved[:-1]))
    torch.testing.assert_close(after[:-1], logits(lm, LONG)[:-1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(after[-1], logits(lm, LONG)[-1], atol=1e-2)


def test_generation_says_what_reading_the_whole_text_anew_says(lm):
    """Past sliding windows too."""

    def greedy(predicted: Tensor, rows: Tensor, step: int) -> Tensor:
        predicted[:, lm.tokenizer.eos_token_id] = -torch.inf
        return predicted.argmax(-1)

    for rollout in generate(
        lm, [LONG, SHORT, SHORT], sampler=greedy, max_new_tokens=8, batch_size=3
    ):
        ids = list((LONG, SHORT, SHORT)[rollout.row])
        for token in rollout.token_ids:
            predicted = logits(lm, ids)[-1]
            predicted[lm.tokenizer.eos_token_id] = -torch.inf
            assert predicted.max() - predicted[token] < 1e-3
            ids.append(token)


def test_a_directions_own_logits_are_those_of_a_loud_residual(lm):
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    (found,) = output_logits(lm, direction[None])
    loud = 1e5 * direction[None]
    with edited(lm, {LAYERS - 1: lambda resid, rows: loud}, torch.tensor([0])):
        expected = logits(lm, [SHORT[0]])[0]
    bias = getattr(head(lm.model), "bias", None)
    offset = getattr(final_norm(lm.model), "bias", None)
    silent = torch.zeros_like(expected) if bias is None else bias.detach().clone()
    if offset is not None:
        silent += head(lm.model).weight @ offset
    expected = expected - silent
    torch.testing.assert_close(found, expected - expected.mean(), atol=2e-3, rtol=2e-3)


def test_the_random_twin_is_of_the_same_kind(lm):
    twin = random_twin(lm, 1)
    assert type(twin.model) is type(lm.model)
    assert len(decoder_blocks(twin.model)) == LAYERS
    assert not torch.equal(head(twin.model).weight, head(lm.model).weight)


def test_a_model_without_one_list_of_blocks_is_refused(lm):
    lists = torch.nn.ModuleList(torch.nn.Identity() for _ in range(LAYERS))
    body = lm.model.get_decoder()
    body.also = lists
    try:
        with pytest.raises(ConfigError, match=r"has 2 lists of 3 modules.*another architecture"):
            decoder_blocks(lm.model)
    finally:
        del body.also
