"""Trackers looked for in dictionaries of other seeds."""

import numpy as np

from sae_reasoning.behaviours.outcomes import TRACKERS, Target
from sae_reasoning.behaviours.replication import attack_by_seeds, replicas_of
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals


def _maxima(num_latents: int, good: int) -> SparseMaxima:
    """Twenty spans and windows in each of two cells; one latent fires on all spans."""
    cell = np.repeat([0, 1], 20)
    place = np.arange(40)
    is_positive = place % 2 == 0
    intervals = Intervals(place, place + 1, cell, is_positive, place, place)
    interval = np.flatnonzero(is_positive)
    latent = np.full(len(interval), good)
    return SparseMaxima(intervals, num_latents, interval, latent, np.ones(20, np.float32))


def test_a_tracker_is_replicated_where_its_direction_is_near_and_ranks_alike() -> None:
    target = Target(TRACKERS, "a", "rl", "rl", 1, 2)
    directions = np.eye(4)
    tilted = np.array([[0, 0, 0.8, 0.6], [1.0, 0, 0, 0], [0, 1, 0, 0]])

    def found(good: int, near: float = 0.7, best: int = 1) -> bool:
        (replica,) = replicas_of(
            [target], directions, tilted, _maxima(3, good), 0, 1, seed=5, near=near, best=best
        )
        assert (replica.counterpart, replica.seed, replica.latent) == (0, 5, 2)
        assert np.isclose(replica.cosine, 0.8)
        assert replica.rank == (1 if good == 0 else 2)
        assert replica.span_auroc == (1.0 if good == 0 else 0.5)
        return replica.is_replicated

    assert found(good=0)
    assert not found(good=1)
    assert found(good=1, best=2)
    assert not found(good=0, near=0.81)


def test_all_seeds_spare_a_tracker_none_kills_it_and_some_leave_it_open() -> None:
    target = Target(TRACKERS, "a", "rl", "rl", 1, 2)
    directions = np.eye(4)

    def outcome(*goods: int) -> str:
        replicas = [
            one
            for seed, good in enumerate(goods)
            for one in replicas_of(
                [target],
                directions,
                np.eye(4)[1:],
                _maxima(3, good),
                0,
                1,
                seed=seed,
                near=0.7,
                best=1,
            )
        ]
        attack = attack_by_seeds(target, replicas)
        assert attack.n_pos == len(goods)
        return attack.outcome

    assert outcome(1, 1) == "survives"
    assert outcome(0, 2) == "killed"
    assert outcome(1, 0) == "unclear"
