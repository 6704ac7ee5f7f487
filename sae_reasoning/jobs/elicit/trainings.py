"""Trainings of the base, or of a part attached to it, on problems of the select split."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sae_reasoning.config import GrpoConfig, PretrainConfig
from sae_reasoning.edges.artifacts import read_json, write_json
from sae_reasoning.edges.lm.attach import (
    Attachment,
    attached_reader,
    load_values,
    save_attachment,
    set_values,
)
from sae_reasoning.edges.lm.create import save_model
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.learn import plain_reader
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, encode_response
from sae_reasoning.jobs.elicit.lab import Cost, Lab, Manner
from sae_reasoning.organisms.grpo import Episode, reinforce, right_answer
from sae_reasoning.organisms.pretrain import Run, learn
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.tasks.search.tutor import DIRECT, SearchTutor
from sae_reasoning.tasks.search.world import SearchProblem, parse_prompt

_WARMUP = 5


class Attempts(NamedTuple):
    """Responses to the problem of the lessons, and tokens read and written for them."""

    texts: list[str]
    tokens: int


class Lessons:
    """Fine-tuning of a copy of the base on one select problem."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._own = lab, lab.own
        self._tutor = SearchTutor()
        self.problem = self._tutor.choose(lab.training, self._own.seed)

    def attempts(self) -> Attempts:
        """Responses of the base to the problem, free to think or not; kept."""
        path = self._lab.folder / "trained" / "attempts.json"
        if not path.exists():
            lm = self._lab.base
            found = self._lab.roll(lm, Manner(), [self.problem], self._own.attempts)
            tokens = found.num_tokens.sum() + len(found) * len(
                encode_prompt(lm.tokenizer, self.problem.prompt)
            )
            write_json(
                path,
                {"problem": self.problem.prompt, "texts": list(found.text), "tokens": int(tokens)},
            )
        kept = read_json(path)
        return Attempts(kept["texts"], kept["tokens"])

    def choose(self, kind: str) -> tuple[float, int]:
        """Rate and steps with most right answers on the select split; the table of all is kept."""
        path = self._lab.folder / "trained" / f"{_named(kind)}.json"
        if not path.exists():
            tried = [
                {
                    "rate": rate,
                    "steps": steps,
                    "select_accuracy": self._lab.score(lm, Manner()),
                }
                for rate in self._own.critique_rates
                for steps, lm, _ in self._train(kind, rate)
            ]
            write_json(path, {"tried": tried})
        best = _best(read_json(path)["tried"])
        return best["rate"], best["steps"]

    def taught(self, kind: str) -> tuple[LanguageModel, Cost]:
        """The base after the chosen number of steps on one kind of lesson; saved."""
        rate, steps = self.choose(kind)
        _, lm, tokens = next(one for one in self._train(kind, rate) if one[0] == steps)
        _fresh_state(self._lab.folder)
        folder = self._lab.folder / "trained" / _named(kind)
        save_model(lm.model, lm.tokenizer, folder, torch.float32)
        if kind != DIRECT:  # Whose examples need no attempt.
            tokens += self.attempts().tokens
        return lm, Cost(tokens, steps, sum(p.numel() for p in lm.model.parameters()))

    def _train(self, kind: str, rate: float) -> Iterator[tuple[int, LanguageModel, int]]:
        """Steps done, model and tokens read, after every number of steps that may be chosen."""
        steps = max(self._own.critique_steps)
        lm = self._lab.fresh("base")
        lm.model.requires_grad_(True)
        counted = [0]

        def count(token_ids: list[int]) -> list[int]:
            counted[0] += len(token_ids)
            return token_ids

        config = PretrainConfig(
            steps=steps,
            batch_size=self._own.critique_batch,
            lr=rate,
            warmup=_WARMUP,
            checkpoint_every=steps,
        )
        attempts = self.attempts().texts

        def draw(rng: random.Random, _progress: float) -> tuple[str, str]:
            return self.problem.prompt, self._tutor.lesson(self.problem, attempts, kind, rng)

        for progress in learn(
            lm.model,
            config,
            draw,
            Run(
                self._own.seed,
                plain_reader,
                lm.tokenizer.pad_token_id,
                _fresh_state(self._lab.folder),
            ),
            encode_prompt=lambda text: count(encode_prompt(lm.tokenizer, text)),
            encode_response=lambda text: count(
                [*encode_response(lm.tokenizer, text)[0], *lm.end_ids[:1]]
            ),
            yield_every=1,
        ):
            if progress.step in self._own.critique_steps:
                lm.model.eval()
                yield progress.step, lm, counted[0]
                lm.model.train()
        _fresh_state(self._lab.folder)


def reinforced(
    lab: Lab,
    name: str,
    new: Callable[[LanguageModel], Attachment],
    steps: int,
    rates: Sequence[float],
) -> tuple[Attachment, Cost]:
    """A part attached to the frozen base, trained by GRPO on right answers to select problems.

    The rate is the one with most right answers on the problems on which is chosen.
    """
    folder, part = lab.folder / "trained", new(lab.base)
    kept = folder / f"{name}.json"
    if not kept.exists():
        tried = []
        for rate in rates:
            part, known = _reinforce(lab, f"{name}, rate {rate:g}", new, steps, rate)
            score = lab.score(lab.base, Manner(part=part))
            tried.append({"rate": rate, "steps": steps, "select_accuracy": score} | known)
            if _best(tried) is tried[-1]:
                save_attachment(part, folder / f"{name}.safetensors")
        write_json(kept, {"tried": tried})
    set_values(part, load_values(folder / f"{name}.safetensors"))
    best = _best(read_json(kept)["tried"])
    return part, Cost(best["tokens"], best["steps"], part.values.numel())


def _reinforce(
    lab: Lab, name: str, new: Callable[[LanguageModel], Attachment], steps: int, rate: float
) -> tuple[Attachment, dict[str, Any]]:
    """A part trained at one rate; tokens rolled out, and the reward of each step."""
    own, lm = lab.own, lab.base
    part = new(lm)
    problems = [parse_prompt(problem.prompt) for problem in lab.training]
    tokens, curve = 0, []

    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        nonlocal tokens
        found = _episodes(lab, lm, part, prompts, beginnings, keys)
        tokens += sum(len(one.prompt_ids) + len(one.response_ids) for one in found)
        return found

    def pose(rng: random.Random) -> SearchProblem:
        return rng.choice(problems)

    assert isinstance(part, nn.Module)
    config = GrpoConfig(
        steps=steps,
        prompts=own.rl_prompts,
        samples=own.rl_samples,
        lr=rate,
        kl=0.0,
        warmup=_WARMUP,
        checkpoint_every=steps,
    )
    for progress in reinforce(
        part,
        config,
        pose,
        Run(own.seed, attached_reader(lm), lm.tokenizer.pad_token_id, _fresh_state(lab.folder)),
        roll_out=roll_out,
        reward=right_answer,
        midway=False,
    ):
        curve.append(progress.metrics["reward"])
        if progress.step % 10 == 0:
            lab.console.say(f"elicit: {name}, step {progress.step}, reward {curve[-1]:.2f}")
    _fresh_state(lab.folder)
    return part, {"tokens": tokens, "reward": curve}


def _episodes(
    lab: Lab,
    lm: LanguageModel,
    part: Attachment,
    prompts: Sequence[str],
    beginnings: Sequence[str],
    keys: torch.Tensor,
) -> list[Episode]:
    given, begun = [], []
    for prompt, beginning in zip(prompts, beginnings, strict=True):
        begun.append(encode_response(lm.tokenizer, beginning)[0])
        given.append([*part.prompt(encode_prompt(lm.tokenizer, prompt)), *begun[-1]])
    found: dict[int, Episode] = {}
    with part.attach():
        for one in generate(
            lm,
            given,
            sampler=keyed_sampler(keys, 1.0),
            max_new_tokens=lab.own.max_new_tokens,
            batch_size=lab.own.batch_size,
        ):
            text = lm.decode([*begun[one.row], *one.token_ids])
            end = [] if one.end_id is None else [one.end_id]
            found[one.row] = Episode(given[one.row], [*one.token_ids, *end], text)
    return [found[row] for row in range(len(prompts))]


def with_values(part: Attachment, values: torch.Tensor) -> Attachment:
    """The same kind of part with other values."""
    twin = copy.deepcopy(part)
    set_values(twin, values)
    return twin


def _best(tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What got most right; the first of equals."""
    return max(tried, key=lambda one: one["select_accuracy"])


def _named(kind: str) -> str:
    return kind.replace(" ", "_")


def _fresh_state(folder: Path) -> Path:
    """Where a training keeps its state; a killed one takes seconds and begins anew."""
    path = folder / "training.safetensors"
    path.unlink(missing_ok=True)
    return path
