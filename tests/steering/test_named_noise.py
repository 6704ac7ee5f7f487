"""Named streams of noise: the same rows under another name are drawn afresh."""

import torch

from sae_reasoning.steering.noise import Noise, keyed_gumbel

ROWS = [(7, 0), (7, 1), (8, 0)]


def test_streams_of_different_names_share_no_key():
    named = [Noise(stream, 3).keys(ROWS) for stream in ("traces", "contrast", "hybrid")]
    every = torch.cat(named)
    assert len({tuple(key) for key in every.tolist()}) == 3 * len(ROWS)


def test_a_key_is_of_its_row_whatever_others_are_drawn():
    keys = Noise("ablate", 3).keys(ROWS)
    assert torch.equal(keys[1:2], Noise("ablate", 3).keys(ROWS[1:2]))
    assert keys[:, 0].tolist() == [3, 3, 3]
    assert keys[:, 1].tolist() == [7, 7, 8]


def test_draws_of_two_streams_are_uncorrelated():
    first, second = (
        keyed_gumbel(Noise(stream, 0).keys([(1, 0)]), 0, 20_000)[0] for stream in ("a", "b")
    )
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.03


def test_no_rows_have_no_keys():
    assert Noise("a", 0).keys([]).shape == (0, 3)
