"""Whether dictionaries trained from other seeds have a span detector too.

The matched latent of another dictionary is the one whose decoder row is nearest by cosine. A span
detector is replicated there if that is near enough, and its match ranks alike: among the best by
span AUROC on the select split.

Ranks are estimates, so the threshold applies to a bound: the match's AUROC less that of the last
latent that would still rank alike, with the same problems drawn for both. Significantly not below
0, it is replicated; significantly below, it isn't; in between the outcome is inconclusive. The
cosine is no estimate: it is of two given matrices, and what could be otherwise is the seed, of
which all are asked and each is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.config.stages import RankConfig
from sae_reasoning.records import SELECT
from sae_reasoning.robustness.outcomes import (
    INCONCLUSIVE,
    REFUTED,
    REPLICATION,
    ROBUST,
    Attack,
    Target,
)
from sae_reasoning.robustness.readers import Reader, by_layer
from sae_reasoning.stats import Estimate, Ranked, compare_aurocs


@dataclass(frozen=True)
class Replica:
    """One span detector in one dictionary of another seed.

    Attributes:
        behaviour: Behaviour.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index in the dictionary that is ranked.
        seed: Of the other dictionary.
        matched_latent: Index of the nearest latent there.
        cosine: Of the decoder rows.
        rank: Of the matched latent by span AUROC on the select split, 1 the best.
        span_auroc: Its span AUROC on the report split.
        lead: Its span AUROC on the select split, less that of the last that ranks alike.
        lead_low: Lower bound, by problem bootstrap.
        lead_high: Upper bound.
        outcome: `robust` where near enough and significantly ranked alike; `refuted` where too
            far, or significantly ranked below; else `inconclusive`.
    """

    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int
    seed: int
    matched_latent: int
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
        near: Cosine from which a latent is the same.
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
                matched_latent=there,
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
        return REFUTED
    return ROBUST if lead.low >= 0 else INCONCLUSIVE


def attack_by_seeds(target: Target, replicas: Sequence[Replica]) -> Attack:
    """Robust where all seeds have it, refuted where none has, each significantly.

    The figures are the matched latents' span AUROCs on the report split: their mean, and the least
    and largest in place of bounds, as so few seeds make no interval.
    """
    aurocs = np.array([one.span_auroc for one in replicas])
    outcomes = {one.outcome for one in replicas}
    share = float(np.mean([one.outcome == ROBUST for one in replicas]))
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
        pair_weighted_auroc=unknown,
        unstratified_auroc=unknown,
        retained_margin=unknown,
        retained_margin_low=unknown,
        retained_margin_high=unknown,
        comparable=share,
        n_pos=len(replicas),
        n_neg=0,
        num_problems=0,
        outcome=outcomes.pop() if len(outcomes) == 1 else INCONCLUSIVE,
    )


def attack_by_replication(
    reader: Reader,
    directions: Mapping[int, Float[np.ndarray, "latent d_model"]],
    trained: Callable[[int, int], tuple[Float[np.ndarray, "other d_model"], SparseMaxima]],
    options: RankConfig,
    seeds: Sequence[int],
) -> tuple[list[Attack], list[Replica]]:
    """Every span detector of a trained reader, looked for in dictionaries of other seeds.

    Args:
        reader: With the span detectors.
        directions: Decoder rows of the dictionaries that are ranked, by layer.
        trained: Decoder rows of the dictionary of a layer and seed, and its maxima over spans and
            windows.
        options: What counts as the same latent.
        seeds: Of the other dictionaries.
    """
    found: list[Replica] = []
    for layer in sorted({target.layer for target in reader.targets}):
        own = [target for target in reader.targets if target.layer == layer]
        for seed in seeds:
            others, maxima = trained(layer, seed)
            for target, latents in by_layer(own):
                found += replicas_of(
                    [replace(target, latent=latent) for latent in latents],
                    directions[layer],
                    others,
                    maxima,
                    reader.cell(target, SELECT),
                    reader.cell(target),
                    seed=seed,
                    near=options.attacks.replica_cosine,
                    best=options.attacks.replica_ranks * options.span_detectors,
                    num_resamples=options.bootstrap,
                )
    attacks = []
    for target in reader.targets:
        same = [
            one
            for one in found
            if (one.behaviour, one.writer, one.layer, one.latent)
            == (target.behaviour, target.writer, target.layer, target.latent)
        ]
        attacks.append(attack_by_seeds(target, same))
    return attacks, found
