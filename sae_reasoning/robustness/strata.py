"""Strata of intervals: those in which a latent is most active on the same token, or pair of tokens.

The token is looked up for each latent: of an interval's tokens, the one in whose intervals,
behaviour or not, the latent is most active on average. So a latent which knows a word is compared
among intervals with that word, wherever they are (after Ma et al. 2601.05679).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sae_reasoning.behaviours.windows import Intervals

_TOKEN_BITS = 24
_MOST_TIMES = 3


@dataclass(frozen=True)
class Contents:
    """Tokens, or pairs of tokens, that intervals hold.

    Attributes:
        interval: Interval of each, ascending.
        code: Number of the token or pair, from 0 on.
    """

    interval: Int[np.ndarray, " entry"]
    code: Int[np.ndarray, " entry"]


def contents(
    intervals: Intervals, here: slice, token_id: Int[np.ndarray, " row"], *, pairs: bool
) -> Contents:
    """Tokens of a cell's intervals, or each token with the one before it."""
    start, stop = intervals.start[here], intervals.stop[here]
    sizes = stop - start
    interval = np.repeat(np.arange(len(sizes)), sizes)
    offset = np.arange(len(interval)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row = start[interval] + offset
    token = token_id[row].astype(np.int64)
    if pairs:
        token = (token_id[np.maximum(row - 1, 0)].astype(np.int64) << _TOKEN_BITS) | token
    _, code = np.unique(token, return_inverse=True)
    return Contents(interval, code)


def most_active_token(
    values: Float[np.ndarray, " interval"], held: Contents, fewest: int
) -> Int[np.ndarray, " interval"]:
    """Stratum of each interval: its token (or pair) on which a latent is most active, how often.

    A word that occurs twice gives a latent two chances to be active. -1 where all tokens are rare.

    Args:
        values: The latent's maximum over each interval.
        held: What the intervals hold.
        fewest: Intervals that must hold a token for its mean activation to be trusted.
    """
    found = np.full(len(values), -1)
    if not len(held.code):
        return found
    each, times = np.unique(np.stack([held.interval, held.code]), axis=1, return_counts=True)
    interval, code = each
    count = np.bincount(code)
    mean = np.bincount(code, values[interval]) / np.maximum(count, 1)
    mean[count < fewest] = -1.0
    order = np.lexsort((code, mean[code], interval))
    last = np.flatnonzero(np.append(interval[order][1:] != interval[order][:-1], True))
    best = order[last]
    usable = mean[code[best]] >= 0
    stratum = code * _MOST_TIMES + np.minimum(times, _MOST_TIMES) - 1
    found[interval[best][usable]] = stratum[best][usable]
    return found
