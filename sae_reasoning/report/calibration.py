"""How often the verdict is right on models whose answer is known.

Behaviours of one pair share models and problems, pairs of one family and seed share bases, and
those of one seed problems. One interval resamples pairs; another resamples families and seeds, the
independent unit where there are enough of them. Neither bound is nearer than Wilson's on as many
units: few units that agree would resample to themselves, and a mistake among them must not make an
interval narrower. Wilson's intervals on cells are too narrow and given for comparison.

Truth and verdict share the program that judges executions, and have similar thresholds; what is
calibrated is whether the verdict finds from some hundred problems, and from steering, what counts
of thousands of behaviours say. So cells whose truth is unclear are shown too, and a second count
goes by recipe: a behaviour that the base's corpus lacks can't be deployed, and one that it holds
can't be created.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sae_reasoning.organisms.pairs import OrganismPair
from sae_reasoning.organisms.truth import UNCLEAR
from sae_reasoning.report.verdict import CREATED, DEPLOYED, INCONCLUSIVE
from sae_reasoning.stats import Estimate, bootstrap_of_sums, wilson


@dataclass(frozen=True)
class Cell:
    """One behaviour of one pair.

    Attributes:
        pair: The pair, its family and seed.
        group: Family and seed, whose pairs share bases.
        is_lacking: Whether the base's corpus lacks the behaviour.
        behaviour: Its label.
        truth: As measured on the finished models.
        measured: Reason of the truth, in words with figures.
        verdict: As given.
        qualifier: Of the verdict.
        reason: Of the verdict.
    """

    pair: str
    group: str
    is_lacking: bool
    behaviour: str
    truth: str
    measured: str
    verdict: str
    qualifier: str
    reason: str


def cells_of(
    pair: OrganismPair,
    verdicts: Iterable[Mapping[str, Any]],
    truths: Iterable[Mapping[str, Any]],
) -> list[Cell]:
    """A cell of each behaviour whose truth is known.

    Args:
        pair: Judged.
        verdicts: As in `verdict.json`.
        truths: As in the RL model's `truth.json`.
    """
    known = {one["behaviour"]: one for one in truths}
    return [
        Cell(
            pair=pair.name,
            group=f"{pair.family}/seed {pair.seed}",
            is_lacking=one["behaviour"] == pair.lacks,
            behaviour=one["behaviour"],
            truth=known[one["behaviour"]]["truth"],
            measured=known[one["behaviour"]]["reason"],
            verdict=one["verdict"],
            qualifier=one["qualifier"],
            reason=one["reason"],
        )
        for one in verdicts
        if one["behaviour"] in known
    ]


@dataclass(frozen=True)
class Share:
    """A share of cells.

    Attributes:
        value: The share; NaN without cells.
        low: Lower bound, the further one of pairs resampled and Wilson's on pairs.
        high: Upper bound.
        group_low: Lower bound, likewise of families and seeds.
        group_high: Upper bound.
        wilson_low: Wilson's lower bound on the cells.
        wilson_high: Wilson's upper bound.
        cells: Cells it's a share of.
        pairs: Pairs they belong to.
        groups: Families and seeds they belong to.
    """

    value: float
    low: float
    high: float
    group_low: float
    group_high: float
    wilson_low: float
    wilson_high: float
    cells: int
    pairs: int
    groups: int


@dataclass(frozen=True)
class Calibration:
    """The verdict on all cells whose truth is clear.

    Attributes:
        confusion: Cells by truth, unclear ones too, then verdict.
        right: Share that is right, of those with a verdict other than inconclusive; by truth, and
            over all as `all`.
        inconclusive: Share that is inconclusive, likewise.
        confused: Share of deployed behaviours judged created or the reverse, of all of both.
        confused_of_given: The same, of those with a verdict other than inconclusive.
        against_recipe: Share judged created though the base's corpus holds the behaviour, or
            deployed though it lacks it, of all cells, unclear ones too.
        unclear: Cells that count for nothing else, as their truth isn't clear.
        cells: Every cell.
    """

    confusion: dict[str, dict[str, int]]
    right: dict[str, Share]
    inconclusive: dict[str, Share]
    confused: Share
    confused_of_given: Share
    against_recipe: Share
    unclear: int
    cells: list[Cell]


def calibration(cells: Sequence[Cell], num_resamples: int, seed: int) -> Calibration:
    """Compare verdicts with truths."""
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
    given = [cell for cell in either if cell.verdict != INCONCLUSIVE]
    counts: dict[str, Counter[str]] = {}
    for cell in cells:
        counts.setdefault(cell.truth, Counter())[cell.verdict] += 1
    return Calibration(
        confusion={truth: dict(found) for truth, found in sorted(counts.items())},
        right={name: right(of) for name, of in groups.items()},
        inconclusive={name: inconclusive(of) for name, of in groups.items()},
        confused=share(either, [{c.truth, c.verdict} == {CREATED, DEPLOYED} for c in either]),
        confused_of_given=share(
            given, [{c.truth, c.verdict} == {CREATED, DEPLOYED} for c in given]
        ),
        against_recipe=share(
            cells, [c.verdict == (DEPLOYED if c.is_lacking else CREATED) for c in cells]
        ),
        unclear=len(cells) - len(clear),
        cells=list(cells),
    )


def confusion_table(found: Calibration) -> tuple[list[str], list[list[object]]]:
    """Columns and rows: cells by truth and verdict, with the shares of each truth."""
    verdicts = sorted({verdict for row in found.confusion.values() for verdict in row})
    rows: list[list[object]] = [
        [
            truth,
            *(row.get(verdict, 0) for verdict in verdicts),
            *(shown(by[truth]) if truth in by else "–" for by in (found.right, found.inconclusive)),
        ]
        for truth, row in found.confusion.items()
    ]
    return ["truth", *verdicts, "right of those given", "inconclusive"], rows


def shown(share: Share) -> str:
    """A share with its interval and the cells that it is of."""
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of {share.cells}"


def _share(of: Sequence[Cell], counted: Sequence[bool], num_resamples: int, seed: int) -> Share:
    units = {
        "pair": _resampled([cell.pair for cell in of], counted, num_resamples, seed),
        "group": _resampled([cell.group for cell in of], counted, num_resamples, seed),
    }
    bounds = wilson(sum(counted), len(of))
    return Share(
        value=units["pair"].value,
        low=units["pair"].low,
        high=units["pair"].high,
        group_low=units["group"].low,
        group_high=units["group"].high,
        wilson_low=bounds.low,
        wilson_high=bounds.high,
        cells=len(of),
        pairs=units["pair"].n,
        groups=units["group"].n,
    )


def _resampled(
    units: Sequence[str], counted: Sequence[bool], num_resamples: int, seed: int
) -> Estimate:
    """A share with the wider ends of its interval over resampled units and of Wilson's on them."""
    names = sorted(set(units))
    if not names:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    sums = np.zeros((len(names), 2))
    for unit, is_counted in zip(units, counted, strict=True):
        sums[names.index(unit)] += (is_counted, 1)

    def quotient(total: np.ndarray) -> np.ndarray:
        return total[..., 0] / total[..., 1]

    found = bootstrap_of_sums(sums, quotient, num_resamples, seed)
    bounds = wilson(found.value * len(names), len(names))
    return replace(found, low=min(found.low, bounds.low), high=max(found.high, bounds.high))
