"""What is known of each shortlisted latent, from the tables of `rank` and `match`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from sae_reasoning.behaviours.beaten import Bout
from sae_reasoning.behaviours.outcomes import ALL
from sae_reasoning.texts import shown


@dataclass(frozen=True)
class Listing:
    """A place on a shortlist; figures are of the report split.

    Attributes:
        shortlist: `trackers` or `announcers`.
        behaviour: Move that it's said to track or announce.
        place: On the list, 1 the best.
        reader: In which it was chosen.
        writer: On whose text.
        status: What can be said of the behaviour in that text.
        auroc: Of spans (trackers) or onsets (announcers).
        low: Lower bound.
        high: Upper bound.
        n: Spans of the behaviour.
        firing_rate: Share of tokens, on the select split.
        called: What the attacks call it, by reader.
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
    called: dict[str, str]


@dataclass(frozen=True)
class Score:
    """Span AUROC, and onset AUROC as a point, in one cell of the reader × writer grid."""

    behaviour: str
    reader: str
    writer: str
    status: str
    span_auroc: float
    low: float
    high: float
    onset_auroc: float
    n_pos: int
    n_neg: int
    n_taken: int
    n_untaken: int
    num_problems: int


@dataclass(frozen=True)
class Attack:
    """One attack on a listing, and its outcome."""

    shortlist: str
    behaviour: str
    reader: str
    kind: str
    auroc: float
    low: float
    high: float
    plain: float
    comparable: float
    n_pos: int
    n_neg: int
    num_problems: int
    outcome: str


@dataclass(frozen=True)
class Planted:
    """Words that were put into other text, and what they did to the latent."""

    behaviour: str
    reader: str
    carrier: str
    words: str
    rise: float
    null_95: float
    num_windows: int


@dataclass(frozen=True)
class Counterpart:
    """The most alike latent of another run's dictionary; figures as in the table of `match`."""

    by: str
    other_layer: int
    other_latent: int
    value: float
    low: float
    high: float
    n: int
    null_95: float
    same_word: float
    is_mutual: bool
    other_behaviours: str


@dataclass(frozen=True)
class Replica:
    """The nearest latent of a dictionary that was trained from another seed."""

    behaviour: str
    reader: str
    seed: str
    counterpart: int
    cosine: float
    rank: int
    span_auroc: float
    is_replicated: bool


@dataclass(frozen=True)
class LatentRecord:
    """A shortlisted latent.

    Attributes:
        layer: Decoder block.
        latent: Index.
        dictionary: Name of its SAE.
        listings: Where it's listed.
        rates: Firing rate, mean and largest activation by reader and writer, on the select split.
        scores: Of the moves that it's listed for.
        attacks: On its listings.
        planted: Words put into other text.
        rivals: Baselines that it was held against.
        counterparts: In another run.
        replicas: In dictionaries from other seeds.
    """

    layer: int
    latent: int
    dictionary: str
    listings: tuple[Listing, ...]
    rates: tuple[dict[str, Any], ...]
    scores: tuple[Score, ...]
    attacks: tuple[Attack, ...]
    planted: tuple[Planted, ...]
    rivals: tuple[Bout, ...]
    counterparts: tuple[Counterpart, ...]
    replicas: tuple[Replica, ...] = ()

    @property
    def name(self) -> str:
        """Layer and latent, as in addresses and file names."""
        return f"{self.layer}_{self.latent}"


def records(
    shortlist: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    matches: pd.DataFrame | None,
) -> list[LatentRecord]:
    """All latents of both shortlists, by layer and index.

    Args:
        shortlist: Content of `shortlist.json`.
        tables: `scores`, `latents`, `attacks`, `injections` and `beaten` of `rank`.
        matches: Of `match`, if there.
    """
    listings: dict[tuple[int, int], list[Listing]] = {}
    dictionaries: dict[tuple[int, int], str] = {}
    for name in ("trackers", "announcers"):
        for behaviour, entries in shortlist[name].items():
            for place, entry in enumerate(entries, 1):
                key = entry["layer"], entry["latent"]
                dictionaries[key] = entry["dictionary"]
                listings.setdefault(key, []).append(_listing(name, behaviour, place, entry))
    scores = tables["scores"]
    parts = {
        "scores": _by_latent(scores[scores.split == "report"]),
        "latents": _by_latent(tables["latents"]),
        "attacks": _by_latent(tables["attacks"]),
        "injections": _by_latent(tables["injections"]),
        "beaten": _by_latent(tables["beaten"]),
        "matches": _by_latent(matches) if matches is not None else {},
        "replicas": _by_latent(tables.get("replicas", pd.DataFrame())),
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
    return sorted(rows, key=lambda r: (r["shortlist"] != "trackers", r["behaviour"], r["place"]))


def top_rows(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The best of each list first, then the second best of each, and so on.

    Args:
        rows: As `listing_rows` makes them.
        most: Rows kept.
    """
    return sorted(rows, key=lambda row: row["place"])[:most]


def _listing(shortlist: str, behaviour: str, place: int, entry: Mapping[str, Any]) -> Listing:
    is_tracker = shortlist == "trackers"
    measure = "span_auroc" if is_tracker else "onset_auroc"

    def figure(name: str) -> float:
        value = entry.get(name)
        return float("nan") if value is None else float(value)

    return Listing(
        shortlist=shortlist,
        behaviour=shown(behaviour),
        place=place,
        reader=entry["reader"],
        writer=entry["writer"],
        status=entry["status"],
        auroc=figure(measure),
        low=figure(f"{measure}_low"),
        high=figure(f"{measure}_high"),
        n=int(entry["n_pos"]),
        firing_rate=figure("firing_rate"),
        called=dict(entry.get("called") or {}),
    )


def _by_latent(table: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    if table.empty:
        return {}
    return dict(iter(table.groupby(["layer", "latent"], sort=False)))


def _record(
    key: tuple[int, int], dictionary: str, own: list[Listing], parts: dict[str, pd.DataFrame]
) -> LatentRecord:
    moves = {listing.behaviour for listing in own}
    kept = ["reader", "writer", "firing_rate", "mean_active", "max_active"]
    return LatentRecord(
        layer=key[0],
        latent=key[1],
        dictionary=dictionary,
        listings=tuple(own),
        rates=tuple(
            {name: getattr(row, name) for name in kept} for row in parts["latents"].itertuples()
        ),
        scores=tuple(
            Score(
                row.behaviour,
                row.reader,
                row.writer,
                row.status,
                row.span_auroc,
                row.span_auroc_low,
                row.span_auroc_high,
                row.onset_auroc,
                int(row.n_pos),
                int(row.n_neg),
                int(row.n_taken),
                int(row.n_untaken),
                int(row.num_problems),
            )
            for row in parts["scores"].itertuples()
            if row.behaviour in moves
        ),
        attacks=tuple(
            Attack(
                row.shortlist,
                row.behaviour,
                row.reader,
                row.kind,
                row.auroc,
                row.low,
                row.high,
                row.plain,
                row.comparable,
                int(row.n_pos),
                int(row.n_neg),
                int(row.num_problems),
                row.outcome,
            )
            for row in parts["attacks"].itertuples()
            if row.kind != ALL
        ),
        planted=tuple(
            Planted(
                row.behaviour,
                row.reader,
                row.carrier,
                shown(str(row.words)),
                row.rise,
                row.null_95,
                int(row.num_windows),
            )
            for row in parts["injections"].itertuples()
        ),
        rivals=tuple(Bout(**row) for row in parts["beaten"].to_dict("records")),
        counterparts=tuple(
            Counterpart(
                row.by,
                int(row.other_layer),
                int(row.other_latent),
                row.value,
                row.low,
                row.high,
                int(row.n),
                row.null_95,
                row.same_word,
                bool(row.is_mutual),
                shown(str(row.other_behaviours)),
            )
            for row in parts["matches"].itertuples()
        ),
        replicas=tuple(
            Replica(
                row.behaviour,
                row.reader,
                str(row.seed),
                int(row.counterpart),
                row.cosine,
                int(row.rank),
                row.span_auroc,
                bool(row.is_replicated),
            )
            for row in parts["replicas"].itertuples()
        ),
    )
