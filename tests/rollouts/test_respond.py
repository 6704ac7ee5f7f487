"""Responses to prefixes of token ids, on a byte-level tokenizer."""

from collections.abc import Mapping, Sequence

import pytest
from byte_level import byte_level_tokenizer, ids, new_lm, saying
from torch import Tensor

from sae_reasoning.edges.lm.generate import BatchEdits, Sampler
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.records import Additions
from sae_reasoning.rollouts.respond import Prefix, Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.marks import MarkEnd

SAMPLING = Sampling(Noise("test", 0), 1.0, max_new_tokens=20)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return new_lm(byte_level_tokenizer())


def test_a_beginning_is_appended_as_ids_and_the_text_has_no_character_without_a_token(lm):
    """The prompt's end and the beginning would be one token if they were cut together."""
    script = saying([*ids(lm, " 42."), lm.end_ids[0]])
    prefix = prefix_of(lm, "The ans", 0, begun="wer is")
    (made,) = respond(lm, [prefix], SAMPLING, sampler=lambda keyed: script)
    assert made.prefix.prompt_ids == tuple(ids(lm, "The ans"))
    assert made.prefix.begun_ids == tuple(ids(lm, "wer is"))
    assert (made.text, made.added) == ("wer is 42.", " 42.")
    assert lm.decode(made.response_ids) == made.text
    assert made.end_id == lm.end_ids[0]


def test_an_opening_follows_tokens_that_were_given_with_the_white_space_that_is_missing(lm):
    def begun(text: str, opening: str = "") -> Prefix:
        return prefix_of(lm, "p", 0, begun=ids(lm, text), opening=opening)

    after_word = begun("No.", "Let me check").begun_ids
    assert lm.decode(list(after_word)) == "No. Let me check"
    assert after_word[: len(ids(lm, "No."))] == tuple(ids(lm, "No."))
    after_lines = begun("No.\n\n", "Let me check").begun_ids
    assert lm.decode(list(after_lines)) == "No.\n\nLet me check"
    assert begun("No.").begun_ids == tuple(ids(lm, "No."))


def test_a_response_depends_on_its_key_and_stream_not_on_its_batch(lm):
    prefixes = [prefix_of(lm, "The", key, sample) for key in (3, 4) for sample in (0, 1)]
    together = respond(lm, prefixes, SAMPLING)
    alone = [respond(lm, [one], SAMPLING)[0] for one in prefixes]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({one.token_ids for one in together}) == 4
    other = Sampling(Noise("other", 0), 1.0, max_new_tokens=20)
    assert respond(lm, prefixes, other)[0].token_ids != together[0].token_ids


def test_a_response_ends_with_its_sentence(lm):
    script = saying(ids(lm, "No. Then more and more and more"))
    (made,) = respond(
        lm, [prefix_of(lm, "p", 0)], SAMPLING, until=MarkEnd("."), sampler=lambda keyed: script
    )
    assert made.added.strip() == "No." and not made.truncated


def test_edits_are_made_for_each_batch_and_say_what_they_added_to_each_row(lm):
    batches: list[list[int]] = []

    def make(batch: Sequence[int]) -> BatchEdits:
        batches.append(list(batch))
        chosen: list[int] = []

        def edit(resid: Tensor, rows: Tensor) -> Tensor:
            return resid + 0.5 * rows[:, None]  # Rows are places among all prefixes.

        def following(sampler: Sampler) -> Sampler:
            def sample(logits: Tensor, rows: Tensor, step: int) -> Tensor:
                chosen.extend(rows.tolist())
                return sampler(logits, rows, step)

            return sample

        def additions(num_positions: Mapping[int, int]) -> dict[int, Additions]:
            assert set(num_positions) == set(batch) == set(chosen)
            return {row: Additions(row / 2, n, tuple(range(n))) for row, n in num_positions.items()}

        return BatchEdits({1: edit}, following, additions)

    prefixes = [prefix_of(lm, "The", key) for key in range(5)]
    sampling = Sampling(Noise("test", 0), 1.0, max_new_tokens=6, batch_size=2)
    plain, edited = respond(lm, prefixes, sampling), respond(lm, prefixes, sampling, edits=make)
    assert sorted(row for batch in batches for row in batch) == list(range(5)) and len(batches) > 1
    for row, one in enumerate(edited):
        length = len(one.token_ids) + (not one.truncated)
        assert one.edited == Additions(row / 2, length, tuple(range(length)))
    assert edited[0].token_ids == plain[0].token_ids
    assert edited[4].token_ids != plain[4].token_ids
    assert all(one.edited is None for one in plain)
