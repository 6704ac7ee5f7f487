"""What is settled before a model is loaded: problems, latents, conditions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.config import Config, ConfigError, ModelConfig
from sae_reasoning.edges.artifacts import require_stage
from sae_reasoning.edges.crosscoder_checkpoint import Half
from sae_reasoning.edges.inputs import files_in, models_in, outside_inputs
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.prompt import prompt_opens_thinking
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.jobs.ablate.joint import choose_joint, is_joint
from sae_reasoning.jobs.ablate.latents import (
    Choice,
    Matches,
    choose_ranked,
    list_name,
    read_matches,
    require_matches,
)
from sae_reasoning.jobs.ablate.places import measure_places, sizes_overall
from sae_reasoning.jobs.ablate.thinking import thinking_prefix
from sae_reasoning.opening import PROBLEMS_FILE
from sae_reasoning.records import Trace
from sae_reasoning.steering.conditions import (
    Condition,
    LatentId,
    Material,
    plan_conditions,
)
from sae_reasoning.steering.edit_plans import edit_plans
from sae_reasoning.steering.positions import OPPORTUNITIES
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.grading import Grader
from sae_reasoning.traces.annotate import (
    Annotator,
    Hear,
    annotate_by_cues,
    annotator_for,
    hear_sentences,
    listener_for,
)


def inputs_of(cfg: Config) -> dict[str, str]:
    """Fingerprints of what is read; the shortlist must be of these traces, dictionaries, models.

    Otherwise the problems that selected its latents might be among those reported on.
    """
    now = outside_inputs(cfg)
    made = {
        name: require_stage(cfg.folder, name, cfg.settings(name), now).fingerprint
        for name in ("traces", "cache", "train", *(() if is_joint(cfg) else ("rank",)))
    }
    if cfg.ablate.matches_of:
        made["matches"] = require_matches(cfg).fingerprint
    return models_in(cfg, now) | files_in(now, "ablate") | made


@dataclass(frozen=True)
class Experiment:
    """Everything that is settled before a model is loaded.

    Attributes:
        split: Of the problems.
        problems: To generate on.
        chosen: Latents of each behaviour, the best first: this run's own, or counterparts of
            another's.
        conditions: Of each model.
        samples: Rollouts a problem and condition, by model.
        begun: Beginning of each response that is given to a model.
        dictionaries: By model and layer.
        matches: Counterparts of another run's latents, where those are edited.
        annotate: By model, marks the behaviours of its responses.
        listener: By prompt, who hears opportunities while a response is written.
        edits: What is done, in words.
        without_lot: By model, behaviours without random positions as a control: how many there'd be
            isn't known.
    """

    split: str
    problems: list[Problem]
    chosen: dict[str, list[LatentId]]
    conditions: dict[str, list[Condition]]
    samples: dict[str, int]
    begun: dict[str, str]
    dictionaries: dict[str, Mapping[int, Dictionary | Half]]
    matches: Matches | None
    annotate: Mapping[str, Annotator]
    listener: Callable[[str], Hear]
    edits: str
    without_lot: dict[str, list[str]]

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
            "latents": ("counterparts of another run's: " if self.matches else "")
            + ", ".join(f"{len(latents)} of {name}" for name, latents in self.chosen.items()),
            "edits": self.edits,
            **{f"{m} begins with": text for m, text in self.begun.items() if text},
            "conditions": ", ".join(f"{m}: {len(c)}" for m, c in self.conditions.items()),
            "rollouts": ", ".join(f"{model}: {n:,}" for model, n in rollouts.items()),
        }


def prepare(cfg: Config) -> Experiment:
    """Read and check what earlier stages found; no model is loaded.

    Raises:
        ConfigError: An option doesn't fit them.
        BrokenArtifact: The shortlist was made from other dictionaries than there are.
    """
    annotate, listener = _annotators(cfg)
    own = cfg.ablate
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    choice = choose_joint(cfg, traces) if is_joint(cfg) else choose_ranked(cfg)
    chosen = choice.ranked["rl"]
    matches = read_matches(cfg, list(chosen)) if own.matches_of else None
    begun = {"base": thinking_prefix(cfg, traces), "rl": ""}
    conditions, without_lot = {}, {}
    for model in cfg.pair.readers:
        material = _material(cfg, model, choice, matches, traces, begun[model])
        if own.where == OPPORTUNITIES and not own.matches_of:
            without_lot[model] = [
                behaviour for behaviour in chosen if not material.shares[behaviour]
            ]
        try:
            conditions[model] = plan_conditions(
                edit_plans(own, model, is_single=cfg.pair.is_single), material, seed=own.seed
            )
        except ValueError as error:
            raise ConfigError(
                f"ablate.num_latents={own.num_latents}, ablate.clamp_latents={own.clamp_latents}, "
                f"ablate.set_sizes={own.set_sizes}: {error}; lower them or rank.onset_predictors, "
                "or raise train.sae.d_sae"
            ) from error
    return Experiment(
        split=own.split,
        problems=_problems(cfg, traces),
        chosen={
            behaviour: found[: _most(cfg)]
            for behaviour, found in (matches.ranked if matches else chosen).items()
        },
        conditions=conditions,
        samples={"base": own.base_samples, "rl": own.samples},
        begun=begun,
        dictionaries=choice.dictionaries,
        matches=matches,
        annotate=annotate,
        listener=listener,
        edits=_in_words(cfg),
        without_lot={model: behaviours for model, behaviours in without_lot.items() if behaviours},
    )


def _in_words(cfg: Config) -> str:
    own = cfg.ablate
    where = "opportunities" if own.where == OPPORTUNITIES else "all tokens"
    ablated = f"the first {own.num_latents} of a behaviour to 0"
    clamped = f"the first {own.clamp_latents} to {own.clamp_multiple:g} of their maximum"
    if cfg.pair.is_single:
        both = f"; {clamped}" if own.both else ""
        return f"at {where}; {ablated}{both}; behaviours of new text are marked by cue words"
    return f"at {where}; in the RL model {ablated}, in the base {clamped}"


def _annotators(cfg: Config) -> tuple[dict[str, Annotator], Callable[[str], Hear]]:
    """Who marks the behaviours of new text, and who hears opportunities in it.

    Natural text is marked by cue words, whoever marked the traces: a model that judges isn't asked
    about every edit's rollouts.

    Raises:
        ConfigError: A behaviour has no cue words.
    """
    annotate, listener = annotator_for(cfg.traces.source), listener_for(cfg.traces.source)
    if annotate is not None and listener is not None:
        return dict.fromkeys(cfg.pair.readers, annotate), listener
    file = cfg.folder / "traces" / PROBLEMS_FILE
    rows = read_table(file).to_dict("records") if file.exists() else []
    posed = {row["prompt"]: Problem(**row) for row in rows}
    grader = Grader({p.problem_id: p for p in posed.values()}, OutsideScorers())

    def grade_of(model: ModelConfig) -> Callable[[str, str, bool], bool | None]:
        tokenizer = load_tokenizer(model)

        def grade(prompt: str, text: str, truncated: bool) -> bool | None:
            if (problem := posed.get(prompt)) is None:
                return None
            opened = prompt_opens_thinking(tokenizer, prompt)
            return grader.correct(problem.problem_id, text, truncated, opened=opened)

        return grade

    lexicon = Lexicon(cfg.traces.cues, cfg.behaviours)
    annotators = {
        name: annotate_by_cues(lexicon, cfg.behaviours, grade_of(model))
        for name, model in cfg.pair.readers.items()
    }
    return annotators, lambda prompt: hear_sentences(cfg.behaviours)


def _most(cfg: Config) -> int:
    return max(cfg.ablate.num_latents, cfg.ablate.clamp_latents, *cfg.ablate.set_sizes, 1)


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
    name = list_name(cfg)
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


def _problems(cfg: Config, traces: list[Trace]) -> list[Problem]:
    found = dict.fromkeys(
        Problem(trace.problem_id, trace.split, trace.prompt)
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
    choice: Choice,
    matches: Matches | None,
    traces: list[Trace],
    begun: str,
) -> Material:
    """What the edits of one model are made of."""
    dictionaries, behaviours = choice.dictionaries[model], list(choice.ranked["rl"])
    overall = sizes_overall(cfg, choice.table, model, dictionaries)
    places = measure_places(cfg, model, behaviours, traces, dictionaries, overall, begun)
    found, pool, barred = dict(choice.ranked), {}, choice.listed
    if matches is not None:
        found[cfg.ablate.matches_of], pool[cfg.ablate.matches_of] = matches.ranked, matches.pool
        barred = {
            behaviour: own.union(matches.ranked[behaviour]) for behaviour, own in barred.items()
        }
    return Material(
        ranked=found,
        sizes=places.sizes,
        overall=overall,
        barred=barred,
        decoders={layer: d.W_dec for layer, d in dictionaries.items()},
        centres={layer: d.b_dec for layer, d in dictionaries.items()},
        vectors=places.vectors,
        untaken=places.untaken,
        shares=places.shares,
        pool=pool,
    )
