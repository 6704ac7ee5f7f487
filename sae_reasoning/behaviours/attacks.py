"""What is left of a shortlisted tracker when it's attacked, and what to call it then.

Each attack compares rows in and out of the move that are alike in one thing (`strata`), or rows of
the move in wordings that selection didn't see with rows out of it. It kills a
latent that has nothing left for sure, or less than a share of what it had among all rows. The first
name that applies:

* `chance`: among all rows it doesn't tell the move from the rest;
* `not testable`: fewer than half of the move's rows have a row of the same token outside it;
* `lexical`: killed by its token, or by wordings that it wasn't chosen on; `partly-lexical`: by its
  token and the one before;
* `positional`: killed by the place in the trace, or by the length of the trace;
* `contextual`: it survives all of them that can be put to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from sae_reasoning.behaviours.strata import (
    ALL,
    BIGRAM,
    KINDS,
    LENGTH,
    POSITION,
    TOKEN,
    WORDING,
    comparable_share,
)
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import cell_index
from sae_reasoning.stats import Estimate, bootstrap_auroc

CHANCE, NOT_TESTABLE, LEXICAL, PARTLY_LEXICAL, POSITIONAL, CONTEXTUAL = (
    "chance",
    "not testable",
    "lexical",
    "partly-lexical",
    "positional",
    "contextual",
)
NAMES = (CONTEXTUAL, PARTLY_LEXICAL, LEXICAL, POSITIONAL, CHANCE, NOT_TESTABLE)
_KILLERS = {
    TOKEN: LEXICAL,
    WORDING: LEXICAL,
    BIGRAM: PARTLY_LEXICAL,
    POSITION: POSITIONAL,
    LENGTH: POSITIONAL,
}
_COMPARABLE = 0.5
_LATENT = ["behaviour", "reader", "layer", "latent"]

RowsOf = Callable[[str, str, int], SparseMaxima]
"""Activations at the rows of a kind of strata, for a reader and layer."""


@dataclass(frozen=True)
class Attack:
    """One attack on one latent, on the report split.

    Attributes:
        behaviour: Move that it's said to track.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
        kind: What compared rows share; `all` for nothing.
        auroc: Within strata.
        low: Lower bound, by problem bootstrap.
        high: Upper bound.
        comparable: Share of the move's rows whose stratum holds others.
        n_pos: Rows in the move.
        n_neg: Rows out of it.
        num_problems: Problems.
        outcome: `survives`, `killed` or `not testable`.
    """

    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int
    kind: str
    auroc: float
    low: float
    high: float
    comparable: float
    n_pos: int
    n_neg: int
    num_problems: int
    outcome: str


SURVIVES, KILLED = "survives", "killed"


def attack(
    behaviours: Sequence[str],
    behaviour: str,
    reader: str,
    writer: str,
    layer: int,
    latents: Sequence[int],
    rows_of: RowsOf,
    *,
    keep: float,
    num_resamples: int,
    seed: int,
) -> list[Attack]:
    """Every attack on some latents of one layer, in one reader on one writer's text.

    Args:
        behaviours: In the order of cells.
        behaviour: The move.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latents: Which.
        rows_of: Activations by kind, reader and layer.
        keep: Share of the advantage over chance that a survivor keeps at least.
        num_resamples: Of the problem bootstrap.
        seed: Of the same.
    """
    cell = cell_index(behaviours.index(behaviour), writer, "report")
    chosen = np.array(latents, np.int64)
    found = []
    plain: Mapping[int, float] = {}
    for kind in KINDS:
        maxima = rows_of(kind, reader, layer)
        here = maxima.intervals.of_cell(cell)
        values = maxima.columns(cell, chosen)
        is_positive = maxima.intervals.is_positive[here]
        problem = maxima.intervals.problem[here]
        stratum = maxima.intervals.stratum[here]
        share = comparable_share(is_positive, stratum)
        estimates = {
            latent: bootstrap_auroc(
                values[:, column],
                is_positive,
                problem,
                stratum=stratum,
                num_resamples=num_resamples,
                seed=seed,
            )
            if share >= _COMPARABLE
            else Estimate(float("nan"), float("nan"), float("nan"), 0)
            for column, latent in enumerate(latents)
        }
        if kind == ALL:
            plain = {latent: estimate.value for latent, estimate in estimates.items()}
        found += [
            Attack(
                behaviour=behaviour,
                reader=reader,
                writer=writer,
                layer=layer,
                latent=latent,
                kind=kind,
                auroc=estimate.value,
                low=estimate.low,
                high=estimate.high,
                comparable=share,
                n_pos=int(is_positive.sum()),
                n_neg=int((~is_positive).sum()),
                num_problems=estimate.n,
                outcome=_outcome(estimate, plain[latent], keep),
            )
            for latent, estimate in estimates.items()
        ]
    return found


def _outcome(estimate: Estimate, plain: float, keep: float) -> str:
    if np.isnan(estimate.value):
        return NOT_TESTABLE
    least = 0.5 + keep * (plain - 0.5)
    return SURVIVES if estimate.low > 0.5 and estimate.value >= least else KILLED


def name_of(outcomes: Mapping[str, str]) -> str:
    """What to call a latent, from the outcome of each kind of attack."""
    if outcomes[ALL] == KILLED:
        return CHANCE
    if NOT_TESTABLE in (outcomes[ALL], outcomes[TOKEN]):
        return NOT_TESTABLE
    for kind, name in _KILLERS.items():
        if outcomes[kind] == KILLED:
            return name
    return CONTEXTUAL


def attack_all(
    latents: Mapping[tuple[str, str, int], Sequence[int]],
    readers: Sequence[str],
    behaviours: Sequence[str],
    rows_of: RowsOf,
    *,
    keep: float,
    num_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Every attack on every shortlisted tracker, in each reader on the text it was chosen on.

    Args:
        latents: By behaviour, writer and layer.
        readers: Whose activations.
        behaviours: In the order of cells.
        rows_of: Activations by kind, reader and layer.
        keep: Share of the advantage over chance that a survivor keeps at least.
        num_resamples: Of the problem bootstrap.
        seed: Of the same.
    """
    found = [
        asdict(one)
        for (behaviour, writer, layer), chosen in latents.items()
        for reader in readers
        for one in attack(
            behaviours,
            behaviour,
            reader,
            writer,
            layer,
            chosen,
            rows_of,
            keep=keep,
            num_resamples=num_resamples,
            seed=seed,
        )
    ]
    table = pd.DataFrame(found, columns=[field.name for field in fields(Attack)])
    table["called"] = ""
    for _, rows in table.groupby(_LATENT):
        outcomes = dict(zip(rows.kind, rows.outcome, strict=True))
        table.loc[rows.index, "called"] = name_of(outcomes)
    return table


def toll(attacks: pd.DataFrame) -> pd.DataFrame:
    """Per behaviour and reader: how many were attacked, what each attack killed, what is left.

    One latent may be killed by several attacks. The last column counts latents that are contextual
    in every reader.
    """
    rows = []
    for (behaviour, reader), here in attacks.groupby(["behaviour", "reader"], sort=False):
        each = here.drop_duplicates(_LATENT)
        own = attacks[attacks.behaviour == behaviour]
        contextual = (own.called == CONTEXTUAL).groupby([own.layer, own.latent]).all()
        rows.append(
            {
                "behaviour": behaviour,
                "reader": reader,
                "trackers": len(each),
                **{
                    f"killed by {kind}" if kind != ALL else CHANCE: int(
                        ((here.kind == kind) & (here.outcome == KILLED)).sum()
                    )
                    for kind in KINDS
                },
                NOT_TESTABLE: int((each.called == NOT_TESTABLE).sum()),
                CONTEXTUAL: int((each.called == CONTEXTUAL).sum()),
                "in all readers": int(contextual.sum()),
            }
        )
    return pd.DataFrame(rows)
