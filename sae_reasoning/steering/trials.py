"""What is tried: sizes of vectors on the select split, then every policy on the report split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.config.hybrid import HybridConfig
from sae_reasoning.records import BASE, RL
from sae_reasoning.steering.controls import random_direction
from sae_reasoning.steering.onset_vectors import Vector
from sae_reasoning.steering.policies import (
    ALWAYS,
    DIFFERS,
    GATE,
    NEVER,
    ORACLE,
    RANDOM,
    RANDOM_DIFFERS,
    SCALE,
    SWAP,
    WRITE,
    Policy,
)
from sae_reasoning.steering.recovery import NOTHING
from sae_reasoning.steering.vectors import Steer

TOKEN_SWAP, REVERSE_SWAP = "token-swap", "reverse-token-swap"
"""The RL model's tokens in text of the base, and the base's in text of the RL model."""
DIVERGING, WHEREVER, AT_RANDOM = (
    "most divergent",
    "wherever they differ",
    "at random where they differ",
)
"""Where tokens are swapped."""
RANDOM_CATEGORY, MAGNITUDE = "random-category", "magnitude-only"
_NO_BUDGET = float("nan")
_BIAS = "bias"

Vectors = Mapping[str, Mapping[str, Vector]]
"""By kind and behaviour."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One way to steer, to be tried on every problem.

    Attributes:
        policy: Its name.
        vector: Kind of vector, or `-`.
        budget: Share of tokens that it was to steer at most; NaN where it has none.
        rule: What is done.
        samples: Rollouts a problem.
        draw: Which draw of a control.
        writer: Who writes, `base` or `rl`; the other reads along.
    """

    policy: str
    vector: str
    budget: float
    rule: Policy
    samples: int = 1
    draw: int = 0
    writer: str = BASE


@dataclass(frozen=True)
class Sizes:
    """What accuracy on the select split chose.

    Attributes:
        multiples: Of each kind of vector, by how much all its vectors are multiplied.
        best: The kind with which most answers are right.
        bias: What is added everywhere.
        tried: For people, in JSON's types.
    """

    multiples: dict[str, float]
    best: str
    bias: Steer
    tried: dict[str, Any]


NO_SIZES = Sizes({}, "", Steer(-1, torch.zeros(0)), {})
"""Where there is no vector to choose a size of."""


def steering_of(
    vectors: Mapping[str, Vector], behaviours: Sequence[str], multiple: float
) -> list[Steer | None]:
    """What is added for each behaviour; None where it has no vector."""
    return [vectors[name].times(multiple) if name in vectors else None for name in behaviours]


def size_trials(
    own: HybridConfig,
    behaviours: Sequence[str],
    vectors: Vectors,
    biases: Mapping[int, Float[Tensor, " d_model"]],
    threshold: float,
) -> list[Trial]:
    """Every multiple of each kind where the oracle steers, every dose of each layer's bias."""
    trials = [
        Trial(
            kind,
            str(multiple),
            _NO_BUDGET,
            Policy(ORACLE, threshold=threshold, vectors=steering_of(found, behaviours, multiple)),
        )
        for kind, found in vectors.items()
        for multiple in own.multiples
    ]
    return trials + [
        Trial(
            f"{_BIAS}/{layer}",
            str(dose),
            _NO_BUDGET,
            Policy(ALWAYS, vectors=[Steer(layer, change * dose)] * len(behaviours)),
        )
        for layer, change in biases.items()
        for dose in own.doses
    ]


def choose_sizes(
    own: HybridConfig,
    rollouts: pd.DataFrame,
    vectors: Vectors,
    biases: Mapping[int, Float[Tensor, " d_model"]],
) -> Sizes:
    """The sizes with most right answers among those that are graded; the first of equals."""
    accuracy = accuracies(rollouts)
    multiples = {
        kind: max(own.multiples, key=lambda m, kind=kind: accuracy[kind, str(m)])  # type: ignore[misc]
        for kind in vectors
    }
    best = max(vectors, key=lambda kind: accuracy[kind, str(multiples[kind])])
    layer, dose = max(
        ((layer, dose) for layer in biases for dose in own.doses),
        key=lambda one: accuracy[f"{_BIAS}/{one[0]}", str(one[1])],
    )
    tried = {
        "accuracy by multiple": {
            f"{policy} {vector}": value for (policy, vector), value in accuracy.items()
        },
        "multiples": multiples,
        "best vector": best,
        "global bias": {"layer": layer, "dose": dose},
    }
    return Sizes(multiples, best, Steer(layer, biases[layer] * dose), tried)


def accuracies(rollouts: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Share of right answers among the graded ones, by policy and vector; 0 where none is."""
    graded = rollouts.assign(correct=rollouts.correct.astype(float))
    found: dict[tuple[str, str], float] = (
        graded.groupby(["policy", "vector"], sort=True).correct.mean().fillna(0.0).to_dict()
    )
    return found


def shares_by_budget(rollouts: pd.DataFrame) -> dict[float, list[float]]:
    """By budget, the share of tokens at which the oracle steered to each behaviour."""
    found = {}
    for budget, part in rollouts.groupby("budget"):
        positions = (part.num_tokens + ~part.truncated.astype(bool)).sum()
        decided = np.stack(part.decided.to_list()).sum(0)[1:]
        found[float(budget)] = [float(share) for share in decided / positions]
    return found


@dataclass(frozen=True)
class Steering:
    """All that the policies on the report split are made of.

    Attributes:
        behaviours: Classes from 1 on.
        vectors: By kind and behaviour.
        sizes: Chosen on the select split.
        thresholds: Of `oracle`, `gate` and `differs`, for each budget.
        differs: Share of tokens at which the models' likeliest next tokens differ.
        shares: By budget, of tokens at which `random` steers to each behaviour.
        words: Tokens of each behaviour's opening; none where openings aren't known.
    """

    behaviours: Sequence[str]
    vectors: Vectors
    sizes: Sizes
    thresholds: Mapping[str, Sequence[float]]
    differs: float
    shares: Mapping[float, Sequence[float]]
    words: Sequence[Sequence[int]]

    def of(self, kind: str) -> list[Steer | None]:
        """What is added for each behaviour by one kind of vector."""
        return steering_of(self.vectors[kind], self.behaviours, self.sizes.multiples[kind])


def oracle_trials(own: HybridConfig, steering: Steering) -> list[Trial]:
    """The best vectors where the oracle steers, at each budget."""
    best = steering.sizes.best
    return [
        Trial("oracle", best, budget, Policy(ORACLE, threshold=t, vectors=steering.of(best)))
        for budget, t in zip(own.budgets, steering.thresholds["oracle"], strict=True)
    ]


def report_trials(own: HybridConfig, steering: Steering) -> list[Trial]:
    """Both ends of the gap, then every policy, kind of vector and budget with its controls.

    At its end each model writes by itself, so its answers are graded by its own response format.
    """
    trials = [
        Trial(BASE, NOTHING, _NO_BUDGET, Policy(NEVER), own.end_samples),
        Trial(RL, NOTHING, _NO_BUDGET, Policy(NEVER), own.end_samples, writer=RL),
        *swap_trials(own, steering),
    ]
    for budget, oracle in zip(own.budgets, steering.thresholds["oracle"], strict=True):
        policies = [(TOKEN_SWAP, NOTHING, Policy(ORACLE, SWAP, oracle))]
        if steering.words:
            cue = Policy(ORACLE, WRITE, oracle, words=steering.words)
            policies.append(("cue-word", NOTHING, cue))
        trials += [Trial(name, vector, budget, p, own.samples) for name, vector, p in policies]
    return [*trials, *vector_trials(own, steering)] if steering.vectors else trials


def vector_trials(own: HybridConfig, steering: Steering) -> list[Trial]:
    """Every kind of vector under every policy and budget, and the controls of the best kind.

    Controls (of 2510.07364's code): random directions as large, another behaviour's vector, the
    length alone, random positions.
    """
    best, bias = steering.sizes.best, steering.sizes.bias
    always = Policy(ALWAYS, vectors=steering.of(best))
    everywhere = Policy(ALWAYS, vectors=[bias] * len(steering.behaviours))
    trials = [
        Trial("always", best, _NO_BUDGET, always, own.samples),
        Trial("global-bias", "global-bias", _NO_BUDGET, everywhere, own.samples),
    ]
    for number, budget in enumerate(own.budgets):
        oracle, gate = (steering.thresholds[name][number] for name in ("oracle", "gate"))
        policies: list[tuple[str, str, Policy]] = []
        for kind in steering.vectors:
            added = steering.of(kind)
            shares = steering.shares[budget]
            policies += [
                ("oracle", kind, Policy(ORACLE, threshold=oracle, vectors=added)),
                ("latent", kind, Policy(GATE, threshold=gate, vectors=added)),
                ("random", kind, Policy(RANDOM, shares=shares, vectors=added)),
            ]
        at_oracle = Policy(ORACLE, threshold=oracle, vectors=steering.of(best))
        policies.append((MAGNITUDE, f"as large as {best}", replace(at_oracle, how=SCALE)))
        trials += [Trial(name, vector, budget, p, own.samples) for name, vector, p in policies]
        drawn = {
            ("random-vector", f"random, as large as {best}"): [
                _random(steering.of(best), own.seed, draw) for draw in range(own.draws)
            ],
            (RANDOM_CATEGORY, f"{best} of another behaviour"): other_categories(
                steering.of(best), own.seed, own.draws
            ),
        }
        for (name, vector), draws in drawn.items():
            for draw, vectors in enumerate(draws):
                rule = replace(at_oracle, vectors=vectors)
                trials.append(Trial(name, vector, budget, rule, own.samples, draw))
    return trials


def swap_trials(own: HybridConfig, steering: Steering) -> list[Trial]:
    """Tokens of one model in text of the other, both ways, at rising budgets.

    Where the likeliest tokens differ, the most divergent places first; as a control, as many of
    these places at random, by what the select split's traces say; and wherever they differ.
    """
    trials = []
    for name, writer in ((TOKEN_SWAP, BASE), (REVERSE_SWAP, RL)):
        rules = [(WHEREVER, _NO_BUDGET, Policy(DIFFERS, SWAP))]
        for budget, threshold in zip(own.budgets, steering.thresholds["differs"], strict=True):
            among = min(budget / steering.differs, 1.0) if steering.differs else 1.0
            shares = [among, *[0.0] * (len(steering.behaviours) - 1)]
            rules += [
                (DIVERGING, budget, Policy(DIFFERS, SWAP, threshold)),
                (AT_RANDOM, budget, Policy(RANDOM_DIFFERS, SWAP, shares=shares)),
            ]
        trials += [
            Trial(name, where, budget, rule, own.samples, writer=writer)
            for where, budget, rule in rules
        ]
    return trials


def num_rollouts(own: HybridConfig) -> dict[str, int]:
    """Rollouts a report problem by writer, if every vector, opening and draw is found."""
    budgets, kinds = len(own.budgets), len(own.vectors)
    swapped = 1 + 2 * budgets
    unbudgeted = 2  # Always the best vectors, and one bias.
    each = 2 + 3 * kinds + 1 + 2 * own.draws  # Of a budget, from token swap and cue words on.
    steered = unbudgeted + budgets * each
    return {
        BASE: own.end_samples + own.samples * (swapped + steered),
        RL: own.end_samples + own.samples * swapped,
    }


def other_categories(
    steering: Sequence[Steer | None], seed: int, draws: int
) -> list[list[Steer | None]]:
    """Another behaviour's vector in the place of each, every time otherwise.

    Each draw is one cycle of the vectors, so none stays. Of n there are (n − 1)! cycles, and no
    more draws than that; none of one vector alone.
    """
    first, *rest = [number for number, one in enumerate(steering) if one is not None] or [-1]
    found: dict[tuple[int, ...], list[Steer | None]] = {}
    rng, most = np.random.default_rng((seed, 37)), min(draws, factorial(len(rest)))
    while rest and len(found) < most:
        order = [first, *rng.permutation(rest).tolist()]
        swapped: list[Steer | None] = [None] * len(steering)
        for place, other in zip(order, [*order[1:], first], strict=True):
            swapped[place] = steering[other]
        found.setdefault(tuple(order), swapped)
    return list(found.values())


def _random(steering: Sequence[Steer | None], seed: int, draw: int) -> list[Steer | None]:
    """A random direction in the place of each vector, as large."""
    rng = np.random.default_rng((seed, 31, draw))
    return [
        one and Steer(one.layer, random_direction(len(one.change), rng) * one.change.norm())
        for one in steering
    ]
