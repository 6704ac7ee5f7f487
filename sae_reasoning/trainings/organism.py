"""The training of one organism: what it starts from, how it is trained, what it depends on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_reasoning.config import (
    VERSIONS,
    GrpoConfig,
    ModelConfig,
    OrganismConfig,
    PretrainConfig,
)
from sae_reasoning.edges.artifacts import Stage, fingerprint
from sae_reasoning.edges.lm.create import (
    Shape,
    SpecialTokens,
    as_learner,
    bpe_tokenizer,
    new_gpt_neox,
    new_llama,
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
from sae_reasoning.organisms.cells import PRETRAINED, REINFORCED, Organism
from sae_reasoning.organisms.corpus import excerpt, tokenizer_texts
from sae_reasoning.organisms.grpo import reinforce
from sae_reasoning.organisms.pretrain import Progress, Run, pretrain, start_alike
from sae_reasoning.organisms.search_rl import any_of, midway, random_reward, right_answer
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.task import FORMAT
from sae_reasoning.trainings.organism_writing import roller

_SCHEMA = 1
"""Of a model's folder, which holds no tables: it hasn't changed since the first that shipped."""


@dataclass(frozen=True)
class Order:
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

    def stage(self) -> Stage:
        """The folder of the model, which depends on how it is made and on its parent."""
        name, parent = self.recipe.name, self.recipe.parent
        inputs = {parent: describe(self.other(parent)).fingerprint} if parent else {}
        folder = self.own.folder_of(self.seed) / name
        return Stage(folder, _settings(self), inputs, schema=_SCHEMA)

    def keeps(self, progress: Progress) -> bool:
        """Whether the model is saved at this step of its RL on right answers."""
        every = self.own.keep_every
        return (
            self.recipe.name == f"search_rl_{self.own.family}"
            and every > 0
            and progress.step % every == 0
            and progress.step < progress.steps
        )


def _settings(order: Order) -> list[Any]:
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


def begin(order: Order) -> LanguageModel:
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


def train_organism(order: Order, learner: LanguageModel, state: Path) -> Iterator[Progress]:
    """Train the learner in place, from its last checkpoint on; yields after each step.

    Args:
        order: What is made.
        learner: What `begin` gave.
        state: File of the checkpoint.
    """
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
        roll_out=roller(learner, order.seed),
        reward=random_reward if recipe.random_reward else right_answer,
        form=FORMAT,
        begin=midway,
    )


def _ids(lm: LanguageModel, text: str) -> list[int]:
    return encode_response(lm.tokenizer, text)[0]
