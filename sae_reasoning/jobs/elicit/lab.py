"""Both models on the bench: rolling out under one means, and what's kept of it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.attach import Attachment
from sae_reasoning.edges.lm.generate import Sampler, generate
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, encode_response, load
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.elicitation.moves import moves_made
from sae_reasoning.opening import first_problems
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.annotate import Annotator

MODELS = ("base", "rl")
_FIRST_SAMPLE = 40_000
"""Samples count from here, apart from those of `traces` (0), `contrast` and `hybrid`: what was
trained or chosen on their texts doesn't meet the same noise again."""


@dataclass(frozen=True)
class Cost:
    """What a means costs before it answers anything.

    Attributes:
        training_tokens: Read or rolled out by the training that was chosen, prompts included;
            trials of other rates and lengths aren't counted, of no means.
        gradient_steps: Steps.
        trained_values: Numbers that were trained.
    """

    training_tokens: float = 0.0
    gradient_steps: float = 0.0
    trained_values: float = 0.0


@dataclass(frozen=True)
class Manner:
    """How rollouts are begun and steered.

    Attributes:
        beginning: Written for the model before it writes.
        before: Written before the problem.
        after: Written after the problem.
        part: Attached to the model, if any.
        telling: Makes the sampler that writes words for the model, from another, the prompts and
            the beginnings of the responses; it tells how many it wrote in `num_written`.
    """

    beginning: str = ""
    before: str = ""
    after: str = ""
    part: Attachment | None = None
    telling: Callable[[Sampler, Sequence[str], Sequence[str]], Any] | None = None


@dataclass(frozen=True)
class Arm:
    """One means in one setting, rolled out.

    Attributes:
        means: Its name.
        setting: Which variant of it.
        role: `means`, `control` or `end` (of the gap).
        rollouts: One row each.
    """

    means: str
    setting: str
    role: str
    rollouts: pd.DataFrame = field(repr=False)


class Lab:
    """Models, problems and the parts of the stage."""

    def __init__(self, cfg: Config, folder: Path, annotate: Annotator, console: Console) -> None:
        self.cfg, self.own, self.folder, self.console = cfg, cfg.elicit, folder, console
        self._annotate = annotate
        most = {"select": self.own.select_problems, "report": self.own.report_problems}
        self.problems = first_problems(cfg, most)

    @cached_property
    def base(self) -> LanguageModel:
        """The base, frozen."""
        return self.fresh("base")

    def fresh(self, model: str) -> LanguageModel:
        """A model, loaded anew."""
        return load(getattr(self.cfg.pair, model), self.cfg.device)

    @property
    def choosing(self) -> list[Problem]:
        """Problems of the select split on which a training's length and rate are chosen."""
        return self.problems["select"][-self.own.choose_problems :]

    @property
    def training(self) -> list[Problem]:
        """Problems of the select split that trainings see: the others, where there are any."""
        return self.problems["select"][: -self.own.choose_problems] or self.problems["select"]

    def score(self, lm: LanguageModel, manner: Manner) -> float:
        """Share of right answers on the problems on which is chosen, one rollout each."""
        return float(self.roll(lm, manner, self.choosing, 1).correct.astype(float).mean())

    def arm(
        self, means: str, setting: str, make: Callable[[], tuple[pd.DataFrame, Cost]], role: str
    ) -> Arm:
        """An arm, from disk if it was made before."""
        path = self.folder / "rollouts" / f"{means}_{setting}.parquet".replace(" ", "-")
        if not path.exists():
            self.console.say(f"elicit: {means}, {setting}")
            rollouts, cost = make()
            write_table(path, rollouts.assign(**asdict(cost)))
        return Arm(means, setting, role, read_table(path))

    def sampler(self, problems: Sequence[Problem], samples: int) -> Sampler:
        """Keyed noise, common to all means: by seed, problem and sample."""
        keys = noise_keys(self.own.seed, problems, samples)
        return keyed_sampler(torch.tensor(keys), self.own.temperature)

    def roll(
        self,
        lm: LanguageModel,
        manner: Manner,
        problems: Sequence[Problem] | None = None,
        samples: int | None = None,
    ) -> pd.DataFrame:
        """Rollouts on the report split unless other problems are given, read by program."""
        problems = self.problems["report"] if problems is None else problems
        samples = samples or self.own.samples
        rows = [(problem, sample) for problem in problems for sample in range(samples)]
        given = [
            encode_prompt(lm.tokenizer, _joined(manner.before, p.prompt, manner.after))
            for p, _ in rows
        ]
        beginning = encode_response(lm.tokenizer, manner.beginning)[0]
        plain = [len(encode_prompt(lm.tokenizer, p.prompt)) for p, _ in rows]
        sampler = self.sampler(problems, samples)
        written = [0] * len(rows)
        if manner.telling:
            beginnings = [manner.beginning] * len(rows)
            sampler = manner.telling(sampler, [p.prompt for p, _ in rows], beginnings)
        part = manner.part
        begun = [[*(part.prompt(ids) if part else ids), *beginning] for ids in given]
        with part.attach() if part else ExitStack():
            made = sorted(
                generate(
                    lm,
                    begun,
                    sampler=sampler,
                    max_new_tokens=self.own.max_new_tokens,
                    batch_size=self.own.batch_size,
                ),
                key=lambda rollout: rollout.row,
            )
        if manner.telling:
            written = sampler.num_written  # type: ignore[attr-defined]
        found = []
        for (problem, sample), one, extra in zip(rows, made, written, strict=True):
            text = lm.decode([*beginning, *one.token_ids])
            judged = self._annotate(problem.prompt, text, one.truncated)
            found.append(
                {
                    "problem_id": problem.problem_id,
                    "sample": sample,
                    "prompt": problem.prompt,
                    "text": text,
                    "correct": judged.correct,
                    "truncated": one.truncated,
                    "num_tokens": len(one.token_ids),
                    "num_written": extra,
                    "prompt_tokens": len(begun[one.row]) - plain[one.row],
                }
            )
            made_ = moves_made(problem.prompt, text, judged, self.cfg.behaviours)
            for behaviour, count in made_.items():
                found[-1] |= {f"made/{behaviour}": count.spans, f"right/{behaviour}": count.right}
        return pd.DataFrame(found)


def noise_keys(seed: int, problems: Sequence[Problem], samples: int) -> list[tuple[int, int, int]]:
    """What each rollout's noise is keyed by: seed, problem and sample."""
    return [(seed, p.key, _FIRST_SAMPLE + s) for p in problems for s in range(samples)]


def _joined(*texts: str) -> str:
    return " ".join(text for text in texts if text)
