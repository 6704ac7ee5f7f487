"""Whether dictionaries trained from other seeds have a span detector too.

A counterpart is the latent of the other dictionary whose decoder row is nearest by cosine. A
tracker is replicated there if that is near enough, and its counterpart ranks alike: among the best
by span AUROC on the select split.

Ranks are estimates, so the bar applies to a bound: the counterpart's AUROC less that of the last
latent that would still rank alike, with the same problems drawn for both. Surely not below 0, it's
replicated; surely below, it isn't; in between it's open. The cosine is no estimate: it's of two
given matrices, and what could be otherwise is the seed, of which all are asked and each is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sae_reasoning.behaviours.outcomes import (
    KILLED,
    REPLICATION,
    SURVIVES,
    UNCLEAR,
    Attack,
    Target,
)
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.stats import Estimate, Ranked, compare_aurocs


@dataclass(frozen=True)
class Replica:
    """One tracker in one dictionary of another seed.

    Attributes:
        behaviour: Behaviour.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index in the dictionary that is ranked.
        seed: Of the other dictionary.
        counterpart: Index of the nearest latent there.
        cosine: Of the decoder rows.
        rank: Of the counterpart by span AUROC on the select split, 1 the best.
        span_auroc: Its span AUROC on the report split.
        lead: Its span AUROC on the select split, less that of the last that ranks alike.
        lead_low: Lower bound, by problem bootstrap.
        lead_high: Upper bound.
        outcome: `survives` where near enough and significantly ranked alike; `killed` where too
            far, or significantly ranked below; else `unclear`.
    """

    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int
    seed: int
    counterpart: int
    cosine: float
    rank: int
    span_auroc: float
    lead: float
    lead_low: float
    lead_high: float
    outcome: str


def replicas_of(
    targets: Sequence[Target],
    directions: Float[np.ndarray, "latent d_model"],
    others: Float[np.ndarray, "other d_model"],
    maxima: SparseMaxima,
    select: int,
    report: int,
    *,
    seed: int,
    near: float,
    best: int,
    num_resamples: int,
) -> list[Replica]:
    """Span detectors of one behaviour, writer and layer in one other dictionary.

    So many parameters because two dictionaries are compared, on two splits, by options of `rank`.

    Args:
        targets: Span detectors.
        directions: Decoder rows of the dictionary that is ranked, unit norm.
        others: Decoder rows of the other one, unit norm.
        maxima: Of the other one, over spans and windows.
        select: Cell that it's ranked on.
        report: Cell that it's reported on.
        seed: Of the other one.
        near: Cosine from which a latent is a counterpart.
        best: Rank up to which it ranks alike.
        num_resamples: Of problems.
    """
    cosine = directions[[target.latent for target in targets]] @ others.T
    nearest = cosine.argmax(1)
    scored = np.nan_to_num(maxima.aurocs(select), nan=-1.0)
    shown = maxima.aurocs(report)
    last = int(np.argsort(-scored, kind="stable")[min(best, len(scored)) - 1])
    here = maxima.intervals.of_cell(select)

    def ranked(latent: int) -> Ranked:
        return Ranked(
            maxima.columns(select, np.array([latent]))[:, 0].astype(np.float64),
            maxima.intervals.is_positive[here],
            maxima.intervals.problem[here],
        )

    found = []
    for target, row, there in zip(targets, cosine, nearest.tolist(), strict=True):
        # The same draws for every seed of a dictionary: problems don't change with it.
        lead = compare_aurocs(ranked(last), ranked(there), num_resamples, 0).difference
        found.append(
            Replica(
                behaviour=target.behaviour,
                reader=target.reader,
                writer=target.writer,
                layer=target.layer,
                latent=target.latent,
                seed=seed,
                counterpart=there,
                cosine=float(row[there]),
                rank=1 + int((scored > scored[there]).sum()),
                span_auroc=float(shown[there]),
                lead=lead.value,
                lead_low=lead.low,
                lead_high=lead.high,
                outcome=_outcome(bool(row[there] >= near), lead),
            )
        )
    return found


def _outcome(is_near: bool, lead: Estimate) -> str:
    if not is_near or lead.high < 0:
        return KILLED
    return SURVIVES if lead.low >= 0 else UNCLEAR


def attack_by_seeds(target: Target, replicas: Sequence[Replica]) -> Attack:
    """Survives where all seeds have it, is killed where none has, each significantly.

    The figures are the counterparts' span AUROCs on the report split: their mean, and the least and
    largest in place of bounds, as so few seeds make no interval.
    """
    aurocs = np.array([one.span_auroc for one in replicas])
    outcomes = {one.outcome for one in replicas}
    share = float(np.mean([one.outcome == SURVIVES for one in replicas]))
    unknown = float("nan")
    return Attack(
        shortlist=target.shortlist,
        behaviour=target.behaviour,
        reader=target.reader,
        writer=target.writer,
        layer=target.layer,
        latent=target.latent,
        kind=REPLICATION,
        auroc=float(aurocs.mean()),
        low=float(aurocs.min()),
        high=float(aurocs.max()),
        pair_weighted=unknown,
        plain=unknown,
        margin=unknown,
        margin_low=unknown,
        margin_high=unknown,
        comparable=share,
        n_pos=len(replicas),
        n_neg=0,
        num_problems=0,
        outcome=outcomes.pop() if len(outcomes) == 1 else UNCLEAR,
    )
