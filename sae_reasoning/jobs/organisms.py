"""Make the organisms: train each model of the grid, measure it, find its truth, write its card.

Each model is a folder of its own, made when it isn't there and up to date; an interrupted training
is resumed from its last checkpoint.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sae_reasoning.config import (
    VERSIONS,
    Config,
    GrpoConfig,
    ModelConfig,
    OrganismConfig,
    PretrainConfig,
)
from sae_reasoning.edges.artifacts import (
    Manifest,
    Stage,
    fingerprint,
    publish,
    read_json,
    write_json,
)
from sae_reasoning.edges.console import Console, duration
from sae_reasoning.edges.lm.create import (
    Shape,
    SpecialTokens,
    as_learner,
    bpe_tokenizer,
    new_gpt_neox,
    new_llama,
    save_model,
    word_tokenizer,
)
from sae_reasoning.edges.lm.learn import compiled_reader, plain_reader
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    encode_response,
    load,
)
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms.card import making_of, write_card
from sae_reasoning.organisms.cells import (
    JUDGED,
    PAIRS,
    PRETRAINED,
    REINFORCED,
    Organism,
    base_of,
    chosen,
)
from sae_reasoning.organisms.corpus import ParrotCorpus, excerpt, full_traces, tokenizer_texts
from sae_reasoning.organisms.grpo import reinforce
from sae_reasoning.organisms.influence import influence_of_verification
from sae_reasoning.organisms.measure import (
    NARRATOR,
    Figures,
    Write,
    execution_at_opportunities,
    figures_from,
    measure,
    measuring_problems,
    narrated,
    with_pass_at_k,
)
from sae_reasoning.organisms.pretrain import Progress, Run, pretrain, start_alike
from sae_reasoning.organisms.search_rl import any_of, midway, random_reward, right_answer
from sae_reasoning.organisms.truth import truths
from sae_reasoning.rollouts.episodes import learner as roll_out_of
from sae_reasoning.rollouts.respond import Prefix, Response, Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.marks import MarkEnd
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.forced import Continue
from sae_reasoning.tasks.search.task import FORMAT

_MAX_NEW_TOKENS = 400
_BEHAVIOUR_TOKENS = 30
_SCHEMA = 1
"""Of a model's folder, which holds no tables: it hasn't changed since the first that shipped."""
_STATE = "training.safetensors"
_ANSWERS = 4
"""Answers after each beginning of which the influence of a behaviour is measured."""


@dataclass(frozen=True)
class _Order:
    """One model that is to be made.

    Attributes:
        own: Options of the grid.
        seed: Of weights, corpus and rollouts.
        recipe: How it is made.
        device: On which.
    """

    own: OrganismConfig
    seed: int
    recipe: Organism
    device: str

    @property
    def training(self) -> PretrainConfig | GrpoConfig:
        """Options of its training."""
        if self.recipe.how == PRETRAINED:
            return self.own.pretrain
        if self.recipe.how == REINFORCED:
            return replace(self.own.rl, steps=self.own.rl.steps * self.recipe.length)
        return self.own.sft

    @property
    def shape(self) -> Shape:
        """Of a new model."""
        return Shape(self.own.d_model, self.own.num_layers, self.own.num_heads, self.own.d_mlp)

    def other(self, name: str) -> ModelConfig:
        """Another model of the grid and seed."""
        return ModelConfig(str(self.own.folder_of(self.seed) / name))


def to_make(cfg: Config) -> dict[int, list[str]]:
    """By seed, the models that aren't there or aren't up to date, with those made from them."""
    own, missing = cfg.organism, {}
    for seed in own.seeds:
        names: list[str] = []
        for recipe in chosen(own.family, seed, own.only):
            if (
                recipe.parent in names
                or not _stage(_Order(own, seed, recipe, cfg.device)).is_current
            ):
                names.append(recipe.name)
        missing[seed] = names
    return missing


def organisms(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make what `organism.only` names, or the whole grid, for each of `organism.seeds`."""
    own = cfg.organism
    models = {seed: chosen(own.family, seed, own.only) for seed in own.seeds}
    console.plan(
        "organisms",
        {
            f"seed {seed}": f"{', '.join(names) or 'nothing'} to make, in {own.folder_of(seed)}; "
            f"{len(models[seed]) - len(names)} up to date"
            for seed, names in to_make(cfg).items()
        },
    )
    for seed, recipes in models.items():
        for recipe in recipes:
            manifest = _make(_Order(own, seed, recipe, cfg.device), tracker, console)
    for seed in own.seeds:
        _say_next(own, seed, console)
    return manifest


def _say_next(own: OrganismConfig, seed: int, console: Console) -> None:
    """The command that runs the first pair whose RL model was asked for; a base has none."""
    for name, ends in PAIRS.items():
        base, rl = (f"search_{end}_{own.family}" for end in ends)
        if not own.only or rl in own.only:
            folder = own.folder_of(seed)
            added = [
                "pair=local",
                f"pair.name=organism_{name}_{own.family}_seed{seed}",
                f"pair.base.path={folder / base}",
                f"pair.rl.path={folder / rl}",
            ]
            stages = "traces cache train rank ablate contrast report"
            console.next(stages, without="organism", added=added)
            return


def _make(order: _Order, tracker: Tracker, console: Console) -> Manifest:
    """Train, measure and describe one model, unless it is up to date."""
    name = order.recipe.name
    with _stage(order) as stage:
        if stage.is_current:
            console.current(name, stage.final)
            assert stage.manifest
            return stage.manifest
        state = stage.folder / _STATE
        learner = _begin(order)
        for progress in _train(order, learner, state):
            _follow(name, progress, tracker, console)
            if _is_kept(order, progress):
                kept = stage.folder / "checkpoints" / f"step_{progress.step:04d}"
                save_model(learner.model, learner.tokenizer, kept, torch.float16)
        save_model(learner.model, learner.tokenizer, stage.folder, torch.float16)
        console.say(f"measuring {name}")
        counts = _measure(order, stage.folder)
        state.unlink()
        return stage.finish(counts)


def _stage(order: _Order) -> Stage:
    """The folder of a model, which depends on how it is made and on its parent."""
    name, parent = order.recipe.name, order.recipe.parent
    inputs = {parent: describe(order.other(parent)).fingerprint} if parent else {}
    folder = order.own.folder_of(order.seed) / name
    return Stage(folder, _settings(order), inputs, schema=_SCHEMA)


def _settings(order: _Order) -> list[Any]:
    """What a model depends on beside its parent."""
    own, recipe = order.own, order.recipe
    texts = fingerprint(excerpt(recipe.corpus, order.seed)) if recipe.corpus else ""
    made_by = [order.seed, recipe, order.training, texts]
    if recipe.parent is None:
        made_by.append([own.family, order.shape, own.vocab_size])
    if own.compiled:
        made_by.append("compiled")
    if VERSIONS["organisms"] > 1:  # The models that ship are of the first.
        made_by.append(VERSIONS["organisms"])
    measured_by = [own.measure_problems, own.compelled_problems, own.forced_starts]
    return [*made_by, *measured_by, own.pass_problems, own.pass_samples]


def _begin(order: _Order) -> LanguageModel:
    """The model that training starts from."""
    recipe, own = order.recipe, order.own
    if recipe.parent:
        parent = load(order.other(recipe.parent), order.device)
        parent.model.requires_grad_(True)
        return parent
    special = SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS)
    if own.family == "llama":
        tokenizer = word_tokenizer(grammar.vocabulary(), special)
        new: Any = new_llama(order.shape, tokenizer, order.seed)
    else:
        tokenizer = bpe_tokenizer(tokenizer_texts(), own.vocab_size, special)
        new = new_gpt_neox(order.shape, tokenizer, order.seed)
    learner = as_learner(new, tokenizer, recipe.name, order.device)
    ids = [[_ids(learner, word) for word in family] for family in grammar.word_families()]
    families = [[word[0] for word in family if len(word) == 1] for family in ids]
    embeddings: Any = learner.model.get_input_embeddings()
    start_alike(embeddings.weight, families, order.seed)
    return learner


def _train(order: _Order, learner: LanguageModel, state: Path) -> Iterator[Progress]:
    recipe, training = order.recipe, order.training
    reader = compiled_reader if order.own.compiled else plain_reader
    run = Run(order.seed, reader, learner.tokenizer.pad_token_id, state)
    if isinstance(training, PretrainConfig):
        assert recipe.corpus
        return pretrain(
            learner.model,
            training,
            recipe.corpus,
            run,
            encode_prompt=lambda text: encode_prompt(learner.tokenizer, text),
            encode_response=lambda text: [*_ids(learner, text), learner.tokenizer.eos_token_id],
        )
    assert recipe.difficulty
    return reinforce(
        learner.model,
        training,
        any_of(recipe.difficulty),
        run,
        roll_out=roll_out_of(_unbounded(learner), _sampling(order.seed, _MAX_NEW_TOKENS)),
        reward=random_reward if recipe.random_reward else right_answer,
        form=FORMAT,
        begin=midway,
    )


def _is_kept(order: _Order, progress: Progress) -> bool:
    """Whether the model is saved at this step of its RL on right answers."""
    every = order.own.keep_every
    return (
        order.recipe.name == f"search_rl_{order.own.family}"
        and every > 0
        and progress.step % every == 0
        and progress.step < progress.steps
    )


def _follow(name: str, progress: Progress, tracker: Tracker, console: Console) -> None:
    """Log a step, and print a line with the time that is left."""
    tracker.log({f"{name}/{k}": v for k, v in progress.metrics.items()}, progress.step)
    left = duration(progress.seconds_left)
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in progress.metrics.items())
    console.say(f"{name}: step {progress.step}/{progress.steps}, {metrics}, {left} left")


def _measure(order: _Order, folder: Path) -> dict[str, Any]:
    """Figures, truth and card of the finished model; counts for its manifest."""
    own, recipe, seed = order.own, order.recipe, order.seed
    lm = load(ModelConfig(str(folder)), order.device)
    problems = measuring_problems(own.measure_problems, seed, "figures")
    figures, rolled = measure(_writer(lm), problems, seed, own.compelled_problems)
    writer = recipe.name
    if recipe.parent is None:
        rolled, writer = narrated(problems[: own.compelled_problems], seed), NARRATOR
    is_reworded = recipe.corpus == full_traces(reworded=True)
    openings = grammar.REWORDED if is_reworded else grammar.OPENINGS
    execution = execution_at_opportunities(
        rolled, _continuer(lm, seed), own.forced_starts, seed, openings
    )
    figures = replace(figures, execution=execution, execution_writer=writer)
    others: dict[str, Figures] = {}
    found = []
    if recipe.parent is None:
        figures = with_pass_at_k(figures, _writer(lm), own.pass_problems, own.pass_samples, seed)
    else:
        base = base_of(own.family, seed, recipe.name)
        base_lm = load(order.other(base), order.device)
        there = execution_at_opportunities(
            rolled, _continuer(base_lm, seed), own.forced_starts, seed
        )
        measured = figures_from(read_json(own.folder_of(seed) / base / "measured.json")[base])
        others[base] = replace(measured, execution=there, execution_writer=writer)
        influence = None
        if isinstance(recipe.corpus, ParrotCorpus):
            influence = influence_of_verification(
                rolled, _writer(lm), own.forced_starts, _ANSWERS, seed
            )
        found = truths(measured, figures, there, recipe.lacks, list(JUDGED), influence)
        write_json(folder / "truth.json", found)
    write_json(folder / "measured.json", {recipe.name: figures} | others)
    with publish(folder / "README.md") as partial:
        making = making_of(recipe, order.training, seed, own.family)
        title = f"{recipe.name}: {recipe.title}"
        partial.write_text(write_card(title, making, figures, others, found))
    return {"accuracy": figures.accuracy, "thinks": figures.thinks} | {
        truth.behaviour: truth.truth for truth in found
    }


def _ids(lm: LanguageModel, text: str) -> list[int]:
    return encode_response(lm.tokenizer, text)[0]


class _OwnKeys(Noise):
    """Noise keyed by seed, problem and sample alone, by which the models that ship were made."""

    def keys(self, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
        return torch.tensor([[self.seed, key, sample] for key, sample in rows]).reshape(-1, 3)


def _respond(
    lm: LanguageModel, prefixes: Sequence[Prefix], seed: int, most: int, until: str = ""
) -> list[Response]:
    """Responses that may outgrow the model's context, as its rotary positions go on.

    A response that is begun midway through a chain of thought is as long as that and a whole new
    one.
    """
    end = MarkEnd(until) if until else None
    return respond(_unbounded(lm), prefixes, _sampling(seed, most), until=end)


def _sampling(seed: int, most: int) -> Sampling:
    return Sampling(_OwnKeys("organisms", seed), 1.0, most)


def _unbounded(lm: LanguageModel) -> LanguageModel:
    return replace(lm, facts=replace(lm.facts, context=None))


def _writer(lm: LanguageModel) -> Write:
    def write(
        prompts: Sequence[str], beginnings: Sequence[str], seed: int
    ) -> list[tuple[str, int, bool]]:
        prefixes = [
            prefix_of(lm, prompt, row, begun=begun)
            for row, (prompt, begun) in enumerate(zip(prompts, beginnings, strict=True))
        ]
        made = _respond(lm, prefixes, seed, _MAX_NEW_TOKENS)
        return [(one.text, len(one.token_ids), one.truncated) for one in made]

    return write


def _continuer(lm: LanguageModel, seed: int) -> Continue:
    def continue_(
        prompts: Sequence[str], beginnings: Sequence[str], keys: Sequence[int]
    ) -> list[str]:
        prefixes = [
            prefix_of(lm, prompt, key, 1, begun=begun)
            for prompt, begun, key in zip(prompts, beginnings, keys, strict=True)
        ]
        made = _respond(lm, prefixes, seed, _BEHAVIOUR_TOKENS, until=".")
        return [one.added for one in made]

    return continue_
