"""Which latents are edited: shortlisted ones, the best by a reader's scores, or matches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sae_reasoning.behaviours.shortlist import onset_predictors_column
from sae_reasoning.behaviours.windows import POSITIONAL
from sae_reasoning.config import VERSIONS, Config, ConfigError
from sae_reasoning.edges.artifacts import BrokenArtifact, Manifest, MissingInput, read_json
from sae_reasoning.edges.crosscoder_checkpoint import Half
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_dictionary
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_table
from sae_reasoning.records import Shortlist, ShortlistEntry
from sae_reasoning.report.reviews import Review, called_real, read_reviews
from sae_reasoning.steering.conditions import LatentId
from sae_reasoning.traces.problems import more_traces


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
    shortlist = read_shortlist(cfg.folder / "rank")
    table = read_table(cfg.folder / "rank" / "latents.parquet")
    layer_of = dict(zip(table.dictionary, table.layer.tolist(), strict=True))
    dictionaries = open_dictionaries(cfg, shortlist, layer_of)
    chosen = choose(cfg, shortlist, reviews_of(cfg))
    ranked = {reader: chosen_by_score(cfg, chosen, reader) for reader in cfg.pair.readers}
    if cfg.ablate.shortlist != "separators":
        ranked["rl"] = chosen
    listed = {behaviour: listed_latents(shortlist, behaviour) for behaviour in chosen}
    return Choice(ranked, listed, table, dict.fromkeys(cfg.pair.readers, dictionaries))


def open_dictionaries(
    cfg: Config, shortlist: Shortlist, layer_of: Mapping[str, int]
) -> dict[int, Dictionary]:
    """By layer; each is the one that was ranked.

    Raises:
        BrokenArtifact: It isn't.
    """
    found: dict[int, Dictionary] = {}
    for name, known in shortlist.dictionaries.items():
        dictionary = load_dictionary(cfg.folder / known.folder, resolve_device(cfg.device))
        if dictionary.fingerprint != known.fingerprint:
            raise BrokenArtifact(
                f"{cfg.folder / 'rank' / 'shortlist.json'} was made from another dictionary than "
                f"{known.folder} ({known.fingerprint}, not {dictionary.fingerprint}); "
                "run `make rank` again"
            )
        found[layer_of[name]] = dictionary
    return found


def list_name(cfg: Config) -> str:
    """The list of shortlist.json that is edited; separators reorder onset predictors."""
    return "onset_predictors" if cfg.ablate.shortlist == "separators" else cfg.ablate.shortlist


def choose(
    cfg: Config, shortlist: Shortlist, reviews: Sequence[Review] = ()
) -> dict[str, list[LatentId]]:
    """The shortlisted latents of each behaviour to edit, on the config's layers, best first.

    Args:
        cfg: The experiment.
        shortlist: What `rank` found.
        reviews: Where there are any, only latents that they call real are taken.

    Raises:
        ConfigError: A behaviour has none.
    """
    name = list_name(cfg)
    real = called_real(reviews) if reviews else None

    def is_wanted(behaviour: str, entry: ShortlistEntry) -> bool:
        key = entry.layer, entry.latent, behaviour
        return entry.layer in cfg.layers and (real is None or key in real)

    lists = {
        behaviour: [entry for entry in entries if is_wanted(behaviour, entry)]
        for behaviour, entries in shortlist.entries_of(name).items()
        if behaviour in cfg.behaviours
    }
    ranked = {b: entries for b, entries in lists.items() if entries}
    asked = [behaviour for behaviour in cfg.ablate.behaviours if behaviour in cfg.behaviours]
    for behaviour in asked:
        if behaviour not in ranked:
            said = " that reviewers call real" if real is not None else ""
            raise ConfigError(
                f"ablate.behaviours: {behaviour} has no {name} on the shortlist{said}; "
                f"choose from {', '.join(ranked) or 'none'}, or run `make rank` with more traces"
            )
    testable = [b for b, entries in ranked.items() if entries[0].status != POSITIONAL]
    chosen = {
        behaviour: list(dict.fromkeys(LatentId(e.layer, e.latent) for e in ranked[behaviour]))
        for behaviour in asked or testable
    }
    if not chosen and real is not None:
        raise ConfigError(
            f"ablate.reviews={cfg.ablate.reviews} call none of the {name} real; review more of "
            "them on latents.html, or leave it out"
        )
    if not chosen:
        raise ConfigError(_nothing_to_edit(cfg, shortlist, list(ranked)))
    return chosen


def _nothing_to_edit(cfg: Config, shortlist: Shortlist, positional: Sequence[str]) -> str:
    """Why no latent of a list is edited, and what to do.

    Args:
        cfg: The experiment.
        shortlist: What `rank` found.
        positional: Behaviours that have latents, but stand at one place in every trace.
    """
    other = "onset_predictors" if list_name(cfg) == "span_detectors" else "span_detectors"
    named = f"ablate.shortlist={cfg.ablate.shortlist}"
    remedies = [f"{more_traces(cfg)} and run `make rank` again"]
    if any(
        entry.layer in cfg.layers and entry.status != POSITIONAL
        for behaviour in cfg.behaviours
        for entry in shortlist.entries_of(other).get(behaviour, ())[:1]
    ):
        remedies.append(f"set ablate.shortlist={other}")
    if positional:
        remedies.append(f"set ablate.behaviours=[{','.join(positional)}] to edit them nevertheless")
        return (
            f"{named} has latents only of behaviours that stand at one place in every trace "
            f"({', '.join(positional)}), which aren't testable; {', or '.join(remedies)}"
        )
    if cfg.ablate.shortlist == "onset_predictors" and cfg.rank.onset_predictors_by == "attribution":
        remedies.append("set rank.onset_predictors_by=onset_auroc and run `make rank` again")
    return f"{named} is empty for every behaviour; {', or '.join(remedies)}"


def reviews_of(cfg: Config) -> list[Review]:
    """What reviewers called the latents of the shortlists there are.

    Raises:
        ConfigError: A file isn't there, isn't an export, or reviews other shortlists.
    """
    made = Manifest.read(cfg.folder / "rank")
    return read_reviews(
        "ablate.reviews", cfg.ablate.reviews, made.fingerprint if made else "", read_json
    )


def chosen_by_score(
    cfg: Config, chosen: Mapping[str, Sequence[LatentId]], reader: str
) -> dict[str, list[LatentId]]:
    """As many latents of the same behaviours, by a reader's scores on RL select texts."""
    column, floor = {
        "span_detectors": ("span_auroc", 0.5),
        "separators": ("onset_auroc", 0.5),
        "onset_predictors": (
            onset_predictors_column(cfg.rank.onset_predictors_by),
            0.0 if cfg.rank.onset_predictors_by == "attribution" else 0.5,
        ),
    }[cfg.ablate.shortlist]
    scores = read_table(cfg.folder / "rank" / "scores.parquet")
    scores = scores[
        (scores.split == "select")
        & (scores.writer == "rl")
        & (scores.reader == reader)
        & scores.layer.isin(cfg.layers)
        & (scores[column] > floor)
    ].sort_values(column, ascending=False, kind="stable")
    return {
        behaviour: [
            LatentId(row.layer, row.latent)
            for row in scores[scores.behaviour == behaviour].head(len(listed)).itertuples()
        ]
        for behaviour, listed in chosen.items()
    }


def listed_latents(shortlist: Shortlist, behaviour: str) -> set[LatentId]:
    """Everything that is shortlisted for a behaviour, as span detector or onset predictor."""
    return {
        LatentId(entry.layer, entry.latent)
        for lists in (shortlist.span_detectors, shortlist.onset_predictors)
        for entry in lists.get(behaviour, ())
    }


@dataclass(frozen=True)
class Matches:
    """Counterparts in this run's dictionaries of another run's latents.

    Attributes:
        ranked: Of its shortlisted latents, by behaviour, the best of its list first.
        pool: Of all its latents.
        table: A row for each shortlisted latent and behaviour, the best first: who its counterpart
            is, and how alike.
    """

    ranked: dict[str, list[LatentId]]
    pool: list[LatentId]
    table: pd.DataFrame


def require_matches(cfg: Config) -> Manifest:
    """The other run's matches, made with this run as the other.

    Raises:
        MissingInput: There are none.
    """
    source = Path(cfg.runs) / cfg.ablate.matches_of
    here = f"{cfg.experiment}/{cfg.pair.name}"
    made = Manifest.read(source / "match")
    if made is None or made.config["match"]["other"] != here:
        raise MissingInput(
            f"ablate.matches_of={cfg.ablate.matches_of}: {source / 'match'} holds no matches in "
            f"this run; run `make match ARGS=match.other={here}` with that experiment and pair "
            "first"
        )
    if made.config.get("version") != VERSIONS["match"]:
        raise MissingInput(
            f"ablate.matches_of={cfg.ablate.matches_of}: {source / 'match'} was made by an older "
            f"version; run `make match ARGS=match.other={here}` with that experiment and pair again"
        )
    return made


def read_matches(cfg: Config, behaviours: Sequence[str]) -> Matches:
    """For each latent of the other run the most alike here, whatever the layer."""
    source = Path(cfg.runs) / cfg.ablate.matches_of
    table = read_table(source / "match" / "matches.parquet")
    table = table[table.other_layer.isin(cfg.layers) & (table.by != "cosine")]
    best = table.loc[table.groupby(["layer", "latent"]).value.idxmax()]
    lists = read_shortlist(source / "rank").entries_of(list_name(cfg))
    keys = [(b, e.layer, e.latent) for b in behaviours for e in lists.get(b, ())]
    listed = pd.DataFrame(keys, columns=["behaviour", "layer", "latent"]).drop_duplicates()
    found = listed.merge(best.drop(columns=["behaviours", "other_behaviours"]))
    return Matches(
        {behaviour: _counterparts(found[found.behaviour == behaviour]) for behaviour in behaviours},
        sorted(_counterparts(best)),
        found,
    )


def _counterparts(table: pd.DataFrame) -> list[LatentId]:
    """Each once, in the order of the table."""
    keys = zip(table.other_layer.tolist(), table.other_latent.tolist(), strict=True)
    return list(dict.fromkeys(LatentId(*key) for key in keys))
