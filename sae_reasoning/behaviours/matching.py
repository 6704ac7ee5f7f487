"""Latents of one dictionary and their matches in another, on one text.

1. Each latent is a series of activations along the units of a text: its tokens, where both
   dictionaries read the same ones, or its words, where tokenizers differ.
2. Similarity of two latents is the correlation of their series (Pearson over tokens; Spearman over
   words, since a word's maximum grows with its tokens), or, within one model, the cosine of their
   decoder rows.
3. A latent's match is the most similar of all of the other's. It is compared with the most similar
   of a null: the same with the other's text shifted, or its directions mirrored. So the best of
   many is compared with the best of as many.

The setting is that of 2410.06981 (SAE features across models), with a null that keeps the runs of
a text. Only nonzero activations are touched: the cost is units x k x k, and no more is held at once
than one table of own x other latents.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csc_array, csr_array
from scipy.stats import rankdata

from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import moved_round
from sae_reasoning.stats import Estimate, bootstrap_of_sums, tie_runs

_MAX_CELLS = 1 << 22
"""Numbers of a table that are computed at once."""
_FLAT = 1e-12


@dataclass(frozen=True)
class Series:
    """Activations of some latents along a text, with what a correlation needs of each.

    Attributes:
        latent: Number of each column in its dictionary.
        values: Activation, or what its rank exceeds silence's by; units are rows.
        mean: Of each column.
        spread: Root of its summed squared deviations.
        fires: Units on which it is active.
    """

    latent: Int[np.ndarray, " latent"]
    values: csr_array
    mean: Float[np.ndarray, " latent"]
    spread: Float[np.ndarray, " latent"]
    fires: Int[np.ndarray, " latent"]

    @classmethod
    def of(cls, activations: SparseMaxima, *, min_fires: int, by_rank: bool) -> "Series":
        """The latents that fire on enough units for a correlation to mean anything.

        Args:
            activations: Over the units.
            min_fires: Units on which a latent must fire.
            by_rank: Whether ranks take the place of activations, for Spearman's correlation.
        """
        num_units = len(activations.intervals.start)
        values = csc_array(
            (
                activations.value.astype(np.float64),
                (activations.interval, activations.latent),
            ),
            shape=(num_units, activations.num_latents),
        )
        values = rank_above_silence(values) if by_rank else values
        fires = np.diff(values.indptr)
        mean = np.asarray(values.sum(0)) / num_units
        squares = np.asarray(values.multiply(values).sum(0))
        deviations = squares - num_units * mean**2
        kept = np.flatnonzero((fires >= min_fires) & (deviations > _FLAT * squares))
        spread = np.sqrt(deviations[kept])
        return cls(kept, values[:, kept].tocsr(), mean[kept], spread, fires[kept])

    @cached_property
    def by_latent(self) -> csr_array:
        """Latents are rows."""
        return self.values.T.tocsr()


def rank_above_silence(values: csc_array) -> csc_array:
    """Rank of each activation in its column, ties averaged, minus the rank that silence shares.

    So silence stays 0 and what is sparse stays so; a correlation doesn't see the shift.
    """
    num_units = values.shape[0]
    ranked = values.astype(np.float64)
    for column in range(values.shape[1]):
        own = slice(*values.indptr[column : column + 2])
        num_silent = num_units - (own.stop - own.start)
        ranked.data[own] = rankdata(values.data[own]) + (num_silent - 1) / 2
    return ranked


def decoder_cosines(
    own: Float[np.ndarray, "own d_model"], other: Float[np.ndarray, "other d_model"]
) -> Float[np.ndarray, "own other"]:
    """Cosine of every direction with every other."""
    own, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (own, other))
    return own @ other.T


def correlations(own: Series, other: Series) -> Float[np.ndarray, "own other"]:
    """Correlation of every series with every other."""
    return np.concatenate([*_blocks(own, other, own.values.shape[0])])


def _blocks(
    own: Series, other: Series, num_units: int
) -> Iterator[Float[np.ndarray, "block other"]]:
    """Correlations over so many units, some of the own latents at a time."""
    size = max(_MAX_CELLS // max(len(other.latent), 1), 1)
    for start in range(0, len(own.latent), size):
        here = slice(start, start + size)
        products = (own.by_latent[here] @ other.values).toarray()
        products -= num_units * own.mean[here, None] * other.mean
        products /= own.spread[here, None] * other.spread
        yield products


def shared_by_kind(
    own: Series, other: Series, kind: Int[np.ndarray, " unit"]
) -> Float[np.ndarray, "own other"]:
    """Correlations that would be left if activations were shuffled among units of the same kind.

    Say, of the same word: then two latents share what they make of words, not of what words stand
    in. It is the expectation over all such shuffles, in which a kind's cross-products become the
    product of its means.
    """
    num_units = len(kind)
    _, kind, size = np.unique(kind, return_inverse=True, return_counts=True)
    weight = csr_array(
        (1 / np.sqrt(size[kind]), (kind, np.arange(num_units))), shape=(len(size), num_units)
    )
    own, other = (replace(side, values=(weight @ side.values).tocsr()) for side in (own, other))
    return np.concatenate([*_blocks(own, other, num_units)])


@dataclass(frozen=True)
class Pairing:
    """The match of each own latent; columns are numbered as in the table of similarities.

    Attributes:
        best: The most similar of the other latents.
        value: Its similarity.
        is_mutual: Whether the own latent is also its match's best.
        assigned: Its partner where each may have but one and the sum of similarity is largest
            (Hungarian); -1 where the other dictionary has too few.
        assigned_value: Its similarity; NaN where there is none.
    """

    best: Int[np.ndarray, " own"]
    value: Float[np.ndarray, " own"]
    is_mutual: Bool[np.ndarray, " own"]
    assigned: Int[np.ndarray, " own"]
    assigned_value: Float[np.ndarray, " own"]


def pair_up(similarity: Float[np.ndarray, "own other"]) -> Pairing:
    """Best matches, and the assignment of one to one; its time grows with latents cubed."""
    best = similarity.argmax(1)
    here = np.arange(len(best))
    assigned, assigned_value = np.full(len(best), -1), np.full(len(best), np.nan)
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    assigned[rows], assigned_value[rows] = columns, similarity[rows, columns]
    is_mutual = similarity.argmax(0)[best] == here
    return Pairing(best, similarity[here, best], is_mutual, assigned, assigned_value)


def shifted_text(
    own: Series,
    other: Series,
    trace: Int[np.ndarray, " unit"],
    *,
    num_draws: int,
    seed: int,
    on_draw: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "draw own"]:
    """Best correlation of each own latent when the other's text is moved round within each trace.

    All of the other's latents are moved together, their runs stay as long as they are and each
    trace keeps its own. What is left is what dictionaries share that don't answer to the same
    words: habits of whole traces, and luck.

    Args:
        own: Stays in its place.
        other: Is moved.
        trace: Of each unit; a trace's units stand together.
        num_draws: Draws.
        seed: Of the shifts.
        on_draw: Called after each draw.
    """
    start = tie_runs(trace)
    stop = np.append(start[1:], len(trace))
    bests = np.empty((num_draws, len(own.latent)))
    for draw in range(num_draws):
        order = moved_round(start, stop, np.random.default_rng((seed, draw)))
        moved = replace(other, values=other.values[order])
        bests[draw] = np.concatenate([block.max(1) for block in _blocks(own, moved, len(trace))])
        on_draw()
    return bests


def mirrored_directions(
    own: Float[np.ndarray, "own d_model"],
    other: Float[np.ndarray, "other d_model"],
    *,
    num_draws: int,
    seed: int,
) -> Float[np.ndarray, "draw own"]:
    """Best cosine of each own direction when the other dictionary is mirrored along its own axes.

    Each of its principal axes is reversed or not, at random: angles among its directions stay, and
    so does how much of them lies along each axis. A random rotation would spread the dictionary
    over all of the residual stream, and so make any real one look similar.
    """
    _, axes = np.linalg.eigh(other.T @ other)
    bests = np.empty((num_draws, len(own)))
    for draw in range(num_draws):
        signs = np.random.default_rng((seed, draw)).choice([-1.0, 1.0], other.shape[1])
        bests[draw] = decoder_cosines(own, other @ (axes * signs) @ axes.T).max(1)
    return bests


@dataclass(frozen=True)
class Null:
    """Similarity of the best match where there is none.

    Attributes:
        bests: Of each own latent, in each draw.
    """

    bests: Float[np.ndarray, "draw own"]

    def quantile(self, share: float) -> Float[np.ndarray, " own"]:
        """What one draw more would exceed with probability 1 - `share`, for each latent."""
        return np.quantile(self.bests, share, axis=0, method="weibull")

    def p_values(self, value: Float[np.ndarray, " own"]) -> Float[np.ndarray, " own"]:
        """One-sided p of each latent's best.

        Each latent is standardised by its own draws (a draw by the others), then held against all
        draws of all latents, whose number makes p fine enough for Benjamini-Hochberg's rule.
        """
        num_draws = len(self.bests)
        centre = self.bests.mean(0)
        away = self.bests - centre
        squares = (away**2).sum(0)
        beyond = (value - centre) / _root(squares / (num_draws - 1))
        # The mean of the others lies the other way by 1/(n - 1) of a draw's own distance.
        ratio = num_draws / (num_draws - 1)
        drawn = away * ratio / _root((squares - away**2 * ratio) / (num_draws - 2))
        exceeding = drawn.size - np.searchsorted(np.sort(drawn.ravel()), beyond)
        return (1 + exceeding) / (1 + drawn.size)


def _root(variance: Float[np.ndarray, "*draw own"]) -> Float[np.ndarray, "*draw own"]:
    """Standard deviation, above 0 also where all draws agree."""
    return np.sqrt(np.maximum(variance, np.finfo(float).tiny))


def interval(sums: Float[np.ndarray, "problem 6"], num_resamples: int, seed: int) -> Estimate:
    """The correlation of one pair with a problem bootstrap; ranks stay those of the whole text."""
    return bootstrap_of_sums(sums, _correlation, num_resamples, seed)


def problem_sums(
    own: Series,
    other: Series,
    pairs: Int[np.ndarray, "pair 2"],
    problem: Int[np.ndarray, " unit"],
) -> Float[np.ndarray, "pair problem 6"]:
    """What each problem adds to the sums that a correlation is made of, for some pairs.

    Args:
        own: One side.
        other: The other.
        pairs: Columns of both.
        problem: Of each unit.
    """
    _, problem = np.unique(problem, return_inverse=True)
    size = np.bincount(problem)
    of_problem = csr_array(
        (np.ones(len(problem)), (problem, np.arange(len(problem)))), shape=(len(size), len(problem))
    )
    x, y = own.values[:, pairs[:, 0]], other.values[:, pairs[:, 1]]
    columns = (x, y, x.multiply(x), y.multiply(y), x.multiply(y))
    sums = [(of_problem @ column).toarray().T for column in columns]
    return np.stack([np.broadcast_to(size.astype(float), sums[0].shape), *sums], axis=-1)


def _correlation(sums: Float[np.ndarray, "*sample 6"]) -> Float[np.ndarray, "*sample"]:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = (xx - x**2 / n) * (yy - y**2 / n)
        return np.where(variances > 0, (xy - x * y / n) / np.sqrt(variances), np.nan)
