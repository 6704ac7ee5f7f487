"""Every intervention with its controls: how each is rolled out, or what it lacks."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd

from sae_reasoning.edges.lm.attach import ControlToken, LayerBiases, random_twin_of
from sae_reasoning.edges.lm.load import encode_prompt
from sae_reasoning.elicitation.conditions import (
    CONTROL,
    END,
    INTERVENTION,
    UNKNOWN,
    Condition,
    Cost,
    Made,
    Planned,
)
from sae_reasoning.elicitation.interventions import (
    AT_OPPORTUNITIES,
    BEST_OF,
    BIASES,
    CRITIQUES,
    GATE,
    PROMPT,
    TOOLS,
    Variant,
    prompts,
    tools,
)
from sae_reasoning.elicitation.lessons import Lessons
from sae_reasoning.jobs.elicit.setting import Setting, condition, roll, score
from sae_reasoning.records import BASE, MODELS
from sae_reasoning.rollouts.trainings import Trainer
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Attempt


def ends(setting: Setting) -> list[Condition]:
    """Both models as they are."""

    def make(model: str) -> Made:
        if model == BASE:
            return roll(setting, setting.pair[BASE]), Cost()
        return roll(setting, setting.pair.anew(model), model=model), UNKNOWN

    return [condition(setting, model, "as it is", END, partial(make, model)) for model in MODELS]


def planned(setting: Setting, lacks: tuple[str, ...]) -> Iterator[Planned]:
    """Every condition of the interventions that are asked for.

    Args:
        setting: What they need.
        lacks: What isn't there for those that need grades.
    """
    material, prompted = setting.material, partial(_prompted, setting)
    make: dict[str, Callable[[], Iterator[Planned]]] = {
        PROMPT: lambda: map(prompted, prompts(material)),
        TOOLS: lambda: map(prompted, tools(material, partial(_share_opened, setting))),
        CRITIQUES: lambda: _critiques(setting, lacks),
        GATE: lambda: _attached(setting, GATE, lacks),
        BIASES: lambda: _attached(setting, BIASES, lacks),
        BEST_OF: lambda: _best_of(setting, lacks),
    }
    for name, conditions in make.items():
        if name in material.own.interventions:
            yield from conditions()


def _prompted(setting: Setting, variant: Variant) -> Planned:
    def make() -> Made:
        return roll(setting, setting.pair[BASE], variant.prompting), Cost()

    return Planned(variant.intervention, variant.name, variant.role, make, variant.lacks)


def _share_opened(setting: Setting) -> float:
    """Share of ends of sentences at which openings were written at opportunities."""
    found = setting.rollouts.table(f"{TOOLS}_{AT_OPPORTUNITIES}", pd.DataFrame)
    return float(found.num_openings.sum() / max(found.num_ends.sum(), 1))


def _critiques(setting: Setting, lacks: tuple[str, ...]) -> Iterator[Planned]:
    """Tuned on one select problem; controls learn other responses to it."""
    own, tutor = setting.material.own, setting.material.task.tutor
    if lacks or tutor is None:
        lacks = (*lacks, *setting.material.task.missing("tutor"))
        yield Planned(CRITIQUES, CRITIQUES, INTERVENTION, pd.DataFrame, lacks)
        return

    def attempts(problem: Problem) -> list[Attempt]:
        return [Attempt(**row) for row in _attempted(setting, problem)["attempts"]]

    posed = setting.training[: own.attempt_problems]
    lessons = Lessons(tutor, tutor.choose(posed, attempts, own.seed), attempts)

    def make(kind: str) -> Made:
        assert lessons.problem
        sampled = _attempted(setting, lessons.problem)["tokens"]
        lm, cost = _trainer(setting).taught(lessons, kind, sampled)
        return roll(setting, lm), cost

    for place, kind in enumerate(tutor.kinds):
        role = CONTROL if place else INTERVENTION
        lacks = lessons.lacks(kind, setting.material.reads, own.seed)
        yield Planned(CRITIQUES, kind, role, partial(make, kind), lacks)


def _attempted(setting: Setting, problem: Problem) -> dict[str, Any]:
    """Responses of the base to a problem, free to think or not, and tokens read and written."""

    def make() -> dict[str, Any]:
        lm, count = setting.pair[BASE], setting.material.own.attempts
        found = roll(setting, lm, problems=[problem], samples=count, stream="attempts")
        prompt = encode_prompt(lm.tokenizer, problem.prompt)
        return {
            "prompt": problem.prompt,
            "attempts": found[["text", "correct", "truncated"]].to_dict("records"),
            "tokens": int(found.num_tokens.sum()) + len(found) * len(prompt),
        }

    found: dict[str, Any] = setting.trained.json(f"attempts_{problem.key}", make)
    return found


def _trainer(setting: Setting) -> Trainer:
    material = setting.material
    return Trainer(
        own=material.own,
        task=material.task,
        problems=setting.training,
        pair=setting.pair,
        score=partial(score, setting),
        sampling=lambda name: setting.sampling(f"trained/{name}"),
        kept=setting.trained,
        say=setting.console.say,
    )


def _attached(setting: Setting, name: str, lacks: tuple[str, ...]) -> Iterator[Planned]:
    """A control token that learns when to think, or a vector a layer; the control is random."""
    own, lm = setting.material.own, setting.pair[BASE]

    def make(is_random: bool) -> Made:
        new, steps, rates = (
            (ControlToken, own.gate_steps, own.gate_rates)
            if name == GATE
            else (LayerBiases, own.bias_steps, own.bias_rates)
        )
        part, cost = _trainer(setting).reinforced(lm, name, new, steps, rates)
        if is_random:
            part, cost = random_twin_of(part, own.seed), Cost()
        return roll(setting, lm, part=part), cost

    yield Planned(name, "trained", INTERVENTION, partial(make, False), lacks)
    yield Planned(name, "random", CONTROL, partial(make, True), lacks)


def _best_of(setting: Setting, lacks: tuple[str, ...]) -> Iterator[Planned]:
    """Samples of the base of which the grader takes the best; random procedures are controls."""

    def make() -> Made:
        lm, most = setting.pair[BASE], max(setting.material.own.best_of)
        return roll(setting, lm, problems=setting.best_problems, samples=most), Cost()

    yield Planned(BEST_OF, "samples", INTERVENTION, make, lacks)
