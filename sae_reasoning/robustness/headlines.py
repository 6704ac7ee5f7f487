"""The best latent of each behaviour and what the attacks left of it, in one line each.

`rank` ends in these lines, and `ablate` says beside them what editing did.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sae_reasoning.behaviours.baselines import NGRAM
from sae_reasoning.behaviours.windows import POSITIONAL
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, Shortlist, ShortlistEntry
from sae_reasoning.robustness.outcomes import ALL, CONTEXTUAL, RANDOM, REFUTED, WEAK
from sae_reasoning.texts import bounded

_KINDS = {SPAN_DETECTORS: "span detector", ONSET_PREDICTORS: "onset predictor"}
_LATENT = ["shortlist", "behaviour", "layer", "latent"]


@dataclass(frozen=True)
class Headline:
    """The first latent of one list.

    Attributes:
        behaviour: Which the latent was found for.
        kind: `span detector` or `onset predictor`.
        latent: Layer and index, as `1/195`.
        auroc: Span AUROC of a detector, onset AUROC of a predictor; on the report split, in the
            reader and on the text that it was found on.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        attacks: Its label by the attacks, and which of them refute it.
    """

    behaviour: str
    kind: str
    latent: str
    auroc: float
    low: float
    high: float
    attacks: str

    @property
    def label(self) -> str:
        """Its label, without the attacks that refute it."""
        return self.attacks.partition(":")[0]

    @property
    def interval(self) -> str:
        """The AUROC with its interval."""
        if self.auroc != self.auroc:
            return "-"
        return bounded(self.auroc, self.low, self.high, 3)


def headlines(
    shortlist: Shortlist, attacks: pd.DataFrame, lists: Sequence[str] = tuple(_KINDS)
) -> list[Headline]:
    """The best latent of each behaviour on each list, detectors first; a list may be empty.

    Args:
        shortlist: What `rank` found.
        attacks: Of `attacks.parquet`.
        lists: Which lists: `span_detectors`, `onset_predictors`.
    """
    found = []
    for behaviour in dict.fromkeys(b for name in lists for b in shortlist.entries_of(name)):
        for name in lists:
            kind = _KINDS[name]
            for entry in shortlist.entries_of(name).get(behaviour, ())[:1]:
                latent = f"{entry.layer}/{entry.latent}"
                said = _attacked(entry, name, behaviour, attacks)
                found.append(Headline(behaviour, kind, latent, *entry.interval, said))
    return found


def _attacked(entry: ShortlistEntry, name: str, behaviour: str, attacks: pd.DataFrame) -> str:
    if entry.status == POSITIONAL:
        return "not testable: it is at one place in every trace"
    label = entry.labels.get(entry.reader, "not attacked")
    own = attacks[
        (attacks.shortlist == name)
        & (attacks.behaviour == behaviour)
        & (attacks.reader == entry.reader)
        & (attacks.layer == entry.layer)
        & (attacks.latent == entry.latent)
    ]
    refuting = own.kind[(own.outcome == REFUTED) & (own.kind != ALL)].tolist()
    return f"{label}: {', '.join(refuting)}" if refuting and label != WEAK else label


def survivors_in_words(attacks: pd.DataFrame) -> str:
    """How many latents of each list no attack explains away, in any trained reader; of how many.

    Nothing is said of a list none of whose latents was attacked.
    """
    trained = attacks[attacks.reader != RANDOM]
    said = []
    for name, kind in _KINDS.items():
        own = trained[trained.shortlist == name]
        robust = own[own.label == CONTEXTUAL][_LATENT].drop_duplicates()
        if number := len(own[_LATENT].drop_duplicates()):
            said.append(f"{len(robust)} of {number} {kind}s")
    return f"The attacks leave {CONTEXTUAL}, in some reader: {', '.join(said)}." if said else ""


def empty_lists(shortlist: Shortlist) -> list[str]:
    """What latents of a list are, of each list that is empty for every behaviour."""
    return [kind for name, kind in _KINDS.items() if not any(shortlist.entries_of(name).values())]


def words_suffice(heads: Sequence[Headline], baselines: pd.DataFrame) -> list[str]:
    """Behaviours whose best span detector isn't significantly better than the n-gram model.

    Args:
        heads: As `headlines` makes them.
        baselines: Of `baselines.parquet`.

    Returns:
        Those where the n-gram model's span AUROC reaches the lower bound of the detector's.
    """
    ngram = baselines[(baselines.baseline == NGRAM) & (baselines.writer == "rl")]
    best = ngram.groupby("behaviour").span_auroc.max()
    return [
        head.behaviour
        for head in heads
        if head.kind == _KINDS[SPAN_DETECTORS] and best.get(head.behaviour, -1.0) >= head.low
    ]
