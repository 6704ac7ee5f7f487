"""What came first: starting a behaviour, or carrying it out, along a training.

Every model of the course reads the same opportunities, in traces of the first and the last model,
and is started at the same places, so only the reader changes from step to step. When a quantity
changed is the mean step of its change: the area that its curve (straight between the steps) leaves
below the last value, over the whole change. It is a ratio of sums, so noise moves it neither early
nor late, as it does the step at which a curve first crosses a line. That of a quantity which
does not change significantly, or of few starts, is undefined: a behaviour that could be carried
out from the
beginning has no step at which it was learned.

After the two phases of Wang et al. (2509.03646): procedure first, then planning.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.measures import Measure, Resampling, measure_of, rate
from sae_reasoning.stats import Estimate, widen_flat

MEAN_STEP, LEAD = "mean_step", "lead"


def course_of(
    behaviour: str,
    measure: str,
    steps: Mapping[str, int],
    sums: Float[np.ndarray, "problem model part 2"],
    items: int,
    resampling: Resampling,
    thresholds: ReportConfig,
) -> list[Measure]:
    """A quantity at every step, its change from first to last, and the mean step of the change.

    Args:
        behaviour: What is measured, or "" for what is of the whole response.
        measure: What is followed.
        steps: Of each model of the course, in its order, how many steps it was trained.
        sums: Of each problem and model: numerator and denominator, of each part.
        items: Items behind it.
        resampling: Makes intervals.
        thresholds: Say how much is enough.
    """
    found = []
    for index, model in enumerate(steps):
        estimate = resampling.estimate(_flat(sums[:, index]), lambda flat: _values(flat, 1)[..., 0])
        estimate = widen_flat(estimate, estimate.n)
        found.append(measure_of(behaviour, measure, model, "", estimate, 0.95, items))
    change = _change(sums, resampling)
    found.append(measure_of(behaviour, measure, "last-first", "", change, 0.95, items))
    if is_sure(change, items, thresholds):
        when = resampling.estimate(_flat(sums), _mean_step_of(list(steps.values())))
        found.append(measure_of(behaviour, f"{MEAN_STEP}/{measure}", "", "", when, 0.95, items))
    return found


def lead(
    behaviour: str,
    steps: Sequence[int],
    early: Float[np.ndarray, "problem model part 2"],
    late: Float[np.ndarray, "problem model other 2"],
    items: int,
    resampling: Resampling,
    thresholds: ReportConfig,
) -> Measure | None:
    """Steps by which the first of two quantities changed before the second, paired by problem.

    None unless both change significantly. Positive where `early` came first.
    """
    if not all(is_sure(_change(sums, resampling), items, thresholds) for sums in (early, late)):
        return None
    size = early[0].size
    when = _mean_step_of(steps)

    def ahead(flat: np.ndarray) -> np.ndarray:
        return when(flat[..., size:]) - when(flat[..., :size])

    estimate = resampling.estimate(np.concatenate([_flat(early), _flat(late)], axis=1), ahead)
    return measure_of(
        behaviour, LEAD, "", "execution accuracy before onset probability", estimate, 0.95, items
    )


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


def is_sure(change: Estimate, items: int, thresholds: ReportConfig) -> bool:
    """Whether an interval of a change leaves 0 out, and rests on enough to say so."""
    is_enough = change.n >= thresholds.min_problems and items >= thresholds.min_starts
    return is_enough and (change.low > 0 or change.high < 0)


def _flat(sums: np.ndarray) -> Float[np.ndarray, "problem column"]:
    return sums.reshape(len(sums), -1)


def _values(
    flat: Float[np.ndarray, "*sample column"], num_models: int
) -> Float[np.ndarray, "*sample model"]:
    return rate(flat.reshape(*flat.shape[:-1], num_models, -1, 2))


def _change(sums: Float[np.ndarray, "problem model part 2"], resampling: Resampling) -> Estimate:
    def change(flat: np.ndarray) -> np.ndarray:
        values = _values(flat, sums.shape[1])
        return np.asarray(values[..., -1] - values[..., 0])

    return resampling.estimate(_flat(sums), change)


def _mean_step_of(steps: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    places = np.array(steps, float)
    return lambda flat: mean_step(places, _values(flat, len(places)))
