"""Make the organisms: train each model of the grid, measure it, find out its truth, write its card.

Each model is a folder of its own, made when it isn't there and up to date; a killed training goes
on from its last checkpoint.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae_reasoning.config import (
    VERSIONS,
    Config,
    ConfigError,
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
from sae_reasoning.edges.lm.write import write
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms.card import making_of, write_card
from sae_reasoning.organisms.cells import JUDGED, PAIRS, PRETRAINED, REINFORCED, Organism, grid
from sae_reasoning.organisms.corpus import CorpusConfig, example, excerpt, full_traces
from sae_reasoning.organisms.grpo import (
    Episode,
    RollOut,
    any_of,
    path_validity,
    random_reward,
    reinforce,
)
from sae_reasoning.organisms.measure import (
    NARRATOR,
    Figures,
    Write,
    figures_from,
    measure,
    measuring_problems,
    narrated,
    pass_at_k,
    random_walks,
    roll,
    validity_at_opportunities,
)
from sae_reasoning.organisms.pretrain import Progress, pretrain, start_alike
from sae_reasoning.organisms.truth import truths
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.tasks.marks import MarkEnd
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.forced import Continue

_MAX_NEW_TOKENS = 400
_MOVE_TOKENS = 30
_PASS_AT = (1, 4, 16, 64)
_TOKENIZER_EXAMPLES = 1500
_STATE = "training.safetensors"


def organisms(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make what `organism.only` names, or the whole grid, for each of `organism.seeds`."""
    own = cfg.organism
    chosen = {seed: _chosen(cfg, seed) for seed in own.seeds}
    console.plan(
        "organisms",
        {
            f"seed {seed}": f"{', '.join(o.name for o in models)}, in {own.folder_of(seed)}"
            for seed, models in chosen.items()
        },
    )
    for seed, models in chosen.items():
        for model in models:
            manifest = _Making(cfg, seed, model, tracker, console).run()
    for seed in own.seeds:
        _tell_next(own, seed, console)
    return manifest


def _tell_next(own: OrganismConfig, seed: int, console: Console) -> None:
    """The command that runs the first pair whose second model was asked for; a base has none."""
    for name, ends in PAIRS.items():
        base, second = (f"search_{end}_{own.family}" for end in ends)
        if not own.only or second in own.only:
            folder = own.folder_of(seed)
            added = [
                "pair=local",
                f"pair.name=organism_{name}_{own.family}_seed{seed}",
                f"pair.base.path={folder / base}",
                f"pair.rl.path={folder / second}",
            ]
            stages = "traces cache train rank ablate contrast report"
            console.next(stages, without="organism", added=added)
            return


def _chosen(cfg: Config, seed: int) -> list[Organism]:
    """What is to be made, parents first.

    Raises:
        ConfigError: `organism.only` names a model that isn't in the grid.
    """
    models = {model.name: model for model in grid(cfg.organism.family, seed)}
    for name in cfg.organism.only:
        if name not in models:
            raise ConfigError(
                f"organism.only names {name}, which isn't of organism.family="
                f"{cfg.organism.family}; choose of {', '.join(models)}"
            )
    wanted = set(cfg.organism.only or models)
    for model in reversed(models.values()):
        if model.name in wanted and model.parent:
            wanted.add(model.parent)
    return [model for name, model in models.items() if name in wanted]


class _Making:
    """One model, from its recipe to its card."""

    def __init__(
        self, cfg: Config, seed: int, recipe: Organism, tracker: Tracker, console: Console
    ) -> None:
        self.cfg, self.own, self.seed, self.recipe = cfg, cfg.organism, seed, recipe
        self.tracker, self.console = tracker, console
        self.folder = self.own.folder_of(seed)

    def run(self) -> Manifest:
        """Train, measure and describe, unless it's up to date."""
        recipe, own = self.recipe, self.own
        inputs = {}
        if recipe.parent:
            inputs[recipe.parent] = describe(self._config(recipe.parent)).fingerprint
        corpus = recipe.corpus
        texts = fingerprint(excerpt(corpus, self.seed)) if corpus else ""
        made_by = [self.seed, recipe, self._training(), texts]
        measured_by = [
            own.measure_problems,
            own.compelled_problems,
            own.forced_starts,
            own.pass_problems,
            own.pass_samples,
        ]
        if recipe.parent is None:
            made_by.append([own.family, self._shape(), own.vocab_size])
        if own.compiled:
            made_by.append("compiled")
        if VERSIONS["organisms"] > 1:  # The models that ship are of the first.
            made_by.append(VERSIONS["organisms"])
        with Stage(self.folder / recipe.name, [*made_by, *measured_by], inputs) as stage:
            if stage.is_current:
                self.console.current(recipe.name, stage.final)
                assert stage.manifest
                return stage.manifest
            state = stage.folder / _STATE
            learner = self._begin()
            for progress in self._train(learner, state):
                self._follow(progress)
                if self._is_kept(progress):
                    kept = stage.folder / "checkpoints" / f"step_{progress.step:04d}"
                    save_model(learner.model, learner.tokenizer, kept, torch.float16)
            save_model(learner.model, learner.tokenizer, stage.folder, torch.float16)
            self.console.say(f"measuring {recipe.name}")
            counts = self._measure(stage.folder)
            state.unlink()
            return stage.finish(counts)

    def _config(self, name: str) -> ModelConfig:
        return ModelConfig(str(self.folder / name))

    def _shape(self) -> Shape:
        own = self.own
        return Shape(own.d_model, own.num_layers, own.num_heads, own.d_mlp)

    def _training(self) -> PretrainConfig | GrpoConfig:
        if self.recipe.how == PRETRAINED:
            return self.own.pretrain
        if self.recipe.how == REINFORCED:
            return replace(self.own.rl, steps=self.own.rl.steps * self.recipe.length)
        return self.own.sft

    def _begin(self) -> LanguageModel:
        """The model that training starts from."""
        if self.recipe.parent:
            parent = load(self._config(self.recipe.parent), self.cfg.device)
            parent.model.requires_grad_(True)
            return parent
        special = SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS)
        if self.own.family == "llama":
            tokenizer = word_tokenizer(grammar.vocabulary(), special)
            new: Any = new_llama(self._shape(), tokenizer, self.seed)
        else:
            tokenizer = bpe_tokenizer(_tokenizer_texts(), self.own.vocab_size, special)
            new = new_gpt_neox(self._shape(), tokenizer, self.seed)
        learner = as_learner(new, tokenizer, self.recipe.name, self.cfg.device)
        ids = [[_ids(learner, word) for word in family] for family in grammar.word_families()]
        families = [[own[0] for own in family if len(own) == 1] for family in ids]
        embeddings: Any = learner.model.get_input_embeddings()
        start_alike(embeddings.weight, families, self.seed)
        return learner

    def _train(self, learner: LanguageModel, state: Path) -> Iterator[Progress]:
        recipe, training = self.recipe, self._training()
        reader = compiled_reader if self.own.compiled else plain_reader
        if isinstance(training, PretrainConfig):
            assert recipe.corpus
            return pretrain(
                learner.model,
                training,
                recipe.corpus,
                seed=self.seed,
                reader=reader,
                encode_prompt=lambda text: encode_prompt(learner.tokenizer, text),
                encode_response=lambda text: [
                    *_ids(learner, text),
                    learner.tokenizer.eos_token_id,
                ],
                pad_id=learner.tokenizer.pad_token_id,
                state_path=state,
            )
        assert recipe.difficulty
        return reinforce(
            learner.model,
            training,
            any_of(recipe.difficulty),
            seed=self.seed,
            reader=reader,
            roll_out=_roll_out(learner),
            reward=random_reward if recipe.random_reward else path_validity,
            pad_id=learner.tokenizer.pad_token_id,
            state_path=state,
        )

    def _is_kept(self, progress: Progress) -> bool:
        """Whether the model is kept as it is now, along its RL on the answers."""
        every = self.own.keep_every
        return (
            self.recipe.name == f"search_rl_{self.own.family}"
            and every > 0
            and progress.step % every == 0
            and progress.step < progress.steps
        )

    def _follow(self, progress: Progress) -> None:
        """Log a step, and print a line now and then, with the time that is left."""
        name = self.recipe.name
        self.tracker.log({f"{name}/{k}": v for k, v in progress.metrics.items()}, progress.step)
        left = duration(progress.seconds_left)
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in progress.metrics.items())
        self.console.say(f"{name}: step {progress.step}/{progress.steps}, {metrics}, {left} left")

    def _measure(self, folder: Path) -> dict[str, Any]:
        """Figures, truth and card of the finished model; what the manifest shows of them."""
        own, recipe = self.own, self.recipe
        lm = load(ModelConfig(str(folder)), self.cfg.device)
        problems = measuring_problems(own.measure_problems, self.seed, "figures")
        figures, free = measure(_writer(lm), problems, self.seed, own.compelled_problems)
        others: dict[str, Figures] = {}
        found = []
        if recipe.parent is None:
            chosen, writer = narrated(problems[: own.compelled_problems], self.seed), NARRATOR
        else:
            chosen, writer = free, recipe.name
        is_reworded = recipe.corpus == full_traces(reworded=True)
        figures = replace(
            figures,
            validity=validity_at_opportunities(
                chosen,
                _continuer(lm, self.seed),
                own.forced_starts,
                self.seed,
                grammar.REWORDED if is_reworded else grammar.OPENINGS,
            ),
            validity_writer=writer,
        )
        if recipe.parent is None:
            figures = self._with_pass_at_k(figures, lm)
        else:
            base = self._base_name()
            base_lm = load(self._config(base), self.cfg.device)
            there = validity_at_opportunities(
                chosen, _continuer(base_lm, self.seed), own.forced_starts, self.seed
            )
            measured = figures_from(read_json(self.folder / base / "measured.json")[base])
            others[base] = replace(measured, validity=there, validity_writer=writer)
            found = truths(measured, figures, there, recipe.lacks, list(JUDGED))
            write_json(folder / "truth.json", found)
        write_json(folder / "measured.json", {recipe.name: figures} | others)
        with publish(folder / "README.md") as partial:
            making = making_of(recipe, self._training(), self.seed, own.family)
            title = f"{recipe.name}: {recipe.title}"
            partial.write_text(write_card(title, making, figures, others, found))
        return {"accuracy": figures.accuracy, "thinks": figures.thinks} | {
            truth.behaviour: truth.truth for truth in found
        }

    def _base_name(self) -> str:
        """The base at the root of what the model was made from."""
        parents = {model.name: model.parent for model in grid(self.own.family, self.seed)}
        name = self.recipe.name
        while parent := parents[name]:
            name = parent
        return name

    def _with_pass_at_k(self, figures: Figures, lm: LanguageModel) -> Figures:
        own = self.own
        problems = measuring_problems(own.pass_problems, self.seed, "pass")
        size = own.pass_samples
        tries = [problem for problem in problems for _ in range(size)]
        grades = [rolled.correct for rolled in roll(tries, _writer(lm), self.seed + 1)]
        correct = [grades[start : start + size] for start in range(0, len(grades), size)]
        rng = random.Random(f"walk/{self.seed}")
        walks = [random_walks(problem, size, rng) for problem in problems]
        ks = [k for k in _PASS_AT if k <= size]
        return replace(
            figures,
            pass_at=pass_at_k(correct, ks, self.seed),
            random_walk_at=pass_at_k(walks, ks, self.seed),
        )


def _tokenizer_texts() -> Iterable[str]:
    """Texts of every kind and wording, the same for every seed, so that bases share token ids."""
    rng = random.Random("tokenizer")
    corpus = CorpusConfig(rates=full_traces().rates)
    for index in range(_TOKENIZER_EXAMPLES):
        yield from example(rng, corpus, index % 3 / 2)


def _ids(lm: LanguageModel, text: str) -> list[int]:
    return encode_response(lm.tokenizer, text)[0]


def _keys(seed: int, count: int) -> torch.Tensor:
    return torch.tensor([[seed, index, 0] for index in range(count)])


def _unbounded(lm: LanguageModel) -> LanguageModel:
    """The same model, whose rollouts may outgrow its context: its rotary positions go on.

    A response that is begun midway through a thought is as long as that and a whole new one.
    """
    return replace(lm, facts=replace(lm.facts, context=None))


def _roll_out(lm: LanguageModel) -> RollOut:
    lm = _unbounded(lm)

    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        sampler = keyed_sampler(keys, temperature=1.0)
        made = write(lm, prompts, beginnings, sampler=sampler, max_new_tokens=_MAX_NEW_TOKENS)
        return [
            Episode(
                one.prompt_ids + one.begun_ids,
                one.token_ids + ([] if one.end_id is None else [one.end_id]),
                one.text,
            )
            for one in made
        ]

    return roll_out


def _writer(lm: LanguageModel) -> Write:
    lm = _unbounded(lm)

    def write_(
        prompts: Sequence[str], beginnings: Sequence[str], seed: int
    ) -> list[tuple[str, int, bool]]:
        sampler = keyed_sampler(_keys(seed, len(prompts)), temperature=1.0)
        made = write(lm, prompts, beginnings, sampler=sampler, max_new_tokens=_MAX_NEW_TOKENS)
        return [(one.text, len(one.token_ids), one.truncated) for one in made]

    return write_


def _continuer(lm: LanguageModel, seed: int) -> Continue:
    lm = _unbounded(lm)

    def continue_(
        prompts: Sequence[str], beginnings: Sequence[str], keys: Sequence[int]
    ) -> list[str]:
        noise = torch.tensor([[seed, key, 1] for key in keys])
        sampler = keyed_sampler(noise, temperature=1.0)
        made = write(
            lm,
            prompts,
            beginnings,
            sampler=sampler,
            max_new_tokens=_MOVE_TOKENS,
            until=MarkEnd("."),
        )
        return [one.added for one in made]

    return continue_
