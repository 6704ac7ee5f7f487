"""The elicitation table: what an intervention recovers of the gap, costs, and makes of behaviours.

Everything is estimated over the problems of the report split and bootstrapped over problems; gaps
are paired by problem.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sae_reasoning.elicitation.conditions import CONTROL, END, INTERVENTION, Condition
from sae_reasoning.elicitation.interventions import BEST_OF, BIASES, GATE, HYBRID
from sae_reasoning.records import BASE, RL
from sae_reasoning.stats import Estimate, gap_recovered, paired_bootstrap, widen_flat
from sae_reasoning.stats import pass_at as pass_of_problem
from sae_reasoning.texts import bounded, number

COSTS = ("training_tokens", "gradient_steps", "trained_values")
_COLUMNS = [
    *("intervention", "condition", "role", *COSTS, "tokens_steered", "prompt_tokens", "samples"),
    *("tokens_written", "accuracy", "low", "high", "gap_recovered", "gap_low", "gap_high"),
    *("gap_defined", "n", "rollouts", "ungraded"),
]

_STEERED = ("oracle", "latent")
_AT_RANDOM = ("random", "random-vector")


def columns(behaviours: Sequence[str]) -> list[str]:
    """Columns of the table; two estimates a behaviour, of how often a rollout makes it.

    The second counts it at opportunities and carried out rightly.
    """
    made = [f"{behaviour}{what}" for behaviour in behaviours for what in ("", "/right")]
    return _COLUMNS + [f"{name}{bound}" for name in made for bound in ("", "_low", "_high")]


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
        if not problems:
            return Estimate(float("nan"), float("nan"), float("nan"), 0)
        return gap_recovered(
            _out_of_one(values[problems]),
            _out_of_one(base[problems]),
            _out_of_one(self.rl[problems]),
            self._num_resamples,
            self._seed,
        )


def elicitation_table(
    conditions: Sequence[Condition],
    ends: Ends,
    behaviours: Sequence[str],
    *,
    best_of: Sequence[int],
    baselines: Mapping[str, pd.Series],
    hybrid: Sequence[Mapping[str, object]] = (),
) -> pd.DataFrame:
    """All conditions, in their order.

    Args:
        conditions: Rolled out.
        ends: Of the gap.
        behaviours: To be counted.
        best_of: Numbers of samples of which the best counts.
        baselines: By name, the probability that a random procedure answers each problem.
        hybrid: Rows of the hybrid.
    """
    rows: list[Mapping[str, object]] = []
    for one in conditions:
        names = {"intervention": one.intervention, "condition": one.name, "role": one.role}
        if one.intervention == BEST_OF:
            rows += _best_of(one.rollouts, names, ends, behaviours, best_of, baselines)
            continue
        share = 1.0 if one.intervention == BIASES else None
        if one.intervention == GATE:
            share = len(one.rollouts) / predicted(one.rollouts)
        rows.append(row(names, one.rollouts, ends, behaviours, share_steered=share))
    found = pd.DataFrame([*rows, *hybrid]).reindex(columns=columns(behaviours))
    for behaviour in behaviours:
        right = [one.rollouts[f"right/{behaviour}"].astype(float) for one in conditions]
        if pd.concat(right).isna().any():  # Where it's never made, none of it is right by default.
            found[[f"{behaviour}/right{bound}" for bound in ("", "_low", "_high")]] = np.nan
    return found.replace({None: np.nan})


def _best_of(
    sampled: pd.DataFrame,
    names: Mapping[str, str],
    ends: Ends,
    behaviours: Sequence[str],
    best_of: Sequence[int],
    baselines: Mapping[str, pd.Series],
) -> list[Mapping[str, object]]:
    """pass@k of the samples, and of random procedures on the same problems.

    What one sample earns counts as 0, so both sides of a gap rest on the same samples.
    """
    grades = sampled.set_index("problem_id").correct
    one = pass_at(grades, 1)
    found: list[Mapping[str, object]] = []
    for k in sorted(best_of):
        made = row(
            {**names, "condition": f"k={k}"},
            chosen_of(sampled, k),
            ends,
            behaviours,
            samples=k,
            accuracy=pass_at(grades, k),
            base=one,
        )
        found.append({**made, "ungraded": int(grades.isna().sum())})
    for name, odds in baselines.items():
        for k in sorted(best_of):
            accuracy = 1 - (1 - odds) ** k
            own = {**names, "condition": f"{name}, k={k}", "role": CONTROL, "samples": k}
            found.append(own | _levels(accuracy, ends, one) | {"tokens_written": 0.0})
    return found


def _out_of_one(values: pd.Series) -> np.ndarray:
    """Each problem's share, so that every problem weighs the same."""
    return np.stack([values.to_numpy(float), np.ones(len(values))], axis=1)


def ends_of(conditions: Sequence[Condition], num_resamples: int, seed: int) -> Ends:
    """The ends among the conditions, which are named after their models."""
    by_model = {one.intervention: one.rollouts for one in conditions if one.role == END}
    base, rl = (accuracy_by_problem(by_model[model]) for model in (BASE, RL))
    return Ends(base, rl, num_resamples, seed)


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
        names: intervention, condition and role.
        rollouts: What was answered; for best-of-k, the answers that the judge chose.
        ends: Of the gap.
        behaviours: To be counted.
        share_steered: Of the predicted tokens; by default those that were written for the model.
        samples: Rollouts an answer.
        accuracy: Of each problem, where it isn't that of the rollouts.
        base: Level of each problem that counts as 0, where it isn't that of the ends.
    """
    values = accuracy_by_problem(rollouts) if accuracy is None else accuracy
    found: dict[str, object] = {
        **names,
        **{name: float(rollouts[name].iloc[0]) for name in COSTS},
        "tokens_steered": rollouts.num_written.sum() / predicted(rollouts)
        if share_steered is None
        else share_steered,
        "prompt_tokens": rollouts.prompt_tokens.mean(),
        "samples": samples,
        "tokens_written": rollouts.num_tokens.mean() * samples,
        **_levels(values, ends, base),
        "rollouts": len(rollouts) * samples,
        "ungraded": int(rollouts.correct.isna().sum()),
    }
    for behaviour in behaviours:
        for kind, name in (("made", behaviour), ("right", f"{behaviour}/right")):
            counts = rollouts[f"{kind}/{behaviour}"].astype(float)
            if kind == "right" and counts.isna().any():  # Nothing tells what is right.
                continue
            rate = ends.mean(counts.groupby(rollouts.problem_id).mean().dropna())
            found |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    return found


def _levels(accuracy: pd.Series, ends: Ends, base: pd.Series | None = None) -> dict[str, object]:
    """Accuracy and gap recovered, with intervals."""
    level, gap = ends.mean(accuracy), ends.gap(accuracy, base)
    return {
        "accuracy": level.value,
        "low": level.low,
        "high": level.high,
        "gap_recovered": gap.value,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "gap_defined": not np.isnan(gap.value),
        "n": level.n,
    }


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
                    "intervention": HYBRID,
                    "condition": f"{policy}, {vector}",
                    "role": INTERVENTION if policy in _STEERED else CONTROL,
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
    """Which interventions recover some of the gap, and which controls, by their 95 % intervals."""
    if not table.gap_defined.any():
        return "The models' accuracies don't differ significantly, so there is no gap to recover."
    some = table[table.gap_low > 0]
    found, controls = (
        ", ".join(dict.fromkeys(some.intervention[some.role == role]))
        for role in (INTERVENTION, CONTROL)
    )
    said = "Some of the gap is significantly recovered (95 % CI above 0) by"
    return f"{said} {found or 'no intervention'}; of the controls {controls or 'none'}."


def shown(table: pd.DataFrame, behaviours: Sequence[str]) -> pd.DataFrame:
    """For people: gap recovered, cost, and behaviours carried out rightly a rollout."""

    def told(line: pd.Series, name: str, low: str, high: str) -> str:
        return "–" if pd.isna(line[name]) else bounded(line[name], line[low], line[high])

    rows = []
    for _, line in table.iterrows():
        own = {
            "intervention": f"  ({line.intervention})"
            if line.role == CONTROL
            else line.intervention,
            "condition": line.condition,
            "training tokens": _count(line.training_tokens),
            "steps": _count(line.gradient_steps),
            "steered": "–" if pd.isna(line.tokens_steered) else f"{line.tokens_steered:.1%}",
            "samples": int(line.samples),
            "accuracy": told(line, "accuracy", "low", "high"),
            "gap recovered": told(line, "gap_recovered", "gap_low", "gap_high")
            if line.gap_defined
            else "no gap",
        }
        for behaviour in behaviours:
            is_judged = table[f"{behaviour}/right"].notna().any()
            name = f"{behaviour}/right" if is_judged else behaviour
            title = f"{behaviour}, right" if is_judged else behaviour
            own[title] = told(line, name, f"{name}_low", f"{name}_high")
        rows.append(own)
    return pd.DataFrame(rows)


def _count(value: float) -> str:
    return "–" if pd.isna(value) else number(value)
