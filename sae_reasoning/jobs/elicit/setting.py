"""What every intervention needs: the pair, problems, the task, and what is there so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.attach import Attachment
from sae_reasoning.edges.lm.load import LanguageModel, expresses
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.elicitation.conditions import Condition, Cost, Prompting
from sae_reasoning.elicitation.interventions import TRAINED, Material
from sae_reasoning.opening import first_problems, open_task
from sae_reasoning.records import BASE, REPORT, SELECT
from sae_reasoning.rollouts.answers import answers
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.rollouts.respond import Sampling
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.problems import Problem


@dataclass(frozen=True)
class Setting:
    """One elicitation.

    Attributes:
        material: Task, options and traces.
        pair: The models.
        problems: By split.
        behaviours: To be counted in every rollout.
        rollouts: Of each condition.
        trained: What was tried, and what was trained.
        console: Hears of progress.
    """

    material: Material
    pair: LoadedPair
    problems: Mapping[str, list[Problem]]
    behaviours: Sequence[str]
    rollouts: Parts
    trained: Parts
    console: Console

    @property
    def best_problems(self) -> list[Problem]:
        """Problems of best-of-k."""
        return self.problems[REPORT][: self.material.own.best_problems]

    @property
    def choosing(self) -> list[Problem]:
        """Problems of the select split on which a training's length and rate are chosen."""
        return self.problems[SELECT][-self.material.own.choose_problems :]

    @property
    def training(self) -> list[Problem]:
        """Problems of the select split that trainings see: the others."""
        return self.problems[SELECT][: -self.material.own.choose_problems]

    def sampling(self, stream: str) -> Sampling:
        """How is sampled, under noise of a name; that of `rollouts` is common to all conditions."""
        own = self.material.own
        noise = Noise(f"elicit/{stream}", own.seed)
        return Sampling(noise, own.temperature, own.max_new_tokens, own.batch_size)

    def lines(self) -> dict[str, Any]:
        """The plan."""
        own = self.material.own
        return {
            "task": self.material.task.name,
            "interventions": ", ".join(own.interventions),
            "problems": ", ".join(f"{s}: {len(p)}" for s, p in self.problems.items()),
            "rollouts": f"{own.samples} a problem and condition",
            "best of": f"{own.best_of}, {len(self.best_problems)} problems",
        }


def open_setting(cfg: Config, folder: Path, console: Console) -> Setting:
    """Read what is needed; no model is loaded.

    Raises:
        ConfigError: Something is to be trained, and no problem is left to train on.
    """
    own, pair = cfg.elicit, LoadedPair(cfg.pair, cfg.device)
    problems = first_problems(cfg, {SELECT: own.select_problems, REPORT: own.report_problems})
    trained, count = set(own.interventions) & TRAINED, len(problems[SELECT])
    if trained and count <= own.choose_problems:
        lower = f"lower it to {count // 2}, or " if count > 1 else ""
        raise ConfigError(
            f"elicit.choose_problems={own.choose_problems} of {count} select problems leaves none "
            f"to train {', '.join(sorted(trained))} on; {lower}raise elicit.select_problems and "
            "traces.num_problems"
        )
    traces = read_traces(cfg.place("traces") / "traces.parquet")
    behaviours = own.behaviours or cfg.behaviours
    task = open_task(cfg, traces).with_openings(traces, behaviours)
    return Setting(
        material=Material(
            task=task,
            own=own,
            behaviours=behaviours,
            traces=traces,
            reads=lambda words: expresses(pair[BASE].tokenizer, words),
            listens=task.annotator.listen(problems[REPORT][0]) is not None,
        ),
        pair=pair,
        problems=problems,
        behaviours=cfg.behaviours,
        rollouts=Parts(folder / "rollouts"),
        trained=Parts(folder / "trained"),
        console=console,
    )


def roll(
    setting: Setting,
    lm: LanguageModel,
    prompting: Prompting | None = None,
    *,
    problems: Sequence[Problem] | None = None,
    samples: int | None = None,
    model: str = BASE,
    part: Attachment | None = None,
    stream: str = "rollouts",
) -> pd.DataFrame:
    """Rollouts of a condition, on the report split unless other problems are given."""
    problems = setting.problems[REPORT] if problems is None else problems
    samples = samples or setting.material.own.samples
    return answers(
        lm,
        setting.material.task,
        [(problem, sample) for problem in problems for sample in range(samples)],
        prompting or Prompting(),
        setting.sampling(stream),
        setting.behaviours,
        model=model,
        part=part,
    )


def score(setting: Setting, lm: LanguageModel, part: Attachment | None = None) -> float:
    """Share of right answers on the problems on which is chosen, one rollout each."""
    found = roll(setting, lm, problems=setting.choosing, samples=1, part=part)
    return float(found.correct.astype(float).fillna(0.0).mean())


def condition(
    setting: Setting,
    intervention: str,
    name: str,
    role: str,
    make: Callable[[], tuple[pd.DataFrame, Cost]],
) -> Condition:
    """A condition, from disk if it was rolled out before."""

    def made() -> pd.DataFrame:
        setting.console.say(f"elicit: {intervention}, {name}")
        rollouts, cost = make()
        return rollouts.assign(**asdict(cost))

    rollouts = setting.rollouts.table(f"{intervention}_{name}", made)
    return Condition(intervention, name, role, rollouts)
