"""What is left of a shortlisted latent when it is attacked, and its label then.

Spans of the behaviour are compared with windows of other text, by the latent's maximum, as span
detectors are chosen; each attack compares only what is matched in one thing (`strata`), or spans in
wordings that selection didn't see (`behaviours.wordings`), or in paraphrase, or puts the latent's
words elsewhere (`injection`). It refutes a latent that significantly retains less than a share of
the advantage that it had on the same spans; of a robust one the latent significantly retains more;
in between its outcome is inconclusive. Thresholds apply to bounds. Onset predictors are attacked at
onset-1: onsets are compared with opportunities that are none, after the same token, at a like
place, in traces of like length. The first label that applies:

* `not testable`: the behaviour is at one place in every trace, so that nothing tells it from that;
* `weak`: its unstratified AUROC is significantly below a threshold, so there is nothing to explain;
* `lexical`: refuted by its token, in other text as it is, or put there;
* `partly-lexical`: by its token and the one before, or by two or three tokens put elsewhere;
* `lexical` again: by wordings that it wasn't chosen on, or by a paraphrase;
* `positional`: refuted by the place in the response, or by the length of the trace;
* `not replicated`: SAEs from other seeds have nothing like it;
* `inconclusive`: an outcome of these is, or its words could be put into no text (its dictionary
  reads none of them, or too few are left), so that nobody knows what they do;
* `contextual`: it is robust to its token, where that is found outside the behaviour by itself, or
  else put into every kind of text that its dictionary can read; and to its pair of tokens, unseen
  wordings or a paraphrase. Of an onset predictor the token before the behaviour is enough;
* `any wording`: it is robust to unseen wordings or a paraphrase, but its token can't be had outside
  the behaviour, so that whether it knows the token or the behaviour can't be told;
* `not testable`: none of the above, as too few spans have any match.

Every threshold is in conf/attacks/. A kind of text that a dictionary can't read (`host_fvu`) is
excluded, whatever words put into it do.
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

WEAK, NOT_TESTABLE, LEXICAL, PARTLY_LEXICAL, POSITIONAL, CONTEXTUAL, ANY_WORDING, INCONCLUSIVE = (
    "weak",
    "not testable",
    "lexical",
    "partly-lexical",
    "positional",
    "contextual",
    "any wording",
    "inconclusive",
)
NOT_REPLICATED = "not replicated"
LABELS = (
    CONTEXTUAL,
    ANY_WORDING,
    PARTLY_LEXICAL,
    LEXICAL,
    POSITIONAL,
    NOT_REPLICATED,
    WEAK,
    INCONCLUSIVE,
    NOT_TESTABLE,
)
ROBUST, REFUTED, EXCLUDED = "robust", "refuted", "excluded"

RANDOM = "random-init"
"""Reader that was never trained: the labels of its latents say what a label is worth."""

# A pair of words goes with the words of a behaviour, so it is asked for before wordings are.
_LABEL_IF_REFUTED_BY = {
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
class Thresholds:
    """What decides an attack.

    Attributes:
        at: The thresholds.
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
        behaviour: Behaviour that it detects or predicts.
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
        behaviour: Behaviour that it detects or predicts.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
        kind: What compared intervals share, or what was done to the text; `all` for nothing.
        auroc: Within strata, each comparable span (or onset) counted the same.
        low: Lower bound, by problem bootstrap.
        high: Upper bound.
        pair_weighted_auroc: The same with every pair of a stratum counted the same.
        unstratified_auroc: Of the same spans against all windows; of unseen wordings, of the
            others; of paraphrased spans, as they were written.
        retained_margin: What is retained beyond `rank.attacks.keep` of the unstratified advantage
            over chance.
        retained_margin_low: Lower bound.
        retained_margin_high: Upper bound.
        comparable: Share of spans whose stratum holds windows.
        n_pos: Spans.
        n_neg: Windows.
        num_problems: Problems with comparable spans.
        outcome: `robust`, `refuted`, `inconclusive`, `not testable` or `excluded`.
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
    pair_weighted_auroc: float
    unstratified_auroc: float
    retained_margin: float
    retained_margin_low: float
    retained_margin_high: float
    comparable: float
    n_pos: int
    n_neg: int
    num_problems: int
    outcome: str


def judge(
    target: Target, kind: str, kept: Kept, thresholds: Thresholds, *, n_pos: int, n_neg: int
) -> Attack:
    """An attack with its outcome."""
    return Attack(
        **asdict(target),
        kind=kind,
        auroc=kept.within.value,
        low=kept.within.low,
        high=kept.within.high,
        pair_weighted_auroc=kept.pair_weighted,
        unstratified_auroc=kept.plain.value,
        retained_margin=kept.margin.value,
        retained_margin_low=kept.margin.low,
        retained_margin_high=kept.margin.high,
        comparable=kept.comparable,
        n_pos=n_pos,
        n_neg=n_neg,
        num_problems=kept.within.n,
        outcome=_outcome(kind, kept, min(n_pos, n_neg), thresholds),
    )


def _outcome(kind: str, kept: Kept, num_fewest: int, thresholds: Thresholds) -> str:
    is_too_little = num_fewest < thresholds.at.items or kept.within.n < thresholds.at.problems
    if kept.comparable < thresholds.at.comparable or is_too_little:
        return NOT_TESTABLE
    low, high, least = kept.margin.low, kept.margin.high, 0.0
    if kind == ALL:
        low, high, least = kept.within.low, kept.within.high, thresholds.at.weak
    if low > least:
        return ROBUST
    return REFUTED if high < least else INCONCLUSIVE


def label_of(outcomes: Mapping[str, str], shortlist: str = SPAN_DETECTORS) -> str:
    """A latent's label, from the outcome of each kind of attack that was made."""
    if outcomes[ALL] == REFUTED:
        return WEAK
    for kind, label in _LABEL_IF_REFUTED_BY.items():
        if outcomes.get(kind) == REFUTED:
            return label
    if INCONCLUSIVE in outcomes.values():
        return INCONCLUSIVE
    robust_to = {kind for kind, outcome in outcomes.items() if outcome == ROBUST}
    if ALL not in robust_to:
        return NOT_TESTABLE
    if shortlist == ONSET_PREDICTORS:
        return CONTEXTUAL if TOKEN in robust_to else NOT_TESTABLE
    elsewhere = {kind for kind in (INJECTED, PLANTED) if outcomes.get(kind) != EXCLUDED}
    is_robust_elsewhere = bool(robust_to & {INJECTED, PLANTED})
    if TOKEN in robust_to and not is_robust_elsewhere:
        return INCONCLUSIVE
    is_more_than_its_token = TOKEN in robust_to or (is_robust_elsewhere and elsewhere <= robust_to)
    if is_more_than_its_token and robust_to & {WORDING, PARAPHRASE, BIGRAM}:
        return CONTEXTUAL
    return ANY_WORDING if robust_to & {WORDING, PARAPHRASE} else NOT_TESTABLE


def add_labels(
    attacks: pd.DataFrame, positional: Collection[tuple[str, str]] = frozenset()
) -> pd.DataFrame:
    """The same attacks, one row each, with the label of each latent.

    Args:
        attacks: One row an `Attack`.
        positional: Behaviours and writers whose behaviours can't be told from their place.
    """
    attacks = attacks.assign(label="")
    for (shortlist, *_), rows in attacks.groupby(_LATENT):
        outcomes = dict(zip(rows.kind, rows.outcome, strict=True))
        first = rows.iloc[0]
        is_positional = (first.behaviour, first.writer) in positional
        label = NOT_TESTABLE if is_positional else label_of(outcomes, str(shortlist))
        attacks.loc[rows.index, "label"] = label
    return attacks


def attack_summary(attacks: pd.DataFrame, shortlist: str) -> pd.DataFrame:
    """Per behaviour and reader: how many of a list were attacked, and how many each attack refuted.

    One latent may be refuted by several. Attacks that refuted none anywhere aren't shown; one that
    decided nothing, its text being such as a dictionary couldn't read, says so.
    """
    own = attacks[(attacks.shortlist == shortlist) & (attacks.kind != ALL)]
    shown = own[own.outcome.isin([REFUTED, EXCLUDED])]
    made = [kind for kind in KINDS if (shown.kind == kind).any()]

    def refuted(here: pd.DataFrame) -> int | str:
        decided = here.outcome.isin([REFUTED, ROBUST]).any()
        is_excluded = bool((here.outcome == EXCLUDED).any()) and not decided
        return EXCLUDED if is_excluded else int((here.outcome == REFUTED).sum())

    return _by_reader(own, lambda here: {kind: refuted(here[here.kind == kind]) for kind in made})


def count_labels(attacks: pd.DataFrame, shortlist: str) -> pd.DataFrame:
    """Per behaviour and reader: how many of a list have each label; labels of none are not shown.

    The last column counts latents that are contextual in base and RL reader; where one of them is
    all there is, it tells nothing.
    """
    own = attacks[attacks.shortlist == shortlist]
    given = [label for label in LABELS if (own.label == label).any()]
    table = _by_reader(
        own,
        lambda here: {
            label: int((here.drop_duplicates(_LATENT).label == label).sum()) for label in given
        },
    )
    trained = own[own.reader != RANDOM]
    is_contextual = (trained.label == CONTEXTUAL).groupby(
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
