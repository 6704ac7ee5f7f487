"""Span detectors looked for in dictionaries of other seeds."""

import numpy as np
import pytest

from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.records import SPAN_DETECTORS
from sae_reasoning.robustness.outcomes import Target
from sae_reasoning.robustness.replication import Replica, attack_by_seeds, replicas_of

PROBLEMS = 40
TARGET = Target(SPAN_DETECTORS, "a", "rl", "rl", 1, 2)


def _maxima(*hits: int) -> SparseMaxima:
    """A span and a window of each problem, in two cells; latent l fires on `hits[l]` spans."""
    cell = np.repeat([0, 1], 2 * PROBLEMS)
    place = np.arange(4 * PROBLEMS)
    problem = np.tile(np.repeat(np.arange(PROBLEMS), 2), 2)
    intervals = Intervals(place, place + 1, cell, place % 2 == 0, problem, place)
    fires = [
        (2 * PROBLEMS * split + 2 * number, latent)
        for split in (0, 1)
        for latent, num in enumerate(hits)
        for number in range(num)
    ]
    interval, latent = np.array(sorted(fires), np.int64).reshape(-1, 2).T
    return SparseMaxima(intervals, len(hits), interval, latent, np.ones(len(fires), np.float32))


def _found(maxima: SparseMaxima, *, near: float = 0.7, best: int = 1, tilt: float = 0.8) -> Replica:
    """The replica of latent 2; the other dictionary's latent 0 is the nearest to it."""
    side = (1 - tilt**2) ** 0.5
    others = np.array([[0, 0, tilt, side], [1.0, 0, 0, 0], [0, 1, 0, 0]])
    (replica,) = replicas_of(
        [TARGET],
        np.eye(4),
        others,
        maxima,
        0,
        1,
        seed=5,
        near=near,
        best=best,
        num_resamples=400,
    )
    assert (replica.matched_latent, replica.seed, replica.latent) == (0, 5, 2)
    assert replica.cosine == pytest.approx(tilt)
    return replica


def test_a_span_detector_is_replicated_where_its_direction_is_near_and_ranks_alike() -> None:
    best = _found(_maxima(40, 20, 0))
    assert (best.rank, best.span_auroc, best.lead, best.outcome) == (1, 1.0, 0.0, "robust")
    second = _found(_maxima(20, 40, 0))
    assert (second.rank, second.span_auroc, second.lead) == (2, 0.75, -0.25)
    assert second.lead_high < 0
    assert second.outcome == "refuted"
    assert _found(_maxima(20, 40, 0), best=2).outcome == "robust"
    assert _found(_maxima(20, 40, 0), best=99).lead == 0.25  # The last of three.


def test_a_rank_that_other_problems_might_turn_round_is_left_open() -> None:
    close = _found(_maxima(20, 21, 0))  # By one problem of forty, the other's.
    assert close.rank == 2
    assert close.lead == pytest.approx(-1 / 80)
    assert close.lead_low < 0 <= close.lead_high
    assert close.outcome == "inconclusive"


def test_a_cosine_at_the_bar_is_near_and_one_below_is_not() -> None:
    maxima = _maxima(40, 20, 0)
    at = float(np.float64(0.8))
    assert _found(maxima, near=at).outcome == "robust"
    assert _found(maxima, near=np.nextafter(at, 1)).outcome == "refuted"


def test_a_span_detector_is_robust_in_all_seeds_refuted_in_all_or_else_inconclusive() -> None:
    robust, refuted, close = (
        _found(_maxima(*hits)) for hits in ((40, 20, 0), (20, 40, 0), (20, 21, 0))
    )
    for seeds, expected in (
        ((robust, robust), "robust"),
        ((refuted, refuted), "refuted"),
        ((robust, refuted), "inconclusive"),
        ((robust, close), "inconclusive"),
        ((refuted, close), "inconclusive"),
    ):
        attack = attack_by_seeds(TARGET, seeds)
        assert attack.outcome == expected
        assert attack.n_pos == 2
        assert attack.comparable == sum(one is robust for one in seeds) / 2
