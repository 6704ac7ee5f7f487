"""Figures of a finished organism, counted by program, for its model card."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sae_reasoning.records import Annotation
from sae_reasoning.stats import (
    Estimate,
    bootstrap_of_sums,
    paired_bootstrap,
    pass_at,
    widen_flat,
    wilson,
)
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.forced import Continue, Validity, forced_starts, measure_validity
from sae_reasoning.tasks.search.grammar import BEHAVIOURS, OPENINGS, answered_path
from sae_reasoning.tasks.search.narrator import ALWAYS, Narration, narrate
from sae_reasoning.tasks.search.parser import parse
from sae_reasoning.tasks.search.world import Difficulty, SearchProblem, sample_problem

NARRATOR = "the narrator"
_RESAMPLES = 2000
_PASS_AT = (1, 4, 16, 64)


@dataclass(frozen=True)
class BehaviourFigures:
    """One behaviour of one model.

    Attributes:
        behaviour: Its label.
        per_trace: Spans a rollout.
        traces_with: Share of rollouts that hold it.
        per_opportunity: Share of its opportunities that are taken; problem bootstrap.
        opportunities: Their number.
    """

    behaviour: str
    per_trace: Estimate
    traces_with: Estimate
    per_opportunity: Estimate
    opportunities: int


@dataclass(frozen=True)
class Figures:
    """One model, measured.

    Attributes:
        accuracy: Share of right answers, free to think or not.
        thinks: Share of rollouts that think.
        accuracy_thinking: Share of right answers with the thinking prefix forced.
        accuracy_direct: Share of right answers with the answer prefix forced.
        tokens: Tokens a rollout.
        truncated: Share of rollouts that were truncated.
        behaviours: In free rollouts.
        execution: Execution accuracy at opportunities in texts by `execution_writer`.
        execution_writer: Who wrote those texts.
        pass_at: pass@k by k, on problems of their own.
        random_walk_at: pass@k of random walks from the start, on the same problems.
    """

    accuracy: Estimate
    thinks: Estimate
    accuracy_thinking: Estimate
    accuracy_direct: Estimate
    tokens: Estimate
    truncated: Estimate
    behaviours: list[BehaviourFigures]
    execution: list[Validity] = field(default_factory=list)
    execution_writer: str = ""
    pass_at: dict[int, Estimate] = field(default_factory=dict)
    random_walk_at: dict[int, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Rolled:
    """One free rollout, read."""

    problem: SearchProblem
    text: str
    num_tokens: int
    truncated: bool
    narration: Narration

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.problem.grade(answered_path(self.text))


Write = Callable[[Sequence[str], Sequence[str], int], list[tuple[str, int, bool]]]
"""Takes prompts, beginnings of responses, a seed; gives text, tokens, whether it is truncated."""


def measuring_problems(count: int, seed: int, purpose: str) -> list[SearchProblem]:
    """Problems apart from those of training and of experiments."""
    rng = random.Random(f"measure/{purpose}/{seed}")
    return [sample_problem(rng, Difficulty(), grammar.REMARKS) for _ in range(count)]


def roll(
    problems: Sequence[SearchProblem], write: Write, seed: int, beginning: str = ""
) -> list[Rolled]:
    """One rollout of each problem; `beginning` is forced."""
    prompts = [problem.prompt() for problem in problems]
    return [
        Rolled(problem, text, num_tokens, truncated, parse(problem, text, truncated))
        for problem, (text, num_tokens, truncated) in zip(
            problems, write(prompts, [beginning] * len(prompts), seed), strict=True
        )
    ]


def narrated(problems: Sequence[SearchProblem], seed: int) -> list[Rolled]:
    """The narrator's traces with every behaviour, in place of rollouts."""
    rng = random.Random(f"narrated/{seed}")
    narrations = [narrate(problem, ALWAYS, rng) for problem in problems]
    return [
        Rolled(problem, narration.text, len(narration.text.split()), False, narration)
        for problem, narration in zip(problems, narrations, strict=True)
    ]


def measure(
    write: Write, problems: Sequence[SearchProblem], seed: int, num_forced: int
) -> tuple[Figures, list[Rolled]]:
    """Figures of one model without execution and pass@k, and the free rollouts behind them.

    Args:
        write: The model.
        problems: One rollout each.
        seed: Of the noise.
        num_forced: Problems on which thinking, and a direct answer, are also forced.
    """
    free = roll(problems, write, seed)
    thinking = roll(problems[:num_forced], write, seed, grammar.THINK)
    direct = roll(problems[:num_forced], write, seed, grammar.ANSWER)

    def share(values: Sequence[bool]) -> Estimate:
        return wilson(sum(values), len(values))

    figures = Figures(
        accuracy=share([r.correct for r in free]),
        thinks=share([r.text.startswith(grammar.THINK) for r in free]),
        accuracy_thinking=share([r.correct for r in thinking]),
        accuracy_direct=share([r.correct for r in direct]),
        tokens=paired_bootstrap(np.array([float(r.num_tokens) for r in free]), _RESAMPLES, seed),
        truncated=share([r.truncated for r in free]),
        behaviours=[
            behaviour_figures(behaviour, [r.narration for r in free], seed)
            for behaviour in BEHAVIOURS
        ],
    )
    return figures, free


def behaviour_figures(
    behaviour: str, read: Sequence[Narration | Annotation], seed: int
) -> BehaviourFigures:
    """Figures of one behaviour in free rollouts.

    Args:
        behaviour: Which.
        read: Each rollout, with its behaviours and opportunities.
        seed: Of the resamples.
    """
    spans = np.array([sum(s.behaviour == behaviour for s in r.spans) for r in read], float)
    own = [[o.taken for o in r.opportunities if o.behaviour == behaviour] for r in read]
    offered = np.array([len(taken) for taken in own], float)
    taken = np.array([sum(taken) for taken in own], float)
    return BehaviourFigures(
        behaviour=behaviour,
        per_trace=paired_bootstrap(spans, _RESAMPLES, seed),
        traces_with=wilson(int((spans > 0).sum()), len(spans)),
        per_opportunity=_share_of_opportunities(taken, offered, seed),
        opportunities=int(offered.sum()),
    )


def _share_of_opportunities(taken: np.ndarray, offered: np.ndarray, seed: int) -> Estimate:
    """Share of opportunities that were taken, with a bootstrap interval over problems."""

    def share(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[..., 0] / sums[..., 1]

    found = bootstrap_of_sums(np.stack([taken, offered], axis=1), share, _RESAMPLES, seed)
    return widen_flat(replace(found, n=int(offered.sum())), int((offered > 0).sum()))


def figures_from(content: Mapping[str, Any]) -> Figures:
    """Figures as they were written to JSON."""

    def estimate(of: Mapping[str, Any]) -> Estimate:
        return Estimate(**of)

    shares = ("accuracy", "thinks", "accuracy_thinking", "accuracy_direct", "tokens", "truncated")
    return Figures(
        **{name: estimate(content[name]) for name in shares},
        behaviours=[
            BehaviourFigures(
                behaviour=own["behaviour"],
                per_trace=estimate(own["per_trace"]),
                traces_with=estimate(own["traces_with"]),
                per_opportunity=estimate(own["per_opportunity"]),
                opportunities=own["opportunities"],
            )
            for own in content["behaviours"]
        ],
        execution=[Validity(**own) for own in content["execution"]],
        execution_writer=content["execution_writer"],
        pass_at={int(k): estimate(e) for k, e in content["pass_at"].items()},
        random_walk_at={int(k): estimate(e) for k, e in content["random_walk_at"].items()},
    )


def execution_at_opportunities(
    rolled: Sequence[Rolled],
    continue_: Continue,
    per_behaviour: int,
    seed: int,
    openings: Mapping[str, Sequence[str]] = OPENINGS,
) -> list[Validity]:
    """Execution accuracy at the opportunities that `rolled` took."""
    starts = forced_starts(
        [(r.problem.prompt(), r.text) for r in rolled],
        [[(o.behaviour, o.char_end) for o in r.narration.opportunities if o.taken] for r in rolled],
        random.Random(f"forced/{seed}"),
        per_behaviour,
        openings,
    )
    return measure_validity(starts, continue_, seed)


def pass_at_k(
    correct: Sequence[Sequence[bool]], ks: Sequence[int], seed: int
) -> dict[int, Estimate]:
    """Unbiased pass@k (Chen et al. 2107.03374, §2.1), bootstrapped over problems.

    Args:
        correct: Grades of the rollouts of each problem.
        ks: Numbers of samples, none above the rollouts of a problem.
        seed: Of the resamples.
    """
    estimates = {}
    for k in ks:
        values = [pass_at(sum(c), len(c), k) for c in correct]
        found = paired_bootstrap(np.array(values), _RESAMPLES, seed)
        estimates[k] = widen_flat(found, len(values))
    return estimates


def with_pass_at_k(
    figures: Figures, write: Write, num_problems: int, samples: int, seed: int
) -> Figures:
    """Figures with pass@k of the model and of random walks, on problems of their own."""
    problems = measuring_problems(num_problems, seed, "pass")
    rolled = roll([problem for problem in problems for _ in range(samples)], write, seed + 1)
    grades = [one.correct for one in rolled]
    correct = [grades[start : start + samples] for start in range(0, len(grades), samples)]
    rng = random.Random(f"walk/{seed}")
    walks = [random_walks(problem, samples, rng) for problem in problems]
    ks = [k for k in _PASS_AT if k <= samples]
    return replace(
        figures, pass_at=pass_at_k(correct, ks, seed), random_walk_at=pass_at_k(walks, ks, seed)
    )


def random_walks(problem: SearchProblem, count: int, rng: random.Random) -> list[bool]:
    """Grades of random walks from the start to a leaf."""
    grades = []
    for _ in range(count):
        path = [problem.start]
        while children := problem.children(path[-1]):
            path.append(rng.choice(children))
        grades.append(problem.grade(path))
    return grades
