"""The elicitation table: what each means recovers of the gap, what it costs, what moves it makes.

Everything is estimated over the problems of the report split and bootstrapped over problems; gaps
are paired by problem.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sae_reasoning.stats import Estimate, gap_recovered, paired_bootstrap, widen_flat
from sae_reasoning.stats import pass_at as pass_of_problem
from sae_reasoning.texts import bounded, number

COSTS = ("training_tokens", "gradient_steps", "trained_values")
_COLUMNS = [
    *("means", "setting", "role", *COSTS, "tokens_steered", "prompt_tokens", "samples"),
    *("tokens_written", "accuracy", "low", "high", "gap_recovered", "gap_low", "gap_high"),
    *("gap_defined", "n", "rollouts", "ungraded"),
]

_STEERED = ("oracle", "latent")
_AT_RANDOM = ("random", "random-vector")


def columns(behaviours: Sequence[str]) -> list[str]:
    """Columns of the table; two estimates a move: made a rollout, and made in place and rightly."""
    moves = [f"{move}{what}" for move in behaviours for what in ("", "/right")]
    return _COLUMNS + [f"{name}{bound}" for name in moves for bound in ("", "_low", "_high")]


class Ends:
    """Both ends of the gap, by problem, with how intervals are made."""

    def __init__(self, base: pd.Series, rl: pd.Series, num_resamples: int, seed: int) -> None:
        self.base, self.rl = base, rl
        self._num_resamples, self._seed = num_resamples, seed

    def mean(self, values: pd.Series) -> Estimate:
        """A mean over problems; of a share that no problem disagrees on, Wilson's interval."""
        found = paired_bootstrap(values.to_numpy(float), self._num_resamples, self._seed)
        return widen_flat(found, found.n) if 0 <= found.value <= 1 else found

    def gap(self, values: pd.Series, base: pd.Series | None = None) -> Estimate:
        """The share of the gap that is recovered on the problems of `values`."""
        base = self.base if base is None else base
        problems = [name for name in values.index if name in base.index and name in self.rl.index]
        return gap_recovered(
            _out_of_one(values[problems]),
            _out_of_one(base[problems]),
            _out_of_one(self.rl[problems]),
            self._num_resamples,
            self._seed,
        )


def _out_of_one(values: pd.Series) -> np.ndarray:
    """Each problem's share, so that every problem weighs the same."""
    return np.stack([values.to_numpy(float), np.ones(len(values))], axis=1)


def accuracy_by_problem(rollouts: pd.DataFrame) -> pd.Series:
    """Share of right answers of each problem, among those that were graded."""
    return rollouts.correct.astype(float).groupby(rollouts.problem_id).mean().dropna()


def row(
    names: Mapping[str, str],
    rollouts: pd.DataFrame,
    ends: Ends,
    behaviours: Sequence[str],
    *,
    share_steered: float | None = None,
    samples: int = 1,
    accuracy: pd.Series | None = None,
    base: pd.Series | None = None,
) -> dict[str, object]:
    """One row of the table.

    Args:
        names: means, setting and role.
        rollouts: What was answered; for best-of-k, the answers that the judge chose.
        ends: Of the gap.
        behaviours: Moves.
        share_steered: Of the predicted tokens; by default those that were written for the model.
        samples: Rollouts an answer.
        accuracy: Of each problem, where it isn't that of the rollouts.
        base: Level of each problem that counts as 0, where it isn't that of the ends.
    """
    values = accuracy_by_problem(rollouts) if accuracy is None else accuracy
    level, gap = ends.mean(values), ends.gap(values, base)
    found: dict[str, object] = {
        **names,
        **{name: float(rollouts[name].iloc[0]) for name in COSTS},
        "tokens_steered": rollouts.num_written.sum() / predicted(rollouts)
        if share_steered is None
        else share_steered,
        "prompt_tokens": rollouts.prompt_tokens.mean(),
        "samples": samples,
        "tokens_written": rollouts.num_tokens.mean() * samples,
        "accuracy": level.value,
        "low": level.low,
        "high": level.high,
        "gap_recovered": gap.value,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "gap_defined": not np.isnan(gap.value),
        "n": level.n,
        "rollouts": len(rollouts) * samples,
        "ungraded": int(rollouts.correct.isna().sum()),
    }
    for move in behaviours:
        for kind, name in (("made", move), ("right", f"{move}/right")):
            rate = ends.mean(rollouts.groupby("problem_id")[f"{kind}/{move}"].mean())
            found |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    return found


def predicted(rollouts: pd.DataFrame) -> float:
    """Tokens that a model predicts in rollouts, ends of text among them; at least 1."""
    return max(rollouts.num_tokens.sum() + (~rollouts.truncated.astype(bool)).sum(), 1)


def pass_at(grades: pd.Series, k: int) -> pd.Series:
    """Unbiased pass@k of each problem (Chen et al. 2107.03374, §2.1), from grades by problem.

    Problems with fewer than `k` graded answers are left out.
    """
    found = {
        problem: pass_of_problem(int(own.sum()), len(own), k)
        for problem, own in grades.dropna().astype(float).groupby(level=0)
        if len(own) >= k
    }
    return pd.Series(found, dtype=float)


def chosen_of(rollouts: pd.DataFrame, k: int) -> pd.DataFrame:
    """Of each problem's first k rollouts, the one the judge takes: the first right, or the first.

    `num_tokens` is then the mean of all of them, so that cost isn't that of the lucky ones.
    """
    first = rollouts[rollouts["sample"] < k]
    mean = first.groupby("problem_id").num_tokens.mean()
    is_right = first.correct.astype(float) == 1
    order = first.assign(is_right=is_right).sort_values(
        ["is_right", "sample"], ascending=[False, True], kind="stable"
    )
    chosen = order.drop_duplicates("problem_id").drop(columns="is_right").sort_values("problem_id")
    return chosen.assign(num_tokens=chosen.problem_id.map(mean))


def hybrid_rows(hybrid: pd.DataFrame, budget: float) -> list[dict[str, object]]:
    """The hybrid's rows at the RL model's times and at its own, at most `budget` steered.

    Of each policy and vector the row that steers most within the budget, so nothing is chosen by
    what it recovers. Controls are random times and random vectors. Figures are the hybrid's own, on
    its own problems and against its own ends. What was trained for it isn't counted, so its costs
    of training are unknown.
    """
    found = []
    whole = hybrid[(hybrid.behaviour == "all") & (hybrid.share_steered <= budget)]
    for policy in (*_STEERED, *_AT_RANDOM):
        own = whole[whole.policy == policy]
        for vector, rows in own.groupby("vector", sort=False):
            most = rows.loc[rows.share_steered.idxmax()]
            found.append(
                {
                    "means": "hybrid",
                    "setting": f"{policy}, {vector}",
                    "role": "means" if policy in _STEERED else "control",
                    "tokens_steered": most.share_steered,
                    "prompt_tokens": 0.0,
                    "tokens_written": most.length,
                    "accuracy": most.accuracy,
                    "low": most.accuracy_low,
                    "high": most.accuracy_high,
                    "gap_recovered": most.gap_recovered,
                    "gap_low": most.low,
                    "gap_high": most.high,
                    "gap_defined": bool(most.defined),
                    "n": int(most.n),
                    "rollouts": int(most.rollouts),
                    "samples": 1,
                }
            )
    return found


def recovered_in_words(table: pd.DataFrame) -> str:
    """Which means recover some of the gap, and which controls do, by their 95 % intervals."""
    if not table.gap_defined.any():
        return "The models' accuracies don't differ significantly, so there is no gap to recover."
    some = table[table.gap_low > 0]
    means = dict.fromkeys(some.means[some.role == "means"])
    controls = dict.fromkeys(some.means[some.role == "control"])
    by_means = (
        f"Some of the gap is recovered (95 % CI above 0) by {', '.join(means)}"
        if means
        else "No means surely recovers some of the gap (95 % CI above 0)"
    )
    return f"{by_means}; of the controls {', '.join(controls) or 'none'}."


def shown(table: pd.DataFrame, behaviours: Sequence[str]) -> pd.DataFrame:
    """For people: gap recovered, cost, and moves made rightly a rollout."""

    def told(line: pd.Series, name: str, low: str, high: str) -> str:
        return "–" if pd.isna(line[name]) else bounded(line[name], line[low], line[high])

    rows = []
    for _, line in table.iterrows():
        own = {
            "means": line.means if line.role != "control" else f"  ({line.means})",
            "setting": line.setting,
            "training tokens": _count(line.training_tokens),
            "steps": _count(line.gradient_steps),
            "steered": "–" if pd.isna(line.tokens_steered) else f"{line.tokens_steered:.1%}",
            "samples": int(line.samples),
            "accuracy": told(line, "accuracy", "low", "high"),
            "gap recovered": told(line, "gap_recovered", "gap_low", "gap_high")
            if line.gap_defined
            else "no gap",
        }
        for move in behaviours:
            name = f"{move}/right"
            own[f"{move}, right"] = told(line, name, f"{name}_low", f"{name}_high")
        rows.append(own)
    return pd.DataFrame(rows)


def _count(value: float) -> str:
    return "–" if pd.isna(value) else number(value)
