"""A number with its interval, shares, and many tests at once."""

from dataclasses import dataclass, replace
from math import comb

import numpy as np
from jaxtyping import Float
from scipy import stats

_FLAT = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: Point estimate.
        low: Lower bound.
        high: Upper bound.
        n: Independent units it rests on.
        p: Two-sided p-value against no effect, where one was computed.
    """

    value: float
    low: float
    high: float
    n: int
    p: float = float("nan")


def pass_at(right: int, samples: int, k: int) -> float:
    """Unbiased pass@k of one problem (Chen et al. 2107.03374, §2.1); `k` at most `samples`."""
    return 1 - comb(samples - right, k) / comb(samples, k)


def wilson(successes: float, n: int) -> Estimate:
    """A proportion with Wilson's 95 % score interval."""
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    z = float(stats.norm.ppf(0.975))
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # At an end the bound is the end itself, which rounding misses.
    low = max(centre - reach, 0.0) if successes > 0 else 0.0
    high = min(centre + reach, 1.0) if successes < n else 1.0
    return Estimate(share, low, high, n)


def most_of_none(n: int) -> float:
    """Upper 95 % bound of a share that was seen in none of `n`: exact, one-sided.

    After Clopper and Pearson (1934): at a larger share, none of `n` has less than 5 % probability.
    """
    return 1 - 0.05 ** (1 / n)


def difference(successes: int, n: int, others: int, n_others: int) -> Estimate:
    """One proportion less another, with Newcombe's 95 % interval from Wilson's (his method 10)."""
    one, other = wilson(successes, n), wilson(others, n_others)
    value = one.value - other.value
    below = ((one.value - one.low) ** 2 + (other.high - other.value) ** 2) ** 0.5
    above = ((one.high - one.value) ** 2 + (other.value - other.low) ** 2) ** 0.5
    return Estimate(value, value - below, value + above, n + n_others)


def widen_flat(found: Estimate, n: int) -> Estimate:
    """A share with Wilson's interval on `n` units where its own has no width.

    Units that all agree don't say that no other would differ. Unknown bounds stay unknown.
    """
    if not found.high - found.low <= _FLAT or not n:
        return found
    bounds = wilson(found.value * n, n)
    return replace(found, low=bounds.low, high=bounds.high)


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """q-values: the smallest false discovery rate at which each test is rejected; NaN stays NaN."""
    q, tested = np.full(len(p), np.nan), ~np.isnan(p)
    q[tested] = stats.false_discovery_control(p[tested])
    return q
