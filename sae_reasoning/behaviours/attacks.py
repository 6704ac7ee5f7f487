"""What is left of a shortlisted tracker when it's attacked, and what to call it then.

Spans of the move are compared with windows of other text, by the latent's maximum, as trackers are
chosen; each attack compares only what is alike in one thing (`strata`), or spans in wordings that
selection didn't see. It kills a latent that for sure keeps less than a share of what it had on the
same spans; a survivor keeps more for sure; in between its outcome is unclear. Bars apply to bounds.
The first name that applies:

* `weak`: its plain AUROC isn't above a bar for sure, so there is nothing to explain away;
* `lexical`: killed by its token, or by wordings that it wasn't chosen on; `partly-lexical`: by its
  token and the one before;
* `positional`: killed by the place in the response, or by the length of the trace;
* `unclear`: an outcome of these is;
* `contextual`: it survives its token, and its pair of tokens or unseen wordings;
* `any wording`: it survives unseen wordings, but its token hardly stands outside the move, so that
  whether it knows the token or the move can't be told from text;
* `not testable`: none of the above, as too few spans have anything like them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from jaxtyping import Int

from sae_reasoning.behaviours.strata import (
    ALL,
    BIGRAM,
    KINDS,
    LENGTH,
    POSITION,
    TOKEN,
    WORDING,
    Alike,
    Contents,
    answered,
    contents,
)
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import cell_index
from sae_reasoning.stats import Kept, kept_auroc

WEAK, NOT_TESTABLE, LEXICAL, PARTLY_LEXICAL, POSITIONAL, CONTEXTUAL, ANY_WORDING, UNCLEAR = (
    "weak",
    "not testable",
    "lexical",
    "partly-lexical",
    "positional",
    "contextual",
    "any wording",
    "unclear",
)
NAMES = (
    CONTEXTUAL,
    ANY_WORDING,
    PARTLY_LEXICAL,
    LEXICAL,
    POSITIONAL,
    WEAK,
    UNCLEAR,
    NOT_TESTABLE,
)
SURVIVES, KILLED = "survives", "killed"
_KILLERS = {
    TOKEN: LEXICAL,
    WORDING: LEXICAL,
    BIGRAM: PARTLY_LEXICAL,
    POSITION: POSITIONAL,
    LENGTH: POSITIONAL,
}
_LEFT = (UNCLEAR, NOT_TESTABLE, ANY_WORDING, CONTEXTUAL)
_COMPARABLE, _FEWEST = 0.5, 20
_LATENT = ["behaviour", "reader", "layer", "latent"]

MaximaOf = Callable[[str, int], SparseMaxima]
"""Maxima over the spans and the windows like them, for a reader and layer."""


@dataclass(frozen=True)
class Bars:
    """What decides an attack.

    Attributes:
        keep: Share of the advantage over chance that a survivor keeps.
        weak: AUROC that a tracker must exceed for an attack to mean anything.
        num_resamples: Of the problem bootstrap.
        seed: Of the same.
    """

    keep: float
    weak: float
    num_resamples: int
    seed: int


@dataclass(frozen=True)
class Attack:
    """One attack on one latent, on the report split.

    Attributes:
        behaviour: Move that it's said to track.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
        kind: What compared intervals share; `all` for nothing.
        auroc: Within strata, each comparable span counted the same.
        low: Lower bound, by problem bootstrap.
        high: Upper bound.
        plain: AUROC of the same spans against all windows; of unseen wordings, of the others.
        margin: What is kept beyond `rank.keep` of the plain advantage.
        margin_low: Lower bound.
        margin_high: Upper bound.
        comparable: Share of spans whose stratum holds windows.
        n_pos: Spans.
        n_neg: Windows.
        num_problems: Problems with comparable spans.
        outcome: `survives`, `killed`, `unclear` or `not testable`.
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
    plain: float
    margin: float
    margin_low: float
    margin_high: float
    comparable: float
    n_pos: int
    n_neg: int
    num_problems: int
    outcome: str


def attack(
    where: tuple[str, str, str, int],
    cell: int,
    latents: Sequence[int],
    drawn: Alike,
    maxima: SparseMaxima,
    token_id: Int[np.ndarray, " row"],
    bars: Bars,
) -> list[Attack]:
    """Every attack on some latents of one layer, in one reader on one writer's text.

    Args:
        where: Behaviour, reader, writer and layer, for the results.
        cell: Of the behaviour and writer, on the report split.
        latents: Which.
        drawn: Spans and windows.
        maxima: Of the latents over them.
        token_id: Token that each row has read.
        bars: What decides.
    """
    here = drawn.intervals.of_cell(cell)
    is_positive, problem = drawn.intervals.is_positive[here], drawn.intervals.problem[here]
    unseen = drawn.unseen[here]
    tokens = contents(drawn.intervals, here, token_id, pairs=False)
    pairs = contents(drawn.intervals, here, token_id, pairs=True)
    found = []
    for latent, values in zip(
        latents, maxima.columns(cell, np.array(latents, np.int64)).T, strict=True
    ):
        for kind, stratum in _strata(values, drawn, here, tokens, pairs).items():
            told = is_positive & unseen if kind == WORDING else is_positive
            kept = kept_auroc(
                values,
                told,
                ~is_positive,
                problem,
                stratum,
                reference=is_positive & ~unseen if kind == WORDING else None,
                keep=bars.keep,
                num_resamples=bars.num_resamples,
                seed=bars.seed,
            )
            count = int(told.sum())
            found.append(
                Attack(
                    *where,
                    latent=latent,
                    kind=kind,
                    auroc=kept.within.value,
                    low=kept.within.low,
                    high=kept.within.high,
                    plain=kept.plain.value,
                    margin=kept.margin.value,
                    margin_low=kept.margin.low,
                    margin_high=kept.margin.high,
                    comparable=kept.comparable,
                    n_pos=count,
                    n_neg=int((~is_positive).sum()),
                    num_problems=kept.within.n,
                    outcome=_outcome(kind, kept, count, bars),
                )
            )
    return found


def _outcome(kind: str, kept: Kept, num_spans: int, bars: Bars) -> str:
    if kept.comparable < _COMPARABLE or num_spans < _FEWEST:
        return NOT_TESTABLE
    if kind == ALL:
        return SURVIVES if kept.within.low > bars.weak else KILLED
    if kept.margin.low > 0:
        return SURVIVES
    return KILLED if kept.margin.high < 0 else UNCLEAR


def _strata(
    values: np.ndarray, drawn: Alike, here: slice, tokens: Contents, pairs: Contents
) -> dict[str, Int[np.ndarray, " interval"]]:
    one = np.zeros(len(values), np.int64)
    return {
        ALL: one,
        TOKEN: answered(values, tokens),
        WORDING: one,
        BIGRAM: answered(values, pairs),
        POSITION: drawn.position[here],
        LENGTH: drawn.length[here],
    }


def name_of(outcomes: Mapping[str, str]) -> str:
    """What to call a latent, from the outcome of each kind of attack."""
    if outcomes[ALL] == KILLED:
        return WEAK
    for kind, name in _KILLERS.items():
        if outcomes[kind] == KILLED:
            return name
    if UNCLEAR in outcomes.values():
        return UNCLEAR
    survived = {kind for kind, outcome in outcomes.items() if outcome == SURVIVES}
    if ALL not in survived:
        return NOT_TESTABLE
    if TOKEN in survived and survived & {WORDING, BIGRAM}:
        return CONTEXTUAL
    return ANY_WORDING if WORDING in survived else NOT_TESTABLE


def attack_all(
    latents: Mapping[tuple[str, str, int], Sequence[int]],
    readers: Sequence[str],
    behaviours: Sequence[str],
    drawn: Alike,
    maxima_of: MaximaOf,
    token_id: Int[np.ndarray, " row"],
    bars: Bars,
) -> pd.DataFrame:
    """Every attack on every shortlisted tracker, in each reader on the text it was chosen on.

    Args:
        latents: By behaviour, writer and layer.
        readers: Whose activations.
        behaviours: In the order of cells.
        drawn: Spans and windows.
        maxima_of: Maxima over them.
        token_id: Token that each row has read.
        bars: What decides.
    """
    found = [
        asdict(one)
        for (behaviour, writer, layer), chosen in latents.items()
        for reader in readers
        for one in attack(
            (behaviour, reader, writer, layer),
            cell_index(behaviours.index(behaviour), writer, "report"),
            chosen,
            drawn,
            maxima_of(reader, layer),
            token_id,
            bars,
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
                    f"killed by {kind}" if kind != ALL else WEAK: int(
                        ((here.kind == kind) & (here.outcome == KILLED)).sum()
                    )
                    for kind in KINDS
                },
                **{n: int((each.called == n).sum()) for n in _LEFT},
                "contextual in all readers": int(contextual.sum()),
            }
        )
    return pd.DataFrame(rows)
