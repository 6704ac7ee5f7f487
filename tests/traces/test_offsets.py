"""Labels on tokens of any fast tokenizer, whatever a character is made of."""

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sae_reasoning.edges.lm.load import encode_response
from sae_reasoning.records import Opportunity, Span
from sae_reasoning.traces.align import align_opportunity, align_span, align_words

TEXTS = [
    "So 3 × 4 = 12. Wait, naïve — check that again.",
    "Это верно. Подождите, 再检查一遍。 そうか。",
    "Yes 🤔🤔 wait 👩‍👩‍👧 no.\n\nHmm, é (e + ◌́) and ﬁne\tthen.",
    "  leading, and trailing — 🏳️‍🌈  ",
    "∑ᵢ xᵢ² ≤ 10¹⁰ ⇒ x ∈ ℝⁿ; 𝒲ait",
]
MARK = "▁"


def byte_level(trim: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece_bpe() -> Tokenizer:
    """As Llama 2's: space before everything as a mark, bytes where a character is unknown."""
    known = sorted(set("Waitchekso,.nv 0123456789") - {" "} | {MARK})
    merges = [(MARK, "W"), ("a", "i"), (f"{MARK}W", "ai"), (f"{MARK}Wai", "t"), ("c", "h")]
    pieces = ["<unk>", *BYTES, *known, *("".join(pair) for pair in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def sentencepiece_unigram() -> Tokenizer:
    """As T5's or Gemma's, with a normaliser that takes ligatures apart."""
    pieces = [(MARK, -2.0), (f"{MARK}Wait", -3.0), (f"{MARK}check", -3.0)]
    pieces += [(letter, -4.0) for letter in "Waitchekso,.nvyf é"]
    bytes_ = [(byte, -9.0) for byte in BYTES]
    model = models.Unigram([("<unk>", -20.0), *bytes_, *pieces], unk_id=0, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT's, whose normaliser drops accents."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


KINDS = {
    "bytes": lambda: byte_level(trim=False),
    "bytes without white space": lambda: byte_level(trim=True),
    "SentencePiece pairs": sentencepiece_bpe,
    "SentencePiece unigrams": sentencepiece_unigram,
    "word pieces": word_piece,
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory) -> PreTrainedTokenizerFast:
    """Read back from disk, as one that is brought along would be."""
    file: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    KINDS[request.param]().save(str(file))
    assert json.loads(file.read_text(encoding="utf-8"))["model"]
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest) -> str:
    return request.param


def words(text: str) -> list[tuple[int, int]]:
    """Characters of each word."""
    found, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        found.append((start, start + len(word)))
        start += len(word)
    return found


def sharing(offsets, start: int, end: int) -> list[int]:
    """Tokens that share a character with a piece of text, found the long way."""
    return [i for i, (a, b) in enumerate(offsets) if max(a, start) < min(b, end)]


def test_offsets_are_in_order_and_leave_out_no_character(tokenizer, text):
    ids, offsets = encode_response(tokenizer, text)
    assert len(ids) == len(offsets)
    assert [a for a, _ in offsets] == sorted(a for a, _ in offsets)
    assert [b for _, b in offsets] == sorted(b for _, b in offsets)
    covered = {place for a, b in offsets for place in range(a, b)}
    dropped = {character for place, character in enumerate(text) if place not in covered}
    # White space, and what BERT's normaliser takes out: accents apart, joiners.
    assert all(c.isspace() or unicodedata.category(c) in ("Mn", "Cf") for c in dropped)


def test_a_span_has_exactly_the_tokens_that_share_a_character_with_it(tokenizer, text):
    _, offsets = encode_response(tokenizer, text)
    places = words(text)
    for first, (start, _) in enumerate(places):
        for _, end in places[first : first + 3]:
            span = align_span(Span("x", start, end), offsets, 10, "a")
            assert list(range(span.token_start - 10, span.token_end - 10)) == sharing(
                offsets, start, end
            )
    assert align_words(text, offsets) == [
        (min(tokens), max(tokens) + 1) for tokens in (sharing(offsets, *word) for word in places)
    ]


def test_onset_minus_one_precedes_the_first_token_of_every_word(tokenizer, text):
    _, offsets = encode_response(tokenizer, text)
    for start, end in words(text):
        span = align_span(Span("x", start, end), offsets, 10, "a")
        before = len(text[:start].rstrip())
        place = align_opportunity(Opportunity("x", before, True), offsets, 10)
        assert place.token < span.token_start
        # Between the two is white space at most.
        for token in range(place.token + 1 - 10, span.token_start - 10):
            assert not text[slice(*offsets[token])].strip()


def test_a_character_of_several_tokens_belongs_to_its_span_whole(tokenizer):
    text = "no 🦉 yes"  # An owl that no tokenizer here has met.
    ids, offsets = encode_response(tokenizer, text)
    span = align_span(Span("x", 3, 4), offsets, 0, "a")
    inside = range(span.token_start, span.token_end)
    assert "no" in tokenizer.decode(ids[: inside.start])
    assert tokenizer.decode(ids[inside.stop :]).strip() == "yes"
    if tokenizer.convert_tokens_to_ids("[UNK]") == ids[inside.start]:
        assert len(inside) == 1
    else:
        assert len(inside) > 1  # Its bytes.
        assert tokenizer.decode([ids[token] for token in inside]).strip(f" {MARK}") == "🦉"
