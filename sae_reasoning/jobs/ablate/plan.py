"""What is settled before a model is loaded: problems, latents, conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import BrokenArtifact
from sae_reasoning.edges.crosscoder_checkpoint import Half
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_in
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.jobs.ablate.chosen import (
    Choice,
    choose_ranked,
    read_matches,
)
from sae_reasoning.jobs.ablate.joint import choose_joint, is_joint, open_stores
from sae_reasoning.opening import first_problems, open_task, read_problems
from sae_reasoning.records import BASE, RL, SPLITS, Trace
from sae_reasoning.steering.conditions import (
    Condition,
    LatentId,
    Material,
    plan_conditions,
)
from sae_reasoning.steering.edit_plans import edit_plans
from sae_reasoning.steering.latent_choice import Matches
from sae_reasoning.steering.places import (
    CachedLayer,
    like_edited,
    marked_shares,
    measure_places,
    opportunities_of,
    sizes_overall,
    streamed_shares,
)
from sae_reasoning.steering.positions import OPPORTUNITIES, open_after
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Listen, Task


@dataclass(frozen=True)
class Experiment:
    """Everything that is settled before a model is loaded.

    Attributes:
        split: Of the problems.
        problems: To generate on.
        chosen: Latents of each behaviour, the best first: this run's own, or matched latents of
            another's.
        conditions: Of each model.
        samples: Rollouts a problem and condition, by model.
        begun: Beginning of each response that is given to a model.
        dictionaries: By model and layer.
        matches: Matched latents of another run's latents, where those are edited.
        task: Annotates and grades responses.
        is_joint: Whether latents are of a code of both models.
        edits: What is done, in words.
        without_random: By model, behaviours without random positions as a control: how many there
            would be isn't known.
    """

    split: str
    problems: list[Problem]
    chosen: dict[str, list[LatentId]]
    conditions: dict[str, list[Condition]]
    samples: dict[str, int]
    begun: dict[str, str]
    dictionaries: dict[str, Mapping[int, Dictionary | Half]]
    matches: Matches | None
    task: Task
    is_joint: bool
    edits: str
    without_random: dict[str, list[str]]

    def listen(self, problem: Problem) -> Listen:
        """A streaming annotator of a response to a problem."""
        found = self.task.annotator.listen(problem)
        assert found is not None  # `prepare` has asked.
        return found

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
            "latents": ("matched latents of another run's: " if self.matches else "")
            + ", ".join(f"{len(latents)} of {name}" for name, latents in self.chosen.items()),
            "edits": self.edits,
            "behaviours": f"of new text are labelled by {self.task.annotator.name}",
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
    own = cfg.ablate
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    problems = first_problems(cfg, dict.fromkeys(SPLITS, own.num_problems))[own.split]
    task = open_task(cfg, traces)
    if own.where == OPPORTUNITIES and task.annotator.listen(problems[0]) is None:
        raise ConfigError(
            f"ablate.where={own.where}, but the annotator {task.annotator.name} reads whole texts "
            "only, so nothing tells where a behaviour could start while text is written; set "
            "ablate.where=all"
        )
    choice = choose_joint(cfg, traces) if is_joint(cfg) else choose_ranked(cfg)
    chosen = choice.ranked["rl"]
    matches = read_matches(cfg, list(chosen)) if own.matches_of else None
    # The base is made to think where that is its choice: it would hardly ever start otherwise.
    begun = {BASE: "" if cfg.pair.is_single else task.formats[BASE].thinking_prefix, RL: ""}
    conditions, without_random = {}, {}
    for model in cfg.pair.readers:
        like, shares = like_edited(traces, model, begun[model]), {}
        if own.where == OPPORTUNITIES:
            shares = shares_of_opportunities(cfg, task, list(chosen), like)
        if shares and not own.matches_of:
            without_random[model] = [behaviour for behaviour in chosen if not shares[behaviour]]
        material = _material(cfg, model, choice, matches, traces, shares)
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
        problems=problems,
        chosen={
            behaviour: found[: _most(cfg)]
            for behaviour, found in (matches.ranked if matches else chosen).items()
        },
        conditions=conditions,
        samples={BASE: own.base_samples, RL: own.samples},
        begun=begun,
        dictionaries=choice.dictionaries,
        matches=matches,
        task=task,
        is_joint=is_joint(cfg),
        edits=_in_words(cfg),
        without_random={model: some for model, some in without_random.items() if some},
    )


def _in_words(cfg: Config) -> str:
    own = cfg.ablate
    where = "opportunities" if own.where == OPPORTUNITIES else "all tokens"
    ablated = f"the first {own.num_latents} of a behaviour to 0"
    clamped = f"the first {own.clamp_latents} to {own.clamp_multiple:g} of their maximum"
    if cfg.pair.is_single:
        both = f"; {clamped}" if own.both else ""
        return f"at {where}; {ablated}{both}"
    return f"at {where}; in the RL model {ablated}, in the base {clamped}"


def shares_of_opportunities(
    cfg: Config, task: Task, behaviours: Sequence[str], like: Sequence[Trace]
) -> dict[str, float]:
    """Positions among those of a model's responses at which each behaviour could start.

    Where the task marks every behaviour itself, as its traces are marked; elsewhere as edits find
    opportunities while text is written.
    """
    if task.behaviours is not None:
        return marked_shares(like, behaviours)
    problems = {
        one.problem_id: one for own in read_problems(cfg.place("traces")).values() for one in own
    }
    tokenizer = load_tokenizer(next(iter(cfg.pair.readers.values())))
    found = []
    for trace in like:
        listen = task.annotator.listen(problems[trace.problem_id])
        assert listen is not None
        ends = [end for _, end in offsets_in(tokenizer, trace)]
        pieces = [trace.text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        positions = open_after(listen, pieces)
        found.append(positions[:-1] if trace.truncated else positions)
    return streamed_shares(found, behaviours)


def _most(cfg: Config) -> int:
    return max(cfg.ablate.num_latents, cfg.ablate.clamp_latents, *cfg.ablate.set_sizes, 1)


def _material(
    cfg: Config,
    model: str,
    choice: Choice,
    matches: Matches | None,
    traces: Sequence[Trace],
    shares: Mapping[str, float],
) -> Material:
    """What the edits of one model are made of.

    Raises:
        BrokenArtifact: The table of latents is of another dictionary.
    """
    dictionaries, behaviours = choice.dictionaries[model], list(choice.ranked[RL])
    layers = {}
    for layer, code in dictionaries.items():
        stores = open_stores(cfg, layer, model)
        try:
            overall = sizes_overall(choice.table[choice.table.layer == layer], model, code)
        except ValueError as error:
            raise BrokenArtifact(
                f"{cfg.folder / 'rank' / 'latents.parquet'} of layer {layer}: {error}; run "
                "`make rank` again"
            ) from error
        layers[layer] = CachedLayer(code, stores if is_joint(cfg) else stores[:1], overall)
    places = measure_places(behaviours, opportunities_of(traces), layers)
    found, pool, barred = dict(choice.ranked), {}, choice.listed
    if matches is not None:
        found[cfg.ablate.matches_of], pool[cfg.ablate.matches_of] = matches.ranked, matches.pool
        barred = {
            behaviour: own.union(matches.ranked[behaviour]) for behaviour, own in barred.items()
        }
    return Material(
        ranked=found,
        sizes=places.sizes,
        overall={number: layer.overall for number, layer in layers.items()},
        barred=barred,
        decoders={layer: d.W_dec for layer, d in dictionaries.items()},
        centres={layer: d.b_dec for layer, d in dictionaries.items()},
        vectors=places.vectors,
        untaken=places.untaken,
        shares=shares,
        pool=pool,
    )
