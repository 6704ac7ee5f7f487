"""How much of the way from one level to another something goes.

    gap recovered = (found − base) / (RL − base)

unclipped (Venhoff et al. 2510.07364). What a problem adds to each level stays together, so
differences are paired; resamples draw problems.
"""

import numpy as np
from jaxtyping import Float

from sae_reasoning.stats.estimates import Estimate
from sae_reasoning.stats.resampling import bootstrap_of_sums

Graded = Float[np.ndarray, "problem 2"]
"""Of each problem, what was earned and out of how many; a level is the one over the other."""


def level_of(sums: Float[np.ndarray, "*sample 2"]) -> Float[np.ndarray, "*sample"]:
    """What was earned over how many; NaN of none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def gap_between(base: Graded, rl: Graded, num_resamples: int, seed: int) -> Estimate:
    """`rl - base`, paired by problem."""
    return bootstrap_of_sums(np.concatenate([base, rl], axis=1), _gap, num_resamples, seed)


def is_gap(gap: Estimate) -> bool:
    """Whether there is anything to recover: the gap's interval leaves 0 out."""
    return gap.low > 0 or gap.high < 0


def gap_recovered(
    found: Graded, base: Graded, rl: Graded, num_resamples: int, seed: int
) -> Estimate:
    """The share of the way from `base` to `rl` that `found` goes.

    Undefined (NaN) where the interval of `rl - base` holds 0.

    Args:
        found: What is reached.
        base: The level that counts as 0, of the same problems.
        rl: The level that counts as 1.
        num_resamples: Of problems.
        seed: Of the resampling.
    """
    if not is_gap(gap_between(base, rl, num_resamples, seed)):
        return Estimate(float("nan"), float("nan"), float("nan"), len(base))
    sums = np.concatenate([found, base, rl], axis=1)
    return bootstrap_of_sums(sums, _recovered, num_resamples, seed)


def _gap(sums: np.ndarray) -> np.ndarray:
    return np.asarray(level_of(sums[..., 2:4]) - level_of(sums[..., :2]))


def _recovered(sums: np.ndarray) -> np.ndarray:
    gap = _gap(sums[..., 2:])
    way = level_of(sums[..., :2]) - level_of(sums[..., 2:4])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(gap != 0, way / gap, np.nan))
