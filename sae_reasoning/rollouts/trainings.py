"""Trainings of a base on select problems, of which the best is chosen there and kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae_reasoning.config import ElicitConfig
from sae_reasoning.edges.lm.attach import (
    Attachment,
    attached_reader,
    load_values,
    save_attachment,
    set_values,
)
from sae_reasoning.edges.lm.create import save_model
from sae_reasoning.edges.lm.learn import plain_reader
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, encode_response
from sae_reasoning.elicitation.conditions import Cost
from sae_reasoning.elicitation.lessons import Lessons, teach
from sae_reasoning.elicitation.trainings import Learner, Tried, best_of, reinforce_part
from sae_reasoning.organisms.pretrain import Read
from sae_reasoning.records import BASE
from sae_reasoning.rollouts.episodes import learner as roll_out_of
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.rollouts.respond import Sampling
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Task


@dataclass(frozen=True)
class Trainer:
    """What every training needs.

    Attributes:
        own: Options.
        task: Grades.
        problems: That trainings see.
        pair: Whose base is trained.
        score: Share of right answers on the problems on which is chosen, with a part attached or
            without.
        sampling: How training `name` rolls out.
        kept: Results of trainings, and what was trained.
        say: Hears of progress.
    """

    own: ElicitConfig
    task: Task
    problems: Sequence[Problem]
    pair: LoadedPair
    score: Callable[[LanguageModel, Attachment | None], float]
    sampling: Callable[[str], Sampling]
    kept: Parts
    say: Callable[[str], object]

    def taught(self, lessons: Lessons, kind: str, sampled: int) -> tuple[LanguageModel, Cost]:
        """A base after lessons of a kind, at the rate and number of steps that were best; saved.

        Args:
            lessons: On one problem.
            kind: Of lesson.
            sampled: Tokens of the attempts at it; a part of the cost of lessons made from them.
        """

        def tried() -> list[dict[str, Any]]:
            found = []
            for rate in self.own.critique_rates:
                lm, learner, _ = self._learner()
                for steps, tokens in self._teach(lm, learner, lessons, kind, rate):
                    found.append(Tried(rate, steps, self.score(lm, None), tokens))
            return [one.record() for one in found]

        best = best_of([Tried(**row) for row in self.kept.json(kind, tried)])
        lm, learner, save = self._learner()
        training = self._teach(lm, learner, lessons, kind, best.rate)
        tokens = next(tokens for steps, tokens in training if steps == best.steps)
        save(self.kept.folder / kind.replace(" ", "_"))
        tokens += sampled if kind in lessons.tutor.need_attempts else 0
        trained = sum(weight.numel() for weight in learner.module.parameters())
        return lm, Cost(tokens, best.steps, trained)

    def _teach(
        self, lm: LanguageModel, learner: Learner, lessons: Lessons, kind: str, rate: float
    ) -> Iterator[tuple[int, int]]:
        def ended(text: str) -> list[int]:
            return [*encode_response(lm.tokenizer, text)[0], *lm.end_ids[:1]]

        encode = partial(encode_prompt, lm.tokenizer)
        return teach(learner, self.own, rate, partial(lessons.draw, kind), encode, ended)

    def _learner(self) -> tuple[LanguageModel, Learner, Callable[[Path], object]]:
        """The base anew, with all weights or an adapter to be trained, and what saves these."""
        if rank := self.own.critique_rank:
            made = self.pair.adapted(BASE, rank, self.own.seed)
            return made.lm, self._learns(made.lm, made.part, made.reader), made.save
        lm = self.pair.anew(BASE)
        lm.model.requires_grad_(True)
        save = partial(save_model, lm.model, lm.tokenizer, dtype=torch.float32)
        return lm, self._learns(lm, lm.model, plain_reader), save

    def _learns(
        self, lm: LanguageModel, module: nn.Module, reader: Callable[[nn.Module], Read]
    ) -> Learner:
        state = self.kept.folder / "training.safetensors"
        return Learner(module, reader, lm.tokenizer.pad_token_id, state)

    def reinforced(
        self,
        lm: LanguageModel,
        name: str,
        new: Callable[[LanguageModel], Attachment],
        steps: int,
        rates: Sequence[float],
    ) -> tuple[Attachment, Cost]:
        """A part attached to a frozen base, trained by GRPO at the rate that was best.

        Args:
            lm: The base.
            name: Of the part.
            new: Makes an untrained one.
            steps: Of each training.
            rates: Learning rates to try.
        """
        path = self.kept.folder / f"{name}.safetensors"

        def tried() -> list[dict[str, Any]]:
            found: list[Tried] = []
            for rate in rates:
                part = new(lm)
                curve, tokens = self._reinforce(lm, f"{name}, rate {rate:g}", part, steps, rate)
                found.append(Tried(rate, steps, self.score(lm, part), tokens, tuple(curve)))
                if best_of(found) is found[-1]:
                    save_attachment(part, path)
            return [one.record() for one in found]

        best = best_of([Tried(**row) for row in self.kept.json(name, tried)])
        part = new(lm)
        set_values(part, load_values(path))
        return part, Cost(best.tokens, best.steps, part.values.numel())

    def _reinforce(
        self, lm: LanguageModel, name: str, part: Attachment, steps: int, rate: float
    ) -> tuple[list[float], int]:
        """Train a part at one rate; the reward of each step, and tokens rolled out."""
        on_policy = replace(self.sampling(name), temperature=1.0)
        assert isinstance(part, nn.Module)
        learner = self._learns(lm, part, attached_reader(lm))
        roll_out = roll_out_of(lm, on_policy, part)
        curve, counts = [], [0]
        for reward, tokens in reinforce_part(
            learner, self.own, rate, steps, self.task, self.problems, roll_out
        ):
            curve.append(reward)
            counts.append(tokens)
            if len(curve) % 10 == 0:
                self.say(f"elicit: {name}, step {len(curve)}, reward {reward:.2f}")
        return curve, counts[-1]
