"""The latents that are edited, with their dictionaries, from what earlier stages left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, read_json
from sae_reasoning.edges.crosscoder_checkpoint import Half
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_ranked
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_table
from sae_reasoning.records import RL
from sae_reasoning.report.reviews import read_reviews, reviewed_real
from sae_reasoning.steering.conditions import LatentId
from sae_reasoning.steering.latent_choice import (
    SEPARATORS,
    Matches,
    choose,
    chosen_by_score,
    list_of,
    listed_latents,
    matched_latents,
)


@dataclass(frozen=True)
class Choice:
    """What is edited, and what is known of all latents.

    Attributes:
        ranked: Latents of each behaviour, the best first; by the reader whose list it is.
        listed: By behaviour, everything that is shortlisted for it.
        table: Of each latent, reader and writer: firing rate, mean and maximum where it's active.
        dictionaries: By model that is edited, and layer.
    """

    ranked: dict[str, dict[str, list[LatentId]]]
    listed: dict[str, set[LatentId]]
    table: pd.DataFrame
    dictionaries: dict[str, Mapping[int, Dictionary | Half]]


def choose_ranked(cfg: Config) -> Choice:
    """What `rank` shortlisted; other readers' lists are as long."""
    folder, own = cfg.folder / "rank", cfg.ablate
    shortlist, scores = read_shortlist(folder), read_table(folder / "scores.parquet")
    dictionaries = load_ranked(cfg.folder, shortlist, cfg.layers, resolve_device(cfg.device))
    made = Manifest.read(folder)
    reviews = read_reviews(
        "ablate.reviews", own.reviews, made.fingerprint if made else "", read_json
    )
    chosen = choose(cfg, shortlist, reviewed_real(reviews) if reviews else None)
    ranked = {reader: chosen_by_score(cfg, scores, chosen, reader) for reader in cfg.pair.readers}
    if own.shortlist != SEPARATORS:
        ranked[RL] = chosen
    return Choice(
        ranked,
        {behaviour: listed_latents(shortlist, behaviour) for behaviour in chosen},
        read_table(folder / "latents.parquet"),
        dict.fromkeys(cfg.pair.readers, dictionaries),
    )


def read_matches(cfg: Config, behaviours: Sequence[str]) -> Matches:
    """Matched latents of the other run's latents."""
    source = Path(cfg.runs) / cfg.ablate.matches_of
    lists = read_shortlist(source / "rank").entries_of(list_of(cfg.ablate))
    table = read_table(source / "match" / "matches.parquet")
    return matched_latents(table, lists, behaviours, cfg.layers)
