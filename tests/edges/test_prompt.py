"""What chat templates make of a prompt, and whether they have begun to think."""

import pytest
from transformers import PreTrainedTokenizerFast

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.load import encode_prompt, load_tokenizer
from sae_reasoning.edges.lm.prompt import prompt_opens_thinking, render_prompt

ASKED = "map ash: gold ; from ash find gold ?"
TURN = "{% for m in messages %}at {{ m['content'] }} {% endfor %}"
PARTS = "{% for m in messages %}{% for p in m.content %}at {{ p.text }} {% endfor %}{% endfor %}"
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('system message first') }}{% endif %}"
    + TURN
)
THINKS = TURN + "{% if add_generation_prompt %}so\n<think>\n{% endif %}"
THOUGHT = TURN + "{% if add_generation_prompt %}so\n<think>\n\n</think>\n\n{% endif %}"


@pytest.fixture
def tokenizer(tiny_pair: PairConfig) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_pair.base)


def test_a_template_that_goes_through_parts_gets_parts(tokenizer):
    tokenizer.chat_template = TURN
    whole = encode_prompt(tokenizer, ASKED)
    tokenizer.chat_template = PARTS
    assert encode_prompt(tokenizer, ASKED) == whole != []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (NEEDS_SYSTEM, "system message first"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("at so", "leaves the prompt out"),
        ("{{ messages[0]['content'][:5] }}", "leaves the prompt out"),
    ],
)
def test_a_template_that_cannot_hold_a_prompt_is_refused_in_one_line(tokenizer, template, said):
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=rf"{said}.*set it to false") as refusal:
        encode_prompt(tokenizer, ASKED)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("template", "prompt", "is_open"),
    [
        (THINKS, ASKED, True),
        (THOUGHT, ASKED, False),
        (TURN, ASKED, False),
        (TURN, "begin with <think>", False),
        (THINKS, "write <think> and </think>", True),
        (TURN + "[THINK]first,", ASKED, True),
        (None, ASKED, False),
        (None, "write <think> and </think>", False),
        (None, "write <think> before you answer", False),
        (None, "Assistant:\n<think>\n", True),
    ],
)
def test_a_prompt_that_opens_a_thinking_block_is_known(tokenizer, template, prompt, is_open):
    tokenizer.chat_template = template
    assert prompt_opens_thinking(tokenizer, prompt) is is_open


def test_a_prompt_without_template_is_read_as_it_is(tokenizer):
    tokenizer.chat_template = None
    assert render_prompt(tokenizer, ASKED) == ASKED
