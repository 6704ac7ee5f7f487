"""Estimates of the contrast, from what each problem adds to a few sums.

Every estimate is a function of sums over problems and is bootstrapped over problems; what two
models do on one problem stays together, so differences are paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from sae_reasoning.records import MODELS
from sae_reasoning.stats import Estimate, bootstrap_of_sums, most_of_none, wilson

RATIO, DIFFERENCE = "rl/base", "rl-base"
FEW = 10
"""Problems that say otherwise than the rest: fewer, and resamples don't show how many might."""
_NEXT_TO, _FLAT = 0.05, 1e-9
EQUIVALENCE_LEVEL = 0.9
"""Two one-sided tests at 5 % are a 90 % interval within the margin (Schuirmann 1987)."""


@dataclass(frozen=True)
class Measure:
    """One estimate.

    Attributes:
        behaviour: What is measured; "" where it is of the pair.
        measure: What is estimated.
        model: `base`, `rl`, `rl/base` or `rl-base`.
        condition: Under which condition, or "".
        value: Estimate.
        low: Lower bound.
        high: Upper bound.
        level: Of the interval.
        n: Problems.
        items: Rollouts, opportunities or starts behind it.
    """

    behaviour: str
    measure: str
    model: str
    condition: str
    value: float
    low: float
    high: float
    level: float
    n: int
    items: int


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    num_resamples: int
    seed: int

    def estimate(
        self,
        sums: Float[np.ndarray, "problem column"],
        statistic: Callable[[np.ndarray], np.ndarray],
        level: float = 0.95,
    ) -> Estimate:
        """A statistic of sums over the problems that add to any of them."""
        sums = sums[np.abs(sums).sum(1) > 0]
        return bootstrap_of_sums(sums, statistic, self.num_resamples, self.seed, level)


def quotient(sums: np.ndarray) -> np.ndarray:
    """First sum over the second; where that is 0, infinite for something and NaN for nothing."""
    above, below = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(below > 0, above / below, np.nan)
    return np.where((below == 0) & (above > 0), np.inf, found)


def rate(
    sums: Float[np.ndarray, "*sample part 2"],
) -> Float[np.ndarray, "*sample"]:
    """Mean of the parts' quotients, over parts of which something was counted."""
    quotients = quotient(sums)
    is_known = ~np.isnan(quotients)
    total = np.where(is_known, quotients, 0.0).sum(-1)
    return quotient(np.stack([total, is_known.sum(-1)], axis=-1))


def compared(
    resampling: Resampling,
    behaviour: str,
    measure: str,
    sums: Float[np.ndarray, "problem model part 2"],
    items: tuple[int, int],
) -> list[Measure]:
    """Rates of both models, their ratio and difference, at 95 % and (equivalence) 90 %.

    The ratio is infinite where the base alone has a rate of 0, and unknown where both have. Its
    lower bound is then that of the RL model's rate over what the base might do unseen: the RL
    model's mean rate where it has any, on the largest share of problems of which none would be seen
    in as many (`most_of_none`). Where neither model has any, their difference reaches as far as
    that share, each way.

    Args:
        resampling: Makes intervals.
        behaviour: What is compared.
        measure: Name of the rate.
        sums: Of each problem and model: numerator and denominator. Of several parts, each counts
            the same, however many items it has in a resample.
        items: Items behind each model's rate.
    """
    num_parts = sums.shape[2]

    def rates(of: np.ndarray) -> np.ndarray:
        return rate(of.reshape(*of.shape[:-1], -1, num_parts, 2))

    def ratio(of: np.ndarray) -> np.ndarray:
        return quotient(rates(of)[..., ::-1])

    def difference(of: np.ndarray) -> np.ndarray:
        found = rates(of)
        return np.asarray(found[..., 1] - found[..., 0])

    found = []
    for number, model in enumerate(MODELS):
        own = sums[:, number].reshape(len(sums), -1)
        estimate = resampling.estimate(own, lambda of: rates(of)[..., 0])
        found.append(measure_of(behaviour, measure, model, "", estimate, 0.95, items[number]))
    least, usual = found[1].low, rates(sums.reshape(len(sums), -1))[:, 1]
    usual = usual[usual > 0]
    for model, statistic in ((RATIO, ratio), (DIFFERENCE, difference)):
        for level in (0.95, EQUIVALENCE_LEVEL):
            estimate = resampling.estimate(sums.reshape(len(sums), -1), statistic, level)
            unseen = most_of_none(estimate.n) if estimate.n else 1.0
            if np.isinf(estimate.low):  # No resample says how often the base might.
                estimate = replace(estimate, low=least / (unseen * usual.mean()))
            if model == DIFFERENCE and estimate.value == 0 and not sums[..., 0].any():
                estimate = replace(estimate, low=-unseen, high=unseen)
            found.append(measure_of(behaviour, measure, model, "", estimate, level, sum(items)))
    return found


def few_differ(values: Float[np.ndarray, " problem"], poles: Sequence[float]) -> bool:
    """Whether values are all alike, or all but fewer than ten are next to one pole."""
    if not len(values):
        return False
    away = min(int((np.abs(values - pole) > _NEXT_TO).sum()) for pole in poles)
    return away < FEW or float(np.ptp(values)) < _FLAT


def to_wilson(estimate: Estimate, shares: Float[np.ndarray, " problem"]) -> Estimate:
    """A mean of shares whose bounds reach to Wilson's where fewer than ten problems differ.

    Resamples of problems that nearly all say the same can't show how many others might not.

    Args:
        estimate: The mean, with its interval over problems.
        shares: Of each problem, from 0 to 1.
    """
    if not few_differ(shares, (0, 1)):
        return estimate
    bounds = wilson(estimate.value * estimate.n, estimate.n)
    return replace(
        estimate, low=min(estimate.low, bounds.low), high=max(estimate.high, bounds.high)
    )


def gap_to_wilson(estimate: Estimate, gaps: Float[np.ndarray, " problem"]) -> Estimate:
    """As `to_wilson`, of a mean of differences: Wilson's up one way, less Wilson's the other way.

    Args:
        estimate: The mean, with its interval over problems.
        gaps: Of each problem, from -1 to 1.
    """
    if not few_differ(gaps, (-1, 0, 1)):
        return estimate
    up, down = (wilson(part.clip(min=0).sum(), len(gaps)) for part in (gaps, -gaps))
    return replace(
        estimate,
        low=min(estimate.low, up.low - down.high),
        high=max(estimate.high, up.high - down.low),
    )


@dataclass(frozen=True)
class Recorder:
    """Makes the estimates of one behaviour from outcomes at the same items.

    Attributes:
        resampling: Makes intervals.
        behaviour: What the items are of; "" for the pair.
        problems: Problem of each item, the unit of resampling.
    """

    resampling: Resampling
    behaviour: str
    problems: Sequence[str]

    def at(self, rows: Sequence[int]) -> "Recorder":
        """A recorder of some of the items."""
        return replace(self, problems=[self.problems[row] for row in rows])

    def share(
        self, measure: str, model: str, condition: str, values: Float[np.ndarray, " item"]
    ) -> Measure:
        """Mean of 0/1 outcomes; bounds reach to Wilson's on the problems where nearly all agree."""
        sums = by_problem(self.problems, np.stack([values, np.ones(len(values))], axis=1))
        estimate = to_wilson(self.resampling.estimate(sums, quotient), sums[:, 0] / sums[:, 1])
        return self._of(measure, model, condition, estimate)

    def difference(
        self,
        measure: str,
        model: str,
        condition: str,
        one: Float[np.ndarray, " item"],
        other: Float[np.ndarray, " item"],
    ) -> Measure:
        """Mean of `one - other`, at most 1 in size, over the same items."""
        sums = by_problem(self.problems, np.stack([one - other, np.ones(len(one))], axis=1))
        estimate = gap_to_wilson(self.resampling.estimate(sums, quotient), sums[:, 0] / sums[:, 1])
        return self._of(measure, model, condition, estimate)

    def beyond_chance(
        self,
        measure: str,
        model: str,
        condition: str,
        valid: Float[np.ndarray, " item"],
        chance: Float[np.ndarray, " item"],
        started: Float[np.ndarray, " item"] | None = None,
    ) -> Measure:
        """Chance-corrected accuracy, 0 at chance and 1 at certainty.

        `sum(valid - chance) / sum(1 - chance)`, the form of Cohen's kappa (1960), so that
        behaviours whose slots a random fill often gets right are comparable with others; undefined
        where a random fill always is right. Where fewer than ten problems differ the bounds reach
        to those of Wilson's interval of accuracy.

        Args:
            measure: Name of the estimate.
            model: Whose.
            condition: Under which.
            valid: Whether each execution was valid.
            chance: Probability that a random fill is valid, at each item.
            started: Where a behaviour may not start at all, whether it did; chance counts there
                alone.
        """
        earned = chance if started is None else chance * started
        sums = by_problem(self.problems, np.stack([valid - earned, 1 - chance], axis=1))
        estimate = self._beyond(sums, valid, 1 - chance, to_wilson)
        return self._of(measure, model, condition, estimate)

    def relative_difference(
        self,
        measure: str,
        model: str,
        condition: str,
        one: Float[np.ndarray, " item"],
        other: Float[np.ndarray, " item"],
        full: Float[np.ndarray, " item"],
    ) -> Measure:
        """How far apart two lie, of what full ability would gain: `sum(one - other) / sum(full)`.

        Where fewer than ten problems differ the bounds reach to those of `gap_to_wilson`.

        Args:
            measure: Name of the estimate.
            model: Whose.
            condition: Under which.
            one: Outcome of each item.
            other: The same, compared with.
            full: What full ability gains there over none: one less chance, or the RL model's value
                less the control's.
        """
        sums = by_problem(self.problems, np.stack([one - other, full], axis=1))
        estimate = self._beyond(sums, one - other, full, gap_to_wilson)
        return self._of(measure, model, condition, estimate)

    def share_of_gap(
        self,
        measure: str,
        model: str,
        condition: str,
        lost: Float[np.ndarray, " item"],
        gap: Float[np.ndarray, " item"],
    ) -> Measure:
        """The share of a gap that is lost: `sum(lost) / sum(gap)`.

        Where fewer than ten problems lose or gain any, resamples can't show how many others might:
        bounds reach to Wilson's of the share lost, less Wilson's of the share gained, on as many
        problems as the gap's sum rests on, `(sum |gap|)^2 / sum gap^2`.

        Args:
            measure: Name of the estimate.
            model: Whose.
            condition: Under which.
            lost: Of each item; below 0 where something is gained.
            gap: What there is to lose at it.
        """
        sums = by_problem(self.problems, np.stack([lost, gap], axis=1))
        estimate = bootstrap_of_sums(
            sums, quotient, self.resampling.num_resamples, self.resampling.seed
        )
        total, weight = sums[:, 1].sum(), np.abs(sums[:, 1]).sum()
        differ = int((np.abs(sums[:, 0]) > _NEXT_TO).sum())
        if differ < FEW and total > 0 and not np.isnan(estimate.low):
            size = round(weight**2 / (sums[:, 1] ** 2).sum())
            down, up = (
                wilson(min(float(part.clip(min=0).sum() / total), 1.0) * size, size)
                for part in (sums[:, 0], -sums[:, 0])
            )
            estimate = replace(
                estimate,
                low=min(estimate.low, down.low - up.high),
                high=max(estimate.high, down.high - up.low),
            )
        return self._of(measure, model, condition, estimate)

    def undefined(self, measure: str, model: str, condition: str) -> Measure:
        """An estimate that these items don't define."""
        unknown = float("nan")
        estimate = Estimate(unknown, unknown, unknown, len({*self.problems}))
        return self._of(measure, model, condition, estimate)

    def _beyond(
        self,
        sums: Float[np.ndarray, "problem 2"],
        values: Float[np.ndarray, " item"],
        full: Float[np.ndarray, " item"],
        widened: Callable[[Estimate, np.ndarray], Estimate],
    ) -> Estimate:
        """The quotient of sums, its bounds as wide as those of the mean of `values`, rescaled."""
        estimate = self.resampling.estimate(sums, quotient)
        if not len(values) or np.isnan(estimate.low) or full.mean() <= 0:
            return estimate
        mean = float(values.mean())
        means = by_problem(self.problems, np.stack([values, np.ones(len(values))], axis=1))
        # Where there is nothing to gain, as a random fill is always valid, nothing is lost.
        means = means[np.abs(sums).sum(1) > 0]
        bounds = widened(Estimate(mean, mean, mean, estimate.n), means[:, 0] / means[:, 1])
        low, high = (
            estimate.value + (bound - mean) / float(full.mean())
            for bound in (bounds.low, bounds.high)
        )
        return replace(estimate, low=min(low, estimate.low), high=max(high, estimate.high))

    def _of(self, measure: str, model: str, condition: str, estimate: Estimate) -> Measure:
        return measure_of(
            self.behaviour, measure, model, condition, estimate, 0.95, len(self.problems)
        )


def by_problem(
    problems: Sequence[str], columns: Float[np.ndarray, "item column"]
) -> Float[np.ndarray, "problem column"]:
    """Sums of items over each problem."""
    names, place = np.unique(np.asarray(problems), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, place, columns)
    return sums


def measure_of(
    behaviour: str,
    measure: str,
    model: str,
    condition: str,
    estimate: Estimate,
    level: float,
    items: int,
) -> Measure:
    """An estimate under its names."""
    return Measure(
        behaviour=behaviour,
        measure=measure,
        model=model,
        condition=condition,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        level=level,
        n=estimate.n,
        items=items,
    )
