"""What came first: deciding to make a move, or carrying it out, along a training.

Every model of the course reads the same opportunities, in thoughts of the first and the last model,
and is started at the same places, so only the reader changes from step to step. A quantity is half
way where it first reaches the middle between its first and its last value, on straight lines
between the steps. That of a quantity which doesn't change for sure is undefined: a move that could
be carried out from the beginning has no step at which it was learned.

After the two phases of Wang et al. (2509.03646): procedure first, then planning.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.measures import Measure, Resampling, measure_of, quotient
from sae_reasoning.stats import Estimate, widen_flat

ENTRY, ONSET, EXECUTION = "entry_mass", "onset_mass/per_opportunity", "validity"
HALFWAY, LEAD = "halfway", "lead"


def course_of(
    behaviour: str,
    measure: str,
    steps: Mapping[str, int],
    sums: Float[np.ndarray, "problem model 2"],
    items: int,
    how: Resampling,
) -> list[Measure]:
    """A quantity at every step, its change from first to last, and the step where it is half way.

    Args:
        behaviour: The move, or "" for what is of the whole response.
        measure: What is followed.
        steps: Of each model of the course, in its order, how many steps it was trained.
        sums: Of each problem and model: numerator and denominator.
        items: Items behind it.
        how: Makes intervals.
    """
    found = []
    for index, model in enumerate(steps):
        estimate = how.estimate(sums[:, index], quotient)
        estimate = widen_flat(estimate, estimate.n)
        found.append(measure_of(behaviour, measure, model, "", estimate, 0.95, items))
    change = how.estimate(_flat(sums), lambda flat: _change(_values(flat)))
    found.append(measure_of(behaviour, measure, "last-first", "", change, 0.95, items))
    if is_sure(change):
        half = how.estimate(_flat(sums), _halfway_of(list(steps.values())))
        found.append(measure_of(behaviour, f"{HALFWAY}/{measure}", "", "", half, 0.95, items))
    return found


def lead(
    behaviour: str,
    steps: Sequence[int],
    early: Float[np.ndarray, "problem model 2"],
    late: Float[np.ndarray, "problem model 2"],
    items: int,
    how: Resampling,
) -> Measure | None:
    """Steps by which the first of two quantities is half way before the second, paired by problem.

    None unless both change for sure. Positive where `early` came first.
    """
    changes = [
        how.estimate(_flat(sums), lambda flat: _change(_values(flat))) for sums in (early, late)
    ]
    if not all(map(is_sure, changes)):
        return None
    size = early[0].size
    halfway = _halfway_of(steps)

    def ahead(flat: np.ndarray) -> np.ndarray:
        return halfway(flat[..., size:]) - halfway(flat[..., :size])

    estimate = how.estimate(np.concatenate([_flat(early), _flat(late)], axis=1), ahead)
    return measure_of(behaviour, LEAD, "", "validity before onset mass", estimate, 0.95, items)


def halfway(
    steps: Float[np.ndarray, " model"], values: Float[np.ndarray, "*sample model"]
) -> Float[np.ndarray, "*sample"]:
    """Step at which values first reach the middle between the first and the last; NaN if flat."""
    with np.errstate(divide="ignore", invalid="ignore"):
        done = (values - values[..., :1]) / (values[..., -1:] - values[..., :1])
    reached = done >= 0.5
    after = reached.argmax(-1)
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(done, i[..., None], -1)[..., 0] for i in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (0.5 - low) / (high - low)
    found = steps[before] + share * (steps[after] - steps[before])
    return np.where(reached.any(-1) & np.isfinite(share), found, np.nan)


def is_sure(change: Estimate) -> bool:
    """Whether an interval of a change leaves 0 out."""
    return change.low > 0 or change.high < 0


def _flat(sums: np.ndarray) -> Float[np.ndarray, "problem column"]:
    return sums.reshape(len(sums), -1)


def _values(flat: Float[np.ndarray, "*sample column"]) -> Float[np.ndarray, "*sample model"]:
    return quotient(flat.reshape(*flat.shape[:-1], -1, 2))


def _change(values: Float[np.ndarray, "*sample model"]) -> Float[np.ndarray, "*sample"]:
    change: np.ndarray = values[..., -1] - values[..., 0]
    return change


def _halfway_of(steps: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    places = np.array(steps, float)
    return lambda flat: halfway(places, _values(flat))
