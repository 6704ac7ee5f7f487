"""How much of the way from one level to another something goes."""

import numpy as np
from jaxtyping import Float

from sae_reasoning.stats.estimates import Estimate
from sae_reasoning.stats.resampling import bootstrap_of_sums, paired_bootstrap


def gap_recovered(
    found: Float[np.ndarray, " problem"],
    base: Float[np.ndarray, " problem"],
    rl: Float[np.ndarray, " problem"],
    num_resamples: int,
    seed: int,
) -> Estimate:
    """`(found - base) / (rl - base)`, unclipped, with a paired problem bootstrap.

    Venhoff et al. 2510.07364. Undefined (NaN) where the interval of `rl - base` holds 0.

    Args:
        found: Of each problem, the level reached.
        base: The level that counts as 0, of the same problems.
        rl: The level that counts as 1.
        num_resamples: Of problems.
        seed: Of the resampling.
    """
    gap = paired_bootstrap(rl - base, num_resamples, seed)
    if not (gap.low > 0 or gap.high < 0):
        return Estimate(float("nan"), float("nan"), float("nan"), len(base))

    def ratio(sums: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = sums[..., 1]
            return np.where(whole != 0, sums[..., 0] / whole, np.nan)

    sums = np.stack([found - base, rl - base], axis=1).astype(np.float64)
    return bootstrap_of_sums(sums, ratio, num_resamples, seed)
