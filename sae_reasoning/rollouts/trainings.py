"""Trainings of a base on select problems, of which the best is chosen there and kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae_reasoning.config import ElicitConfig
from sae_reasoning.edges.lm.adapter import new_adapter
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
from sae_reasoning.rollouts.episodes import learner as roll_out_of
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
        anew: The base, loaded anew.
        score: Share of right answers on the problems on which is chosen, with a part attached or
            without.
        sampling: How training `name` rolls out.
        kept: Results of trainings, and what was trained.
        say: Hears of progress.
    """

    own: ElicitConfig
    task: Task
    problems: Sequence[Problem]
    anew: Callable[[], LanguageModel]
    score: Callable[[LanguageModel, Attachment | None], float]
    sampling: Callable[[str], Sampling]
    kept: Parts
    say: Callable[[str], object]

    def taught(self, lessons: Lessons, kind: str) -> tuple[LanguageModel, Cost]:
        """A base after lessons of a kind, at the rate and number of steps that were best; saved.

        The cost is that of the training alone, without attempts that lessons are made from.
        """

        def tried() -> list[dict[str, Any]]:
            found = []
            for rate in self.own.critique_rates:
                lm, _ = self._learner()
                for steps, tokens in self._teach(lm, lessons, kind, rate):
                    found.append(Tried(rate, steps, self.score(lm, None), tokens))
            return [one.record() for one in found]

        best = best_of([Tried(**row) for row in self.kept.json(kind, tried)])
        lm, save = self._learner()
        training = self._teach(lm, lessons, kind, best.rate)
        tokens = next(tokens for steps, tokens in training if steps == best.steps)
        save(self.kept.folder / kind.replace(" ", "_"))
        trained = sum(p.numel() for p in lm.model.parameters() if p.requires_grad)
        return lm, Cost(tokens, best.steps, trained)

    def _teach(
        self, lm: LanguageModel, lessons: Lessons, kind: str, rate: float
    ) -> Iterator[tuple[int, int]]:
        def ended(text: str) -> list[int]:
            return [*encode_response(lm.tokenizer, text)[0], *lm.end_ids[:1]]

        learner = Learner(lm.model, plain_reader, lm.tokenizer.pad_token_id, self._state)
        encode = partial(encode_prompt, lm.tokenizer)
        return teach(learner, self.own, rate, partial(lessons.draw, kind), encode, ended)

    def _learner(self) -> tuple[LanguageModel, Callable[[Path], object]]:
        """The base anew, with all weights or an adapter to be trained, and what saves these."""
        lm, rank = self.anew(), self.own.critique_rank
        if rank:
            return lm, new_adapter(lm.model, rank, self.own.seed)
        lm.model.requires_grad_(True)
        return lm, partial(save_model, lm.model, lm.tokenizer, dtype=torch.float32)

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
        learner = Learner(part, attached_reader(lm), lm.tokenizer.pad_token_id, self._state)
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

    @property
    def _state(self) -> Path:
        return self.kept.folder / "training.safetensors"
