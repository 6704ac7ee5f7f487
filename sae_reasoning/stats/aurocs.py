"""Areas under the ROC curve: points, intervals by problem, within strata, differences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import sparse, stats

from sae_reasoning.stats.estimates import Estimate, widen_flat, wilson
from sae_reasoning.stats.resampling import between, resample_weights

_DECIMALS = 12
"""Of a share of pairs: beyond them is rounding, which would have all pairs be a little over 1."""

_MAX_CELLS = 1 << 22
"""Of scores times problems held at once: 32 MiB of them."""


@dataclass(frozen=True)
class AurocEstimates:
    """AUROCs of the columns of a matrix, with 95 % intervals clustered by problem.

    Attributes:
        value: Probability that a positive scores higher than a negative, ties counted half.
        low: Lower bounds.
        high: Upper bounds.
        p: Two-sided p-values against 0.5.
        num_positives: Positive items.
        num_negatives: Negative items.
        num_clusters: Problems.
    """

    value: Float[np.ndarray, " column"]
    low: Float[np.ndarray, " column"]
    high: Float[np.ndarray, " column"]
    p: Float[np.ndarray, " column"]
    num_positives: int
    num_negatives: int
    num_clusters: int


def auroc(
    scores: Float[np.ndarray, "item column"], is_positive: Bool[np.ndarray, " item"]
) -> Float[np.ndarray, " column"]:
    """AUROC of each column, ties counted half; NaN where a class is empty."""
    num_positives = int(is_positive.sum())
    num_negatives = len(is_positive) - num_positives
    if not num_positives or not num_negatives:
        return np.full(scores.shape[1], np.nan)
    ranks = stats.rankdata(scores, axis=0)
    excess = ranks[is_positive].sum(0) - num_positives * (num_positives + 1) / 2
    return excess / (num_positives * num_negatives)


def tie_runs(*keys: Shaped[np.ndarray, " item"]) -> Int[np.ndarray, " run"]:
    """First items of the runs of equal keys, in items that are sorted by them."""
    changes = np.zeros(len(keys[0]), bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)


def sparse_concordance(
    first: Int[np.ndarray, " group"],
    positives: Int[np.ndarray, " run"],
    negatives: Int[np.ndarray, " run"],
    num_positives: Float[np.ndarray, " group"],
    num_negatives: Float[np.ndarray, " group"],
) -> Float[np.ndarray, " group"]:
    """Concordant pairs of each group, ties counted half, from its nonzero scores only.

    What isn't listed scored 0, below all that is; those are one tie. AUROC is the result over
    `num_positives * num_negatives`; of a group that has no run it is 0.5.

    Args:
        first: First run of each group (say, of each latent).
        positives: Positive items of each run of equal scores; sorted by group, then score.
        negatives: Negative items of each run.
        num_positives: Positive items of each group, zeros included.
        num_negatives: Negative items of each group, zeros included.
    """
    if not len(first):
        return np.empty(0)
    below = np.concatenate([[0], np.cumsum(negatives)])
    # Twice the pairs, which are whole numbers: nothing is rounded on the way.
    twice = positives * (below[:-1] + below[1:])
    won, listed_positives, listed_negatives = (
        np.add.reduceat(counts, first) for counts in (twice, positives, negatives)
    )
    silent_positives = num_positives - listed_positives
    silent_negatives = num_negatives - listed_negatives
    # Negatives of earlier groups aren't below these; silent ones are.
    lifted = listed_positives * (silent_negatives - below[first])
    return won / 2 + lifted + silent_positives * silent_negatives / 2


def clustered_auroc(
    scores: Float[np.ndarray, "item column"],
    is_positive: Bool[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
) -> AurocEstimates:
    """AUROC of each column with intervals and p-values clustered by problem.

    Variance after Obuchowski, Biometrics 53 (1997) 567-578, from the placements of positives among
    negatives and the reverse, summed within clusters, which may hold both. The interval is
    Student's on the logit; where the variance is 0 (a perfect score) it is Wilson's with the
    clusters as n.
    """
    num_columns = scores.shape[1]
    _, cluster = np.unique(cluster, return_inverse=True)
    num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    n1, n0 = int(is_positive.sum()), int((~is_positive).sum())
    unknown = np.full(num_columns, np.nan)
    if not n1 or not n0:
        return AurocEstimates(unknown, unknown, unknown, unknown, n1, n0, num_clusters)
    ranks = stats.rankdata(scores, axis=0)
    placed_1 = (ranks[is_positive] - stats.rankdata(scores[is_positive], axis=0)) / n0
    placed_0 = 1 - (ranks[~is_positive] - stats.rankdata(scores[~is_positive], axis=0)) / n1
    value = placed_1.mean(0)
    cluster_1, cluster_0 = cluster[is_positive], cluster[~is_positive]
    sum_1 = _cluster_sums(placed_1 - value, cluster_1, num_clusters)
    sum_0 = _cluster_sums(placed_0 - value, cluster_0, num_clusters)
    with_1, with_0 = len(np.unique(cluster_1)), len(np.unique(cluster_0))
    if min(with_1, with_0) < 2:
        return AurocEstimates(value, unknown, unknown, unknown, n1, n0, num_clusters)
    variance = (
        with_1 / (with_1 - 1) * (sum_1**2).sum(0) / n1**2
        + with_0 / (with_0 - 1) * (sum_0**2).sum(0) / n0**2
        + 2 * num_clusters / (num_clusters - 1) * (sum_1 * sum_0).sum(0) / (n1 * n0)
    )
    fewest = min(with_1, with_0)
    is_flat = variance < 1e-12
    error = np.sqrt(np.where(is_flat, 0.25 / fewest, variance))
    p = 2 * stats.t.sf(np.abs(value - 0.5) / error, fewest - 1)
    inside = np.clip(value, 1e-9, 1 - 1e-9)
    reach = stats.t.ppf(0.975, fewest - 1) * error / (inside * (1 - inside))
    with np.errstate(over="ignore"):
        low, high = (1 / (1 + np.exp(-(_logit(inside) + sign * reach))) for sign in (-1, 1))
    for column in np.flatnonzero(is_flat):
        bounds = wilson(float(value[column]) * fewest, fewest)
        low[column], high[column] = bounds.low, bounds.high
    return AurocEstimates(value, low, high, p, n1, n0, num_clusters)


def bootstrap_auroc(
    scores: Float[np.ndarray, " item"],
    is_positive: Bool[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    *,
    stratum: Int[np.ndarray, " item"] | None = None,
    num_resamples: int,
    seed: int,
) -> Estimate:
    """AUROC within strata, `sum of concordant pairs / sum of pairs`, with a problem bootstrap.

    Pairs are counted once between every two problems; a resample weighs that table with the times
    its problems were drawn. Where all resamples agree, as at a perfect score, the interval is
    Wilson's; its n is the problems that hold compared positives, or negatives if those are fewer.
    """
    stratum = np.zeros(len(scores), int) if stratum is None else stratum
    _, cluster = np.unique(cluster, return_inverse=True)
    num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    table = _pair_table(scores, is_positive, cluster, stratum, num_clusters)
    if np.isnan(table.share):
        return Estimate(float("nan"), float("nan"), float("nan"), num_clusters)
    (draws,) = _drawn_shares([table], num_clusters, num_resamples, seed)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    found = Estimate(table.share, float(low), float(high), num_clusters)
    return widen_flat(found, min(len(table.rows), len(table.columns)))


@dataclass(frozen=True)
class Kept:
    """What is left of an AUROC when only what is alike is compared.

    Attributes:
        within: Mean AUROC of the strata, weighed by their positives.
        plain: AUROC of the same positives, or others, against all negatives.
        margin: `(within - 1/2) - keep (plain - 1/2)`, below 0 where less than `keep` is left.
        comparable: Share of positives whose stratum holds negatives.
        pair_weighted: AUROC within strata with each pair counted the same, which decides nothing.
    """

    within: Estimate
    plain: Estimate
    margin: Estimate
    comparable: float
    pair_weighted: float


def kept_auroc(
    scores: Float[np.ndarray, " item"],
    is_positive: Bool[np.ndarray, " item"],
    is_negative: Bool[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    stratum: Int[np.ndarray, " item"],
    *,
    reference: Bool[np.ndarray, " item"] | None = None,
    reference_negative: Bool[np.ndarray, " item"] | None = None,
    keep: float,
    num_resamples: int,
    seed: int,
) -> Kept:
    """AUROC within strata beside the plain one, with a bootstrap over problems.

    Each positive counts the same, however many negatives its stratum holds: summed over pairs, the
    commonest token would decide. Items of stratum -1 are compared with none. So many parameters
    because the plain AUROC may be of other items than the one within strata.

    Args:
        scores: Of each item.
        is_positive: Items to be compared within strata.
        is_negative: Items that they are compared with.
        cluster: Problem of each item.
        stratum: Of each item.
        reference: Positives of the plain AUROC; those that can be compared, if not given.
        reference_negative: Negatives of the plain AUROC; `is_negative`, if not given.
        keep: Share of the plain advantage that counts as kept.
        num_resamples: Resamples of problems.
        seed: Of the resamples.
    """
    usable = is_positive & np.isin(stratum, stratum[is_negative]) & (stratum >= 0)
    comparable = float(usable.sum() / max(is_positive.sum(), 1))
    reference = usable if reference is None else reference
    others = is_negative if reference_negative is None else reference_negative
    n = len(np.unique(cluster[usable]))
    if not usable.any() or not reference.any() or not others.any():
        unknown = Estimate(float("nan"), float("nan"), float("nan"), n)
        return Kept(unknown, unknown, unknown, comparable, float("nan"))
    _, cluster = np.unique(cluster, return_inverse=True)
    num_clusters = int(cluster.max()) + 1
    tables = []
    plain_strata = np.zeros(len(scores), int)
    for positives, negatives, strata in (
        (usable, is_negative, stratum),
        (reference, others, plain_strata),
    ):
        used = positives | negatives
        tables.append(
            _pair_table(
                scores[used],
                positives[used],
                cluster[used],
                strata[used],
                num_clusters,
                each_positive=True,
            )
        )
    within, plain = _drawn_shares(tables, num_clusters, num_resamples, seed)
    values = [table.share for table in tables]

    used = usable | is_negative
    by_pair = _pair_table(
        scores[used], usable[used], cluster[used], stratum[used], num_clusters, each_positive=False
    )
    margin = (values[0] - 0.5) - keep * (values[1] - 0.5)
    return Kept(
        within=widen_flat(between(values[0], within, n), n),
        plain=widen_flat(between(values[1], plain, n), n),
        margin=between(margin, (within - 0.5) - keep * (plain - 0.5), n),
        comparable=comparable,
        pair_weighted=by_pair.share,
    )


@dataclass(frozen=True)
class Ranked:
    """What one AUROC is of.

    Attributes:
        scores: Of each item.
        is_positive: Which should score higher.
        cluster: Problem of each item.
        weight: How many each stands for, where that matters; none for one.
    """

    scores: Float[np.ndarray, " item"]
    is_positive: Bool[np.ndarray, " item"]
    cluster: Int[np.ndarray, " item"]
    weight: Float[np.ndarray, " item"] | None = None


@dataclass(frozen=True)
class Compared:
    """Two estimates on the same problems, and the second minus the first."""

    first: Estimate
    second: Estimate
    difference: Estimate


def compare_aurocs(first: Ranked, second: Ranked, num_resamples: int, seed: int) -> Compared:
    """Two AUROCs and their difference, with a bootstrap that draws the same problems for both.

    The p-value of the difference is Student's t on the bootstrap's standard error. n is the
    problems that hold items of either; bounds and difference are NaN where one has no pairs.
    """
    clusters = np.unique(np.concatenate([first.cluster, second.cluster]))
    tables = [
        _pair_table(
            own.scores,
            own.is_positive,
            np.searchsorted(clusters, own.cluster),
            np.zeros(len(own.scores), int),
            len(clusters),
        )
        for own in (first, second)
    ]
    n = len(clusters)
    values = [table.share for table in tables]
    if np.isnan(values).any():
        unknown = Estimate(float("nan"), float("nan"), float("nan"), n)
        return Compared(unknown, unknown, unknown)
    drawn = _drawn_shares(tables, n, num_resamples, seed)
    estimates = [
        widen_flat(between(value, draws, n), n) for value, draws in zip(values, drawn, strict=True)
    ]
    gap = between(values[1] - values[0], drawn[1] - drawn[0], n)
    return Compared(estimates[0], estimates[1], gap)


@dataclass(frozen=True)
class _PairTable:
    """Pairs within strata by the clusters of their positive and negative, those without left out.

    Attributes:
        rows: Clusters that hold positives of a pair.
        columns: Clusters that hold negatives of a pair.
        concordant: Pairs whose positive scores higher, ties half.
        positives: Positives of each stratum.
        negatives: What each positive of a stratum is compared with; a table of all pairs is the
            sum over strata of positives times negatives.
    """

    rows: Int[np.ndarray, " row"]
    columns: Int[np.ndarray, " column"]
    concordant: Float[np.ndarray, "row column"]
    positives: Float[np.ndarray, "stratum row"]
    negatives: Float[np.ndarray, "stratum column"]

    @property
    def share(self) -> float:
        """Share of concordant pairs; NaN where there is none."""
        pairs = self.positives.sum(1) @ self.negatives.sum(1)
        return round(float(self.concordant.sum() / pairs), _DECIMALS) if pairs else float("nan")

    def shares(
        self, weights: Float[np.ndarray, "resample cluster"]
    ) -> Float[np.ndarray, " resample"]:
        """The same with each cluster counted so often; NaN where that leaves no pair."""
        of_rows, of_columns = weights[:, self.rows], weights[:, self.columns]
        above = np.einsum("rc,rc->r", of_rows @ self.concordant, of_columns)
        below = np.einsum("rs,rs->r", of_rows @ self.positives.T, of_columns @ self.negatives.T)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(below > 0, np.round(above / below, _DECIMALS), np.nan)


def _drawn_shares(
    tables: Sequence[_PairTable], num_clusters: int, num_resamples: int, seed: int
) -> list[Float[np.ndarray, " resample"]]:
    """Share of concordant pairs of each table in resampled clusters, the same for all tables."""
    drawn: list[list[np.ndarray]] = [[] for _ in tables]
    for weights in resample_weights(num_clusters, num_resamples, seed):
        for table, shares in zip(tables, drawn, strict=True):
            shares.append(table.shares(weights))
    return [np.concatenate(shares) for shares in drawn]


def _pair_table(
    scores: Float[np.ndarray, " item"],
    is_positive: Bool[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    stratum: Int[np.ndarray, " item"],
    num_clusters: int,
    *,
    each_positive: bool = False,
) -> _PairTable:
    """Pairs within strata; with `each_positive`, a stratum's are divided by its negatives."""
    both = np.intersect1d(stratum[is_positive], stratum[~is_positive])
    compared = np.flatnonzero(np.isin(stratum, both))
    compared = compared[np.lexsort((scores[compared], stratum[compared]))]
    group, y = np.searchsorted(both, stratum[compared]), is_positive[compared]
    rows, row = np.unique(cluster[compared[y]], return_inverse=True)
    columns, column = np.unique(cluster[compared[~y]], return_inverse=True)
    # Runs of equal scores, each within its stratum.
    first = tie_runs(group, scores[compared])
    run = np.repeat(np.arange(len(first)), np.diff(first, append=len(group)))

    negatives = _counts(group[~y], column, (len(both), len(columns))).toarray()
    # Counts are whole until they're divided.
    shared = negatives.sum(1, keepdims=True) if each_positive else np.ones((len(both), 1))
    before = np.cumsum(negatives, 0) - negatives  # In strata that come earlier.
    concordant = np.zeros((len(rows), len(columns)))
    below = np.zeros(len(columns))
    at_once = max(_MAX_CELLS // max(len(columns), 1), 1)
    for start in range(0, len(first), at_once):
        stop = min(start + at_once, len(first))
        of_negative, of_positive = (
            slice(*np.searchsorted(runs, [start, stop])) for runs in (run[~y], run[y])
        )
        upto = np.zeros((stop - start + 1, len(columns)))
        upto[0] = below
        np.add.at(upto, (run[~y][of_negative] + 1 - start, column[of_negative]), 1)
        np.cumsum(upto, 0, out=upto)
        below = upto[-1]
        held, of_held = np.unique(run[y][of_positive], return_inverse=True)
        stratum_of_held = group[first[held]]
        beaten = (upto[held - start] + upto[held - start + 1]) / 2 - before[stratum_of_held]
        beaten /= shared[stratum_of_held]
        counts = _counts(of_held, row[of_positive], (len(held), len(rows)))
        concordant += counts.T @ beaten
    return _PairTable(
        rows,
        columns,
        concordant,
        _counts(group[y], row, (len(both), len(rows))).toarray(),
        negatives / shared,
    )


def _counts(
    level: Int[np.ndarray, " item"], cluster: Int[np.ndarray, " item"], shape: tuple[int, int]
) -> sparse.csr_array:
    """Items of each level and cluster."""
    return sparse.csr_array((np.ones(len(level)), (level, cluster)), shape)


def _cluster_sums(
    values: Float[np.ndarray, "item column"], cluster: Int[np.ndarray, " item"], num_clusters: int
) -> Float[np.ndarray, "cluster column"]:
    sums = np.zeros((num_clusters, values.shape[1]))
    np.add.at(sums, cluster, values)
    return sums


def _logit(share: Float[np.ndarray, " column"]) -> Float[np.ndarray, " column"]:
    return np.log(share) - np.log1p(-share)
