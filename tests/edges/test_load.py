"""How a model is loaded, by config: adapters, attention, devices, templates, tokenizers."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_reasoning.config import ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.lm import adapter as adapter_room
from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.generate import edited
from sae_reasoning.edges.lm.load import describe, encode_prompt, load, load_tokenizer
from sae_reasoning.edges.lm.read import read_residuals

peft = pytest.importorskip("peft")

IDS = [5, 30, 40, 50, 60]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} at {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %} so{% endif %}"
)


@torch.no_grad()
def logits(lm) -> torch.Tensor:
    return lm.model(torch.tensor([IDS])).logits


def save_adapter(base: ModelConfig, folder: Path, config: object) -> str:
    torch.manual_seed(3)
    adapted = peft.get_peft_model(load(base, "cpu").model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:  # Zero at first.
                parameter.normal_(std=0.5)
    adapted.save_pretrained(folder)
    return str(folder)


def lora() -> object:
    return peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def adapter(tiny_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_adapter(tiny_pair.base, tmp_path_factory.mktemp("adapter") / "grpo", lora())


def test_an_adapter_reads_alike_merged_and_beside_the_weights(tiny_pair, adapter):
    merged = load(replace(tiny_pair.base, adapter=adapter), "cpu")
    beside = load(replace(tiny_pair.base, adapter=adapter, merge_adapter=False), "cpu")
    base = load(tiny_pair.base, "cpu")
    torch.testing.assert_close(logits(merged), logits(beside), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits(merged), logits(base), atol=1e-2)
    oracle = peft.PeftModel.from_pretrained(base.model, adapter).eval()
    with torch.no_grad():
        expected = oracle(torch.tensor([IDS])).logits
    torch.testing.assert_close(logits(beside), expected)
    assert merged.facts.name == "tiny_base+grpo"
    assert not any(p.requires_grad for p in beside.model.parameters())


@pytest.mark.parametrize("merged", [True, False])
def test_hooks_see_the_blocks_of_an_adapted_model(tiny_pair, adapter, merged):
    lm = load(replace(tiny_pair.base, adapter=adapter, merge_adapter=merged), "cpu")
    assert len(decoder_blocks(lm.model)) == 3
    with torch.no_grad():
        states = lm.model(torch.tensor([IDS]), output_hidden_states=True).hidden_states
    (batch,) = read_residuals(lm, [IDS], [0, 1], token_budget=64)
    for layer in (0, 1):
        torch.testing.assert_close(batch.residuals[layer], states[layer + 1])
    other = read_residuals(lm, [[7]], [1], token_budget=64)
    theirs = next(iter(other)).residuals[1][:, 0]
    with (
        torch.no_grad(),
        edited(lm, {1: lambda resid, rows: theirs}, torch.tensor([0])),
    ):
        found = lm.model(torch.tensor([[9]])).logits
    with torch.no_grad():
        expected = lm.model(torch.tensor([[7]])).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_weights_of_an_adapter_beside_them_are_compared_as_merged(tiny_pair, adapter):
    merged = load(replace(tiny_pair.base, adapter=adapter), "cpu")
    beside = load(replace(tiny_pair.base, adapter=adapter, merge_adapter=False), "cpu")
    before = logits(beside)
    found = adapter_room.plain_parameters(beside.model)
    expected = dict(merged.model.named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight.detach())
    assert torch.allclose(logits(beside), before, atol=1e-6)


@pytest.mark.parametrize("target", [["lm_head"], ["embed_tokens"], ["q_proj", "lm_head"]])
@pytest.mark.parametrize("merged", [True, False])
def test_an_adapter_of_a_shared_matrix_changes_only_the_side_that_it_targets(
    tiny_pair, tmp_path, target, merged
):
    """The tiny models share one matrix between head and embedding; warnings are errors here."""
    config = peft.LoraConfig(r=2, target_modules=target, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = save_adapter(tiny_pair.base, tmp_path / "tied", config)
        oracle = peft.PeftModel.from_pretrained(load(tiny_pair.base, "cpu").model, folder).eval()
        with torch.no_grad():
            theirs = oracle(torch.tensor([IDS]), output_hidden_states=True)
    lm = load(replace(tiny_pair.base, adapter=folder, merge_adapter=merged), "cpu")
    with torch.no_grad():
        found = lm.model(torch.tensor([IDS]), output_hidden_states=True)
    torch.testing.assert_close(found.logits, theirs.logits, atol=1e-4, rtol=1e-4)
    for own, expected in zip(found.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)
    base = load(tiny_pair.base, "cpu")
    before, after = adapter_room.compared_parameters(base.model, lm.model)
    assert before.keys() == after.keys() >= {"lm_head.weight"}
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {name.split(".")[-2] for name in changed} == set(target)


def test_the_fingerprint_changes_with_the_adapter(tiny_pair, adapter, tmp_path):
    with_it = describe(replace(tiny_pair.base, adapter=adapter))
    assert with_it.fingerprint != describe(tiny_pair.base).fingerprint
    assert with_it.num_layers == 3
    other = shutil.copytree(adapter, tmp_path / "other")
    weights = load_file(other / "adapter_model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, other / "adapter_model.safetensors")
    changed = describe(replace(tiny_pair.base, adapter=str(other)))
    assert changed.fingerprint != with_it.fingerprint


def test_an_adapter_that_lacks_weights_or_fits_another_base_is_refused(
    tiny_pair, tiny_neox_pair, adapter, tmp_path
):
    holed = shutil.copytree(adapter, tmp_path / "holed")
    weights = load_file(holed / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, holed / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"adapter=.*holed lacks weights for some layers"):
        load(replace(tiny_pair.base, adapter=str(holed)), "cpu")
    with pytest.raises(ConfigError, match=r"doesn't fit .*name the base that it was trained on"):
        load(replace(tiny_neox_pair.base, adapter=adapter), "cpu")


def test_an_adapter_of_the_text_is_refused(tiny_pair, tmp_path):
    soft = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    folder = save_adapter(tiny_pair.base, tmp_path / "soft", soft)
    with pytest.raises(ConfigError, match=r"is prompt_tuning, which puts vectors into the text"):
        load(replace(tiny_pair.base, adapter=folder), "cpu")


def test_a_folder_that_is_an_adapter_says_where_it_belongs(tiny_pair, adapter, tmp_path):
    with pytest.raises(ConfigError, match=r"holds an adapter; name its base there.*\.adapter="):
        describe(ModelConfig(path=adapter))
    with pytest.raises(ConfigError, match=r"holds no adapter_config\.json"):
        describe(replace(tiny_pair.base, adapter=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"is no folder; name an adapter's folder, or a hub id"):
        describe(replace(tiny_pair.base, adapter="/nowhere/at/all"))


def test_a_missing_peft_is_named_with_the_extra(tiny_pair, adapter, monkeypatch):
    monkeypatch.setattr(adapter_room, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs peft; pip install 'sae_reasoning\[peft\]'"):
        load(replace(tiny_pair.base, adapter=adapter), "cpu")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_computed_as_asked(tiny_pair, attention):
    lm = load(replace(tiny_pair.base, attention=attention), "cpu")
    assert lm.model.config._attn_implementation == attention
    torch.testing.assert_close(
        logits(lm), logits(load(tiny_pair.base, "cpu")), atol=1e-5, rtol=1e-4
    )


def test_attention_that_is_not_there_is_refused_in_one_line(tiny_pair):
    with pytest.raises(ConfigError, match=r"attention=flashier .*set eager or sdpa") as refusal:
        load(replace(tiny_pair.base, attention="flashier"), "cpu")
    assert "\n" not in str(refusal.value)


def test_a_device_map_places_the_model(tiny_pair):
    lm = load(replace(tiny_pair.base, device_map="cpu"), "auto")
    assert lm.device == torch.device("cpu")
    torch.testing.assert_close(logits(lm), logits(load(tiny_pair.base, "cpu")))
    with pytest.raises(ConfigError, match=r"device_map=sideways .*set auto, balanced"):
        load(replace(tiny_pair.base, device_map="sideways"), "cpu")


def test_a_model_that_lacks_weights_is_refused(tiny_pair, tmp_path):
    holed = shutil.copytree(tiny_pair.base.path, tmp_path / "holed")
    weights = load_file(holed / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, holed / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 of its weights .*drawn at random"):
        load(ModelConfig(path=str(holed)), "cpu")


@pytest.fixture(scope="module")
def chatty(tiny_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """The base with a chat template beside it."""
    folder = shutil.copytree(tiny_pair.base.path, tmp_path_factory.mktemp("chat") / "chatty")
    tokenizer = load_tokenizer(tiny_pair.base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return ModelConfig(path=str(folder))


def test_prompts_go_into_the_chat_template_only_where_asked(tiny_pair, chatty):
    plain = load_tokenizer(tiny_pair.base)
    off, on = load_tokenizer(chatty), load_tokenizer(replace(chatty, chat_template=True))
    assert encode_prompt(off, "ash: birch .") == encode_prompt(plain, "ash: birch .")
    words = [*encode_prompt(plain, "at ash: birch . so")]
    assert encode_prompt(on, "ash: birch .") == words
    assert words.count(plain.bos_token_id) == 1


def test_a_template_that_is_not_there_is_refused(tiny_pair):
    with pytest.raises(ConfigError, match=r"chat_template=true, but the tokenizer of .* has none"):
        load_tokenizer(replace(tiny_pair.base, chat_template=True))


def test_another_tokenizer_can_be_named(tiny_pair, tiny_neox_pair):
    borrowed = replace(tiny_neox_pair.base, tokenizer=tiny_pair.base.path)
    assert load_tokenizer(borrowed).get_vocab() == load_tokenizer(tiny_pair.base).get_vocab()
    assert (
        describe(borrowed).tokenizer_fingerprint == describe(tiny_pair.base).tokenizer_fingerprint
    )


def test_fingerprints_change_with_added_end_tokens_and_with_a_template_in_a_file_of_its_own(
    tiny_pair, tmp_path
):
    model = replace(tiny_pair.base, path=str(shutil.copytree(tiny_pair.base.path, tmp_path / "m")))
    chatty, plain = replace(model, chat_template=True), describe(tiny_pair.base)
    assert describe(model).fingerprint == describe(chatty).fingerprint == plain.fingerprint
    ends = tmp_path / "m" / "generation_config.json"
    ends.write_text('{"eos_token_id": [2, 7]}', encoding="utf-8")
    assert describe(model).fingerprint != plain.fingerprint
    seen = set()
    for template in ("{{ messages }}", TEMPLATE):
        (tmp_path / "m" / "chat_template.jinja").write_text(template, encoding="utf-8")
        seen.add(describe(chatty).tokenizer_fingerprint)
    assert len(seen - {plain.tokenizer_fingerprint}) == 2
    assert load_tokenizer(chatty).chat_template == TEMPLATE
    assert describe(model).tokenizer_fingerprint == plain.tokenizer_fingerprint
