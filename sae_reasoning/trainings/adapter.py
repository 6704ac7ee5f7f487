"""The training of one adapter on a real language model: what it depends on, takes and comes to."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sae_reasoning.config import VERSIONS, GrpoConfig, ModelConfig, PretrainConfig, RealPairConfig
from sae_reasoning.edges.artifacts import fingerprint, publish, read_json, write_json
from sae_reasoning.edges.console import Console, duration
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    encode_response,
    load,
)
from sae_reasoning.edges.lm.lora import LoraLearner
from sae_reasoning.organisms.card import write_card
from sae_reasoning.organisms.countdown import (
    FORM,
    JUDGED,
    Adapted,
    example,
    excerpt,
    making_of,
    pose,
    right_answer,
)
from sae_reasoning.organisms.countdown_figures import (
    HEURISTICS,
    execution,
    forced_starts,
    measure,
    measuring_problems,
    narrated,
    with_execution,
)
from sae_reasoning.organisms.grpo import reinforce
from sae_reasoning.organisms.measure import NARRATOR, Figures, figures_from
from sae_reasoning.organisms.pretrain import Progress, Run, learn
from sae_reasoning.organisms.truth import truths
from sae_reasoning.rollouts.episodes import continuer, learner, writer
from sae_reasoning.rollouts.respond import Sampling
from sae_reasoning.steering.noise import Noise

MEASURED_BY = 3
"""Of an adapter's settings, how many say how it is measured; they stand last."""
_BEHAVIOUR_TOKENS = 40
_EXAMPLES = 200
"""From which the tokens of a training are told beforehand."""


@dataclass(frozen=True)
class Order:
    """One adapter that is to be made.

    Attributes:
        own: Options.
        model: That it sits on.
        one: How it is made.
        device: On which.
    """

    own: RealPairConfig
    model: ModelConfig
    one: Adapted
    device: str

    @property
    def training(self) -> PretrainConfig | GrpoConfig:
        """Options of its training."""
        if self.one.corpus is None:
            return self.own.rl
        return self.own.sft if self.one.parent else self.own.base

    def with_adapter(self, name: str | None) -> ModelConfig:
        """The model with an adapter, beside its weights; alone without one."""
        adapter = str(Path(self.own.folder) / name) if name else ""
        made = replace(self.model, adapter=adapter, merge_adapter=True)
        made.option = "pair.rl"
        return made

    @property
    def sampling(self) -> Sampling:
        """How it writes."""
        most = self.own.max_new_tokens
        at_once = 512 if self.device.startswith("cuda") else self.own.rollouts_at_once
        return Sampling(Noise(self.one.name, self.own.seed), 1.0, most, at_once)


def settings(order: Order) -> list[Any]:
    """What an adapter depends on beside its model and parent."""
    own, one = order.own, order.one
    texts = fingerprint(excerpt(one.corpus, own.seed)) if one.corpus else ""
    made_by = [VERSIONS["real_pair"], own.seed, one.name, one.corpus, order.training, texts]
    made_by += [order.model.chat_template, own.max_new_tokens]
    if one.parent is None:
        made_by.append([own.rank, own.alpha, own.frozen_blocks])
    measured_by = [own.measure_problems, own.compelled_problems, own.forced_starts]
    assert len(measured_by) == MEASURED_BY
    return [*made_by, *measured_by]


def tell_cost(order: Order, made: LoraLearner, console: Console) -> None:
    """Say beforehand what a training takes: tokens, and time at the pace of one trial batch."""
    training, lm = order.training, made.lm
    num_weights = sum(p.numel() for p in lm.model.parameters())
    trained = sum(p.numel() for p in made.part.parameters())
    texts = excerpt(order.one.corpus, order.own.seed, _EXAMPLES) if order.one.corpus else []
    lengths = [len(_prompt(lm, a)) + len(_response(lm, b)) for a, b in texts]
    if isinstance(training, GrpoConfig):
        rollouts = training.steps * training.prompts * training.samples
        said = f"{rollouts:,} rollouts of up to {order.own.max_new_tokens} tokens, each read twice"
        tokens = rollouts * order.own.max_new_tokens
    else:
        tokens = round(sum(lengths) / len(lengths) * training.steps * training.batch_size)
        said = f"{tokens:,} tokens"
    pace = _pace(made)
    console.plan(
        order.one.name,
        {
            "trains": f"{trained:,} of {num_weights:,} weights",
            "steps": f"{training.steps}; {said}",
            "FLOPs": f"{4 * num_weights * tokens:.1e}",
            "time": f"{duration(tokens / pace)} at {pace:,.0f} tokens/s, and measuring",
        },
    )


def _pace(made: LoraLearner) -> float:
    """Tokens a second that the model reads and learns from, by one batch that teaches nothing."""
    token_ids = torch.full((4, 96), made.lm.end_ids[0] if made.lm.end_ids else 0)
    token_ids = token_ids.to(made.lm.device)
    read = made.reader(made.part)
    started = time.monotonic()
    read(token_ids, torch.ones_like(token_ids, dtype=torch.bool)).float().logsumexp(
        -1
    ).sum().backward()
    made.part.zero_grad(set_to_none=True)
    return token_ids.numel() / (time.monotonic() - started)


def _prompt(lm: LanguageModel, text: str) -> list[int]:
    return encode_prompt(lm.tokenizer, text)


def _response(lm: LanguageModel, text: str) -> list[int]:
    return [*encode_response(lm.tokenizer, text)[0], *lm.end_ids[:1]]


def train(order: Order, made: LoraLearner, state: Path) -> Iterator[Progress]:
    """Train on the adapter's corpus, or reinforce it; resumes from `state`."""
    training, corpus, lm = order.training, order.one.corpus, made.lm
    pad_id = lm.tokenizer.pad_token_id or 0
    run = Run(order.own.seed, made.reader, pad_id, state)
    if isinstance(training, PretrainConfig):
        assert corpus
        return learn(
            made.part,
            training,
            lambda rng, progress: example(rng, corpus, progress),
            run,
            encode_prompt=lambda text: _prompt(lm, text),
            encode_response=lambda text: _response(lm, text),
            yield_every=1,
        )
    return reinforce(
        made.part,
        training,
        pose,
        run,
        roll_out=learner(lm, order.sampling),
        reward=right_answer,
        form=FORM,
    )


def measure_adapter(order: Order, folder: Path) -> dict[str, Any]:
    """Figures, truth and card of the finished adapter; counts for its manifest."""
    own, one, seed = order.own, order.one, order.own.seed
    lm = load(replace_adapter(order, folder), order.device)
    write = writer(lm, f"{one.name}/measure", own.max_new_tokens, order.sampling.batch_size or 32)
    problems = measuring_problems(own.measure_problems, seed)
    figures, rolled = measure(write, problems, seed, own.compelled_problems)
    source = one.name
    if one.parent is None:
        rolled, source = narrated(problems[: own.compelled_problems], seed), NARRATOR
    starts = forced_starts(rolled, own.forced_starts, seed)
    short = replace(order.sampling, max_new_tokens=_BEHAVIOUR_TOKENS)
    figures = with_execution(figures, execution(starts, continuer(lm, short), seed), source)
    others: dict[str, Figures] = {}
    found = []
    if one.parent:
        base = load(order.with_adapter(one.parent), order.device)
        there = execution(starts, continuer(base, short), seed)
        known = read_json(Path(own.folder) / one.parent / "measured.json")
        measured = figures_from(known[one.parent])
        others[one.parent] = with_execution(measured, there, source)
        found = truths(measured, figures, there, one.lacks, list(JUDGED))
        write_json(folder / "truth.json", found)
    write_json(folder / "measured.json", {one.name: figures} | others)
    name = describe(order.with_adapter(None)).name
    with publish(folder / "README.md") as partial:
        card = write_card(
            f"{one.name}: {one.title}",
            making_of(one, order.training, name),
            figures,
            others,
            found,
            HEURISTICS,
        )
        partial.write_text(card, encoding="utf-8")
    return {"accuracy": figures.accuracy, "thinks": figures.thinks} | {
        truth.behaviour: truth.truth for truth in found
    }


def replace_adapter(order: Order, folder: Path) -> ModelConfig:
    """The model with the adapter that lies in a folder."""
    made = replace(order.with_adapter(None), adapter=str(folder))
    made.option = "pair.rl"
    return made
