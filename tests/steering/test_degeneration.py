"""Degeneration of text, on texts short enough to count."""

import random

import pytest

from sae_reasoning.steering.degeneration import compression_ratio, degeneration, repeated_share


def test_the_repeated_share_is_that_of_ngrams_that_came_before():
    assert repeated_share("a b") == 0
    assert repeated_share(" ".join(map(str, range(50)))) == 0
    # Seven words hold five 3-grams; the last two are those of the beginning.
    assert repeated_share("wait , no so wait , no") == pytest.approx(1 / 5)
    assert repeated_share("x " * 12) == pytest.approx(9 / 10)
    assert repeated_share("x " * 12, 8) == pytest.approx(4 / 5)


def test_text_that_repeats_itself_compresses_better_than_text_that_does_not():
    rng = random.Random(0)
    words = [str(rng.random()) for _ in range(200)]
    varied, repeated = " ".join(words), " ".join(words[:10] * 20)
    assert compression_ratio("") == 1
    assert 1 < compression_ratio(varied) < 4 < compression_ratio(repeated)
    assert degeneration(repeated).repeated_3grams > 0.9 > 0.1 > degeneration(varied).repeated_3grams


def test_half_a_character_that_a_model_wrote_is_measured_as_well():
    assert compression_ratio("\ud83d") > 0
