"""What is settled before a model is loaded: problems, latents, conditions."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import read_json, require_stage
from sae_reasoning.edges.lm.load import describe
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.jobs.ablate.latents import (
    Matches,
    choose,
    chosen_by_score,
    listed_latents,
    open_dictionaries,
    read_matches,
    require_matches,
)
from sae_reasoning.jobs.ablate.places import measure_places, sizes_overall
from sae_reasoning.organisms.grammar import THINK
from sae_reasoning.records import Trace
from sae_reasoning.steering.conditions import (
    Condition,
    LatentId,
    Material,
    plan_conditions,
)
from sae_reasoning.steering.edit_plans import edit_plans
from sae_reasoning.steering.positions import OPPORTUNITIES
from sae_reasoning.traces.annotate import Annotator, Hear, annotator_for, listener_for

MODELS = ("base", "rl")


def inputs_of(cfg: Config) -> dict[str, str]:
    """Fingerprints of what is read; the shortlist must be of these traces, dictionaries, models.

    Otherwise the problems that selected its latents might be among those reported on.
    """
    models = {model: describe(getattr(cfg.pair, model)).fingerprint for model in MODELS}
    made = {
        name: require_stage(cfg.folder, name, cfg.settings(name), models).fingerprint
        for name in ("traces", "cache", "train", "rank")
    }
    if cfg.ablate.matches_of:
        made["matches"] = require_matches(cfg).fingerprint
    return models | made


@dataclass(frozen=True)
class Problem:
    """A problem to generate on."""

    problem_id: str
    prompt: str

    @property
    def key(self) -> int:
        """Of its sampling noise: the same whatever other problems are chosen."""
        digest = hashlib.sha256(self.problem_id.encode()).digest()
        return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class Experiment:
    """Everything that is settled before a model is loaded.

    Attributes:
        split: Of the problems.
        problems: To generate on.
        chosen: Latents of each move, the best first, as far as this run found them.
        conditions: Of each model.
        samples: Rollouts a problem and condition, by model.
        begun: Beginning of each response that is given to a model.
        dictionaries: By layer.
        annotate: Marks the moves of a response.
        listener: By prompt, who hears opportunities while a response is written.
        edits: What is done, in words.
    """

    split: str
    problems: list[Problem]
    chosen: dict[str, list[LatentId]]
    conditions: dict[str, list[Condition]]
    samples: dict[str, int]
    begun: dict[str, str]
    dictionaries: dict[int, Dictionary]
    annotate: Annotator
    listener: Callable[[str], Hear]
    edits: str

    def counts(self) -> dict[str, int]:
        """For the manifest."""
        return {
            "problems": len(self.problems),
            "behaviours": len(self.chosen),
            "conditions": sum(map(len, self.conditions.values())),
        }

    def lines(self) -> dict[str, str]:
        """For the console."""
        rollouts = {
            model: len(conditions) * len(self.problems) * self.samples[model]
            for model, conditions in self.conditions.items()
        }
        return {
            "problems": f"{len(self.problems)} of the {self.split} split",
            **{
                behaviour: f"{len(latents)} latents: " + " ".join(map(str, latents))
                for behaviour, latents in self.chosen.items()
            },
            "edits": self.edits,
            "conditions": ", ".join(f"{m}: {len(c)}" for m, c in self.conditions.items()),
            "rollouts": ", ".join(f"{model}: {n:,}" for model, n in rollouts.items()),
        }


def prepare(cfg: Config) -> Experiment:
    """Read and check what earlier stages found; no model is loaded.

    Raises:
        ConfigError: An option doesn't fit them.
        BrokenArtifact: The shortlist was made from other dictionaries than there are.
    """
    annotate, listener = annotator_for(cfg.traces.source), listener_for(cfg.traces.source)
    if annotate is None or listener is None:
        raise ConfigError(
            f"traces.source={cfg.traces.source} has no annotator for new text, so effects of edits "
            "can't be counted; use traces.source=search"
        )
    own = cfg.ablate
    shortlist = read_json(cfg.folder / "rank" / "shortlist.json")
    latents = read_table(cfg.folder / "rank" / "latents.parquet")
    layer_of = dict(zip(latents.dictionary, latents.layer.tolist(), strict=True))
    dictionaries = open_dictionaries(cfg, shortlist, layer_of)
    chosen = choose(cfg, shortlist)
    ranked = {model: chosen_by_score(cfg, chosen, model) for model in MODELS}
    if own.shortlist != "separators":
        ranked["rl"] = chosen
    matches = read_matches(cfg, list(chosen)) if own.matches_of else None
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    listed = {behaviour: listed_latents(shortlist, behaviour) for behaviour in chosen}
    conditions = {}
    for model in MODELS:
        material = _material(cfg, model, ranked, matches, traces, latents, dictionaries, listed)
        try:
            conditions[model] = plan_conditions(edit_plans(own, model), material, seed=own.seed)
        except ValueError as error:
            raise ConfigError(
                f"ablate.num_latents={own.num_latents}, ablate.clamp_latents={own.clamp_latents}, "
                f"ablate.set_sizes={own.set_sizes}: {error}; lower them or rank.announcers, or "
                "raise train.sae.d_sae"
            ) from error
    return Experiment(
        split=own.split,
        problems=_problems(cfg, traces),
        chosen={behaviour: found[: _most(cfg)] for behaviour, found in ranked["rl"].items()},
        conditions=conditions,
        samples={"base": own.base_samples, "rl": own.samples},
        begun={"base": THINK if own.think else "", "rl": ""},
        dictionaries=dictionaries,
        annotate=annotate,
        listener=listener,
        edits=f"at {'opportunities' if own.where == OPPORTUNITIES else 'all tokens'}; in the RL "
        f"model the first {own.num_latents} of a move to 0, in the base the first "
        f"{own.clamp_latents} to {own.clamp_multiple:g} of their maximum",
    )


def _most(cfg: Config) -> int:
    return max(cfg.ablate.num_latents, cfg.ablate.clamp_latents, *cfg.ablate.set_sizes, 1)


def _problems(cfg: Config, traces: list[Trace]) -> list[Problem]:
    found = dict.fromkeys(
        Problem(trace.problem_id, trace.prompt)
        for trace in traces
        if trace.split == cfg.ablate.split
    )
    if not found:
        raise ConfigError(
            f"traces.report_share={cfg.traces.report_share} leaves no problem to the "
            f"{cfg.ablate.split} split; {'raise' if cfg.ablate.split == 'report' else 'lower'} it"
        )
    return list(found)[: cfg.ablate.num_problems]


def _material(
    cfg: Config,
    model: str,
    ranked: Mapping[str, Mapping[str, list[LatentId]]],
    matches: Matches | None,
    traces: list[Trace],
    latents: pd.DataFrame,
    dictionaries: Mapping[int, Dictionary],
    listed: Mapping[str, set[LatentId]],
) -> Material:
    """What the edits of one model are made of."""
    overall = sizes_overall(cfg, latents, model, dictionaries)
    moves = list(ranked["rl"])
    places = measure_places(cfg, model, moves, traces, dictionaries, overall)
    at = places.sizes if cfg.ablate.where == OPPORTUNITIES else dict.fromkeys(moves, overall)
    found = dict(ranked)
    pool = {}
    if matches is not None:
        found[cfg.ablate.matches_of], pool[cfg.ablate.matches_of] = matches.ranked, matches.pool
    return Material(
        ranked=found,
        sizes=at,
        barred=listed,
        decoders={layer: d.W_dec for layer, d in dictionaries.items()},
        centres={layer: d.b_dec for layer, d in dictionaries.items()},
        vectors=places.vectors,
        untaken=places.untaken,
        shares=places.shares,
        pool=pool,
    )
