"""Tables of matched latents: of every latent, shares by pair of layers, and of span detectors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import hypergeom

from sae_reasoning.behaviours.matching import (
    Null,
    Pairing,
    Series,
    correlations,
    decoder_cosines,
    interval,
    mirrored_directions,
    pair_up,
    problem_sums,
    shared_by_kind,
    shifted_text,
)
from sae_reasoning.behaviours.units import Units
from sae_reasoning.records import Shortlist, ShortlistEntry
from sae_reasoning.stats import benjamini_hochberg

COSINE, CORRELATION, WORDS = "cosine", "correlation", "words"
"""What a match goes by: directions, activations on the same tokens, activations by word."""

FOUND = 0.05
"""False discovery rate at which a match counts as found."""

MATCHES = (
    "layer latent other_layer other_latent by value low high n fires null_95 null_99 same_word p q "
    "is_mutual is_assigned assigned_latent assigned_value behaviours other_behaviours"
).split()
"""Columns of the table of matches, a row for each own latent, pair of layers and kind of match.

layer, latent              the own latent
other_layer, other_latent  its match: the most similar of that layer
by                         cosine, correlation or words
value                      similarity: cosine, Pearson's r over tokens, Spearman's over words
low, high                  95 % problem bootstrap, where one of the two is on a shortlist
n                          problems; for cosines, coordinates
fires                      tokens or words on which the own latent is active
null_95, null_99           quantiles of its best match under the null
same_word                  its best match if all latents knew only which token or word they are on
p, q                       of `value` under the null; q over all rows of that kind
is_mutual                  whether it's also its match's best
is_assigned                whether it's also its partner one to one (Hungarian)
assigned_latent, assigned_value    that partner (-1: none) and its similarity
behaviours, other_behaviours       shortlists that hold the own latent, and its match
"""

LatentKey = tuple[int, int]
"""Layer and latent."""


@dataclass(frozen=True)
class Listed:
    """A run's shortlists, by latent.

    Attributes:
        span_detectors: Latents of each behaviour, the best first.
        onset_predictors: Likewise.
    """

    span_detectors: Mapping[str, Sequence[LatentKey]]
    onset_predictors: Mapping[str, Sequence[LatentKey]]

    @classmethod
    def of(cls, shortlist: Shortlist, fingerprints: Mapping[int, str]) -> "Listed":
        """From a shortlist, as far as it is of these dictionaries.

        Args:
            shortlist: What `rank` found.
            fingerprints: Of the dictionaries, by layer.
        """
        known = {
            name
            for name, entry in shortlist.dictionaries.items()
            if entry.fingerprint in fingerprints.values()
        }

        def kept(entries: Sequence[ShortlistEntry]) -> list[LatentKey]:
            return [(e.layer, e.latent) for e in entries if e.dictionary in known]

        lists = (shortlist.span_detectors, shortlist.onset_predictors)
        return cls(*({name: kept(own) for name, own in entries.items()} for entries in lists))

    def names(self, layer: int, latents: Int[np.ndarray, " latent"]) -> list[str]:
        """Of each latent, the lists that hold it."""
        found: dict[LatentKey, list[str]] = {}
        for role, lists in (("detects", self.span_detectors), ("predicts", self.onset_predictors)):
            for behaviour, keys in lists.items():
                for key in keys:
                    found.setdefault(key, []).append(f"{role} {behaviour}")
        return [", ".join(found.get((layer, int(latent)), [])) for latent in latents]


@dataclass(frozen=True)
class Side:
    """The latents of one layer that take part.

    Attributes:
        layer: Decoder block.
        series: Their activations along the units.
        directions: Their decoder rows.
        behaviours: Shortlists that hold each.
    """

    layer: int
    series: Series
    directions: Float[np.ndarray, "latent d_model"]
    behaviours: Sequence[str]


def by_activations(
    own: Side,
    other: Side,
    units: Units,
    by: str,
    *,
    num_draws: int,
    num_resamples: int,
    seed: int,
    on_draw: Callable[[], None],
) -> pd.DataFrame:
    """Matches by activation, compared with those in shifted text; q is yet to come.

    Args:
        own: One side.
        other: The other.
        units: On which both are active.
        by: Correlation or words.
        num_draws: Of the null.
        num_resamples: Of problems, for intervals of what is on a shortlist.
        seed: Of both.
        on_draw: Called after each draw.
    """
    x, y = own.series, other.series
    pairing = pair_up(correlations(x, y))
    null = shifted_text(x, y, units.trace, num_draws=num_draws, seed=seed, on_draw=on_draw)
    n = len(np.unique(units.problem))
    rows = _rows(own, other, by, pairing, Null(null), n)
    rows["same_word"] = shared_by_kind(x, y, units.kind).max(1)
    listed = np.flatnonzero((rows.behaviours != "") | (rows.other_behaviours != ""))
    pairs = np.stack([listed, pairing.best[listed]], axis=1)
    for row, sums in zip(listed, problem_sums(x, y, pairs, units.problem), strict=True):
        found = interval(sums, num_resamples, seed)
        rows.loc[row, ["low", "high"]] = found.low, found.high
    return rows


def by_directions(own: Side, other: Side, *, num_draws: int, seed: int) -> pd.DataFrame:
    """Matches by decoder cosine, compared with mirrored directions; q is yet to come."""
    pairing = pair_up(decoder_cosines(own.directions, other.directions))
    null = mirrored_directions(own.directions, other.directions, num_draws=num_draws, seed=seed)
    return _rows(own, other, COSINE, pairing, Null(null), own.directions.shape[1])


def _rows(own: Side, other: Side, by: str, pairing: Pairing, null: Null, n: int) -> pd.DataFrame:
    """Every own latent with its match."""
    partner = np.where(pairing.assigned < 0, -1, other.series.latent[pairing.assigned])
    rows = pd.DataFrame(
        {
            "layer": own.layer,
            "latent": own.series.latent,
            "other_layer": other.layer,
            "other_latent": other.series.latent[pairing.best],
            "by": by,
            "value": pairing.value,
            "low": np.nan,
            "high": np.nan,
            "n": n,
            "fires": own.series.fires,
            "null_95": null.quantile(0.95),
            "null_99": null.quantile(0.99),
            "same_word": np.nan,
            "p": null.p_values(pairing.value),
            "q": np.nan,
            "is_mutual": pairing.is_mutual,
            "is_assigned": pairing.assigned == pairing.best,
            "assigned_latent": partner,
            "assigned_value": pairing.assigned_value,
            "behaviours": list(own.behaviours),
            "other_behaviours": [other.behaviours[place] for place in pairing.best],
        }
    )
    return rows[MATCHES]


def add_q(matches: pd.DataFrame) -> pd.DataFrame:
    """Benjamini-Hochberg's q over all latents and pairs of layers, for each kind of match."""
    q = matches.groupby("by").p.transform(lambda p: benjamini_hochberg(p.to_numpy()))
    return matches.assign(q=q)


def summarise(matches: pd.DataFrame, strong: float) -> pd.DataFrame:
    """Per kind of match and pair of layers: how many latents have a match, and how similar.

    Args:
        matches: All, with q.
        strong: Similarity from which a match counts as strong.
    """
    rows = []
    for (by, layer, other_layer), own in matches.groupby(["by", "layer", "other_layer"]):
        # Without context: what a dictionary would be worth that knows only words.
        lexical = own.same_word if own.same_word.notna().all() else None
        rows.append(
            {
                "by": by,
                "layer": layer,
                "other_layer": other_layer,
                "latents": len(own),
                "n": own.n.iloc[0],
                "found": (own.q < FOUND).mean(),
                "over_null_95": (own.value > own.null_95).mean(),
                "mutual": own.is_mutual.mean(),
                "strong": (own.value >= strong).mean(),
                "strong_one_to_one": (own.assigned_value >= strong).mean(),
                "strong_same_word": np.nan if lexical is None else (lexical >= strong).mean(),
                "median": own.value.median(),
                "median_same_word": np.nan if lexical is None else lexical.median(),
                "median_null_95": own.null_95.median(),
            }
        )
    return pd.DataFrame(rows)


def findings(
    matches: pd.DataFrame,
    own: Listed,
    other: Listed,
    behaviours: Sequence[str],
    strong: float,
) -> pd.DataFrame:
    """Per behaviour: span detectors with a match, and how many of those detect it too.

    A latent's match is the most similar of all layers. By chance, as many would be on the other's
    list as among as many latents drawn from all that have a match; drawn without
    replacement, their number is hypergeometric.
    """
    best = matches.loc[matches.groupby(["by", "layer", "latent"]).value.idxmax()]
    rows = []
    for by, own_best in best.groupby("by"):
        found = own_best[own_best.q < FOUND]
        keys = list(zip(found.layer, found.latent, strict=True))
        to = list(zip(found.other_layer, found.other_latent, strict=True))
        for behaviour in behaviours:
            listed, wanted = (
                own.span_detectors.get(behaviour, ()),
                set(other.span_detectors.get(behaviour, ())),
            )
            is_span_detector = np.array([key in set(listed) for key in keys], bool)
            is_hit = np.array([key in wanted for key in to], bool)
            matched = found[is_span_detector]
            hits, drawn = int(is_hit[is_span_detector].sum()), len(matched)
            of = (len(found), int(is_hit.sum()), drawn)
            rows.append(
                {
                    "behaviour": behaviour,
                    "by": by,
                    "span_detectors": len(listed),
                    "with match": drawn,
                    "strong": int((matched.value >= strong).sum()),
                    "median": matched.value.median(),
                    "by same words": matched.same_word.median(),
                    "on the other's list": hits,
                    "by chance": drawn * of[1] / max(of[0], 1),
                    "p": float(hypergeom.sf(hits - 1, *of)) if drawn else np.nan,
                    "of latents": of[0],
                }
            )
    return pd.DataFrame(rows)
