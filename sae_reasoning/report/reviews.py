"""Reviewers' labels of the latents, from the files that the page of latents exports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.config import ConfigError
from sae_reasoning.stats import bootstrap_of_sums, kappa
from sae_reasoning.texts import shown

SCHEMA_VERSION = 1
CALLS = ("real", "lexical", "unclear")
REAL = CALLS[0]
_MAX_NAME = 60

Reviewed = tuple[int, int, str]
"""Layer, latent, behaviour."""


@dataclass(frozen=True)
class Review:
    """One reviewer's labels.

    Attributes:
        reviewer: Who.
        rank: Fingerprint of the shortlists that were reviewed.
        calls: By latent and behaviour.
        notes: Likewise, where there are any.
    """

    reviewer: str
    rank: str
    calls: dict[Reviewed, str]
    notes: dict[Reviewed, str]


def read_review(content: Any) -> Review:
    """One reviewer's file.

    Raises:
        ValueError: It isn't one; the message says what is wrong.
    """
    if not isinstance(content, Mapping) or content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"it is no export of schema {SCHEMA_VERSION}")
    rows = content.get("reviews")
    if not isinstance(rows, list):
        raise ValueError("it has no list of reviews")
    calls, notes = {}, {}
    for number, row in enumerate(rows):
        try:
            key = int(row["layer"]), int(row["latent"]), str(row["behaviour"])
            call, note = str(row["call"]), str(row.get("note", ""))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"review {number} lacks layer, latent, behaviour or call") from error
        if call and call not in CALLS:
            raise ValueError(f"review {number} says {shown(call, _MAX_NAME)!r}, not {CALLS}")
        if call:
            calls[key] = call
        if note:
            notes[key] = note
    name = shown(str(content.get("reviewer") or "unnamed"), _MAX_NAME)
    return Review(name, str(content.get("rank", "")), calls, notes)


def read_reviews(
    option: str, names: Sequence[str], rank: str, read: Callable[[Path], Any]
) -> list[Review]:
    """Reviewers' labels of the latents of one run's shortlists.

    Args:
        option: That names the files, for messages.
        names: Of the files.
        rank: Fingerprint of the shortlists; "" where there are none.
        read: Content of a JSON file.

    Raises:
        ConfigError: A file isn't there, isn't an export, or reviews other shortlists.
    """
    found = []
    for name in names:
        try:
            one = read_review(read(Path(name)))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{option}={name} can't be read ({error}); name files that the page of latents "
                "exports"
            ) from error
        if not rank or one.rank != rank:
            raise ConfigError(
                f"{option}={name} reviews other shortlists than the current ones; leave it out, or "
                "review latents.html again"
            )
        found.append(one)
    return found


def called_real(reviews: Sequence[Review]) -> set[Reviewed]:
    """Latents that some reviewer labels real and nobody labels otherwise."""
    given: dict[Reviewed, set[str]] = {}
    for one in reviews:
        for key, call in one.calls.items():
            given.setdefault(key, set()).add(call)
    return {key for key, calls in given.items() if calls == {REAL}}


def review_rows(reviews: Sequence[Review]) -> pd.DataFrame:
    """A row a reviewed latent, behaviour and reviewer."""
    rows = [
        {
            "layer": key[0],
            "latent": key[1],
            "behaviour": shown(key[2]),
            "reviewer": one.reviewer,
            "call": one.calls.get(key, ""),
            "note": shown(one.notes.get(key, "")),
        }
        for one in reviews
        for key in sorted({*one.calls, *one.notes})
    ]
    columns = ["layer", "latent", "behaviour", "reviewer", "call", "note"]
    return pd.DataFrame(rows, columns=columns)


def agreements(reviews: Sequence[Review], num_resamples: int, seed: int) -> pd.DataFrame:
    """Cohen's κ of each two reviewers on what both labelled, with intervals over latents.

    Latents are resampled: the rows of one that is listed for several behaviours stay together.
    """
    rows = []
    for one, other in combinations(reviews, 2):
        both = sorted(one.calls.keys() & other.calls.keys())
        tables: dict[tuple[int, int], np.ndarray] = {}
        for key in both:
            table = tables.setdefault(key[:2], np.zeros((len(CALLS), len(CALLS))))
            table[CALLS.index(one.calls[key]), CALLS.index(other.calls[key])] += 1
        row: dict[str, Any] = {"first": one.reviewer, "second": other.reviewer}
        row |= {"kappa": np.nan, "low": np.nan, "high": np.nan, "latents": 0}
        if tables:
            sums = np.stack([table.reshape(-1) for table in tables.values()])
            found = bootstrap_of_sums(sums, kappa, num_resamples, seed)
            row |= {"kappa": found.value, "low": found.low, "high": found.high, "latents": found.n}
        row["calls"] = len(both)
        row["same"] = sum(one.calls[key] == other.calls[key] for key in both)
        rows.append(row)
    return pd.DataFrame(rows)


def tally(reviews: Sequence[Review]) -> pd.DataFrame:
    """Latents by label, reviewer and behaviour."""
    rows = review_rows(reviews)
    rows = rows[rows.call != ""]
    return pd.DataFrame(
        {"behaviour": behaviour, "reviewer": reviewer, "latents": len(own)}
        | {call: int((own.call == call).sum()) for call in CALLS}
        for (behaviour, reviewer), own in rows.groupby(["behaviour", "reviewer"])
    )
