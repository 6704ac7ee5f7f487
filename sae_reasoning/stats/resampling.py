"""Bootstraps over problems."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from sae_reasoning.stats.estimates import Estimate, widen_flat

_MAX_CELLS = 1 << 22
"""Numbers held at once by a resampling."""
MOSTLY = 0.95
"""Share of resamples in which a statistic must be defined for its bounds to say anything."""


def paired_bootstrap(
    differences: Float[np.ndarray, " problem"], num_resamples: int, seed: int
) -> Estimate:
    """Mean of one difference per problem, with a percentile interval over resampled problems.

    The p-value is Student's t on the bootstrap's standard error: fine enough for
    Benjamini-Hochberg, which counts of resamples are not. Where all problems agree on a value that
    may be a share, the interval is Wilson's.
    """
    differences = np.asarray(differences, np.float64)
    n = len(differences)
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    means = np.concatenate(
        [weights @ differences / n for weights in resample_weights(n, num_resamples, seed)]
    )
    value = float(differences.mean())
    found = between(value, means, n)
    return widen_flat(found, n) if n > 1 and 0 <= value <= 1 else found


def bootstrap_of_sums(
    sums: Float[np.ndarray, "problem column"],
    statistic: Callable[[Float[np.ndarray, "*sample column"]], Float[np.ndarray, "*sample"]],
    num_resamples: int,
    seed: int,
    level: float = 0.95,
) -> Estimate:
    """A function of sums over problems, with a percentile interval over resampled problems.

    Args:
        sums: What each problem adds to each sum.
        statistic: Takes sums on its last axis; NaN where it's undefined, infinite where it has no
            bound.
        num_resamples: Resamples.
        seed: Of the resamples.
        level: Of the interval.

    Resamples in which the statistic is undefined are left out; where those are more than one in
    twenty, so are the bounds.
    """
    n = len(sums)
    unknown = float("nan")
    if not n:
        return Estimate(unknown, unknown, unknown, 0)
    value = float(statistic(sums.sum(0)))
    drawn = np.concatenate(
        [statistic(weights @ sums) for weights in resample_weights(n, num_resamples, seed)]
    )
    defined = drawn[~np.isnan(drawn)]
    if not len(defined) or len(defined) < MOSTLY * len(drawn):
        return Estimate(value, unknown, unknown, n)
    return between(value, defined, n, level)


def between(
    value: float, draws: Float[np.ndarray, " resample"], n: int, level: float = 0.95
) -> Estimate:
    """A value with the quantiles of its resamples, and Student's p against 0.

    Where some are infinite the quantiles are resamples themselves, the outer ones, and p unknown.
    """
    if np.isinf(draws).any():
        ordered = np.sort(draws[~np.isnan(draws)])
        last = len(ordered) - 1
        low = ordered[int(np.floor((1 - level) / 2 * last))]
        high = ordered[int(np.ceil((1 + level) / 2 * last))]
        return Estimate(value, float(low), float(high), n)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    error = float(np.nanstd(draws))
    if n < 2 or error == 0:
        p = 1.0 if value == 0 or n < 2 else 0.0
    else:
        p = float(2 * stats.t.sf(abs(value) / error, n - 1))
    return Estimate(value, float(low), float(high), n, p)


def resample_weights(
    num_clusters: int, num_resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "resample cluster"]]:
    """How often each problem is drawn, a block of resamples at a time."""
    block = max(_MAX_CELLS // max(num_clusters, 1), 1)
    for start in range(0, num_resamples, block):
        yield _draw_block(num_clusters, min(block, num_resamples - start), (seed, start))


@lru_cache(maxsize=2)  # Many latents are resampled with the same problems.
def _draw_block(
    num_clusters: int, num_resamples: int, seed: tuple[int, int]
) -> Float[np.ndarray, "resample cluster"]:
    shares = np.full(num_clusters, 1 / num_clusters)
    drawn = np.random.default_rng(seed).multinomial(num_clusters, shares, size=num_resamples)
    return drawn.astype(np.float64)
