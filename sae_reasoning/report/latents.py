"""Figures of each shortlisted latent, from the tables of `rank` and `match`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import pandas as pd

from sae_reasoning.records import MODELS, SHORTLISTS, Shortlist, ShortlistEntry
from sae_reasoning.report.reviews import REVIEW_LABELS, Review
from sae_reasoning.robustness.baseline_comparison import BaselineComparison
from sae_reasoning.robustness.injection import Injection
from sae_reasoning.robustness.outcomes import ALL, Attack
from sae_reasoning.robustness.replication import Replica
from sae_reasoning.texts import shown

_Record = TypeVar("_Record", Attack, BaselineComparison, Injection, Replica)
_RATES = ["reader", "writer", "firing_rate", "mean_active", "max_active"]
_SCORES = [
    *("behaviour", "reader", "writer", "status", "span_auroc", "span_auroc_low"),
    *(
        "span_auroc_high",
        "onset_auroc",
        "n_pos",
        "n_neg",
        "n_onset_pos",
        "n_onset_neg",
        "num_problems",
    ),
]
_NUM_CELL_EXAMPLES = 3
_MATCHED = [
    *("by", "other_layer", "other_latent", "value", "low", "high", "n", "null_95", "same_word"),
    *("is_mutual", "other_behaviours"),
]


@dataclass(frozen=True)
class Listing:
    """A place on a shortlist; figures are of the report split.

    Attributes:
        shortlist: `span_detectors` or `onset_predictors`.
        behaviour: Behaviour that it detects or predicts.
        place: On the list, 1 the best.
        reader: In which it was chosen.
        writer: On whose text.
        status: Whether the behaviour is frequent enough in that text to be tested.
        auroc: Of spans (span detectors) or onsets (onset predictors).
        low: Lower bound.
        high: Upper bound.
        n: Spans of the behaviour.
        firing_rate: Share of tokens, on the select split.
        labels: Its label by the attacks, by reader.
    """

    shortlist: str
    behaviour: str
    place: int
    reader: str
    writer: str
    status: str
    auroc: float
    low: float
    high: float
    n: int
    firing_rate: float
    labels: dict[str, str]


@dataclass(frozen=True)
class LatentRecord:
    """A shortlisted latent.

    Attributes:
        layer: Decoder block.
        latent: Index.
        dictionary: Name of its SAE.
        listings: Where it's listed.
        rates: Firing rate, mean and largest activation by reader and writer, on the select split.
        scores: AUROCs by reader and writer, of the behaviours that it's listed for.
        attacks: On its listings.
        injections: Words inserted into other text, and their effect on it.
        baselines: Its comparison with each baseline.
        matched: The most similar latents of another run's dictionaries.
        replicas: The nearest latents of dictionaries trained from other seeds.
    """

    layer: int
    latent: int
    dictionary: str
    listings: tuple[Listing, ...]
    rates: tuple[dict[str, Any], ...]
    scores: tuple[dict[str, Any], ...]
    attacks: tuple[Attack, ...]
    injections: tuple[Injection, ...]
    baselines: tuple[BaselineComparison, ...]
    matched: tuple[dict[str, Any], ...]
    replicas: tuple[Replica, ...]

    @property
    def name(self) -> str:
        """Layer and latent, as in addresses and file names."""
        return f"{self.layer}_{self.latent}"


def records(
    shortlist: Shortlist,
    tables: Mapping[str, pd.DataFrame],
    matches: pd.DataFrame | None,
) -> list[LatentRecord]:
    """All latents of both shortlists, by layer and index.

    Args:
        shortlist: What `rank` found.
        tables: `scores`, `latents`, `attacks`, `injections`, `baseline_comparison` and
            `replicas` of `rank`.
        matches: Of `match`, if there.
    """
    listings: dict[tuple[int, int], list[Listing]] = {}
    dictionaries: dict[tuple[int, int], str] = {}
    for name in SHORTLISTS:
        for behaviour, entries in shortlist.entries_of(name).items():
            for place, entry in enumerate(entries, 1):
                key = entry.layer, entry.latent
                dictionaries[key] = entry.dictionary
                listings.setdefault(key, []).append(_listing(name, behaviour, place, entry))
    scores = tables["scores"]
    parts = {
        "scores": _by_latent(scores[scores.split == "report"]),
        "latents": _by_latent(tables["latents"]),
        "attacks": _by_latent(tables["attacks"]),
        "injections": _by_latent(tables["injections"]),
        "baseline_comparison": _by_latent(tables["baseline_comparison"]),
        "matches": _by_latent(matches) if matches is not None else {},
        "replicas": _by_latent(tables["replicas"]),
    }
    none = pd.DataFrame()
    return [
        _record(key, dictionaries[key], own, {n: part.get(key, none) for n, part in parts.items()})
        for key, own in sorted(listings.items())
    ]


def listing_rows(found: list[LatentRecord]) -> list[dict[str, Any]]:
    """A row a listing, for the table of latents: the best of each list first."""
    rows = [
        {"name": one.name, "layer": one.layer, "latent": one.latent} | asdict(listing)
        for one in found
        for listing in one.listings
    ]
    return sorted(
        rows, key=lambda r: (r["shortlist"] != "span_detectors", r["behaviour"], r["place"])
    )


def top_rows(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The best of each list first, then the second best of each, and so on.

    Args:
        rows: As `listing_rows` makes them.
        most: Rows kept.
    """
    return sorted(rows, key=lambda row: row["place"])[:most]


def add_reviews(rows: list[dict[str, Any]], reviews: Sequence[Review]) -> None:
    """Add each row's labels by reviewer, and as that names people, their counts."""
    for row in rows:
        key = row["layer"], row["latent"], row["behaviour"]
        given = [(one.reviewer, one.labels[key]) for one in reviews if key in one.labels]
        row["reviewers"] = "; ".join(f"{name}: {label}" for name, label in given)
        counts = Counter(label for _, label in given)
        row["reviews"] = ", ".join(f"{counts[x]} {x}" for x in REVIEW_LABELS if counts[x])


def listing_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Listings as a table, without reviewers' names: a column of labels a reader."""
    return pd.DataFrame(
        [
            {k: v for k, v in row.items() if k not in ("labels", "reviewers")}
            | {f"label_{reader}": row["labels"].get(reader, "") for reader in MODELS}
            for row in rows
        ]
    )


def cell_content(
    row: Mapping[str, Any], record: Mapping[str, Any], has_texts: bool
) -> dict[str, Any]:
    """Evidence of one row, for a small page in a table elsewhere.

    Args:
        row: Of the table of latents.
        record: Of the latent.
        has_texts: Whether it may hold texts and tokens.
    """
    highest = max(record["histogram"]["edges"]) if "histogram" in record else 1.0
    return {
        "row": row,
        "attacks": [
            a
            for a in record["attacks"]
            if (a["shortlist"], a["behaviour"]) == (row["shortlist"], row["behaviour"])
        ],
        "sets": [s for s in record.get("sets", ()) if s["behaviour"] == row["behaviour"]],
        "examples": (record.get("examples", ()) if has_texts else ())[:_NUM_CELL_EXAMPLES],
        "output": record.get("output") if has_texts else None,
        "highest": highest or 1.0,
    }


def _listing(shortlist: str, behaviour: str, place: int, entry: ShortlistEntry) -> Listing:
    auroc, low, high = entry.interval
    return Listing(
        shortlist=shortlist,
        behaviour=shown(behaviour),
        place=place,
        reader=entry.reader,
        writer=entry.writer,
        status=entry.status,
        auroc=auroc,
        low=low,
        high=high,
        n=entry.n_pos,
        firing_rate=entry.firing_rate,
        labels=dict(entry.labels),
    )


def _by_latent(table: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    if table.empty:
        return {}
    return dict(iter(table.groupby(["layer", "latent"], sort=False)))


def _record(
    key: tuple[int, int], dictionary: str, own: list[Listing], parts: dict[str, pd.DataFrame]
) -> LatentRecord:
    behaviours = {listing.behaviour for listing in own}
    inserted = _all(Injection, parts["injections"])
    attacks = _all(Attack, parts["attacks"])
    return LatentRecord(
        layer=key[0],
        latent=key[1],
        dictionary=dictionary,
        listings=tuple(own),
        rates=_rows(parts["latents"], _RATES),
        scores=tuple(
            row for row in _rows(parts["scores"], _SCORES) if row["behaviour"] in behaviours
        ),
        attacks=tuple(one for one in attacks if one.kind != ALL),
        injections=tuple(replace(one, words=shown(one.words)) for one in inserted),
        baselines=tuple(_all(BaselineComparison, parts["baseline_comparison"])),
        matched=tuple(
            row | {"other_behaviours": shown(row["other_behaviours"])}
            for row in _rows(parts["matches"], _MATCHED)
        ),
        replicas=tuple(_all(Replica, parts["replicas"])),
    )


def _all(kind: type[_Record], table: pd.DataFrame) -> list[_Record]:
    """A table's rows as records, without its other columns."""
    return [kind(**row) for row in _rows(table, [one.name for one in fields(kind)])]


def _rows(table: pd.DataFrame, columns: list[str]) -> tuple[dict[str, Any], ...]:
    return () if table.empty else tuple(table[columns].to_dict("records"))
