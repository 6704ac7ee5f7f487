"""Sparse probes: how many latents a behaviour takes."""

import numpy as np

from sae_reasoning.behaviours.probes import SparseProbes, pursue
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.stats import auroc


def test_the_pursuit_takes_what_adds_and_not_what_repeats() -> None:
    """Two causes; three copies of the first are each better alone than the second."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3000))
    y = rng.random(3000) < 1 / (1 + np.exp(-(2.0 * first + 1.2 * second)))
    copies = [first + rng.normal(0, 0.05, 3000) for _ in range(3)]
    features = np.stack([rng.normal(size=3000), *copies, second], axis=1)
    picked = pursue(features, y, 2).tolist()
    assert picked[0] in (1, 2, 3)
    assert picked[1] == 4
    assert int(np.argsort(-auroc(features, y))[1]) != 4  # The second best by AUROC is a copy.


def test_a_probe_of_two_latents_beats_one_where_two_words_make_the_behaviour() -> None:
    rng = np.random.default_rng(1)
    n = 800
    cell = np.repeat([0, 1], n // 2)
    is_positive = rng.random(n) < 0.5
    which = rng.random(n) < 0.5
    dense = np.zeros((n, 5), np.float32)
    dense[is_positive & which, 1] = 2.0
    dense[is_positive & ~which, 3] = 2.0
    dense[rng.random(n) < 0.3, 0] = 1.0
    interval, latent = np.nonzero(dense)
    place = np.arange(n)
    intervals = Intervals(place, place + 1, cell, is_positive, place, place)
    probes = SparseProbes(SparseMaxima(intervals, 5, interval, latent, dense[interval, latent]))
    found = [
        auroc(probes.score(k, 0, 1)[:, None].astype(float), is_positive[cell == 1])[0]
        for k in (1, 2, 5)
    ]
    assert 0.7 < found[0] < 0.8
    assert found[1] == 1.0
    assert found[2] > 0.99
