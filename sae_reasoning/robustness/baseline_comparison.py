"""Shortlisted latents compared with baselines, on the same spans and windows.

A span detector is compared with each baseline of its own reader and layer (random direction,
probe), the n-gram model of the text, and the best latent of an untrained reader. An onset predictor
is compared with the same at onset-1 of opportunities: directions, probe and untrained latents
picked or fitted on what they read there, on the select split, and the n-gram model of the two
tokens there.
The difference of AUROCs is paired: the same problems are drawn for both sides. A latent outperforms
a baseline where the difference is significantly above 0, by its interval and at q < 0.05 over the
list; of a ceiling like the probe none is expected to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from jaxtyping import Int

from sae_reasoning.behaviours.baselines import Scorer, best_latent
from sae_reasoning.behaviours.streams import MaximaOf, SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.records import MODELS, SELECT, ShortlistEntry
from sae_reasoning.stats import Compared, Ranked, benjamini_hochberg, compare_aurocs

_SIGNIFICANT = 0.05
ScoresByCell = Mapping[tuple[str, str], Ranked]
"""A baseline's scores of the report split's spans and windows, by behaviour and writer."""


@dataclass(frozen=True)
class BaselineComparison:
    """One latent against one baseline, in one reader, on the report split.

    Attributes:
        shortlist: `span_detectors` or `onset_predictors`.
        behaviour: Behaviour.
        layer: Decoder block.
        latent: Index.
        reader: Whose activations.
        writer: Whose text.
        baseline: What it is compared with.
        auroc: The latent's.
        baseline_auroc: The baseline's.
        difference: Latent less baseline.
        low: Lower bound.
        high: Upper bound.
        p: Against no difference.
        n: Problems.
        q: Benjamini-Hochberg over the list.
        outperforms: Whether the lower bound is above 0, at q < 0.05.
    """

    shortlist: str
    behaviour: str
    layer: int
    latent: int
    reader: str
    writer: str
    baseline: str
    auroc: float
    baseline_auroc: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    q: float = float("nan")
    outperforms: bool = False


def baseline_scores(
    scorer: Scorer,
    intervals: Intervals,
    behaviours: Sequence[str],
    problem: Int[np.ndarray, " own"] | None = None,
) -> dict[tuple[str, str], Ranked]:
    """A baseline's scores wherever both splits hold both kinds.

    Args:
        scorer: Fits on the select cell.
        intervals: What it scores.
        behaviours: In the order of cells.
        problem: Number that each of the intervals' problems has elsewhere, where that differs.
    """
    found = {}
    for number, behaviour in enumerate(behaviours):
        for writer in MODELS:
            select, report = (cell_index(number, writer, s) for s in ("select", "report"))
            kinds = [intervals.is_positive[intervals.of_cell(c)] for c in (select, report)]
            if not all(kind.any() and not kind.all() for kind in kinds):
                continue
            scores = scorer(select, report)
            if scores is None:
                continue
            here = intervals.of_cell(report)
            own = intervals.problem[here]
            found[behaviour, writer] = Ranked(
                np.asarray(scores, np.float64),
                intervals.is_positive[here],
                own if problem is None else problem[own],
            )
    return found


def compare_with_baselines(
    shortlist: str,
    lists: Mapping[str, Sequence[ShortlistEntry]],
    behaviours: Sequence[str],
    maxima_of: MaximaOf,
    baselines: Callable[[str, int], Mapping[str, ScoresByCell]],
    *,
    num_resamples: int,
    seed: int,
    readers: Sequence[str] = MODELS,
) -> pd.DataFrame:
    """Every latent of a list, in every reader, against every baseline.

    Args:
        shortlist: Which list it is.
        lists: By behaviour.
        behaviours: In the order of cells.
        maxima_of: Largest activations, of a reader and layer.
        baselines: By baseline, of a reader and layer.
        num_resamples: Resamples of problems.
        seed: Of the resamples.
        readers: The models.
    """
    found: list[BaselineComparison] = []
    for behaviour, entries in lists.items():
        number = behaviours.index(behaviour)
        for entry in entries:
            for reader in readers:
                maxima = maxima_of(reader, entry.layer)
                cell = cell_index(number, entry.writer, "report")
                here = maxima.intervals.of_cell(cell)
                own = Ranked(
                    maxima.columns(cell, np.array([entry.latent]))[:, 0].astype(np.float64),
                    maxima.intervals.is_positive[here],
                    maxima.intervals.problem[here],
                )
                for baseline, scores in baselines(reader, entry.layer).items():
                    if (behaviour, entry.writer) in scores:
                        other = scores[behaviour, entry.writer]
                        compared = compare_aurocs(other, own, num_resamples, seed)
                        identity = (shortlist, behaviour, entry.layer, entry.latent, reader)
                        found.append(_comparison((*identity, entry.writer, baseline), compared))
    table = pd.DataFrame(
        map(asdict, found), columns=[field.name for field in fields(BaselineComparison)]
    )
    table["q"] = benjamini_hochberg(table.p.to_numpy(float))
    table["outperforms"] = (table.low > 0) & (table.q < _SIGNIFICANT)
    return table


def best_untrained(
    maxima: Mapping[int, SparseMaxima], behaviours: Sequence[str], problem: Int[np.ndarray, " own"]
) -> ScoresByCell:
    """The untrained reader's best latent, of the layer that is best on the select split.

    Args:
        maxima: Of its latents, by layer.
        behaviours: In the order of cells.
        problem: Number that each of its problems has among those of the trained readers.
    """
    best: dict[tuple[str, str], tuple[float, Ranked]] = {}
    for own in maxima.values():
        scores = baseline_scores(best_latent(own), own.intervals, behaviours, problem)
        for (behaviour, writer), ranked in scores.items():
            cell = cell_index(behaviours.index(behaviour), writer, SELECT)
            chosen_by = float(np.nanmax(own.aurocs(cell)))
            if chosen_by > best.get((behaviour, writer), (-1.0, ranked))[0]:
                best[behaviour, writer] = (chosen_by, ranked)
    return {key: ranked for key, (_, ranked) in best.items()}


def outperformed_baselines(
    table: pd.DataFrame,
) -> dict[tuple[str, str, int, int], dict[str, list[str]]]:
    """Of each latent, by reader, the baselines that it significantly outperforms."""
    found: dict[tuple[str, str, int, int], dict[str, list[str]]] = {}
    for row in table.itertuples():
        latent = (row.shortlist, row.behaviour, row.layer, row.latent)
        own = found.setdefault(latent, {}).setdefault(row.reader, [])
        if row.outperforms:
            own.append(row.baseline)
    return found


def count_outperforming(table: pd.DataFrame) -> pd.DataFrame:
    """Per list, behaviour and reader: how many latents significantly outperform each baseline."""
    rows = [
        dict(zip(("list", "behaviour", "reader"), key, strict=True))
        | {"latents": len(own.drop_duplicates(["layer", "latent"]))}
        | {name: int(part.outperforms.sum()) for name, part in own.groupby("baseline", sort=False)}
        for key, own in table.groupby(["shortlist", "behaviour", "reader"], sort=False)
    ]
    frame = pd.DataFrame(rows, dtype=object)  # Counts stay whole beside what there isn't.
    return frame.where(frame.notna(), None)


def problem_numbers_elsewhere(own: Iterable[str], elsewhere: Iterable[str]) -> np.ndarray:
    """Number that each problem of some traces has among others, by order of first appearance."""
    number = {problem: n for n, problem in enumerate(dict.fromkeys(elsewhere))}
    return np.array([number[problem] for problem in dict.fromkeys(own)], np.int64)


def _comparison(
    identity: tuple[str, str, int, int, str, str, str],
    compared: Compared,
) -> BaselineComparison:
    baseline, own, gap = compared.first, compared.second, compared.difference
    return BaselineComparison(
        *identity,
        auroc=own.value,
        baseline_auroc=baseline.value,
        difference=gap.value,
        low=gap.low,
        high=gap.high,
        p=gap.p,
        n=gap.n,
    )
