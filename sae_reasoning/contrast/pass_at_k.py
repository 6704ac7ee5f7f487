"""pass@k of both models, beside random procedures that a task knows.

Where chance alone gets there within k samples, pass@k says nothing of either model; so a task's
random baselines, of exactly known probability, stand beside it as floors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.contrast.measures import (
    DIFFERENCE,
    Measure,
    Resampling,
    gap_to_wilson,
    measure_of,
    quotient,
    to_wilson,
)
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.stats import Estimate, pass_at
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Task
from sae_reasoning.texts import bounded, number

PASS_AT, TRUNCATED, TOKENS = "pass@k", "samples/truncated", "samples/tokens"


@dataclass(frozen=True)
class ProblemSamples:
    """What came of the samples of one problem.

    Attributes:
        model: `base`, `rl`, or a random baseline.
        problem_id: The problem.
        samples: How many; 0 of a baseline, whose probability is exact.
        right: Right answers among them.
        truncated: How many were truncated.
        tokens: Mean number of tokens written.
        odds: Share of samples that is right; of a baseline, the probability of it.
    """

    model: str
    problem_id: str
    samples: int
    right: int
    truncated: int
    tokens: float
    odds: float


def baseline_samples(task: Task, problems: Sequence[Problem]) -> list[ProblemSamples]:
    """Every random baseline of a task on problems."""
    return [
        ProblemSamples(name, problem.problem_id, 0, 0, 0, 0.0, probability(problem))
        for name, probability in task.problem_baselines.items()
        for problem in problems
    ]


def pass_at_k(samples: Sequence[ProblemSamples], resampling: Resampling) -> list[Measure]:
    """pass@k for k in powers of 2 up to the samples, and paired differences of all.

    Unbiased (Chen et al. 2107.03374, §2.1).

    Args:
        samples: Of both models and every baseline, on the same problems.
        resampling: Makes intervals.
    """
    most = min(one.samples for one in samples if one.model in MODELS)
    ks = [1 << power for power in range(most.bit_length())]
    names = list(dict.fromkeys(one.model for one in samples))
    by_model = {name: [one for one in samples if one.model == name] for name in names}
    posed = [[one.problem_id for one in own] for own in by_model.values()]
    assert all(own == posed[0] for own in posed), "models have samples of different problems"
    values = {
        name: np.array([[_pass_at(one, k) for k in ks] for one in own])
        for name, own in by_model.items()
    }
    items = {name: sum(one.samples for one in own) for name, own in by_model.items()}
    pairs = {DIFFERENCE: (RL, BASE)}
    pairs |= {
        f"{model}-{name}": (model, name) for name in names if name not in MODELS for model in MODELS
    }
    found = []
    for column, k in enumerate(ks):
        for name in names:
            estimate = to_wilson(
                _mean(resampling, values[name][:, column]), values[name][:, column]
            )
            found.append(measure_of("", PASS_AT, name, str(k), estimate, 0.95, items[name]))
        for name, (one, other) in pairs.items():
            gap = values[one][:, column] - values[other][:, column]
            estimate = gap_to_wilson(_mean(resampling, gap), gap)
            found.append(
                measure_of("", PASS_AT, name, str(k), estimate, 0.95, items[one] + items[other])
            )
    for model in MODELS:
        truncated = np.array([one.truncated / one.samples for one in by_model[model]])
        tokens = np.array([one.tokens for one in by_model[model]])
        for name, estimate in (
            (TRUNCATED, to_wilson(_mean(resampling, truncated), truncated)),
            (TOKENS, _mean(resampling, tokens)),
        ):
            found.append(measure_of("", name, model, "", estimate, 0.95, items[model]))
    return found


def _pass_at(one: ProblemSamples, k: int) -> float:
    if not one.samples:
        return 1 - (1 - one.odds) ** k
    return pass_at(one.right, one.samples, k)


def _mean(resampling: Resampling, values: Float[np.ndarray, " problem"]) -> Estimate:
    return resampling.estimate(np.stack([values, np.ones(len(values))], axis=1), quotient)


def pass_summary(found: Sequence[Measure]) -> pd.DataFrame:
    """pass@k for people, with every baseline."""
    by = {(m.condition, m.model): m for m in found if m.measure == PASS_AT}

    def cell(k: str, model: str) -> str:
        one = by[k, model]
        return bounded(one.value, one.low, one.high)

    columns = [model for model in dict.fromkeys(m for _, m in by) if "-" not in model]
    ks = dict.fromkeys(k for k, _ in by)
    return pd.DataFrame(
        [{"k": k} | {name: cell(k, name) for name in (*columns, DIFFERENCE)} for k in ks]
    )


def pass_told(found: Sequence[Measure], baselines: Sequence[str]) -> list[str]:
    """Up to which k the base is behind, with the best baseline there, and what samples were like.

    Args:
        found: Of `pass_at_k`.
        baselines: Of the task, the strongest last.
    """
    by = {(m.model, int(m.condition)): m for m in found if m.measure == PASS_AT}
    if not by:
        return []
    ks = sorted({k for _, k in by})
    behind = [k for k in ks if by[DIFFERENCE, k].low > 0]
    count = f"{by[BASE, 1].n} problems"
    if behind:
        most = behind[-1]
        # With many samples a difference may come and go.
        until = f"up to k = {most}" if most == ks[len(behind) - 1] else f"at k = {_listed(behind)}"
        said = f"pass@k of the base is significantly below the RL model's {until} ({count})"
        if baselines:
            floor = by[baselines[-1], most].value
            said += f"; {baselines[-1]} there: {floor:.0%}"
    else:
        said = f"pass@k of the base is significantly below the RL model's at no k ({count})"
    like = {(m.measure, m.model): m.value for m in found if m.measure in (TRUNCATED, TOKENS)}
    return [
        said,
        "samples: "
        + ", ".join(
            f"{model} {number(like[TOKENS, model], 0)} tokens, {like[TRUNCATED, model]:.0%} "
            "truncated"
            for model in MODELS
        ),
    ]


def _listed(ks: Sequence[int]) -> str:
    *most, last = ks
    return f"{', '.join(map(str, most))} and {last}" if most else str(last)
