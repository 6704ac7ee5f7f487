"""What can be reached in k tries: pass@k of both models beside walks that know nothing but the map.

Where chance alone gets there within k tries, pass@k says nothing of either model; so its floors
stand beside it, exact: a walk from the start that takes any way at random, and one that also keeps
off shut places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.contrast.measures import (
    BASE,
    DIFFERENCE,
    MODELS,
    RL,
    Measure,
    Resampling,
    gap_to_wilson,
    measure_of,
    quotient,
    to_wilson,
)
from sae_reasoning.stats import Estimate, pass_at
from sae_reasoning.tasks.search.baselines import walk_odds
from sae_reasoning.tasks.search.world import SearchProblem
from sae_reasoning.texts import bounded, number

PASS_AT, CUT, TOKENS = "pass@k", "tries/cut", "tries/tokens"
DESCENTS, OPEN_DESCENTS = "random descents", "random open descents"
WALKS = {DESCENTS: False, OPEN_DESCENTS: True}


@dataclass(frozen=True)
class Tries:
    """What came of the tries at one problem.

    Attributes:
        model: `base`, `rl`, or a walk.
        problem_id: The problem.
        samples: Tries; 0 of a walk, whose chance is exact.
        right: Right answers among them.
        truncated: How many were cut.
        tokens: Mean number of tokens written.
        odds: Share of tries that is right; of a walk, the chance of it.
    """

    model: str
    problem_id: str
    samples: int
    right: int
    truncated: int
    tokens: float
    odds: float


def walked(problems: Mapping[str, SearchProblem]) -> list[Tries]:
    """Every walk on problems, by their ids."""
    return [
        Tries(name, one, 0, 0, 0, 0.0, walk_odds(problem, keeps_off_shut=keeps_off_shut))
        for name, keeps_off_shut in WALKS.items()
        for one, problem in problems.items()
    ]


def reach(tries: Sequence[Tries], how: Resampling) -> list[Measure]:
    """pass@k for k in powers of 2 up to the samples, and paired differences of all.

    Unbiased (Chen et al. 2107.03374, §2.1).

    Args:
        tries: Of both models and every walk, on the same problems.
        how: Makes intervals.
    """
    most = min(one.samples for one in tries if one.model in MODELS)
    ks = [1 << power for power in range(most.bit_length())]
    names = list(dict.fromkeys(one.model for one in tries))
    by_model = {name: [one for one in tries if one.model == name] for name in names}
    posed = [[one.problem_id for one in own] for own in by_model.values()]
    assert all(own == posed[0] for own in posed), "models tried different problems"
    values = {
        name: np.array([[_pass_at(one, k) for k in ks] for one in own])
        for name, own in by_model.items()
    }
    items = {name: sum(one.samples for one in own) for name, own in by_model.items()}
    pairs = {DIFFERENCE: (RL, BASE)}
    pairs |= {f"{model}-{walk}": (model, walk) for walk in WALKS for model in MODELS}
    found = []
    for column, k in enumerate(ks):
        for name in names:
            estimate = to_wilson(_mean(how, values[name][:, column]), values[name][:, column])
            found.append(measure_of("", PASS_AT, name, str(k), estimate, 0.95, items[name]))
        for name, (one, other) in pairs.items():
            gap = values[one][:, column] - values[other][:, column]
            estimate = gap_to_wilson(_mean(how, gap), gap)
            found.append(
                measure_of("", PASS_AT, name, str(k), estimate, 0.95, items[one] + items[other])
            )
    for model in MODELS:
        cut = np.array([one.truncated / one.samples for one in by_model[model]])
        tokens = np.array([one.tokens for one in by_model[model]])
        for name, estimate in (
            (CUT, to_wilson(_mean(how, cut), cut)),
            (TOKENS, _mean(how, tokens)),
        ):
            found.append(measure_of("", name, model, "", estimate, 0.95, items[model]))
    return found


def _pass_at(one: Tries, k: int) -> float:
    if not one.samples:
        return 1 - (1 - one.odds) ** k
    return pass_at(one.right, one.samples, k)


def _mean(how: Resampling, values: Float[np.ndarray, " problem"]) -> Estimate:
    return how.estimate(np.stack([values, np.ones(len(values))], axis=1), quotient)


def pass_summary(found: Sequence[Measure]) -> pd.DataFrame:
    """pass@k for people, with both floors."""
    by = {(m.condition, m.model): m for m in found if m.measure == PASS_AT}

    def cell(k: str, model: str) -> str:
        one = by[k, model]
        return bounded(one.value, one.low, one.high)

    columns = (BASE, RL, DIFFERENCE, DESCENTS, OPEN_DESCENTS)
    ks = dict.fromkeys(k for k, _ in by)
    return pd.DataFrame([{"k": k} | {name: cell(k, name) for name in columns} for k in ks])


def pass_told(found: Sequence[Measure]) -> list[str]:
    """Up to which k the base is surely behind, with the floor there, and what tries were like."""
    by = {(m.model, int(m.condition)): m for m in found if m.measure == PASS_AT}
    ks = sorted({k for _, k in by})
    behind = [k for k in ks if by[DIFFERENCE, k].low > 0]
    count = f"{by[BASE, 1].n} problems"
    if behind:
        most = behind[-1]
        # With many tries a difference may come and go.
        until = f"up to k = {most}" if most == ks[len(behind) - 1] else f"at k = {_listed(behind)}"
        said = (
            f"the base is surely behind {until} ({count}), where a random descent that "
            f"keeps to open places is right on {by[OPEN_DESCENTS, most].value:.0%}"
        )
    else:
        said = f"the base is surely behind at no k ({count})"
    tries = {(m.measure, m.model): m.value for m in found if m.measure in (CUT, TOKENS)}
    return [
        said,
        "a try: "
        + ", ".join(
            f"{model} {number(tries[TOKENS, model], 0)} tokens, {tries[CUT, model]:.0%} cut"
            for model in MODELS
        ),
    ]


def _listed(ks: Sequence[int]) -> str:
    *most, last = ks
    return f"{', '.join(map(str, most))} and {last}" if most else str(last)
