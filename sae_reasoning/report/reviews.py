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

SCHEMA_VERSION = 2
REVIEW_LABELS = ("real", "lexical", "unclear")
REAL = REVIEW_LABELS[0]
_MAX_NAME = 60

Reviewed = tuple[int, int, str]
"""Layer, latent, behaviour."""


@dataclass(frozen=True)
class Review:
    """One reviewer's labels.

    Attributes:
        reviewer: Who.
        rank: Fingerprint of the shortlists that were reviewed.
        labels: By latent and behaviour.
        notes: Likewise, where there are any.
    """

    reviewer: str
    rank: str
    labels: dict[Reviewed, str]
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
    labels, notes = {}, {}
    for number, row in enumerate(rows):
        try:
            key = int(row["layer"]), int(row["latent"]), str(row["behaviour"])
            label, note = str(row["label"]), str(row.get("note", ""))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"review {number} lacks layer, latent, behaviour or label") from error
        if label and label not in REVIEW_LABELS:
            raise ValueError(
                f"review {number} says {shown(label, _MAX_NAME)!r}, not {REVIEW_LABELS}"
            )
        if label:
            labels[key] = label
        if note:
            notes[key] = note
    name = shown(str(content.get("reviewer") or "unnamed"), _MAX_NAME)
    return Review(name, str(content.get("rank", "")), labels, notes)


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


def reviewed_real(reviews: Sequence[Review]) -> set[Reviewed]:
    """Latents that some reviewer labels real and nobody labels otherwise."""
    given: dict[Reviewed, set[str]] = {}
    for one in reviews:
        for key, label in one.labels.items():
            given.setdefault(key, set()).add(label)
    return {key for key, labels in given.items() if labels == {REAL}}


def review_rows(reviews: Sequence[Review]) -> pd.DataFrame:
    """A row a reviewed latent, behaviour and reviewer."""
    rows = [
        {
            "layer": key[0],
            "latent": key[1],
            "behaviour": shown(key[2]),
            "reviewer": one.reviewer,
            "label": one.labels.get(key, ""),
            "note": shown(one.notes.get(key, "")),
        }
        for one in reviews
        for key in sorted({*one.labels, *one.notes})
    ]
    columns = ["layer", "latent", "behaviour", "reviewer", "label", "note"]
    return pd.DataFrame(rows, columns=columns)


def agreements(reviews: Sequence[Review], num_resamples: int, seed: int) -> pd.DataFrame:
    """Cohen's κ of each two reviewers on what both labelled, with intervals over latents.

    Latents are resampled: the rows of one that is listed for several behaviours stay together.
    """
    rows = []
    for one, other in combinations(reviews, 2):
        both = sorted(one.labels.keys() & other.labels.keys())
        tables: dict[tuple[int, int], np.ndarray] = {}
        for key in both:
            table = tables.setdefault(key[:2], np.zeros((len(REVIEW_LABELS), len(REVIEW_LABELS))))
            table[REVIEW_LABELS.index(one.labels[key]), REVIEW_LABELS.index(other.labels[key])] += 1
        row: dict[str, Any] = {"first": one.reviewer, "second": other.reviewer}
        row |= {"kappa": np.nan, "low": np.nan, "high": np.nan, "latents": 0}
        if tables:
            sums = np.stack([table.reshape(-1) for table in tables.values()])
            found = bootstrap_of_sums(sums, kappa, num_resamples, seed)
            row |= {"kappa": found.value, "low": found.low, "high": found.high, "latents": found.n}
        row["labels"] = len(both)
        row["same"] = sum(one.labels[key] == other.labels[key] for key in both)
        rows.append(row)
    return pd.DataFrame(rows)


def tally(reviews: Sequence[Review]) -> pd.DataFrame:
    """Latents by label, reviewer and behaviour."""
    rows = review_rows(reviews)
    rows = rows[rows.label != ""]
    return pd.DataFrame(
        {"behaviour": behaviour, "reviewer": reviewer, "latents": len(own)}
        | {label: int((own.label == label).sum()) for label in REVIEW_LABELS}
        for (behaviour, reviewer), own in rows.groupby(["behaviour", "reviewer"])
    )
