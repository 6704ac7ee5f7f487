"""Estimates of the contrast, from what each problem adds to a few sums.

Every estimate is a function of sums over problems and is bootstrapped over problems; what two
models do on one problem stays together, so differences are paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from sae_reasoning.stats import Estimate, bootstrap_of_sums, wilson

BASE, RL = "base", "rl"
MODELS = (BASE, RL)
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
        behaviour: Move, or "" where it is of the pair.
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
    how: Resampling,
    behaviour: str,
    measure: str,
    sums: Float[np.ndarray, "problem model part 2"],
    items: tuple[int, int],
) -> list[Measure]:
    """Rates of both models, their ratio and difference, at 95 % and (equivalence) 90 %.

    The ratio is infinite where the base alone has a rate of 0, and unknown where both have.

    Args:
        how: Makes intervals.
        behaviour: The move.
        measure: What is compared.
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
        estimate = how.estimate(own, lambda of: rates(of)[..., 0])
        found.append(measure_of(behaviour, measure, model, "", estimate, 0.95, items[number]))
    for model, statistic in ((RATIO, ratio), (DIFFERENCE, difference)):
        for level in (0.95, EQUIVALENCE_LEVEL):
            estimate = how.estimate(sums.reshape(len(sums), -1), statistic, level)
            found.append(measure_of(behaviour, measure, model, "", estimate, level, sum(items)))
    return found


def share(
    how: Resampling,
    behaviour: str,
    measure: str,
    model: str,
    condition: str,
    values: Float[np.ndarray, " item"],
    problems: Sequence[str],
) -> Measure:
    """Mean of 0/1 outcomes; bounds reach to Wilson's on the problems where nearly all agree."""
    sums = by_problem(problems, np.stack([values, np.ones(len(values))], axis=1))
    estimate = to_wilson(how.estimate(sums, quotient), sums[:, 0] / sums[:, 1])
    return measure_of(behaviour, measure, model, condition, estimate, 0.95, len(values))


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


def difference(
    how: Resampling,
    behaviour: str,
    measure: str,
    model: str,
    condition: str,
    one: Float[np.ndarray, " item"],
    other: Float[np.ndarray, " item"],
    problems: Sequence[str],
) -> Measure:
    """Mean of `one - other`, at most 1 in size, over the same items."""
    sums = by_problem(problems, np.stack([one - other, np.ones(len(one))], axis=1))
    estimate = gap_to_wilson(how.estimate(sums, quotient), sums[:, 0] / sums[:, 1])
    return measure_of(behaviour, measure, model, condition, estimate, 0.95, len(one))


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


def skill(
    how: Resampling,
    behaviour: str,
    measure: str,
    model: str,
    condition: str,
    valid: Float[np.ndarray, " item"],
    chance: Float[np.ndarray, " item"],
    problems: Sequence[str],
    started: Float[np.ndarray, " item"] | None = None,
) -> Measure:
    """How far validity is from chance (0) to certainty (1): `Σ(valid - chance) / Σ(1 - chance)`.

    Where a move may not start at all, `started` says where it did; chance earns nothing elsewhere.

    The form of Cohen's kappa (1960): moves whose slots can be filled rightly by lot are comparable
    with those where they can't; undefined where lots are always right. Where fewer than ten
    problems differ the bounds reach to those of Wilson's interval of validity.
    """
    earned = chance if started is None else chance * started
    sums = by_problem(problems, np.stack([valid - earned, 1 - chance], axis=1))
    estimate = how.estimate(sums, quotient)
    if len(valid) and chance.mean() < 1:
        share = float(valid.mean())
        shares = by_problem(problems, np.stack([valid, np.ones(len(valid))], axis=1))
        shares = shares[np.abs(sums).sum(1) > 0]  # Elsewhere lots are always right.
        flat = Estimate(share, share, share, estimate.n)
        bounds = to_wilson(flat, shares[:, 0] / shares[:, 1])
        low, high = (
            estimate.value + (bound - share) / (1 - float(chance.mean()))
            for bound in (bounds.low, bounds.high)
        )
        estimate = replace(estimate, low=min(low, estimate.low), high=max(high, estimate.high))
    return measure_of(behaviour, measure, model, condition, estimate, 0.95, len(valid))


def skill_difference(
    how: Resampling,
    behaviour: str,
    measure: str,
    model: str,
    condition: str,
    one: Float[np.ndarray, " item"],
    other: Float[np.ndarray, " item"],
    chance: Float[np.ndarray, " item"],
    problems: Sequence[str],
) -> Measure:
    """How much further one goes from chance to certainty: `Σ(one - other) / Σ(1 - chance)`.

    Where fewer than ten problems differ the bounds reach to those of `gap_to_wilson`.
    """
    sums = by_problem(problems, np.stack([one - other, 1 - chance], axis=1))
    estimate = how.estimate(sums, quotient)
    if len(one) and chance.mean() < 1:
        gap = float((one - other).mean())
        gaps = by_problem(problems, np.stack([one - other, np.ones(len(one))], axis=1))
        gaps = gaps[np.abs(sums).sum(1) > 0]  # Elsewhere lots are always right, and nothing tells.
        bounds = gap_to_wilson(Estimate(gap, gap, gap, estimate.n), gaps[:, 0] / gaps[:, 1])
        low, high = (
            estimate.value + (bound - gap) / (1 - float(chance.mean()))
            for bound in (bounds.low, bounds.high)
        )
        estimate = replace(estimate, low=min(low, estimate.low), high=max(high, estimate.high))
    return measure_of(behaviour, measure, model, condition, estimate, 0.95, len(one))


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
