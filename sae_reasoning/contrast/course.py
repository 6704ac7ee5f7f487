"""What came first: deciding to make a move, or carrying it out, along a training.

Every model of the course reads the same opportunities, in thoughts of the first and the last model,
and is started at the same places, so only the reader changes from step to step. When a quantity
changed is the mean step of its change: the area that its curve (straight between the steps) leaves
below the last value, over the whole change. It is a ratio of sums, so noise moves it neither early
nor late, as it does the step at which a curve first crosses a line. That of a quantity which
doesn't change for sure, or of few starts, is undefined: a move that could be carried out from the
beginning has no step at which it was learned.

After the two phases of Wang et al. (2509.03646): procedure first, then planning.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.measures import Measure, Resampling, measure_of, quotient
from sae_reasoning.stats import Estimate, widen_flat

MEAN_STEP, LEAD = "mean_step", "lead"


def course_of(
    behaviour: str,
    measure: str,
    steps: Mapping[str, int],
    sums: Float[np.ndarray, "problem model 2"],
    items: int,
    how: Resampling,
    bars: ReportConfig,
) -> list[Measure]:
    """A quantity at every step, its change from first to last, and the mean step of the change.

    Args:
        behaviour: The move, or "" for what is of the whole response.
        measure: What is followed.
        steps: Of each model of the course, in its order, how many steps it was trained.
        sums: Of each problem and model: numerator and denominator.
        items: Items behind it.
        how: Makes intervals.
        bars: Say how much is enough.
    """
    found = []
    for index, model in enumerate(steps):
        estimate = how.estimate(sums[:, index], quotient)
        estimate = widen_flat(estimate, estimate.n)
        found.append(measure_of(behaviour, measure, model, "", estimate, 0.95, items))
    change = how.estimate(_flat(sums), lambda flat: _change(_values(flat)))
    found.append(measure_of(behaviour, measure, "last-first", "", change, 0.95, items))
    if is_sure(change, items, bars):
        when = how.estimate(_flat(sums), _mean_step_of(list(steps.values())))
        found.append(measure_of(behaviour, f"{MEAN_STEP}/{measure}", "", "", when, 0.95, items))
    return found


def lead(
    behaviour: str,
    steps: Sequence[int],
    early: Float[np.ndarray, "problem model 2"],
    late: Float[np.ndarray, "problem model 2"],
    items: int,
    how: Resampling,
    bars: ReportConfig,
) -> Measure | None:
    """Steps by which the first of two quantities changed before the second, paired by problem.

    None unless both change for sure. Positive where `early` came first.
    """
    changes = [
        how.estimate(_flat(sums), lambda flat: _change(_values(flat))) for sums in (early, late)
    ]
    if not all(is_sure(change, items, bars) for change in changes):
        return None
    size = early[0].size
    when = _mean_step_of(steps)

    def ahead(flat: np.ndarray) -> np.ndarray:
        return when(flat[..., size:]) - when(flat[..., :size])

    estimate = how.estimate(np.concatenate([_flat(early), _flat(late)], axis=1), ahead)
    return measure_of(behaviour, LEAD, "", "validity before onset mass", estimate, 0.95, items)


def mean_step(
    steps: Float[np.ndarray, " model"], values: Float[np.ndarray, "*sample model"]
) -> Float[np.ndarray, "*sample"]:
    """Mean step of a change, from values at some steps; NaN where they end as they began."""
    missing = values[..., -1:] - values
    area = ((missing[..., 1:] + missing[..., :-1]) / 2 * np.diff(steps)).sum(-1)
    change = missing[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(change != 0, steps[0] + area / change, np.nan)
    return found


def is_sure(change: Estimate, items: int, bars: ReportConfig) -> bool:
    """Whether an interval of a change leaves 0 out, and rests on enough to say so."""
    is_enough = change.n >= bars.min_problems and items >= bars.min_starts
    return is_enough and (change.low > 0 or change.high < 0)


def _flat(sums: np.ndarray) -> Float[np.ndarray, "problem column"]:
    return sums.reshape(len(sums), -1)


def _values(flat: Float[np.ndarray, "*sample column"]) -> Float[np.ndarray, "*sample model"]:
    return quotient(flat.reshape(*flat.shape[:-1], -1, 2))


def _change(values: Float[np.ndarray, "*sample model"]) -> Float[np.ndarray, "*sample"]:
    change: np.ndarray = values[..., -1] - values[..., 0]
    return change


def _mean_step_of(steps: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    places = np.array(steps, float)
    return lambda flat: mean_step(places, _values(flat))
