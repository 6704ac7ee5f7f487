"""What is left of a shortlisted latent when it's attacked, and what to call it then.

Spans of the behaviour are compared with windows of other text, by the latent's maximum, as span
detectors are chosen; each attack compares only what is alike in one thing (`strata`), or spans in
wordings that selection didn't see (`wordings`), or in words written anew, or puts the latent's
words elsewhere (`rewriting`). It kills a latent that significantly keeps less than a share of what
it had on the same spans; a survivor keeps significantly more; in between its outcome is unclear.
Thresholds apply to bounds. Onset predictors are attacked at onset-1: opportunities taken are
compared with those not taken, after the same token, at a like place, in traces of like length. The
first name that applies:

* `not testable`: the behaviour stands at one place in every trace, so that nothing tells it from
  that;
* `weak`: its plain AUROC is significantly below a threshold, so there is nothing to explain away;
* `lexical`: killed by its token, in other text as it stands, or put there;
* `partly-lexical`: by its token and the one before, or by two or three tokens put elsewhere;
* `lexical` again: by wordings that it wasn't chosen on, or by a paraphrase;
* `positional`: killed by the place in the response, or by the length of the trace;
* `not replicated`: SAEs from other seeds have nothing like it;
* `unclear`: an outcome of these is, or its words could be put into no text (its dictionary reads
  none of them, or too few are left), so that nobody knows what they do;
* `contextual`: it survives its token, where that stands outside the behaviour by itself, or else
  put into every kind of text that its dictionary can read; and its pair of tokens, unseen wordings
  or a paraphrase. Of an onset predictor the token before the behaviour is enough;
* `any wording`: it survives unseen wordings or a paraphrase, but its token can't be had outside the
  behaviour, so that whether it knows the token or the behaviour can't be told;
* `not testable`: none of the above, as too few spans have anything like them.

Every bar stands in conf/attacks/. A kind of text that a dictionary can't read (`carrier_fvu`) is
left out, whatever words put into it do.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from sae_reasoning.config import AttackConfig
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS
from sae_reasoning.stats import Kept

ALL, TOKEN, BIGRAM, POSITION, LENGTH = "all", "token", "bigram", "position", "length"
WORDING, PARAPHRASE = "held-out wording", "paraphrase"
INJECTED, PLANTED = "token in other text", "token mid-trace"
PHRASE_INJECTED, PHRASE_PLANTED = "two or three in other text", "two or three mid-trace"
REPLICATION = "other SAE seeds"
KINDS = (
    ALL,
    TOKEN,
    INJECTED,
    PLANTED,
    WORDING,
    PARAPHRASE,
    BIGRAM,
    PHRASE_INJECTED,
    PHRASE_PLANTED,
    POSITION,
    LENGTH,
    REPLICATION,
)

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
NOT_REPLICATED = "not replicated"
NAMES = (
    CONTEXTUAL,
    ANY_WORDING,
    PARTLY_LEXICAL,
    LEXICAL,
    POSITIONAL,
    NOT_REPLICATED,
    WEAK,
    UNCLEAR,
    NOT_TESTABLE,
)
SURVIVES, KILLED, LEFT_OUT = "survives", "killed", "left out"

RANDOM = "random-init"
"""Reader that was never trained: what its latents are called says what a name is worth."""

# A pair of words goes with the words of a behaviour, so it is asked for before wordings are.
_KILLERS = {
    TOKEN: LEXICAL,
    INJECTED: LEXICAL,
    PLANTED: LEXICAL,
    BIGRAM: PARTLY_LEXICAL,
    PHRASE_INJECTED: PARTLY_LEXICAL,
    PHRASE_PLANTED: PARTLY_LEXICAL,
    WORDING: LEXICAL,
    PARAPHRASE: LEXICAL,
    POSITION: POSITIONAL,
    LENGTH: POSITIONAL,
    REPLICATION: NOT_REPLICATED,
}
_LATENT = ["shortlist", "behaviour", "reader", "layer", "latent"]


@dataclass(frozen=True)
class Bars:
    """What decides an attack.

    Attributes:
        at: The bars.
        num_resamples: Of the problem bootstrap.
        seed: Of the same.
    """

    at: AttackConfig
    num_resamples: int
    seed: int


@dataclass(frozen=True)
class Target:
    """A shortlisted latent under attack.

    Attributes:
        shortlist: `span_detectors` or `onset_predictors`.
        behaviour: Behaviour that it's said to track or announce.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
    """

    shortlist: str
    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int


@dataclass(frozen=True)
class Attack:
    """One attack on one latent, on the report split.

    Attributes:
        shortlist: `span_detectors` or `onset_predictors`.
        behaviour: Behaviour that it's said to track or announce.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
        kind: What compared intervals share, or what was done to the text; `all` for nothing.
        auroc: Within strata, each comparable span (or opportunity taken) counted the same.
        low: Lower bound, by problem bootstrap.
        high: Upper bound.
        pair_weighted: The same with every pair of a stratum counted the same.
        plain: AUROC of the same spans against all windows; of unseen wordings, of the others; of
            paraphrased spans, as they were written.
        margin: What is kept beyond `rank.attacks.keep` of the plain advantage.
        margin_low: Lower bound.
        margin_high: Upper bound.
        comparable: Share of spans whose stratum holds windows.
        n_pos: Spans.
        n_neg: Windows.
        num_problems: Problems with comparable spans.
        outcome: `survives`, `killed`, `unclear`, `not testable` or `left out`.
    """

    shortlist: str
    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int
    kind: str
    auroc: float
    low: float
    high: float
    pair_weighted: float
    plain: float
    margin: float
    margin_low: float
    margin_high: float
    comparable: float
    n_pos: int
    n_neg: int
    num_problems: int
    outcome: str


def judge(target: Target, kind: str, kept: Kept, bars: Bars, *, n_pos: int, n_neg: int) -> Attack:
    """An attack with its outcome."""
    return Attack(
        **asdict(target),
        kind=kind,
        auroc=kept.within.value,
        low=kept.within.low,
        high=kept.within.high,
        pair_weighted=kept.pair_weighted,
        plain=kept.plain.value,
        margin=kept.margin.value,
        margin_low=kept.margin.low,
        margin_high=kept.margin.high,
        comparable=kept.comparable,
        n_pos=n_pos,
        n_neg=n_neg,
        num_problems=kept.within.n,
        outcome=_outcome(kind, kept, min(n_pos, n_neg), bars),
    )


def _outcome(kind: str, kept: Kept, num_fewest: int, bars: Bars) -> str:
    is_too_little = num_fewest < bars.at.items or kept.within.n < bars.at.problems
    if kept.comparable < bars.at.comparable or is_too_little:
        return NOT_TESTABLE
    low, high, bar = kept.margin.low, kept.margin.high, 0.0
    if kind == ALL:
        low, high, bar = kept.within.low, kept.within.high, bars.at.weak
    if low > bar:
        return SURVIVES
    return KILLED if high < bar else UNCLEAR


def name_of(outcomes: Mapping[str, str], shortlist: str = SPAN_DETECTORS) -> str:
    """What to call a latent, from the outcome of each kind of attack that was made."""
    if outcomes[ALL] == KILLED:
        return WEAK
    for kind, name in _KILLERS.items():
        if outcomes.get(kind) == KILLED:
            return name
    if UNCLEAR in outcomes.values():
        return UNCLEAR
    survived = {kind for kind, outcome in outcomes.items() if outcome == SURVIVES}
    if ALL not in survived:
        return NOT_TESTABLE
    if shortlist == ONSET_PREDICTORS:
        return CONTEXTUAL if TOKEN in survived else NOT_TESTABLE
    elsewhere = {kind for kind in (INJECTED, PLANTED) if outcomes.get(kind) != LEFT_OUT}
    was_put_elsewhere = bool(survived & {INJECTED, PLANTED})
    if TOKEN in survived and not was_put_elsewhere:
        return UNCLEAR
    is_more_than_its_token = TOKEN in survived or (was_put_elsewhere and elsewhere <= survived)
    if is_more_than_its_token and survived & {WORDING, PARAPHRASE, BIGRAM}:
        return CONTEXTUAL
    return ANY_WORDING if survived & {WORDING, PARAPHRASE} else NOT_TESTABLE


def call(
    attacks: pd.DataFrame, positional: Collection[tuple[str, str]] = frozenset()
) -> pd.DataFrame:
    """The same attacks, one row each, with what each latent is called.

    Args:
        attacks: One row an `Attack`.
        positional: Behaviours and writers whose behaviours can't be told from their place.
    """
    attacks = attacks.assign(called="")
    for (shortlist, *_), rows in attacks.groupby(_LATENT):
        outcomes = dict(zip(rows.kind, rows.outcome, strict=True))
        first = rows.iloc[0]
        is_positional = (first.behaviour, first.writer) in positional
        name = NOT_TESTABLE if is_positional else name_of(outcomes, str(shortlist))
        attacks.loc[rows.index, "called"] = name
    return attacks


def attack_summary(attacks: pd.DataFrame, shortlist: str) -> pd.DataFrame:
    """Per behaviour and reader: how many of a list were attacked, and how many each attack killed.

    One latent may be killed by several. Attacks that killed none anywhere aren't shown; one that
    decided nothing, its text being such as a dictionary couldn't read, says so.
    """
    own = attacks[(attacks.shortlist == shortlist) & (attacks.kind != ALL)]
    shown = own[own.outcome.isin([KILLED, LEFT_OUT])]
    made = [kind for kind in KINDS if (shown.kind == kind).any()]

    def killed(here: pd.DataFrame) -> int | str:
        decided = here.outcome.isin([KILLED, SURVIVES]).any()
        is_left_out = bool((here.outcome == LEFT_OUT).any()) and not decided
        return LEFT_OUT if is_left_out else int((here.outcome == KILLED).sum())

    return _by_reader(own, lambda here: {kind: killed(here[here.kind == kind]) for kind in made})


def calls(attacks: pd.DataFrame, shortlist: str) -> pd.DataFrame:
    """Per behaviour and reader: how many of a list are called what; names of none are left out.

    The last column counts latents that are contextual in base and RL reader; where one of them is
    all there is, it tells nothing.
    """
    own = attacks[attacks.shortlist == shortlist]
    given = [name for name in NAMES if (own.called == name).any()]
    table = _by_reader(
        own,
        lambda here: {
            name: int((here.drop_duplicates(_LATENT).called == name).sum()) for name in given
        },
    )
    trained = own[own.reader != RANDOM]
    is_contextual = (trained.called == CONTEXTUAL).groupby(
        [trained.behaviour, trained.layer, trained.latent]
    )
    in_both = is_contextual.all().groupby("behaviour").sum()
    is_pair = trained.reader.nunique() == 2
    both = [
        int(in_both.get(row.behaviour, 0)) if is_pair and row.reader != RANDOM else None
        for row in table.itertuples()
    ]
    return table.assign(**{"contextual in both": pd.Series(both, table.index, object)})


def _by_reader(
    attacks: pd.DataFrame, count: Callable[[pd.DataFrame], Mapping[str, int | str]]
) -> pd.DataFrame:
    groups = attacks.groupby(["behaviour", "reader"], sort=False)
    rows = [
        {
            "behaviour": behaviour,
            "reader": reader,
            "latents": len(here.drop_duplicates(_LATENT)),
            **count(here),
        }
        for (behaviour, reader), here in groups
    ]
    if not rows:
        return pd.DataFrame(columns=["behaviour", "reader", "latents"])
    table = pd.DataFrame(rows)
    order = list(dict.fromkeys(attacks.behaviour))
    return table.sort_values("behaviour", key=lambda names: names.map(order.index), kind="stable")
