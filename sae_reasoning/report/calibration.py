"""How often the verdict is right on models whose answer is known.

The unit is the *pair*: the moves of one pair share models and problems, so intervals resample
pairs. Wilson's intervals stand beside, with the cells as n, for those who want them; cells of one
pair aren't independent, so they are too narrow.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sae_reasoning.organisms.truth import UNCLEAR
from sae_reasoning.report.verdict import CREATED, DEPLOYED, INCONCLUSIVE
from sae_reasoning.stats import Estimate, bootstrap_of_sums, widen_flat, wilson


@dataclass(frozen=True)
class Cell:
    """One move of one pair.

    Attributes:
        pair: The pair, its family and seed.
        behaviour: The move.
        truth: As measured on the finished models.
        verdict: As given.
        qualifier: Of the verdict.
        reason: Of the verdict.
    """

    pair: str
    behaviour: str
    truth: str
    verdict: str
    qualifier: str
    reason: str


@dataclass(frozen=True)
class Share:
    """A share of cells.

    Attributes:
        value: The share; NaN without cells.
        low: Lower bound, pairs resampled.
        high: Upper bound.
        wilson_low: Wilson's lower bound on the cells.
        wilson_high: Wilson's upper bound.
        cells: Cells it's a share of.
        pairs: Pairs they belong to.
    """

    value: float
    low: float
    high: float
    wilson_low: float
    wilson_high: float
    cells: int
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """The verdict on all cells whose truth is clear.

    Attributes:
        confusion: Cells by truth, then verdict.
        right: Share that is right, of those with a verdict other than inconclusive; by truth, and
            over all as `all`.
        inconclusive: Share that is inconclusive, likewise.
        confused: Share of deployed moves called created or the reverse, of all that are either.
        unclear: Cells left out, as their truth isn't clear.
        cells: Every cell.
    """

    confusion: dict[str, dict[str, int]]
    right: dict[str, Share]
    inconclusive: dict[str, Share]
    confused: Share
    unclear: int
    cells: list[Cell]


def calibration(cells: Sequence[Cell], num_resamples: int, seed: int) -> Calibration:
    """Hold verdicts against truths."""
    clear = [cell for cell in cells if cell.truth != UNCLEAR]
    classes = sorted({cell.truth for cell in clear})

    def share(of: Sequence[Cell], counted: Sequence[bool]) -> Share:
        return _share(of, counted, num_resamples, seed)

    def right(of: Sequence[Cell]) -> Share:
        given = [cell for cell in of if cell.verdict != INCONCLUSIVE]
        return share(given, [cell.verdict == cell.truth for cell in given])

    def inconclusive(of: Sequence[Cell]) -> Share:
        return share(of, [cell.verdict == INCONCLUSIVE for cell in of])

    groups = {truth: [c for c in clear if c.truth == truth] for truth in classes} | {"all": clear}
    either = [cell for cell in clear if cell.truth in (CREATED, DEPLOYED)]
    return Calibration(
        confusion={
            truth: dict(Counter(cell.verdict for cell in groups[truth])) for truth in classes
        },
        right={name: right(of) for name, of in groups.items()},
        inconclusive={name: inconclusive(of) for name, of in groups.items()},
        confused=share(either, [{c.truth, c.verdict} == {CREATED, DEPLOYED} for c in either]),
        unclear=len(cells) - len(clear),
        cells=list(cells),
    )


def _share(of: Sequence[Cell], counted: Sequence[bool], num_resamples: int, seed: int) -> Share:
    names = sorted({cell.pair for cell in of})
    sums = np.zeros((len(names), 2))
    for cell, is_counted in zip(of, counted, strict=True):
        sums[names.index(cell.pair)] += (is_counted, 1)

    def quotient(total: np.ndarray) -> np.ndarray:
        return total[..., 0] / total[..., 1]

    bounds = wilson(sum(counted), len(of))
    found = (
        widen_flat(bootstrap_of_sums(sums, quotient, num_resamples, seed), len(names))
        if names
        else Estimate(float("nan"), 0.0, 1.0, 0)
    )
    return Share(found.value, found.low, found.high, bounds.low, bounds.high, len(of), len(names))
