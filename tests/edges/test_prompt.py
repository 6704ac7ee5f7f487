"""What chat templates make of a prompt, and whether they have begun to think."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.lm.load import encode_prompt, load_tokenizer
from sae_reasoning.edges.lm.prompt import opened_by_prompt, render_prompt
from sae_reasoning.tasks.text.task import THINKING_MARKS

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
    assert bool(opened_by_prompt(tokenizer, prompt)) is is_open


@pytest.mark.parametrize("mark", THINKING_MARKS)
def test_a_template_may_open_a_chain_of_thought_by_any_mark(tokenizer, mark):
    closed = THINKING_MARKS[mark]
    tokenizer.chat_template = f"{TURN}so {mark}"
    assert opened_by_prompt(tokenizer, ASKED) == mark
    tokenizer.chat_template = f"{TURN}so {mark}{closed}"
    assert opened_by_prompt(tokenizer, ASKED) == ""


def test_a_model_may_be_asked_in_words_of_its_own(tokenizer, tiny_pair):
    """With or without a chat template, and whoever asks: it's the tokenizer that knows."""
    plain = load_tokenizer(tiny_pair.base)
    own = load_tokenizer(replace(tiny_pair.base, prompt="at ash: {question} so"))
    assert encode_prompt(own, ASKED) == encode_prompt(plain, f"at ash: {ASKED} so")
    assert encode_prompt(load_tokenizer(tiny_pair.base), ASKED) == encode_prompt(plain, ASKED)
    own.chat_template = TURN
    assert render_prompt(own, ASKED) == f"at at ash: {ASKED} so "
    own.chat_template = None
    thinks = load_tokenizer(replace(tiny_pair.base, prompt="{question}\n<think>"))
    assert opened_by_prompt(thinks, ASKED) == "<think>"
    braces = load_tokenizer(replace(tiny_pair.base, prompt="{x} {question}"))
    assert render_prompt(braces, "ash: {question}") == "{x} ash: {question}"


@pytest.mark.parametrize("prompt", ["", "Answer it.", "{question} {question}"])
def test_words_that_do_not_hold_the_question_once_are_refused(tiny_pair, prompt):
    base = replace(tiny_pair.base, prompt=prompt)
    with pytest.raises(ConfigError, match=r"pair\.base\.prompt=.* must hold {question} once"):
        replace(tiny_pair, base=base)


def test_only_pairs_with_prompts_of_their_own_are_told_apart_by_them(tiny_pair):
    assert "prompt" not in tiny_pair.reading
    base = replace(tiny_pair.base, prompt="Question: {question}")
    assert replace(tiny_pair, base=base).reading["prompt"] == {
        "base": "Question: {question}",
        "rl": "{question}",
    }


def test_a_prompt_without_template_is_read_as_it_is(tokenizer):
    tokenizer.chat_template = None
    assert render_prompt(tokenizer, ASKED) == ASKED
