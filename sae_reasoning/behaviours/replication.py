"""Whether dictionaries trained from other seeds have a tracker too.

A counterpart is the latent of the other dictionary whose decoder row is nearest by cosine. A
tracker is replicated there if that is near enough, and its counterpart ranks alike: among the best
by span AUROC on the select split (DESIGN: cosine 0.7 and a like rank).
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


@dataclass(frozen=True)
class Replica:
    """One tracker in one dictionary of another seed.

    Attributes:
        behaviour: Move.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index in the dictionary that is ranked.
        seed: Of the other dictionary.
        counterpart: Index of the nearest latent there.
        cosine: Of the decoder rows.
        rank: Of the counterpart by span AUROC on the select split, 1 the best.
        span_auroc: Its span AUROC on the report split.
        is_replicated: Near enough, and ranked alike.
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
    is_replicated: bool


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
) -> list[Replica]:
    """Trackers of one behaviour, writer and layer in one other dictionary.

    Args:
        targets: Trackers.
        directions: Decoder rows of the dictionary that is ranked, unit norm.
        others: Decoder rows of the other one, unit norm.
        maxima: Of the other one, over spans and windows.
        select: Cell that it's ranked on.
        report: Cell that it's reported on.
        seed: Of the other one.
        near: Cosine from which a latent is a counterpart.
        best: Rank up to which it ranks alike.
    """
    cosine = directions[[target.latent for target in targets]] @ others.T
    nearest = cosine.argmax(1)
    scored = np.nan_to_num(maxima.aurocs(select), nan=-1.0)
    shown = maxima.aurocs(report)
    found = []
    for target, row, there in zip(targets, cosine, nearest.tolist(), strict=True):
        rank = 1 + int((scored > scored[there]).sum())
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
                rank=rank,
                span_auroc=float(shown[there]),
                is_replicated=bool(row[there] >= near and rank <= best),
            )
        )
    return found


def attack_by_seeds(target: Target, replicas: Sequence[Replica]) -> Attack:
    """Survives where all seeds have it, is killed where none has.

    The figures are the counterparts' span AUROCs on the report split: their mean, and the least and
    largest in place of bounds, as so few seeds make no interval.
    """
    aurocs = np.array([one.span_auroc for one in replicas])
    share = float(np.mean([one.is_replicated for one in replicas]))
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
        outcome=SURVIVES if share == 1 else KILLED if share == 0 else UNCLEAR,
    )
