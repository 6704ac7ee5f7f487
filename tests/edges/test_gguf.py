"""GGUF files, written here from models that are known: what is read back must be those."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from sae_reasoning.config import ConfigError, ModelConfig, PlanConfig
from sae_reasoning.edges.lm import gguf as gguf_room
from sae_reasoning.edges.lm.load import describe, encode_response, load, load_tokenizer
from sae_reasoning.edges.lm.shapes import size_of

gguf = pytest.importorskip("gguf")

HEADS, KV_HEADS = 4, 2
TEXT = "Wait, naïve — 再 check 🤔 that. So the answer is 7."


def byte_pairs() -> Tokenizer:
    """A byte-level tokenizer, as GPT-2's is built."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def small_llama(vocab_size: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key as llama.cpp stores them: halves of each head interleaved."""
    rows, columns = weight.shape
    return (
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def tensors_of(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    """Its weights under llama.cpp's names."""
    found = {}
    for name, weight in model.state_dict().items():
        values, stem = weight.numpy(), name.removesuffix(".weight")
        if stem in OUTER:
            found[f"{OUTER[stem]}.weight"] = values
            continue
        _, _, block, inner = stem.split(".", 3)
        if inner.endswith(("q_proj", "k_proj")):
            values = turned(values, HEADS if inner.endswith("q_proj") else KV_HEADS)
        found[f"blk.{block}.{NAMES[inner]}.weight"] = values
    return found


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, drop: str = "") -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    special = gguf.TokenType.CONTROL
    writer.add_token_types(
        [special if token == "<|end|>" else gguf.TokenType.NORMAL for token, _ in vocabulary]
    )
    writer.add_token_merges(merges_of(tokenizer))
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(tokenizer.token_to_id("<|end|>"))
    writer.add_add_bos_token(False)
    for name, values in tensors_of(model).items():
        if name != drop:
            writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merges_of(tokenizer: Tokenizer) -> list[str]:
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_pairs()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    return small_llama(tokenizer.get_vocab_size())


@pytest.fixture(scope="module")
def config(tmp_path_factory, model, tokenizer) -> ModelConfig:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "tiny.gguf", model, tokenizer)
    return ModelConfig(path=str(folder), gguf_file="tiny.gguf")


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_REASONING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_a_gguf_file_is_the_model_that_it_was_written_from(config, model, tokenizer):
    lm = load(config, "cpu")
    assert (lm.facts.name, lm.facts.num_layers, lm.facts.d_model) == ("tiny", 3, 32)
    ids = torch.tensor([tokenizer.encode(TEXT).ids])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-4)


def test_its_size_is_known_to_a_plan(config, model):
    size = size_of(config, PlanConfig())
    assert (size.num_layers, size.d_model, size.source) == (3, 32, "config")
    assert size.block_weights == sum(
        weight.numel() for weight in model.model.layers[0].parameters() if weight.ndim > 1
    )


def test_its_tokenizer_cuts_text_as_the_original_does(config, tokenizer):
    ids, offsets = encode_response(load_tokenizer(config), TEXT)
    original = tokenizer.encode(TEXT)
    assert ids == original.ids
    assert offsets == original.offsets
    assert load_tokenizer(config).eos_token == "<|end|>"


def test_it_is_unpacked_once_and_can_be_saved(config, monkeypatch, tmp_path):
    first = load(config, "cpu")

    def refuse(*_: object) -> None:
        raise AssertionError("unpacked again")

    monkeypatch.setattr(gguf_room, "_unpack", refuse)
    again = load(config, "cpu")
    assert again.facts == first.facts == describe(config)
    again.model.save_pretrained(tmp_path / "saved")
    saved = ModelConfig(path=str(tmp_path / "saved"))
    assert describe(saved).num_layers == 3
    assert not hasattr(again.model.config, "quantization_config")


def test_another_file_of_that_name_is_another_model(config, tokenizer, tmp_path):
    other = small_llama(tokenizer.get_vocab_size())
    with torch.no_grad():
        other.lm_head.weight.add_(1.0)
    write_gguf(tmp_path / "tiny.gguf", other, tokenizer)
    facts = describe(ModelConfig(path=str(tmp_path), gguf_file="tiny.gguf"))
    assert facts.fingerprint != describe(config).fingerprint
    assert facts.tokenizer_fingerprint == describe(config).tokenizer_fingerprint


def test_a_file_without_some_weights_is_refused(model, tokenizer, tmp_path):
    write_gguf(tmp_path / "holed.gguf", model, tokenizer, drop="blk.1.ffn_up.weight")
    with pytest.raises(ConfigError, match=r"lacks 1 of its weights .*layers\.1\.mlp\.up_proj"):
        load(ModelConfig(path=str(tmp_path), gguf_file="holed.gguf"), "cpu")


def test_a_file_that_is_cut_short_is_refused_in_one_line(config, tmp_path):
    whole = (Path(config.path) / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"gguf_file=cut\.gguf can't be read") as refusal:
        load(ModelConfig(path=str(tmp_path), gguf_file="cut.gguf"), "cpu")
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_named_with_those_that_are(config):
    missing = ModelConfig(path=config.path, gguf_file="huge.gguf")
    with pytest.raises(ConfigError, match=r"huge\.gguf isn't in .*files there: tiny\.gguf"):
        describe(missing)


def test_a_missing_package_is_named_with_the_extra(config, monkeypatch, tmp_path):
    monkeypatch.setattr(gguf_room, "find_spec", lambda name: None)
    monkeypatch.setenv("SAE_REASONING_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs gguf and accelerate .*\[gguf\]"):
        load(config, "cpu")
