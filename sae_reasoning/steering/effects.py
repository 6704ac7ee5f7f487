"""What an edit did: outcomes of rollouts, against the same problems without an edit.

1. Every rollout is counted: for each outcome a numerator and a denominator (`count`).
2. Both are summed by draw of a control and by problem, over samples (`by_problem`).
3. An outcome's value is the ratio of the sums over problems, so a rate per opportunity weighs
   opportunities, not traces; a control's is the mean of its draws' ratios. Resampling draws
   *problems*, the same ones for every condition, so differences are paired, and the draws of
   controls beside them, since other draws would have given other controls (`Bootstrap`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import t as student_t

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.stats import benjamini_hochberg
from sae_reasoning.steering.conditions import EDIT, MATCHED, NONE, RANDOM

_KEYS = [
    "model",
    "split",
    "layer",
    "latents",
    "edit",
    "dose",
    "condition",
    "behaviour",
    "outcome",
    "n",
]
_FOUND = ["value", "difference", "low", "high", "q", "relative", "relative_low", "relative_high"]
_FOUND += ["largest_draw"]
_CONTROL = ["difference_from_control", "control_low", "control_high", "control_q"]
_RANDOM = ["difference_from_random", "random_low", "random_high", "random_q"]
_SIZE = ["num_problems", "edit_norm", "edit_norm_per_token", "edited_share", "variance_reduction"]
COLUMNS = [*_KEYS, *_FOUND, *_CONTROL, *_RANDOM, *_SIZE]
_SHARES = ("accuracy", "truncated", "repetition", "rate_per_opportunity", "in_place")
"""Outcomes between 0 and 1."""
_ALIKE = (0.67, 1.5)
"""Sizes of a control that is as large as its edit, in multiples of the edit's."""
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
    """Ratio of sums over problems of each outcome, the mean over draws; and for each resample."""

    value: Float[np.ndarray, " outcome"]
    resampled: Float[np.ndarray, "resample outcome"]
    by_draw: Float[np.ndarray, "draw outcome"]


class Differences(NamedTuple):
    """Paired differences of each outcome, with 95 % intervals and two-sided p-values.

    `relative` is a / b - 1, its interval from the same resamples, so that b's noise is in it; NaN
    where b isn't surely above 0. `variance_reduction` is what pairing saves:
    1 - Var(a - b) / (Var(a) + Var(b)).
    """

    value: Float[np.ndarray, " outcome"]
    low: Float[np.ndarray, " outcome"]
    high: Float[np.ndarray, " outcome"]
    p: Float[np.ndarray, " outcome"]
    relative: Float[np.ndarray, " outcome"]
    relative_low: Float[np.ndarray, " outcome"]
    relative_high: Float[np.ndarray, " outcome"]
    variance_reduction: Float[np.ndarray, " outcome"]


class Bootstrap:
    """The same resamples of problems for every condition, and of the draws of controls."""

    def __init__(self, num_problems: int, num_resamples: int, seed: int) -> None:
        self._num_problems, self._num_resamples, self._seed = num_problems, num_resamples, seed
        self._weights = _resamples(num_problems, num_resamples, np.random.default_rng(seed))

    def ratios(self, sums: Float[np.ndarray, "draw problem outcome 2"]) -> Ratios:
        """Ratios of numerators to denominators; NaN where nothing was counted.

        The mean is over the draws in which something was.
        """
        total = sums.sum(1)
        by_draw = _ratio(total[..., 0], total[..., 1])
        rng = np.random.default_rng([self._seed, len(sums)])
        draws = _resamples(len(sums), self._num_resamples, rng)
        summed, weight = np.zeros((2, self._num_resamples, sums.shape[2]))
        for of_draw, times in zip(sums, draws.T, strict=True):
            ratio = _ratio(*(self._weights @ of_draw[..., i] for i in (0, 1)))
            known = np.isfinite(ratio)
            summed += times[:, None] * np.where(known, ratio, 0.0)
            weight += times[:, None] * known
        counted = np.isfinite(by_draw)
        value = _ratio(np.where(counted, by_draw, 0.0).sum(0), counted.sum(0).astype(np.float64))
        return Ratios(value, _ratio(summed, weight), by_draw)

    def differences(
        self, a: Ratios, b: Ratios, is_share: Bool[np.ndarray, " outcome"]
    ) -> Differences:
        """`a - b`; the p-value is Student's t on the bootstrap's standard error.

        A resample without any opportunity has no rate; where that happens to more than one in
        twenty there is too little to say anything. Where every resample gives the same, resampling
        says nothing: a share gets the reach of the rule of three, other outcomes no interval, and a
        difference no p-value. Neither has anything from a single problem.
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
        relative = _relative(a, b, known)
        still = np.sqrt(variance) <= 1e-9 * np.maximum(np.abs(value), 1)
        reach = np.where(is_share, 3 / self._num_problems, np.nan)
        low = np.where(still, np.maximum(value - reach, -1), low)
        high = np.where(still, np.minimum(value + reach, 1), high)
        p = np.where(still & (value != 0), np.nan, p)
        for index, bound in ((1, low), (2, high)):
            relative[index] = np.where(
                still & np.isfinite(relative[0]), _ratio(bound, b.value), relative[index]
            )
        reduction = 1 - _ratio(variance, apart)
        if self._num_problems == 1:
            nothing = np.full(value.shape, np.nan)
            low, high, p, reduction = nothing, nothing, nothing, nothing
            relative[1:] = np.nan
        found = (value, low, high, p, *relative, reduction)
        return Differences(*(np.where(known, x, np.nan) for x in found))


def _resamples(
    num: int, num_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resample num"]:
    """How often each of `num` is drawn into each resample."""
    return rng.multinomial(num, np.full(num, 1 / num), num_resamples).astype(np.float64)


def _relative(
    a: Ratios, b: Ratios, known: Bool[np.ndarray, " outcome"]
) -> Float[np.ndarray, "3 outcome"]:
    """Value and interval of a / b - 1; NaN where over 2.5 % of resamples have no b to divide by."""
    resampled = _ratio(a.resampled, b.resampled) - 1
    known = known & (b.value > 0) & ((b.resampled > 0).mean(0) >= 0.975)
    low, high = np.nanquantile(np.where(known, resampled, 0.0), [0.025, 0.975], axis=0)
    return np.where(known, np.stack([_ratio(a.value, b.value) - 1, low, high]), np.nan)


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
    split: str = "report",
) -> pd.DataFrame:
    """One row for each model, edit, condition and outcome; a control's value is its draws' mean.

    `difference` is against the same problems without an edit. Rows of the edit itself also hold
    what is left of it after its controls: `difference_from_control` (matched latents) and
    `difference_from_random` (random directions). Each has its interval, and its q over the table; a
    control of one draw has no q, since nothing tells how far draws differ. `largest_draw` is the
    largest change by any one draw: draws may cancel in their mean.

    `edit_norm` is the mean norm where something was added, `edit_norm_per_token` over all generated
    positions, and `edited_share` the share of positions (of every edited layer) with an addition.

    Outcomes of other moves than the edited one begin with `off_target/`; n is what was counted
    over: rollouts, opportunities or moves.

    Args:
        rollouts: Columns model, behaviour, edit, dose, condition, layer, latents, problem_id,
            draw, norm_sum, num_edited, num_tokens, truncated.
        counts: Of each row, by outcome.
        num_resamples: Of problems.
        seed: Of the resampling.
        split: Of the problems.
    """
    plain = list(counts[0])
    table = np.array([list(row.values()) for row in counts])
    frames = []
    for model, place in rollouts.groupby("model", sort=False).indices.items():
        part, counted = rollouts.iloc[place], table[place]
        problems, problem = np.unique(part.problem_id.to_numpy(str), return_inverse=True)
        bootstrap = Bootstrap(len(problems), num_resamples, seed)
        kind = part.condition.to_numpy(str)
        edits = part[kind == EDIT][["behaviour", "edit"]].drop_duplicates()
        for behaviour, edit in edits.itertuples(index=False):
            outcomes = _outcomes(plain, behaviour)
            of_edit = ((part.behaviour == behaviour) & (part.edit == edit)).to_numpy()
            chosen, found, sums = {}, {}, {}
            for condition in (NONE, EDIT, MATCHED, RANDOM):
                rows = (kind == condition) & (of_edit | (condition == NONE))
                chosen[condition] = part[rows]
                sums[condition] = _sums_by_draw(
                    counted[rows], chosen[condition].draw, problem[rows], len(problems), outcomes
                )
                found[condition] = bootstrap.ratios(sums[condition])
            is_share = np.array([_is_share(outcome) for outcome in outcomes])
            for condition, rows in chosen.items():
                frame = {
                    "model": model,
                    "split": split,
                    "behaviour": behaviour,
                    "edit": edit,
                    "condition": condition,
                    "dose": float(chosen[EDIT].dose.iloc[0]),
                    "layer": chosen[EDIT].layer.iloc[0],
                    "latents": " | ".join(rows.latents.unique()),
                    "num_problems": len(problems),
                    **_sizes(rows),
                    "outcome": list(outcomes),
                    "n": sums[condition][..., 1].sum((0, 1)).astype(int),
                    "value": found[condition].value,
                }
                if condition != NONE:
                    change = bootstrap.differences(found[condition], found[NONE], is_share)
                    by_draw = found[condition].by_draw - found[NONE].value
                    frame |= change._asdict() | {
                        "value": found[condition].value,
                        "difference": change.value,
                        "q": change.p,
                        "largest_draw": _largest(by_draw),
                    }
                if condition == EDIT:
                    for control, name in ((MATCHED, "control"), (RANDOM, "random")):
                        change = bootstrap.differences(found[EDIT], found[control], is_share)
                        q = change.p if len(sums[control]) > 1 else np.nan
                        frame |= {f"difference_from_{name}": change.value, f"{name}_q": q}
                        frame |= {f"{name}_low": change.low, f"{name}_high": change.high}
                frames.append(pd.DataFrame(frame))
    result = pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)
    for name in ("q", "control_q", "random_q"):
        result[name] = benjamini_hochberg(result[name].to_numpy(np.float64))
    return result


def findings(found: pd.DataFrame) -> pd.DataFrame:
    """For people: each edit's own move per trace, its controls' change, and accuracy.

    Controls: the mean of their draws, and the largest change by any one draw.
    """
    rows = []
    keys = ["model", "edit", "behaviour"]
    for (model, edit, behaviour), part in found.groupby(keys, sort=False):
        values = part.set_index(["condition", "outcome"])
        rate = f"rate_per_trace/{behaviour}"
        edited = values.loc[(EDIT, rate)]
        rows.append(
            {
                "model": model,
                "edit": edit,
                "behaviour": behaviour,
                "none": values.value[NONE, rate],
                "edited": edited.value,
                "change": _change(edited),
                "matched": _control(values.loc[(MATCHED, rate)]),
                "random": _control(values.loc[(RANDOM, rate)]),
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


def mismatched_controls(found: pd.DataFrame) -> list[str]:
    """Edits whose matched latents move a lot less or more, with how many times as much."""
    sizes = found.groupby(["model", "edit", "behaviour", "condition"], sort=False)
    wide = sizes.edit_norm_per_token.first().unstack()
    times = (wide[MATCHED] / wide[EDIT]).dropna()
    unlike = times[(times < _ALIKE[0]) | (times > _ALIKE[1])]
    return [f"{' '.join(edit)} {size:.2g} times" for edit, size in unlike.items()]


def _change(row: pd.Series) -> str:
    """In percent of what there is without an edit, or plainly where that may be nothing."""
    if np.isfinite(row.relative):
        shown = [f"{x:+.0%}" for x in (row.relative, row.relative_low, row.relative_high)]
    else:
        shown = [f"{x:+.2f}" for x in (row.difference, row.low, row.high)]
    value, low, high = shown
    return f"{value} [unknown]" if "nan" in low else f"{value} [{low}, {high}]"


def _control(row: pd.Series) -> str:
    if np.isfinite(row.relative):
        none = row.value - row.difference
        return f"{row.relative:+.0%} (largest {row.largest_draw / none:+.0%})"
    return f"{row.difference:+.2f} (largest {row.largest_draw:+.2f})"


def _sums_by_draw(
    counted: Float[np.ndarray, "rollout counted 2"],
    draw: pd.Series,
    problem: Int[np.ndarray, " rollout"],
    num_problems: int,
    outcomes: Mapping[str, Sequence[int]],
) -> Float[np.ndarray, "draw problem outcome 2"]:
    """Sums over samples of the counted columns that make up each outcome."""
    sums = []
    for chosen in draw.groupby(draw).indices.values():
        by = by_problem(counted[chosen], problem[chosen], num_problems)
        sums.append(np.stack([by[:, columns].sum(1) for columns in outcomes.values()], axis=1))
    return np.stack(sums)


def _sizes(rollouts: pd.DataFrame) -> dict[str, float]:
    """How much a condition added, and where."""
    norm, edited = rollouts.norm_sum.sum(), rollouts.num_edited.sum()
    # The token that ends a rollout is predicted from an edited position too.
    positions = rollouts.num_tokens + ~rollouts.truncated.astype(bool)
    layers = rollouts.layer.str.count(r"\+") + 1
    return {
        "edit_norm": norm / max(edited, 1),
        "edit_norm_per_token": norm / max(positions.sum(), 1),
        "edited_share": edited / max((positions * layers).sum(), 1),
    }


def _largest(by_draw: Float[np.ndarray, "draw outcome"]) -> Float[np.ndarray, " outcome"]:
    """Of each outcome the change farthest from 0, with its sign; NaN where none is known."""
    size = np.where(np.isfinite(by_draw), np.abs(by_draw), -1.0)
    return np.take_along_axis(by_draw, size.argmax(0)[None], axis=0)[0]


def _is_share(outcome: str) -> bool:
    return outcome.removeprefix("off_target/").partition("/")[0] in _SHARES


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
