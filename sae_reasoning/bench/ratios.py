"""Ratios of rates: what is set against what, what each should reach, and turns of contenders."""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sae_reasoning.bench.sizes import Contender

PAIRS = {
    "cache_over_forward": ("cache", "forward"),
    "cache_over_transformer_lens": ("cache", "transformer_lens"),
    "cache_over_transformer_lens_stopped": ("cache", "transformer_lens_stopped"),
    "train_over_sae_lens": ("train", "sae_lens"),
    "generate_over_transformers": ("generate", "transformers"),
    "shared_over_generate": ("shared", "plain_grid"),
    "edit_over_generate": ("edit", "generate"),
    "grid_over_generate": ("grid", "plain_grid"),
    "lockstep_over_sum": ("lockstep", "both_alone"),
    "drawn_over_likeliest": ("drawn", "likeliest"),
    "rank_over_bandwidth": ("rank", "encode"),
    "rank_over_sklearn": ("rank", "scikit_learn"),
}
"""Ours and the other's, of each ratio of rates."""
GROWTH = {"rank_time_10x": "time", "rank_memory_10x": "memory"}
"""What ten times as many tokens take, over what they take once."""

GOALS = {
    "cache_over_forward": 0.9,
    "cache_over_transformer_lens": 1.4,
    "cache_over_transformer_lens_stopped": 1.0,
    "train_over_sae_lens": 0.95,
    "generate_over_transformers": 1.5,
    "shared_over_generate": 1.2,
    "edit_over_generate": 0.9,
    "grid_over_generate": 0.8,
    "lockstep_over_sum": 0.83,
    "drawn_over_likeliest": 0.9,
    "rank_over_bandwidth": 0.5,
    "rank_over_sklearn": 50.0,
    "rank_time_10x": 10.5,
    "rank_memory_10x": 1.1,
}
"""Least of a ratio of rates; most of a growth."""
SMOLLM2 = "cache_over_forward_smollm2"
"""The first ratio again, of a real model, where `make fetch` has brought its weights."""


@dataclass(frozen=True)
class Ratio:
    """One line of bench.json.

    Attributes:
        value: Median rate of ours over the median rate of the other's; of a growth, the median.
        goal: What it should reach; of a growth, not exceed.
        n: Turns of each.
        spread: Distance between the quartiles of the ratio turn by turn.
        reached: Whether the goal is.
    """

    value: float
    goal: float
    n: int
    spread: float
    reached: bool


def contest(contenders: Mapping[str, Contender], turns: Iterable[int]) -> dict[str, list[float]]:
    """Rates of each contender, turn by turn, in units a second; turn 0 warms up, uncounted."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in turns:
        for name, work in contenders.items():
            started = time.perf_counter()
            amount = work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                rates[name].append(amount / (time.perf_counter() - started))
    return rates


def ratios_of(
    rates: Mapping[str, Sequence[float]],
    real: Mapping[str, Sequence[float]],
    grown: Mapping[str, Sequence[float]],
) -> dict[str, Ratio]:
    """Every ratio whose contenders took part.

    Args:
        rates: Of each contender, turn by turn.
        real: Of those that read a real model; empty where there is none.
        grown: Turn by turn, time and memory on ten times as many tokens over those on once as many.
    """
    found = {
        name: _ratio(rates[ours], rates[theirs], GOALS[name])
        for name, (ours, theirs) in PAIRS.items()
        if ours in rates
    }
    if real:
        found[SMOLLM2] = _ratio(real["cache"], real["forward"], GOALS["cache_over_forward"])
    return found | {name: _growth(grown[what], GOALS[name]) for name, what in GROWTH.items()}


def _ratio(ours: Sequence[float], others: Sequence[float], goal: float) -> Ratio:
    by_turn = [a / b for a, b in zip(ours, others, strict=True)]
    value = round(statistics.median(ours) / statistics.median(others), 3)
    return Ratio(value, goal, len(by_turn), _spread(by_turn), value >= goal)


def _growth(by_turn: Sequence[float], goal: float) -> Ratio:
    value = round(statistics.median(by_turn), 3)
    return Ratio(value, goal, len(by_turn), _spread(by_turn), value <= goal)


def _spread(by_turn: Sequence[float]) -> float:
    low, _, high = statistics.quantiles(by_turn, n=4)
    return round(high - low, 3)
