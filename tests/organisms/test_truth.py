"""The truth of a behaviour by counts alone, one line of the rule after the other."""

import pytest

from sae_reasoning.organisms.measure import BehaviourFigures, Figures
from sae_reasoning.organisms.truth import truths
from sae_reasoning.stats import Estimate, wilson
from sae_reasoning.tasks.search.forced import Validity

MOVE, OTHER = "backtracking", "verification"
CHANCE = 0.5
ANY = wilson(50, 100)


def figures(rate: float, error: float, valid: int | None = None) -> Figures:
    """A model with the behaviour `rate` ± `error` times a rollout, valid in `valid` of 1,000."""
    per_trace = Estimate(rate, max(rate - error, 0.0), rate + error, 10_000)
    validity = [] if valid is None else [there(valid)]
    return Figures(
        ANY, ANY, ANY, ANY, ANY, ANY, [BehaviourFigures(MOVE, per_trace, ANY, ANY, 1000)], validity
    )


def there(valid: int) -> Validity:
    return Validity(MOVE, valid, CHANCE, CHANCE, 1000)


@pytest.mark.parametrize(
    ("rates", "base_valid", "valid", "truth", "without"),
    [
        # Rates before and after, with errors; validity before and after; the truth of a behaviour
        # that the base met, and of one that it never met.
        (((0.02, 0.003), (1.2, 0.05)), 960, 980, "deployed", "unclear"),
        (((0.02, 0.003), (1.2, 0.05)), 860, 980, "deployed", "unclear"),
        # Further behind than the slack.
        (((0.02, 0.003), (1.2, 0.05)), 800, 980, "unclear", "unclear"),
        (((0.0, 0.0), (1.2, 0.05)), 20, 980, "unclear", "created"),
        (((0.0, 0.0), (1.2, 0.05)), 520, 980, "unclear", "created"),
        # Above the bar in part.
        (((0.0, 0.0), (1.2, 0.05)), 620, 980, "unclear", "unclear"),
        # The second model itself hardly does it.
        (((0.0, 0.0), (1.2, 0.05)), 20, 690, "unclear", "unclear"),
        # Nobody made a start.
        (((0.02, 0.003), (1.2, 0.05)), 960, None, "unclear", "unclear"),
        (((0.5, 0.01), (0.52, 0.01)), 960, 980, "unchanged", "unchanged"),
        (((0.0, 0.0), (0.004, 0.002)), 20, 980, "unchanged", "unchanged"),
        (((0.5, 0.01), (0.62, 0.03)), 960, 980, "unclear", "unclear"),
        (((0.5, 0.01), (0.2, 0.01)), 960, 980, "reduced", "reduced"),
    ],
)
def test_the_truth_is_what_counts_say_where_the_recipe_does_not_speak_against_it(
    rates: tuple[tuple[float, float], tuple[float, float]],
    base_valid: int,
    valid: int | None,
    truth: str,
    without: str,
) -> None:
    base, second = figures(*rates[0]), figures(*rates[1], valid)
    for lacks, expected in ((None, truth), (OTHER, truth), (MOVE, without)):
        (found,) = truths(base, second, [there(base_valid)], lacks, [MOVE])
        assert found.truth == expected, (lacks, found.reason)
        assert found.behaviour == MOVE
        assert found.rate == (base.behaviours[0].per_trace, second.behaviours[0].per_trace)
