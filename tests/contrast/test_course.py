"""What came first along a training."""

import numpy as np
import pytest

from sae_reasoning.contrast.course import EXECUTION, HALFWAY, course_of, halfway, lead
from sae_reasoning.contrast.measures import Resampling

HOW = Resampling(200, 0)
STEPS = {"base": 0, "step_10": 10, "step_20": 20, "rl": 40}


def sums(chances: list[float], problems: int = 60, items: int = 5) -> np.ndarray:
    """Problems [problem, model, 2] that succeed with a chance that changes from model to model."""
    rng = np.random.default_rng(1)
    right = rng.binomial(items, np.array(chances), size=(problems, len(chances)))
    return np.stack([right, np.full_like(right, items)], axis=-1).astype(float)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 1.0, 1.0], 15.0),
        ([0.0, 0.5, 0.6, 1.0], 10.0),
        ([0.9, 0.7, 0.1, 0.1], 10 + 10 * (0.2 / 0.6)),
        ([0.0, 0.8, 0.2, 1.0], 6.25),
        ([0.2, 0.0, 0.1, 0.4], 20 + 20 * (0.2 / 0.3)),
    ],
)
def test_half_way_is_where_the_middle_is_first_reached(
    values: list[float], expected: float
) -> None:
    assert halfway(np.array(list(STEPS.values()), float), np.array(values)) == pytest.approx(
        expected
    )


def test_what_ends_as_it_began_is_never_half_way() -> None:
    assert np.isnan(halfway(np.array([0.0, 10.0, 20.0]), np.array([0.3, 0.9, 0.3])))


def test_a_quantity_that_does_not_change_for_sure_has_no_half_way() -> None:
    flat = course_of("m", EXECUTION, STEPS, sums([0.8, 0.8, 0.8, 0.8]), 300, HOW)
    risen = course_of("m", EXECUTION, STEPS, sums([0.1, 0.1, 0.9, 0.9]), 300, HOW)
    assert [m.model for m in flat] == [*STEPS, "last-first"]
    half = risen[-1]
    assert half.measure == f"{HALFWAY}/{EXECUTION}"
    assert 10 < half.low <= half.value <= half.high < 20


def test_the_lead_has_the_sign_of_what_came_first() -> None:
    early, late = sums([0.1, 0.9, 0.9, 0.9]), sums([0.1, 0.1, 0.1, 0.9])
    steps = list(STEPS.values())
    ahead = lead("m", steps, early, late, 300, HOW)
    behind = lead("m", steps, late, early, 300, HOW)
    assert ahead is not None
    assert behind is not None
    assert ahead.low > 20
    assert behind.value == pytest.approx(-ahead.value)
    assert lead("m", steps, sums([0.8] * 4), late, 300, HOW) is None


def test_a_share_on_which_all_agree_keeps_an_interval() -> None:
    first = course_of("m", EXECUTION, STEPS, sums([0.0, 0.5, 0.9, 1.0]), 300, HOW)[0]
    assert (first.value, first.low) == (0.0, 0.0)
    assert first.high > 0.02
