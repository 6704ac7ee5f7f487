"""The ids that were sampled are those that are stored, and characters are counted along them."""

import random

import pytest
from byte_level import TEXTS, byte_level_tokenizer
from transformers import PreTrainedTokenizerFast

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.load import decode, encode_response, load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_of


@pytest.fixture(scope="module")
def by_bytes() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer()


@pytest.fixture(params=["bytes", "words"])
def tokenizer(request, by_bytes, tiny_pair: PairConfig) -> PreTrainedTokenizerFast:
    return by_bytes if request.param == "bytes" else load_tokenizer(tiny_pair.base)


def check(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> None:
    """Offsets are in order, and say of every character by which tokens it was complete."""
    text = decode(tokenizer, token_ids)
    offsets = offsets_of(tokenizer, token_ids, text)
    assert len(offsets) == len(token_ids)
    starts, ends = zip(*offsets, strict=True)
    assert list(starts) == sorted(starts) and list(ends) == sorted(ends)
    assert ends[-1] == len(text)
    for number, (start, end) in enumerate(offsets):
        # What is whole before a token is what is said without it.
        assert decode(tokenizer, token_ids[:number])[:start].rstrip() == text[:start].rstrip()
        # What is said with it holds its characters, or pieces of the last.
        said = decode(tokenizer, token_ids[: number + 1])
        assert said[: end - 1] == text[: max(end - 1, 0)]


def test_offsets_of_any_ids_follow_the_ids(tokenizer):
    rng = random.Random(0)
    for _ in range(60):
        size = rng.randrange(1, 24)
        check(tokenizer, [rng.randrange(len(tokenizer)) for _ in range(size)])


def test_offsets_of_text_spelt_in_other_pieces_follow_the_pieces(by_bytes):
    """Every token of more than a byte cut into its bytes: the text is the same, its ids aren't."""
    letters = {name: index for name, index in by_bytes.get_vocab().items() if len(name) == 1}
    rng = random.Random(1)
    for text in TEXTS:
        ids, _ = encode_response(by_bytes, text)
        spelt: list[int] = []
        for name, index in zip(by_bytes.convert_ids_to_tokens(ids), ids, strict=True):
            spelt += [letters[char] for char in name] if rng.random() < 0.5 else [index]
        assert decode(by_bytes, spelt) == text and spelt != ids
        assert encode_response(by_bytes, decode(by_bytes, spelt))[0] != spelt
        check(by_bytes, spelt)
        offsets = offsets_of(by_bytes, spelt, text)
        for at, char in enumerate(text):
            own = [index for index, (start, end) in enumerate(offsets) if start <= at < end]
            assert own, char
            if len(own) == 1:
                assert char in by_bytes.decode(spelt[own[0]])


def test_offsets_of_ids_that_are_encoded_so_are_the_tokenizers(tokenizer):
    text = "wait for the rain" if "wait" in tokenizer.get_vocab() else TEXTS[1]
    ids, offsets = encode_response(tokenizer, text)
    assert offsets_of(tokenizer, ids, text) == offsets
    end = (len(text), len(text))
    assert offsets_of(tokenizer, [*ids, tokenizer.eos_token_id], text) == [*offsets, end]


def test_decoding_leaves_the_white_space_that_was_sampled(by_bytes, tiny_pair):
    by_bytes.clean_up_tokenization_spaces = True
    ids = encode_response(by_bytes, "No . Let 's check .")[0]
    assert decode(by_bytes, ids) == "No . Let 's check ."
    words = load_tokenizer(tiny_pair.base)
    words.clean_up_tokenization_spaces = True
    assert decode(words, encode_response(words, "wait . gold ?")[0]) == "wait . gold ?"
