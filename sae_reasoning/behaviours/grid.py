"""The reader x writer grid: the same latent in both models, on the text of both.

On the same text, two readers differ in representation only; in the same reader, two writers differ
in what they write. An AUROC ignores how often a behaviour is made, so rates of firing at
opportunities stand beside it: deployment shows in those. Differences are paired: a resample draws
problems, and both sides are of those.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from sae_reasoning.behaviours.streams import MaximaOf, SparseMaxima
from sae_reasoning.behaviours.windows import cell_index
from sae_reasoning.records import MODELS, REPORT, ShortlistEntry
from sae_reasoning.stats import (
    Compared,
    Ranked,
    benjamini_hochberg,
    bootstrap_of_sums,
    compare_aurocs,
)

SPAN_AUROC, RATE = "span_auroc", "rate_at_opportunities"
READERS_DIFFER, WRITERS_DIFFER = "readers", "writers"


@dataclass(frozen=True)
class Gap:
    """One figure of one latent in base and RL, and the difference.

    Attributes:
        behaviour: Behaviour that the latent detects.
        layer: Decoder block.
        latent: Index.
        measure: `span_auroc`, or `rate_at_opportunities`: share of them at which the latent fires.
        between: `readers` on the same text, or `writers` in the same reader.
        fixed: The writer or reader that is the same on both sides.
        base: Estimate with the base.
        base_low: Lower bound.
        base_high: Upper bound.
        rl: Estimate with the RL model.
        rl_low: Lower bound.
        rl_high: Upper bound.
        difference: RL minus base, paired by problem.
        low: Lower bound.
        high: Upper bound.
        p: Of no difference; NaN where it can't be had.
        n: Problems.
        q: Benjamini-Hochberg's, over all latents of a measure and kind of difference.
    """

    behaviour: str
    layer: int
    latent: int
    measure: str
    between: str
    fixed: str
    base: float
    base_low: float
    base_high: float
    rl: float
    rl_low: float
    rl_high: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    q: float = float("nan")


def compare_grid(
    lists: Mapping[str, Sequence[ShortlistEntry]],
    behaviours: Sequence[str],
    spans_of: MaximaOf,
    onsets_of: MaximaOf,
    *,
    num_resamples: int,
    seed: int,
    readers: Sequence[str] = MODELS,
) -> pd.DataFrame:
    """All differences of shortlisted latents, on the report split.

    Args:
        lists: Of span detectors, by behaviour.
        behaviours: In the order of cells.
        spans_of: Maxima over spans and windows.
        onsets_of: Activations at onset-1 of opportunities.
        num_resamples: Resamples of problems.
        seed: Of the resamples.
        readers: The models; one that stands alone is compared on both writers' text only.
    """
    latents: dict[tuple[str, int], list[int]] = {}
    for behaviour, entries in lists.items():
        for entry in entries:
            latents.setdefault((behaviour, entry.layer), []).append(entry.latent)
    found = []
    for (behaviour, layer), chosen in latents.items():
        number = behaviours.index(behaviour)
        for measure, maxima_of in ((SPAN_AUROC, spans_of), (RATE, onsets_of)):
            of = {reader: maxima_of(reader, layer) for reader in readers}
            columns = {
                (reader, writer): _columns(of[reader], number, writer, chosen)
                for reader in readers
                for writer in MODELS
            }
            for place, latent in enumerate(chosen):
                for between, fixed, sides in _sides(readers):
                    base, rl = (_item(of[side[0]], number, columns, side, place) for side in sides)
                    compared = (
                        compare_aurocs(base, rl, num_resamples, seed)
                        if measure == SPAN_AUROC
                        else compare_rates(base, rl, num_resamples, seed)
                    )
                    identity = (behaviour, layer, latent, measure, between, fixed)
                    found.append(_gap(identity, compared))
    table = pd.DataFrame(map(asdict, found), columns=[field.name for field in fields(Gap)])
    for _, rows in table.groupby(["measure", "between"]):
        table.loc[rows.index, "q"] = benjamini_hochberg(rows.p.to_numpy(float))
    return table


def compare_rates(base: Ranked, rl: Ranked, num_resamples: int, seed: int) -> Compared:
    """Weighted shares of items whose score is above 0, and their difference."""
    clusters = np.unique(np.concatenate([base.cluster, rl.cluster]))
    sums = np.zeros((len(clusters), 4))
    for side, own in enumerate((base, rl)):
        place = np.searchsorted(clusters, own.cluster)
        weight = np.ones(len(own.scores)) if own.weight is None else own.weight
        sums[:, 2 * side] = np.bincount(place, weight * (own.scores > 0), len(clusters))
        sums[:, 2 * side + 1] = np.bincount(place, weight, len(clusters))

    def share(side: int, drawn: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                drawn[..., 2 * side + 1] > 0,
                drawn[..., 2 * side] / drawn[..., 2 * side + 1],
                np.nan,
            )

    statistics = (
        lambda drawn: share(0, drawn),
        lambda drawn: share(1, drawn),
        lambda drawn: share(1, drawn) - share(0, drawn),
    )
    return Compared(*(bootstrap_of_sums(sums, s, num_resamples, seed) for s in statistics))


def _sides(
    readers: Sequence[str],
) -> Iterable[tuple[str, str, tuple[tuple[str, str], tuple[str, str]]]]:
    """Kind of difference, what is fixed, and reader and writer of both sides."""
    base, rl = MODELS
    for fixed in MODELS:
        if set(MODELS) <= set(readers):
            yield READERS_DIFFER, fixed, ((base, fixed), (rl, fixed))
        if fixed in readers:
            yield WRITERS_DIFFER, fixed, ((fixed, base), (fixed, rl))


def _columns(
    maxima: SparseMaxima, behaviour: int, writer: str, latents: Sequence[int]
) -> np.ndarray:
    return maxima.columns(cell_index(behaviour, writer, REPORT), np.array(latents, np.int64))


def _item(
    maxima: SparseMaxima,
    behaviour: int,
    columns: Mapping[tuple[str, str], np.ndarray],
    side: tuple[str, str],
    place: int,
) -> Ranked:
    cell = cell_index(behaviour, side[1], REPORT)
    here = maxima.intervals.of_cell(cell)
    return Ranked(
        columns[side][:, place].astype(np.float64),
        maxima.intervals.is_positive[here],
        maxima.intervals.problem[here],
        maxima.intervals.weights(cell),
    )


def _gap(identity: tuple[str, int, int, str, str, str], compared: Compared) -> Gap:
    base, rl, gap = compared.first, compared.second, compared.difference
    return Gap(
        *identity,
        base=base.value,
        base_low=base.low,
        base_high=base.high,
        rl=rl.value,
        rl_low=rl.low,
        rl_high=rl.high,
        difference=gap.value,
        low=gap.low,
        high=gap.high,
        p=gap.p,
        n=gap.n,
    )
