"""Ratios of sums over problems, and their paired differences.

An outcome's value is the ratio of the sums over problems, so a rate per opportunity weighs
opportunities, not traces; a control's is the mean of its draws' ratios. Resampling draws
*problems*, the same ones for every condition, so differences are paired, and the draws of controls
beside them, since other draws would have given other controls (`Bootstrap`). Whether an edit is
more than a control is another question than how far it is from the control's mean: it must lie
beyond where one more draw would (`Bootstrap.beyond`).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import t as student_t

from sae_reasoning.stats import MOSTLY


class Ratios(NamedTuple):
    """Ratio of sums over problems of each outcome, the mean over draws; and for each resample.

    `resampled` draws problems and draws, `of_problems` problems alone.
    """

    value: Float[np.ndarray, " outcome"]
    resampled: Float[np.ndarray, "resample outcome"]
    of_problems: Float[np.ndarray, "resample outcome"]
    by_draw: Float[np.ndarray, "draw outcome"]


class Differences(NamedTuple):
    """Paired differences of each outcome, with 95 % intervals and two-sided p-values.

    `relative` is a / b - 1, its interval from the same resamples, so that b's noise is in it; NaN
    where b isn't surely above 0. `variance_reduction` is what pairing saves:
    1 - Var(a - b) / (Var(a) + Var(b)).
    """

    value: Float[np.ndarray, " outcome"]
    low: Float[np.ndarray, " outcome"]
    high: Float[np.ndarray, " outcome"]
    p: Float[np.ndarray, " outcome"]
    relative: Float[np.ndarray, " outcome"]
    relative_low: Float[np.ndarray, " outcome"]
    relative_high: Float[np.ndarray, " outcome"]
    variance_reduction: Float[np.ndarray, " outcome"]


class Bootstrap:
    """The same resamples of problems for every condition, and of the draws of controls."""

    def __init__(self, num_problems: int, num_resamples: int, seed: int) -> None:
        self._num_problems, self._num_resamples, self._seed = num_problems, num_resamples, seed
        self._weights = _resamples(num_problems, num_resamples, np.random.default_rng(seed))

    def ratios(self, sums: Float[np.ndarray, "draw problem outcome 2"]) -> Ratios:
        """Ratios of numerators to denominators; NaN where nothing was counted.

        The mean is over the draws in which something was.
        """
        total = sums.sum(1)
        by_draw = ratio(total[..., 0], total[..., 1])
        rng = np.random.default_rng([self._seed, len(sums)])
        draws = _resamples(len(sums), self._num_resamples, rng)
        summed, weight, plain, known_draws = np.zeros((4, self._num_resamples, sums.shape[2]))
        for of_draw, times in zip(sums, draws.T, strict=True):
            of_resample = ratio(*(self._weights @ of_draw[..., i] for i in (0, 1)))
            known = np.isfinite(of_resample)
            found = np.where(known, of_resample, 0.0)
            summed += times[:, None] * found
            weight += times[:, None] * known
            plain += found
            known_draws += known
        counted = np.isfinite(by_draw)
        value = ratio(np.where(counted, by_draw, 0.0).sum(0), counted.sum(0).astype(np.float64))
        return Ratios(value, ratio(summed, weight), ratio(plain, known_draws), by_draw)

    def differences(
        self, a: Ratios, b: Ratios, is_share: Bool[np.ndarray, " outcome"]
    ) -> Differences:
        """`a - b`; the p-value is Student's t on the bootstrap's standard error.

        A resample without any opportunity has no rate; where that happens to more than one in
        twenty there is too little to say anything. Where every resample gives the same, resampling
        says nothing: a share gets the reach of the rule of three, other outcomes no interval, and a
        difference no p-value. Neither has anything from a single problem.
        """
        value, resampled = a.value - b.value, a.resampled - b.resampled
        known = np.isfinite(value) & (np.isfinite(resampled).mean(0) >= MOSTLY)
        resampled = np.where(known, resampled, 0.0)
        low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
        variance = np.nanvar(resampled, axis=0)
        apart = sum(np.nanvar(np.where(known, x.resampled, 0.0), axis=0) for x in (a, b))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(value == 0, 0.0, np.abs(value) / np.sqrt(variance))
        p = 2 * student_t.sf(z, max(self._num_problems - 1, 1))
        relative = _relative(a, b, known)
        still = np.sqrt(variance) <= 1e-9 * np.maximum(np.abs(value), 1)
        reach = np.where(is_share, 3 / self._num_problems, np.nan)
        low = np.where(still, np.maximum(value - reach, -1), low)
        high = np.where(still, np.minimum(value + reach, 1), high)
        p = np.where(still & (value != 0), np.nan, p)
        for index, bound in ((1, low), (2, high)):
            relative[index] = np.where(
                still & np.isfinite(relative[0]), ratio(bound, b.value), relative[index]
            )
        reduction = 1 - ratio(variance, apart)
        if self._num_problems == 1:
            nothing = np.full(value.shape, np.nan)
            low, high, p, reduction = nothing, nothing, nothing, nothing
            relative[1:] = np.nan
        found = (value, low, high, p, *relative, reduction)
        return Differences(*(np.where(known, x, np.nan) for x in found))

    def beyond(
        self, edit: Ratios, control: Ratios, is_share: Bool[np.ndarray, " outcome"]
    ) -> Differences:
        """The edit less the control's mean, held against what one more draw would be less it.

        Two things may be by chance: which problems there are, and which draws. The first has the
        resamples of problems. For the second, one more of K draws of variance s^2 is
        s^2 (1 + 1/K) from their mean, with K - 1 degrees of freedom (a prediction interval); s has
        the noise of rollouts in it. That is 5 % where draws are about normal. Where most do
        nothing and one in five or ten a lot, an edit that is one more of them passes in 6 to 10 %
        (2 to 10 draws, 1,500 simulations each): few draws say little of a tail. The wider
        interval and the larger p-value of both are given; neither where fewer than two draws are
        known, since nothing tells then how far draws differ.
        """
        of_problems = self.differences(
            edit, control._replace(resampled=control.of_problems), is_share
        )
        num = np.isfinite(control.by_draw).sum(0)
        several = (num > 1) & np.isfinite(of_problems.value)
        by_draw = np.where(several, control.by_draw, 0.0)
        error = np.nanstd(by_draw, axis=0, ddof=1) if len(by_draw) > 1 else np.zeros(len(num))
        error = error * np.sqrt(1 + 1 / np.maximum(num, 1))
        freedom = np.maximum(num - 1, 1)
        reach = student_t.ppf(0.975, freedom) * error
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * student_t.sf(np.abs(of_problems.value) / error, freedom)
        bound = np.where(is_share, 1.0, np.inf)
        low, high = of_problems.value - reach, of_problems.value + reach
        low = np.minimum(of_problems.low, np.maximum(low, -bound))
        high = np.maximum(of_problems.high, np.minimum(high, bound))
        # Where all draws are the same, only the problems are by chance.
        p = np.where(error > 0, np.maximum(p, of_problems.p), of_problems.p)
        found = of_problems._replace(low=low, high=high, p=p)
        return Differences(*(np.where(several, part, np.nan) for part in found))


def _resamples(
    num: int, num_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resample num"]:
    """How often each of `num` is drawn into each resample."""
    return rng.multinomial(num, np.full(num, 1 / num), num_resamples).astype(np.float64)


def _relative(
    a: Ratios, b: Ratios, known: Bool[np.ndarray, " outcome"]
) -> Float[np.ndarray, "3 outcome"]:
    """Value and interval of a / b - 1; NaN where over 2.5 % of resamples have no b to divide by."""
    resampled = ratio(a.resampled, b.resampled) - 1
    known = known & (b.value > 0) & ((b.resampled > 0).mean(0) >= 0.975)
    low, high = np.nanquantile(np.where(known, resampled, 0.0), [0.025, 0.975], axis=0)
    return np.where(known, np.stack([ratio(a.value, b.value) - 1, low, high]), np.nan)


def by_problem(
    counts: Float[np.ndarray, "rollout outcome 2"],
    problem: Int[np.ndarray, " rollout"],
    num_problems: int,
) -> Float[np.ndarray, "problem outcome 2"]:
    """Counts summed over the rollouts of each problem."""
    sums = np.zeros((num_problems, *counts.shape[1:]))
    np.add.at(sums, problem, counts)
    return sums


def ratio(
    numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """One over the other; NaN where there's nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
