"""Span detectors looked for in dictionaries of other seeds."""

import numpy as np
import pytest

from sae_reasoning.behaviours.outcomes import Target
from sae_reasoning.behaviours.replication import Replica, attack_by_seeds, replicas_of
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.records import SPAN_DETECTORS

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
    assert (replica.counterpart, replica.seed, replica.latent) == (0, 5, 2)
    assert replica.cosine == pytest.approx(tilt)
    return replica


def test_a_span_detector_is_replicated_where_its_direction_is_near_and_for_sure_ranks_alike() -> (
    None
):
    best = _found(_maxima(40, 20, 0))
    assert (best.rank, best.span_auroc, best.lead, best.outcome) == (1, 1.0, 0.0, "survives")
    second = _found(_maxima(20, 40, 0))
    assert (second.rank, second.span_auroc, second.lead) == (2, 0.75, -0.25)
    assert second.lead_high < 0
    assert second.outcome == "killed"
    assert _found(_maxima(20, 40, 0), best=2).outcome == "survives"
    assert _found(_maxima(20, 40, 0), best=99).lead == 0.25  # The last of three.


def test_a_rank_that_other_problems_might_turn_round_is_left_open() -> None:
    close = _found(_maxima(20, 21, 0))  # By one problem of forty, the other's.
    assert close.rank == 2
    assert close.lead == pytest.approx(-1 / 80)
    assert close.lead_low < 0 <= close.lead_high
    assert close.outcome == "unclear"


def test_a_cosine_at_the_bar_is_near_and_one_below_is_not() -> None:
    maxima = _maxima(40, 20, 0)
    at = float(np.float64(0.8))
    assert _found(maxima, near=at).outcome == "survives"
    assert _found(maxima, near=np.nextafter(at, 1)).outcome == "killed"


def test_all_seeds_spare_a_span_detector_none_kills_it_and_some_leave_it_open() -> None:
    spared, killed, close = (
        _found(_maxima(*hits)) for hits in ((40, 20, 0), (20, 40, 0), (20, 21, 0))
    )
    for seeds, expected in (
        ((spared, spared), "survives"),
        ((killed, killed), "killed"),
        ((spared, killed), "unclear"),
        ((spared, close), "unclear"),
        ((killed, close), "unclear"),
    ):
        attack = attack_by_seeds(TARGET, seeds)
        assert attack.outcome == expected
        assert attack.n_pos == 2
        assert attack.comparable == sum(one is spared for one in seeds) / 2
