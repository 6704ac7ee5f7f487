"""What came first along a training."""

import numpy as np
import pytest

from sae_reasoning.config import ReportConfig
from sae_reasoning.contrast.course import MEAN_STEP, course_of, lead, mean_step
from sae_reasoning.contrast.execution import ACCURACY
from sae_reasoning.contrast.measures import Resampling

HOW = Resampling(200, 0)
BARS = ReportConfig()
STEPS = {"base": 0, "step_10": 10, "step_20": 20, "rl": 40}
STEP_ARRAY = np.array(list(STEPS.values()), float)


def sums(chances: list[float], problems: int = 60, items: int = 5) -> np.ndarray:
    """Problems [problem, model, 1, 2] that succeed with a chance of each model's own."""
    rng = np.random.default_rng(1)
    right = rng.binomial(items, np.array(chances), size=(problems, len(chances)))
    return np.stack([right, np.full_like(right, items)], axis=-1).astype(float)[:, :, None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 1.0, 1.0], 15.0),
        ([0.0, 0.25, 0.5, 1.0], 20.0),
        ([0.9, 0.7, 0.1, 0.1], (0 + 0.2 / 0.8 * 5 + 0.6 / 0.8 * 15)),
        ([0.0, 1.0, 1.0, 1.0], 5.0),
    ],
)
def test_a_change_has_a_mean_step(values: list[float], expected: float) -> None:
    """That of a change at once is the middle of its interval; shares are weighed by size."""
    assert mean_step(STEP_ARRAY, np.array(values)) == pytest.approx(expected)


def test_noise_moves_the_mean_step_neither_way() -> None:
    """Where a curve first crosses its middle comes early under noise; this doesn't."""
    rng = np.random.default_rng(0)
    steps = np.arange(0, 161, 8).astype(float)
    true = 0.85 + 0.08 * steps / 160
    noisy = rng.binomial(250, true, size=(4000, len(steps))) / 250
    found = mean_step(steps, noisy)
    sure = noisy[:, -1] - noisy[:, 0] > 0.05
    assert np.median(found[sure]) == pytest.approx(80.0, abs=4.0)


def test_what_ends_as_it_began_has_no_mean_step() -> None:
    assert np.isnan(mean_step(np.array([0.0, 10.0, 20.0]), np.array([0.3, 0.9, 0.3])))


def test_a_quantity_that_does_not_change_for_sure_has_no_mean_step() -> None:
    flat = course_of("m", ACCURACY, STEPS, sums([0.8, 0.8, 0.8, 0.8]), 300, HOW, BARS)
    risen = course_of("m", ACCURACY, STEPS, sums([0.1, 0.1, 0.9, 0.9]), 300, HOW, BARS)
    assert [m.model for m in flat] == [*STEPS, "last-first"]
    half = risen[-1]
    few = course_of("m", ACCURACY, STEPS, sums([0.1, 0.1, 0.9, 0.9], problems=20), 300, HOW, BARS)
    assert [m.model for m in few] == [*STEPS, "last-first"]
    less = ReportConfig(min_problems=10)
    found = course_of("m", ACCURACY, STEPS, sums([0.1, 0.1, 0.9, 0.9], problems=20), 300, HOW, less)
    assert found[-1].measure == half.measure
    assert half.measure == f"{MEAN_STEP}/{ACCURACY}"
    assert 10 < half.low <= half.value <= half.high < 20


def test_the_lead_has_the_sign_of_what_came_first() -> None:
    early, late = sums([0.1, 0.9, 0.9, 0.9]), sums([0.1, 0.1, 0.1, 0.9])
    steps = list(STEPS.values())
    ahead = lead("m", steps, early, late, 300, HOW, BARS)
    behind = lead("m", steps, late, early, 300, HOW, BARS)
    assert ahead is not None
    assert behind is not None
    assert ahead.low > 20
    assert behind.value == pytest.approx(-ahead.value)
    assert lead("m", steps, sums([0.8] * 4), late, 300, HOW, BARS) is None


def test_a_share_on_which_all_agree_keeps_an_interval() -> None:
    first = course_of("m", ACCURACY, STEPS, sums([0.0, 0.5, 0.9, 1.0]), 300, HOW, BARS)[0]
    assert (first.value, first.low) == (0.0, 0.0)
    assert first.high > 0.02
