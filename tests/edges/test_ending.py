"""What ends a rollout: any of a model's own end tokens, or text, however tokens cut it."""

import pytest
from byte_level import byte_level_tokenizer, ids, new_lm, saying
from transformers import GenerationConfig

from sae_reasoning.edges.lm.generate import Rollout, generate
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.records import SentenceEnd
from sae_reasoning.tasks.marks import MarkEnd

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|custom_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return new_lm(byte_level_tokenizer())


def rolled(
    lm: LanguageModel, *scripts: list[int], until: SentenceEnd | None = None, most: int = 30
) -> list[Rollout]:
    made = generate(
        lm,
        [[lm.tokenizer.bos_token_id, 50 + row] for row in range(len(scripts))],
        sampler=saying(*scripts),
        max_new_tokens=most,
        batch_size=2,
        until=until,
    )
    return sorted(made, key=lambda rollout: rollout.row)


def test_the_tokenizers_end_comes_first_and_that_of_chatml_is_known(lm):
    names = lm.tokenizer.convert_ids_to_tokens(list(lm.end_ids))
    assert names == ["</s>", "<|im_end|>"]


def test_a_generation_config_adds_ends_one_or_many():
    lm = new_lm(byte_level_tokenizer())
    lm.model.generation_config = GenerationConfig(eos_token_id=[70, 1])
    assert lm.end_ids[:2] == (1, 70)
    lm = new_lm(byte_level_tokenizer())
    lm.model.generation_config = GenerationConfig(eos_token_id=71)
    assert 71 in lm.end_ids


def test_a_model_config_is_not_believed_where_it_names_an_ordinary_word():
    """As where nobody says and the default of the class stands."""
    tokenizer = byte_level_tokenizer()
    custom = tokenizer.convert_tokens_to_ids("<|custom_end|>")
    lm = new_lm(tokenizer, eos_token_id=[custom, 60])
    assert custom in lm.end_ids and 60 not in lm.end_ids


def test_what_a_chat_template_writes_after_an_answer_ends_one():
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = CHAT
    lm = new_lm(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|custom_end|>") in lm.end_ids


def test_the_end_of_a_message_ends_no_turn_where_a_turn_has_an_end_of_its_own():
    """As in gpt-oss, whose thoughts are a message before the answer; Phi has the first alone."""
    both = ["<s>", "</s>", "<pad>", "<|end|>", "<|return|>"]
    for special in (both, both[:-1]):
        lm = new_lm(byte_level_tokenizer(special=special))
        assert lm.tokenizer.convert_ids_to_tokens(list(lm.end_ids)) == ["</s>", special[-1]]


def test_every_end_token_ends_a_rollout_and_is_kept_beside_it(lm):
    words = ids(lm, "Let me check")
    scripts = [[*words, end, *words] for end in lm.end_ids]
    for rollout, end in zip(rolled(lm, *scripts), lm.end_ids, strict=True):
        assert rollout == Rollout(rollout.row, tuple(words), truncated=False, end_id=end)


def test_a_model_without_any_end_token_writes_to_the_limit():
    special = ["<s>", "<pad>"]
    lm = new_lm(byte_level_tokenizer(eos=None, special=special))
    assert lm.end_ids == ()
    (rollout,) = rolled(lm, [7, 8, 9], most=5)
    assert rollout == Rollout(0, (7, 8, 9, 9, 9), truncated=True)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Wait. Let me check.", "Wait."),
        ("Wait.\n\nLet me check.", "Wait."),
        ("So 7.5 is right. Let me check.", "So 7.5 is right."),
        ("So 7. Wait", "So 7."),
        ("this . Then", "this ."),
        ("He said 'yes.' Then", "He said 'yes.'"),
        ("naïve 🤔. Then", "naïve 🤔."),
    ],
)
def test_text_ends_a_rollout_where_a_sentence_ends(lm, text, kept):
    script = [*ids(lm, text), *ids(lm, " check") * 20]
    (rollout,) = rolled(lm, script, until=MarkEnd("."))
    assert lm.decode(list(rollout.token_ids)).rstrip("\n") == kept
    assert rollout.token_ids == tuple(script[: len(rollout.token_ids)])
    assert not rollout.truncated and rollout.end_id is None


@pytest.mark.parametrize("written", ["So 7.5 is", "Let me check,"])
def test_a_rollout_without_the_end_of_a_sentence_is_cut(lm, written):
    script = ids(lm, written)
    (rollout,) = rolled(lm, script, until=MarkEnd("."), most=len(script))
    assert rollout.truncated and rollout.token_ids == tuple(script)


def test_a_sentence_that_ends_at_the_limit_has_ended(lm):
    script = ids(lm, "Let me check.")
    (rollout,) = rolled(lm, script, until=MarkEnd("."), most=len(script))
    assert not rollout.truncated and rollout.token_ids == tuple(script)
