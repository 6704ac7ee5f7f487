"""Which latents are edited: shortlisted ones, the best by a reader's scores, or matched ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sae_reasoning.behaviours.shortlist import onset_predictors_column
from sae_reasoning.behaviours.windows import POSITIONAL
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.config.ablate import AblateConfig
from sae_reasoning.records import (
    ONSET_PREDICTORS,
    RL,
    SELECT,
    SPAN_DETECTORS,
    Shortlist,
    ShortlistEntry,
)
from sae_reasoning.steering.conditions import LatentId
from sae_reasoning.traces.problems import more_traces

SEPARATORS = "separators"


def list_of(own: AblateConfig) -> str:
    """The list of the shortlist that is edited; separators reorder onset predictors."""
    return ONSET_PREDICTORS if own.shortlist == SEPARATORS else own.shortlist


def choose(
    cfg: Config, shortlist: Shortlist, real: Collection[tuple[int, int, str]] | None = None
) -> dict[str, list[LatentId]]:
    """The shortlisted latents of each behaviour to edit, on the config's layers, best first.

    Args:
        cfg: The experiment.
        shortlist: What `rank` found.
        real: Layer, latent and behaviour that reviewers call real, where only those are taken.

    Raises:
        ConfigError: A behaviour has none.
    """
    name = list_of(cfg.ablate)

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
    other = ONSET_PREDICTORS if list_of(cfg.ablate) == SPAN_DETECTORS else SPAN_DETECTORS
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
    if cfg.ablate.shortlist == ONSET_PREDICTORS and cfg.rank.onset_predictors_by == "attribution":
        remedies.append("set rank.onset_predictors_by=onset_auroc and run `make rank` again")
    return f"{named} is empty for every behaviour; {', or '.join(remedies)}"


def chosen_by_score(
    cfg: Config, scores: pd.DataFrame, chosen: Mapping[str, Sequence[LatentId]], reader: str
) -> dict[str, list[LatentId]]:
    """As many latents of the same behaviours, by a reader's scores on RL select texts.

    Args:
        cfg: The experiment.
        scores: As `rank` wrote them.
        chosen: Latents of each behaviour.
        reader: The model.
    """
    by_attribution = cfg.rank.onset_predictors_by == "attribution"
    column, floor = {
        SPAN_DETECTORS: ("span_auroc", 0.5),
        SEPARATORS: ("onset_auroc", 0.5),
        ONSET_PREDICTORS: (
            onset_predictors_column(cfg.rank.onset_predictors_by),
            0.0 if by_attribution else 0.5,
        ),
    }[cfg.ablate.shortlist]
    scores = scores[
        (scores.split == SELECT)
        & (scores.writer == RL)
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
    """Latents of this run's dictionaries that match another run's.

    Attributes:
        ranked: Of its shortlisted latents, by behaviour, the best of its list first.
        pool: Of all its latents.
        table: A row for each shortlisted latent and behaviour, the best first: its matched latent,
            and how alike they are.
    """

    ranked: dict[str, list[LatentId]]
    pool: list[LatentId]
    table: pd.DataFrame


def matched_latents(
    table: pd.DataFrame,
    lists: Mapping[str, Sequence[ShortlistEntry]],
    behaviours: Sequence[str],
    layers: Sequence[int],
) -> Matches:
    """For each latent of another run the most alike here, whatever the layer.

    Args:
        table: As `match` wrote it.
        lists: The other run's shortlist, by behaviour.
        behaviours: Whose latents are wanted.
        layers: Of this run.
    """
    table = table[table.other_layer.isin(layers) & (table.by != "cosine")]
    best = table.loc[table.groupby(["layer", "latent"]).value.idxmax()]
    keys = [(b, e.layer, e.latent) for b in behaviours for e in lists.get(b, ())]
    listed = pd.DataFrame(keys, columns=["behaviour", "layer", "latent"]).drop_duplicates()
    found = listed.merge(best.drop(columns=["behaviours", "other_behaviours"]))
    return Matches(
        {behaviour: _here(found[found.behaviour == behaviour]) for behaviour in behaviours},
        sorted(_here(best)),
        found,
    )


def _here(table: pd.DataFrame) -> list[LatentId]:
    """Each once, in the order of the table."""
    keys = zip(table.other_layer.tolist(), table.other_latent.tolist(), strict=True)
    return list(dict.fromkeys(LatentId(*key) for key in keys))


def too_short(cfg: Config, chosen: Mapping[str, Sequence[LatentId]]) -> str:
    """Which options ask for more latents of a behaviour than there are, in one line, or "".

    Args:
        cfg: The experiment.
        chosen: Latents of each behaviour to edit.
    """
    own = cfg.ablate
    asked = {"num_latents": own.num_latents, "set_sizes": max(own.set_sizes, default=0)}
    if own.both or not cfg.pair.is_single:
        asked["clamp_latents"] = own.clamp_latents
    fewest = min(map(len, chosen.values()))
    options = [f"ablate.{name}={getattr(own, name)}" for name, n in asked.items() if n > fewest]
    if not options:
        return ""
    short = {
        behaviour: len(found)
        for behaviour, found in chosen.items()
        if len(found) < max(asked.values())
    }
    name = list_of(own)
    limit = getattr(cfg.rank, name)
    if own.matches_of:
        remedy = f"raise rank.{name} of {own.matches_of} to have more"
    elif own.reviews:
        remedy = "review more of them to have more"
    elif max(short.values()) >= limit:
        remedy = f"raise rank.{name}={limit} to have more"
    else:
        remedy = f"rank.{name}={limit} lists all that there are, so lower the set"
    counts = ", ".join(f"{count} for {behaviour}" for behaviour, count in short.items())
    return f"{', '.join(options)}: more than there are ({counts}), so sets end there; {remedy}"
