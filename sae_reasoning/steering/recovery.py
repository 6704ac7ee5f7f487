"""How much of the accuracy gap between two models a policy recovers.

Of accuracies over the same problems, as `stats.gaps` has it: those that have a grade under the
policy and under both ends. Where the interval of RL − base holds 0 there's no gap to recover, and
nothing is said.

Of each policy and vector one budget is tested, the largest, which no result has chosen.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.records import BASE, RL
from sae_reasoning.stats import (
    benjamini_hochberg,
    bootstrap_of_sums,
    gap_between,
    gap_recovered,
    is_gap,
    level_of,
    widen_flat,
)
from sae_reasoning.steering.degeneration import compression_ratio, repeated_share
from sae_reasoning.texts import bounded

ALL = "all"
"""In the column `behaviour`: over all problems."""
NOTHING = "-"
"""The vector of a policy that adds none."""
CURVES = (
    "token-swap oracle latent cue-word random random-vector random-category magnitude-only"
).split()
"""Policies whose budgets make a curve of what they recover, as they are listed."""
REVERSED = "reverse-token-swap"
"""The policy under which the RL model writes: what it leaves of the gap, not what it recovers, so
that it has no such curve."""
LEVEL = 0.05
"""False discovery rate at which a policy is said to recover some of the gap."""
KEYS = ["policy", "vector", "budget"]
COLUMNS = [
    *("policy", "vector", "budget", "share_steered", "accuracy", "gap_recovered", "low", "high"),
    *("n", "behaviour", "defined", "accuracy_low", "accuracy_high", "gap", "gap_low", "gap_high"),
    *("oracle_bits", "repeated_3grams", "compression", "truncated", "length", "rollouts"),
    *("draws", "steered_positions", "p", "q"),
]


def recovery(
    rollouts: pd.DataFrame,
    uses: Mapping[str, Collection[str]],
    behaviours: Sequence[str],
    *,
    num_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """One row a policy, vector, budget and set of problems; `COLUMNS`.

    `n` is the problems that have a grade under the policy and under both ends; accuracy, gap
    recovered (`low` and `high` bound it at 95 %) and `gap` (RL − base) are of these. `p` is of the
    gap recovered against 0; `q` is Benjamini-Hochberg's over the policies and vectors of a set of
    problems, each at its largest budget, and NaN elsewhere. `share_steered` is over all predicted
    tokens, `steered_positions` the median of those of a rollout. `oracle_bits` is the entropy, in
    bits a token, of which behaviour the policy steers to, if to any, where the RL model decides.

    Args:
        rollouts: Columns policy, vector, budget, draw, problem_id, correct, truncated, num_tokens,
            num_steered, text, decided (how often each behaviour was steered to, none first), by_rl
            (whether the RL model decides).
        uses: Of each problem, the behaviours in the RL model's valid traces of it.
        behaviours: To each of which problems are restricted, beside all of them.
        num_resamples: Resamples of problems.
        seed: Of the resamples.

    Raises:
        ValueError: The base's or the RL model's own rollouts aren't among them.
    """
    if not {BASE, RL} <= set(rollouts.policy):
        raise ValueError("a gap needs rollouts of the base and of the RL model")
    rollouts = rollouts.assign(
        repeated_3grams=list(map(repeated_share, rollouts.text)),
        compression=list(map(compression_ratio, rollouts.text)),
        positions=rollouts.num_tokens + ~rollouts.truncated.astype(bool),
    )
    found = []
    for behaviour in (ALL, *behaviours):
        chosen = rollouts
        if behaviour != ALL:
            users = {problem for problem, own in uses.items() if behaviour in own}
            chosen = rollouts[rollouts.problem_id.isin(users)]
        if not len(chosen):
            continue
        problems, place = np.unique(chosen.problem_id.to_numpy(str), return_inverse=True)
        chosen = chosen.assign(place=place)
        grouped = chosen.groupby(KEYS, sort=False, dropna=False)
        sums = {name: _graded(part, len(problems)) for name, part in grouped}
        base, rl = (
            np.sum([own for (policy, _, _), own in sums.items() if policy == end], axis=0)
            for end in (BASE, RL)
        )
        for name, part in grouped:
            each = (sums[name], base, rl)
            is_graded = np.all([own[:, 1] > 0 for own in each], axis=0)
            own, low_end, high_end = (one[is_graded] for one in each)
            gap = gap_between(low_end, high_end, num_resamples, seed)
            share = gap_recovered(own, low_end, high_end, num_resamples, seed)
            accuracy = bootstrap_of_sums(own, level_of, num_resamples, seed)
            accuracy = widen_flat(accuracy, len(own))
            found.append(
                dict(zip(KEYS, name, strict=True))
                | {
                    "share_steered": part.num_steered.sum() / part.positions.sum(),
                    "accuracy": accuracy.value,
                    "gap_recovered": share.value,
                    "low": share.low,
                    "high": share.high,
                    "n": len(own),
                    "behaviour": behaviour,
                    "defined": is_gap(gap),
                    "accuracy_low": accuracy.low,
                    "accuracy_high": accuracy.high,
                    "gap": gap.value,
                    "gap_low": gap.low,
                    "gap_high": gap.high,
                    "oracle_bits": _bits(part),
                    "repeated_3grams": part.repeated_3grams.mean(),
                    "compression": part.compression.mean(),
                    "truncated": part.truncated.mean(),
                    "length": part.num_tokens.mean(),
                    "rollouts": len(part),
                    "steered_positions": float(part.num_steered.median()),
                    "draws": part.draw.nunique(),
                    "p": share.p,
                    "q": float("nan"),
                }
            )
    table = pd.DataFrame(found, columns=COLUMNS)
    for _, rows in at_largest_budget(table).groupby("behaviour", sort=False):
        table.loc[rows.index, "q"] = benjamini_hochberg(rows.p.to_numpy(float))
    return table


def at_largest_budget(found: pd.DataFrame) -> pd.DataFrame:
    """Of each set of problems, policy and vector that may recover the gap, the row that's tested.

    The largest budget is fixed beforehand, so nothing is chosen by what it recovers.
    """
    tried = found[~found.policy.isin([BASE, RL, REVERSED])]
    order = tried.sort_values("budget", kind="stable", na_position="first")
    return order.drop_duplicates(["behaviour", "policy", "vector"], keep="last").sort_index()


def decision_bits(counts: Float[np.ndarray, " outcome"]) -> float:
    """Entropy in bits of what was decided, from how often each was; 0 of nothing."""
    total = counts.sum()
    shares = counts[counts > 0] / total if total else counts[:0]
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _bits(part: pd.DataFrame) -> float:
    if not part.by_rl.all():
        return float("nan")
    return decision_bits(np.stack(part.decided.to_list()).sum(0).astype(float))


def _graded(part: pd.DataFrame, num_problems: int) -> Float[np.ndarray, "problem 2"]:
    """Right answers and judged rollouts of each problem."""
    judged = part[part.correct.notna()]
    sums = np.zeros((num_problems, 2))
    values = np.stack([judged.correct.astype(float), np.ones(len(judged))], axis=1)
    np.add.at(sums, judged.place.to_numpy(), values)
    return sums


def findings(found: pd.DataFrame, behaviour: str = ALL) -> pd.DataFrame:
    """For people: each policy and vector in a row, gap recovered at each share steered.

    Accuracy and q are those of its largest budget; beside each share stands the median of positions
    steered in a rollout.
    """
    rows = []
    shown = found[found.behaviour == behaviour]
    for (policy, vector), part in shown.groupby(["policy", "vector"], sort=False):
        part = part.sort_values("budget", kind="stable", na_position="first")
        last = part.iloc[-1]
        row = {"policy": policy, "vector": vector, "accuracy": f"{last.accuracy:.2f}"}
        row["q"] = "–" if np.isnan(last.q) else f"{last.q:.2g}"
        for number, one in enumerate(part.sort_values("share_steered").itertuples(), 1):
            recovered = bounded(one.gap_recovered, one.low, one.high) if one.defined else "no gap"
            where = f"{one.share_steered:.1%} ({one.steered_positions:g})"
            row[str(number)] = f"{where}: {recovered}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def recovered_in_words(found: pd.DataFrame) -> str:
    """Which policies recover some of the gap at their largest budget, and which none.

    All are tested at once (`LEVEL`).

    Args:
        found: As `recovery` makes it.
    """
    shown = at_largest_budget(found[found.behaviour == ALL])
    if shown.empty:
        return "No policy was tried."
    if not shown.defined.any():
        return "The models' accuracies don't differ significantly, so there is no gap to recover."
    some = (shown.q <= LEVEL) & (shown.gap_recovered > 0)
    keys = zip(shown.policy, shown.vector, strict=True)
    names = [" with ".join(dict.fromkeys(part for part in key if part != NOTHING)) for key in keys]
    recover = [name for name, is_some in zip(names, some, strict=True) if is_some]
    rest = [name for name, is_some in zip(names, some, strict=True) if not is_some]
    test = f"q ≤ {LEVEL:g} over {len(shown)}, each at its largest budget"
    if not recover:
        return f"None of the gap is significantly recovered ({test}) by {', '.join(rest)}."
    said = f"Some of the gap is recovered ({test}) by {', '.join(recover)}"
    return f"{said}; not by {', '.join(rest)}." if rest else f"{said}."


def left_in_words(found: pd.DataFrame) -> str:
    """What is left of the gap where the base's tokens stand in the RL model's text; "" of no gap.

    Args:
        found: As `recovery` makes it.
    """
    shown = found[(found.behaviour == ALL) & (found.policy == REVERSED) & found.defined]
    lines = [
        f"{bounded(one.gap_recovered, one.low, one.high)} at {one.share_steered:.1%} ({one.vector})"
        for one in shown.itertuples()
    ]
    if not lines:
        return ""
    return f"With the base's tokens in the RL model's text, of the gap is left: {'; '.join(lines)}."


def gap_curves(found: pd.DataFrame, behaviour: str = ALL) -> pd.DataFrame:
    """Points of curves: gap recovered over the share of tokens steered, in the order of policies.

    Returns:
        Rows of the table where there is a gap, with a column `line`: policy, and vector if any.
    """
    drawn = found[(found.behaviour == behaviour) & found.defined & found.policy.isin(CURVES)]
    drawn = drawn[drawn.budget.notna() & drawn.share_steered.notna() & drawn.gap_recovered.notna()]
    has_vector = (drawn.vector != NOTHING) & (drawn.vector != drawn.policy)
    line = drawn.policy.where(~has_vector, drawn.policy + ", " + drawn.vector)
    drawn = drawn.assign(line=line, order=drawn.policy.map(CURVES.index))
    drawn = drawn.sort_values(["order", "vector", "share_steered"], kind="stable")
    return drawn.drop(columns="order").reset_index(drop=True)
