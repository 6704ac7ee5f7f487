"""What an edit did: outcomes of rollouts, against the same problems without an edit.

1. Every rollout is counted: for each outcome a numerator and a denominator (`count`).
2. Both are summed by problem, over samples and draws of a control (`by_problem`).
3. An outcome's value is the ratio of the sums over problems, so a rate per opportunity weighs
   opportunities, not traces; resampling draws *problems*, the same ones for every condition, so
   differences are paired (`compare`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student_t

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.stats import benjamini_hochberg
from sae_reasoning.steering.conditions import EDIT, MATCHED, NONE, RANDOM

_KEYS = ["model", "layer", "latents", "edit", "dose", "condition", "behaviour", "outcome", "n"]
_FOUND = ["value", "difference", "low", "high", "q"]
_CONTROL = ["difference_from_control", "control_low", "control_high", "control_q"]
_RANDOM = ["difference_from_random", "random_low", "random_high", "random_q"]
COLUMNS = [*_KEYS, *_FOUND, *_CONTROL, *_RANDOM, "num_problems", "edit_norm", "variance_reduction"]
REPEAT_WORDS = 8
"""A stretch of this many words that occurred before counts as repetition."""


@dataclass(frozen=True)
class Judged:
    """A rollout with everything that outcomes are counted on.

    Attributes:
        text: The response.
        num_tokens: Its length.
        truncated: Whether it was cut; it counts up to its cut.
        correct: The grade, or None where nothing can judge.
        spans: Its moves.
        opportunities: Where moves could start.
    """

    text: str
    num_tokens: int
    truncated: bool
    correct: bool | None
    spans: tuple[Span, ...]
    opportunities: tuple[Opportunity, ...]


def count(rollout: Judged, behaviours: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Numerator and denominator of every outcome.

    `in_place/<move>` is the share of moves that start where the move could start; a move elsewhere
    is a form without its occasion.
    """
    judged = rollout.correct is not None
    counts = {
        "accuracy": (float(rollout.correct or 0), float(judged)),
        "length": (float(rollout.num_tokens), 1.0),
        "truncated": (float(rollout.truncated), 1.0),
        "repetition": (repetition_share(rollout.text), 1.0),
    }
    for behaviour in behaviours:
        made = float(sum(span.behaviour == behaviour for span in rollout.spans))
        offered = [o.taken for o in rollout.opportunities if o.behaviour == behaviour]
        counts[f"rate_per_trace/{behaviour}"] = (made, 1.0)
        counts[f"rate_per_opportunity/{behaviour}"] = (float(sum(offered)), float(len(offered)))
        counts[f"in_place/{behaviour}"] = (float(sum(offered)), made)
    return counts


def judged_counts(
    rollouts: pd.DataFrame, behaviours: Sequence[str]
) -> list[dict[str, tuple[float, float]]]:
    """`count` of each row of a table of generations."""
    return [
        count(
            Judged(
                text=row.text,
                num_tokens=row.num_tokens,
                truncated=row.truncated,
                correct=None if pd.isna(row.correct) else bool(row.correct),
                spans=tuple(Span(**span) for span in row.spans),
                opportunities=tuple(Opportunity(**o) for o in row.opportunities),
            ),
            behaviours,
        )
        for row in rollouts.itertuples(index=False)
    ]


def repetition_share(text: str) -> float:
    """Share of the stretches of `REPEAT_WORDS` words that occurred before in the text."""
    words = text.split()
    stretches = [tuple(words[i : i + REPEAT_WORDS]) for i in range(len(words) - REPEAT_WORDS + 1)]
    return 1 - len(set(stretches)) / len(stretches) if stretches else 0.0


class Ratios(NamedTuple):
    """Ratio of sums over problems of each outcome; a row for each resample of problems."""

    value: Float[np.ndarray, " outcome"]
    resampled: Float[np.ndarray, "resample outcome"]


class Differences(NamedTuple):
    """Paired differences of each outcome, with 95 % intervals and two-sided p-values.

    `variance_reduction` is what pairing saves: 1 - Var(a - b) / (Var(a) + Var(b)).
    """

    value: Float[np.ndarray, " outcome"]
    low: Float[np.ndarray, " outcome"]
    high: Float[np.ndarray, " outcome"]
    p: Float[np.ndarray, " outcome"]
    variance_reduction: Float[np.ndarray, " outcome"]


class ProblemBootstrap:
    """The same resamples of problems for every condition, so that differences are paired."""

    def __init__(self, num_problems: int, num_resamples: int, seed: int) -> None:
        self._num_problems = num_problems
        even = np.full(num_problems, 1 / num_problems)
        drawn = np.random.default_rng(seed).multinomial(num_problems, even, num_resamples)
        self._weights = drawn.astype(np.float64)

    def ratios(self, sums: Float[np.ndarray, "problem outcome 2"]) -> Ratios:
        """Ratios of numerators to denominators; NaN where nothing was counted."""
        numerators, denominators = (self._weights @ sums[..., i] for i in (0, 1))
        total = sums.sum(0)
        return Ratios(_ratio(total[:, 0], total[:, 1]), _ratio(numerators, denominators))

    def differences(self, a: Ratios, b: Ratios) -> Differences:
        """`a - b`; the p-value is Student's t on the bootstrap's standard error.

        A resample without any opportunity has no rate; where that happens to more than one in
        twenty there is too little to say anything.
        """
        value, resampled = a.value - b.value, a.resampled - b.resampled
        known = np.isfinite(value) & (np.isfinite(resampled).mean(0) >= 0.95)
        resampled = np.where(known, resampled, 0.0)
        low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
        variance = np.nanvar(resampled, axis=0)
        apart = sum(np.nanvar(np.where(known, x.resampled, 0.0), axis=0) for x in (a, b))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(value == 0, 0.0, np.abs(value) / np.sqrt(variance))
        p = 2 * student_t.sf(z, max(self._num_problems - 1, 1))
        found = (value, low, high, p, 1 - _ratio(variance, apart))
        return Differences(*(np.where(known, x, np.nan) for x in found))


def by_problem(
    counts: Float[np.ndarray, "rollout outcome 2"],
    problem: Int[np.ndarray, " rollout"],
    num_problems: int,
) -> Float[np.ndarray, "problem outcome 2"]:
    """Counts summed over the rollouts of each problem."""
    sums = np.zeros((num_problems, *counts.shape[1:]))
    np.add.at(sums, problem, counts)
    return sums


def effects(
    rollouts: pd.DataFrame,
    counts: Sequence[Mapping[str, tuple[float, float]]],
    *,
    num_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """One row for each model, edit, condition and outcome; draws of a control are pooled.

    `difference` is against the same problems without an edit. Rows of the edit itself also hold
    what is left of it after its controls: `difference_from_control` (matched latents) and
    `difference_from_random` (random directions). Each has its interval, and its q over the table.
    Outcomes of other moves than the edited one begin with `off_target/`; n is what was counted
    over: rollouts, opportunities or moves.

    Args:
        rollouts: Columns model, behaviour, edit, dose, condition, layer, latents, problem_id,
            norm_sum, num_edited.
        counts: Of each row, by outcome.
        num_resamples: Of problems.
        seed: Of the resampling.
    """
    plain = list(counts[0])
    table = np.array([list(row.values()) for row in counts])
    frames = []
    for model, place in rollouts.groupby("model", sort=False).indices.items():
        part, counted = rollouts.iloc[place], table[place]
        problems, problem = np.unique(part.problem_id.to_numpy(str), return_inverse=True)
        bootstrap = ProblemBootstrap(len(problems), num_resamples, seed)
        kind = part.condition.to_numpy(str)
        edits = part[kind == EDIT][["behaviour", "edit"]].drop_duplicates()
        for behaviour, edit in edits.itertuples(index=False):
            outcomes = _outcomes(plain, behaviour)
            of_edit = ((part.behaviour == behaviour) & (part.edit == edit)).to_numpy()
            chosen, found, sums = {}, {}, {}
            for condition in (NONE, EDIT, MATCHED, RANDOM):
                rows = (kind == condition) & (of_edit | (condition == NONE))
                chosen[condition] = part[rows]
                all_sums = by_problem(counted[rows], problem[rows], len(problems))
                sums[condition] = np.stack(
                    [all_sums[:, columns].sum(1) for columns in outcomes.values()], axis=1
                )
                found[condition] = bootstrap.ratios(sums[condition])
            for condition, rows in chosen.items():
                frame = {
                    "model": model,
                    "behaviour": behaviour,
                    "edit": edit,
                    "condition": condition,
                    "dose": float(chosen[EDIT].dose.iloc[0]),
                    "layer": chosen[EDIT].layer.iloc[0],
                    "latents": " | ".join(rows.latents.unique()),
                    "num_problems": len(problems),
                    "edit_norm": rows.norm_sum.sum() / max(rows.num_edited.sum(), 1),
                    "outcome": list(outcomes),
                    "n": sums[condition][..., 1].sum(0).astype(int),
                    "value": found[condition].value,
                }
                if condition != NONE:
                    change = bootstrap.differences(found[condition], found[NONE])
                    frame |= {"difference": change.value, "low": change.low, "high": change.high}
                    frame |= {"q": change.p, "variance_reduction": change.variance_reduction}
                if condition == EDIT:
                    for control, name in ((MATCHED, "control"), (RANDOM, "random")):
                        change = bootstrap.differences(found[EDIT], found[control])
                        frame |= {f"difference_from_{name}": change.value, f"{name}_q": change.p}
                        frame |= {f"{name}_low": change.low, f"{name}_high": change.high}
                frames.append(pd.DataFrame(frame))
    result = pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)
    for name in ("q", "control_q", "random_q"):
        result[name] = benjamini_hochberg(result[name].to_numpy(np.float64))
    return result


def findings(found: pd.DataFrame) -> pd.DataFrame:
    """For people: each edit's own move per trace, its controls' change, and accuracy."""
    rows = []
    keys = ["model", "edit", "behaviour"]
    for (model, edit, behaviour), part in found.groupby(keys, sort=False):
        values = part.set_index(["condition", "outcome"])
        rate = f"rate_per_trace/{behaviour}"
        none = values.value[NONE, rate]

        def change(condition: str, values: pd.DataFrame = values, rate: str = rate) -> str:
            return _percent(values.difference[condition, rate], values.value[NONE, rate])

        edited = values.loc[(EDIT, rate)]
        rows.append(
            {
                "model": model,
                "edit": edit,
                "behaviour": behaviour,
                "none": none,
                "edited": edited.value,
                "change": f"{change(EDIT)} [{_percent(edited.low, none)}, "
                f"{_percent(edited.high, none)}]",
                "matched": change(MATCHED),
                "random": change(RANDOM),
                "per opportunity": " > ".join(
                    f"{values.value[kind, f'rate_per_opportunity/{behaviour}']:.3f}"
                    for kind in (NONE, EDIT)
                ),
                "accuracy": values.value[NONE, "accuracy"],
                "edited accuracy": values.value[EDIT, "accuracy"],
                "problems": int(edited.num_problems),
            }
        )
    return pd.DataFrame(rows)


def _percent(difference: float, reference: float) -> str:
    return f"{difference / reference:+.0%}" if reference > 0 else f"{difference:+.2f}"


def _outcomes(plain: Iterable[str], behaviour: str) -> dict[str, list[int]]:
    """Which counted columns make up each outcome, seen from the edited move."""
    outcomes: dict[str, list[int]] = {}
    for index, name in enumerate(plain):
        measure, _, move = name.partition("/")
        if move in ("", behaviour):
            outcomes[name] = [index]
        elif measure == "in_place":
            outcomes.setdefault("off_target/in_place", []).append(index)
        else:
            outcomes[f"off_target/{name}"] = [index]
    return outcomes


def _ratio(
    numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
