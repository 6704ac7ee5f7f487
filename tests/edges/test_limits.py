"""How long a text a model can read, and which tokens; refused before anything runs."""

from dataclasses import replace
from typing import Any

import pytest
from byte_level import byte_level_tokenizer, ids, new_lm, saying
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen2Config

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.limits import context_of, require_context, require_embeddings
from sae_reasoning.edges.lm.load import describe, load
from sae_reasoning.edges.lm.lockstep import lockstep


@pytest.mark.parametrize(
    ("config", "context"),
    [
        (LlamaConfig(max_position_embeddings=512), 512),
        (GPT2Config(n_positions=64), 64),
        (Gemma3TextConfig(max_position_embeddings=256), 256),
        (
            Qwen2Config(
                max_position_embeddings=100,
                rope_scaling={
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 100,
                },
            ),
            400,
        ),
    ],
)
def test_the_context_is_what_positions_reach_scaled_ones_included(config, context):
    assert context_of(config) == context


def test_a_scaled_context_that_is_written_down_already_is_not_scaled_again():
    """As Llama 3.1's: 8 times 8,192 is less than its 131,072."""
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(max_position_embeddings=131072, rope_scaling=rope)
    assert context_of(config) == 131072


def test_a_model_that_nothing_limits_takes_any_text():
    require_context(None, "bloom", 10**6, 10**6)
    require_context(100, "small", 60, 40)
    with pytest.raises(ConfigError, match="small"):
        require_context(100, "small", 61, 40)


def test_what_does_not_fit_names_the_option_and_what_would():
    with pytest.raises(
        ConfigError,
        match=r"^traces\.max_new_tokens=50 after a prompt of 60 tokens exceeds the 100 of "
        r"small's context; set traces\.max_new_tokens=40 or less$",
    ):
        require_context(100, "small", 60, 50, "traces.max_new_tokens")
    with pytest.raises(ConfigError, match=r"text of 100 tokens exceeds the 100 .*shorten it"):
        require_context(100, "small", 100, 1)


def test_generation_and_lockstep_refuse_what_exceeds_the_context_before_they_begin():
    lm = new_lm(byte_level_tokenizer(), max_position_embeddings=32)
    lm = replace(lm, facts=replace(lm.facts, context=32))
    steps = []

    def sampler(logits, rows, step):
        steps.append(step)
        return saying([7], [7])(logits, rows, step)

    options = {"sampler": sampler, "batch_size": 1}
    prompts = [[5] * 8, [5] * 20]
    with pytest.raises(ConfigError, match="max_new_tokens=13 after a prompt of 20 tokens"):
        list(generate(lm, prompts, max_new_tokens=13, **options))

    def policy(*_: object) -> Any:
        raise AssertionError("nothing is decided on what is refused")

    both = lockstep(lm, lm, prompts, policy=policy, layers=[0], max_new_tokens=13, **options)
    with pytest.raises(ConfigError, match="max_new_tokens=13 after a prompt of 20 tokens"):
        list(both)
    assert steps == []
    assert len(list(generate(lm, prompts, max_new_tokens=12, **options))) == 2


def test_a_token_without_an_embedding_is_refused_by_name():
    tokenizer = byte_level_tokenizer()
    lm = new_lm(tokenizer)
    tokenizer.add_tokens(["<think>"])
    text = ids(lm, "So <think>")
    said = (
        rf"no token {text[-1]} \('<think>'\), which a prompt holds: .* {len(tokenizer) - 1}; resize"
    )
    with pytest.raises(ConfigError, match=said):
        list(generate(lm, [text], sampler=saying([7]), max_new_tokens=2, batch_size=1))
    with pytest.raises(ConfigError, match=said):
        require_embeddings(
            tokenizer, len(tokenizer) - 1, "small", [("one", [1]), ("a prompt", text)]
        )
    require_embeddings(tokenizer, len(tokenizer), "large", [("a prompt", text)])


def test_what_is_said_of_a_model_is_what_it_is(tiny_pair):
    facts, lm = describe(tiny_pair.base), load(tiny_pair.base, "cpu")
    assert facts.num_embeddings == lm.model.get_input_embeddings().weight.shape[0]
    assert facts.context == lm.model.config.max_position_embeddings == 1024
