"""What an edit did: outcomes of rollouts, against the same problems without an edit.

1. Every rollout is counted: for each outcome a numerator and a denominator (outcomes.py).
2. Both are summed by draw of a control and by problem, over samples, and divided (ratios.py).
3. Each edit, and each of its controls and rivals, is compared with no edit, and the edit with each
   of them, paired by problem. A control that was drawn is beaten by what lies
   beyond one more draw of it; of other behaviours' latents, of which there are no more, by what
   lies beyond each.
4. What an edit did counts only within the coherence guard (coherence.py). Edits beyond it, and
   those of which that can't be told, stay in the table, marked.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from sae_reasoning.stats import benjamini_hochberg
from sae_reasoning.steering.coherence import Coherence, coherence_of
from sae_reasoning.steering.conditions import (
    EDIT,
    MATCHED,
    MEAN,
    NONE,
    OTHER,
    OWN,
    PERMUTED,
    RANDOM,
    RANDOM_POSITIONS,
)
from sae_reasoning.steering.ratios import Bootstrap, Differences, Ratios, by_problem

EDIT_KEYS = ["behaviour", "edit", "dose", "set_size", "first", "where", "found_by"]
"""What tells one edit from another; what it is compared with has the same."""
AGAINST = {
    "control": MATCHED,
    "random": RANDOM,
    "random_positions": RANDOM_POSITIONS,
    "other": OTHER,
    "vector": MEAN,
    "permuted": PERMUTED,
    "own": OWN,
}
"""Prefix of the columns that hold what is left of an edit after a control or rival."""
DRAWN = (MATCHED, RANDOM, PERMUTED)
"""Controls of which there could be any number of draws."""
CONTROLS = ("control", "random", "random_positions", "other", "permuted")
"""Prefixes of what an effect must go further than; a rival need not be beaten."""
TELLING = ("control", "random")
"""Controls without which nothing is said."""
SHARES = (
    *("accuracy", "truncated", "repeated_3grams", "rate_per_opportunity", "in_place", "validity"),
)
"""Outcomes between 0 and 1."""
COLUMNS = [
    *("model", "split", *EDIT_KEYS, "layer", "latents", "condition", "outcome", "n"),
    *("value", "difference", "low", "high", "q", "relative", "relative_low", "relative_high"),
    *("largest_draw", "coherent", "damaged", "unknown", "q_all_controls"),
    *(
        column
        for name in AGAINST
        for column in (
            *(f"{name}_draws", f"{name}_coherent", f"difference_from_{name}"),
            *(f"{name}_low", f"{name}_high", f"{name}_q"),
        )
    ),
    *("num_problems", "num_draws", "edit_norm", "edit_norm_per_token", "edited_share"),
    *("edited_positions", "variance_reduction"),
]


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
    what is left of it after what it is compared with: `difference_from_control` (matched latents),
    `_random` (random directions), `_random_positions`, `_other` (other behaviours' latents),
    `_vector` (the mean difference), `_permuted` (permuted matches) and `_own` (this run's own
    latents, where another's are edited). Each has its interval, and its q over the table. Matched
    latents, random directions and permuted matches are draws of many that there could be: the
    interval and q are against one more draw (`Bootstrap.beyond`), and a single draw has neither,
    since nothing tells how far draws differ. Other behaviours' latents are compared one behaviour
    at a time, and the comparison that says least for the edit stands for all. `<name>_draws` says
    how many edited anything (0: none; one that never did is no control), `<name>_coherent` whether
    they are. `largest_draw` is the largest change by any one draw: draws may cancel in their mean.

    `q_all_controls` is of an edit's effect on its own behaviour: the largest p-value of all that it
    must differ from, no edit and each control (1 where a control goes as far or farther), and
    Benjamini-Hochberg over the edits of the table; none where matched latents or random directions
    weren't made, or a control has no p-value.

    `coherent` is whether the condition is within the guard (see coherence.py), missing where that
    can't be told; `damaged` and `unknown` name the parts that lie beyond it or can't be told.

    `edit_norm` is the mean norm where something was added, `edit_norm_per_token` over all generated
    positions, `edited_share` the share of positions (of every edited layer) with an addition, and
    `edited_positions` the median over rollouts of positions with one.

    Outcomes of other behaviours than the edited one begin with `off_target/`; n is what was counted
    over: rollouts, opportunities or behaviours.

    Args:
        rollouts: Columns model, problem_id, condition, draw, those of `EDIT_KEYS`, and norm_sum,
            num_edited, num_edited_positions, num_tokens, truncated.
        counts: Of each row, by outcome.
        num_resamples: Of problems.
        seed: Of the resampling.
        split: Of the problems.
    """
    table = np.array([list(row.values()) for row in counts])
    frames = []
    for model, place in rollouts.groupby("model", sort=False).indices.items():
        experiment = _Model(
            rollouts.iloc[place], table[place], list(counts[0]), num_resamples, seed
        )
        frames += [
            frame.assign(model=model, split=split)
            for key in experiment.edits()
            for frame in experiment.frames(key)
        ]
    result = pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)
    for name in ("q", *(f"{name}_q" for name in AGAINST)):
        result[name] = benjamini_hochberg(result[name].to_numpy(np.float64))
    for measure in dict.fromkeys(result.outcome.str.partition("/")[0]):
        own = result.outcome == measure + "/" + result.behaviour
        result.loc[own, "q_all_controls"] = benjamini_hochberg(
            result.q_all_controls[own].to_numpy(np.float64)
        )
    kinds = {f"{n}_draws": "Int64" for n in AGAINST} | {f"{n}_coherent": "boolean" for n in AGAINST}
    return result.astype(kinds | {"coherent": "boolean"})


class _Model:
    """All rollouts of one model."""

    def __init__(
        self,
        rollouts: pd.DataFrame,
        counted: Float[np.ndarray, "rollout counted 2"],
        plain: Sequence[str],
        num_resamples: int,
        seed: int,
    ) -> None:
        self._rollouts, self._counted, self._plain = rollouts, counted, plain
        problems, self._problem = np.unique(rollouts.problem_id.to_numpy(str), return_inverse=True)
        self._num_problems = len(problems)
        self._bootstrap = Bootstrap(len(problems), num_resamples, seed)
        self._of_edit = rollouts.groupby(EDIT_KEYS, sort=False).indices
        self._kind = rollouts.condition.to_numpy(str)
        self._num_edited = rollouts.num_edited.to_numpy()

    def edits(self) -> list[tuple[object, ...]]:
        """The edits, each by what tells it from others."""
        return [key for key, rows in self._of_edit.items() if (self._kind[rows] == EDIT).any()]

    def frames(self, key: tuple[object, ...]) -> Iterable[pd.DataFrame]:
        """Rows of one edit, of no edit, and of what it is compared with."""
        rows = self._of_edit[key]
        kinds = {NONE: np.flatnonzero(self._kind == NONE)}
        kinds |= {k: rows[self._kind[rows] == k] for k in dict.fromkeys(self._kind[rows])}
        outcomes = _outcomes(self._plain, str(key[0]))
        is_share = np.array([_is_share(outcome) for outcome in outcomes])
        sums = {kind: self._sums(own, outcomes) for kind, own in kinds.items()}
        found = {kind: self._bootstrap.ratios(own) for kind, own in sums.items()}
        names = list(outcomes)
        changes = {
            kind: self._bootstrap.differences(of_kind, found[NONE], is_share)
            for kind, of_kind in found.items()
        }
        counted = {kind: own[..., 1].sum((0, 1)).astype(int) for kind, own in sums.items()}
        guards = {
            kind: coherence_of(
                change, names, found[NONE].value, np.stack([counted[NONE], counted[kind]])
            )
            for kind, change in changes.items()
        }
        guards[NONE] = Coherence(is_coherent=True)
        for kind, own in kinds.items():
            part = self._rollouts.iloc[own]
            layers = self._rollouts.iloc[kinds[EDIT] if kind == NONE else own].layer
            frame = {
                **dict(zip(EDIT_KEYS, key, strict=True)),
                "layer": layers.iloc[0],
                "latents": " | ".join(part.latents.unique()),
                "condition": kind,
                "outcome": names,
                "n": counted[kind],
                "value": found[kind].value,
                "num_problems": self._num_problems,
                "num_draws": len(sums[kind]),
                "coherent": guards[kind].is_coherent,
                "damaged": ", ".join(guards[kind].damaged),
                "unknown": ", ".join(guards[kind].unknown),
                **_sizes(part),
            }
            if kind != NONE:
                change = changes[kind]
                frame |= change._asdict() | {
                    "value": found[kind].value,
                    "difference": change.value,
                    "q": change.p,
                    "largest_draw": _largest(found[kind].by_draw - found[NONE].value),
                }
            if kind == EDIT:
                least_sure = changes[EDIT].p
                acted = {k: sums[k][self._acts(rows, kinds[EDIT])] for k, rows in kinds.items()}
                for name, control in AGAINST.items():
                    frame[f"{name}_draws"] = len(acted.get(control, ()))
                    if frame[f"{name}_draws"]:
                        change = self._beyond(control, found, acted[control], is_share)
                        frame |= {
                            f"{name}_coherent": guards[control].is_coherent,
                            f"difference_from_{name}": change.value,
                            f"{name}_low": change.low,
                            f"{name}_high": change.high,
                            f"{name}_q": change.p,
                        }
                        if name in CONTROLS:
                            goes_further = change.value * changes[EDIT].value > 0
                            p = np.where(goes_further, change.p, 1.0)
                            p = np.where(np.isnan(change.p), np.nan, p)
                            least_sure = np.maximum(least_sure, p)
                is_told = all(frame[f"{name}_draws"] for name in TELLING)
                frame["q_all_controls"] = least_sure if is_told else np.nan
            yield pd.DataFrame(frame)

    def _beyond(
        self,
        control: str,
        found: Mapping[str, Ratios],
        sums: Float[np.ndarray, "draw problem outcome 2"],
        is_share: Bool[np.ndarray, " outcome"],
    ) -> Differences:
        """The edit less what it is compared with."""
        edit = found[EDIT]
        if control == OTHER:
            each = [
                self._bootstrap.differences(edit, self._bootstrap.ratios(one[None]), is_share)
                for one in sums
            ]
            return _least(each, np.sign(edit.value - found[NONE].value))
        beside = self._bootstrap.ratios(sums)
        if control in DRAWN:
            return self._bootstrap.beyond(edit, beside, is_share)
        return self._bootstrap.differences(edit, beside, is_share)

    def _acts(
        self, rows: Int[np.ndarray, " row"], edited: Int[np.ndarray, " edited"]
    ) -> Bool[np.ndarray, " draw"]:
        """Which draws added anything; all, where the edit itself didn't."""
        if not self._num_edited[edited].any():
            return np.ones(len(np.unique(self._rollouts.draw.to_numpy()[rows])), bool)
        times = pd.Series(self._num_edited[rows]).groupby(self._rollouts.draw.to_numpy()[rows])
        return times.sum().to_numpy() > 0

    def _sums(
        self, rows: Int[np.ndarray, " row"], outcomes: Mapping[str, Sequence[int]]
    ) -> Float[np.ndarray, "draw problem outcome 2"]:
        """Sums over samples of the counted columns that make up each outcome."""
        sums = []
        draws = self._rollouts.draw.to_numpy()[rows]
        for draw in np.unique(draws):
            own = rows[draws == draw]
            by = by_problem(self._counted[own], self._problem[own], self._num_problems)
            sums.append(np.stack([by[:, columns].sum(1) for columns in outcomes.values()], axis=1))
        return np.stack(sums)


def _least(each: Sequence[Differences], way: Float[np.ndarray, " outcome"]) -> Differences:
    """Of several comparisons, outcome by outcome, the one that says least for the edit.

    That is the one that goes least surely the way of its effect; what goes the other way says less,
    the surer the less, and an unknown least of all.
    """
    p, goes = np.stack([one.p for one in each]), np.sign([one.value for one in each]) * way > 0
    against = np.where(goes, p, 2 - p)
    chosen = np.where(np.isnan(against), np.inf, against).argmax(0)[None]
    return Differences(
        *(np.take_along_axis(np.stack(part), chosen, 0)[0] for part in zip(*each, strict=True))
    )


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
        "edited_positions": float(rollouts.num_edited_positions.median()),
    }


def _largest(by_draw: Float[np.ndarray, "draw outcome"]) -> Float[np.ndarray, " outcome"]:
    """Of each outcome the change farthest from 0, with its sign; NaN where none is known."""
    size = np.where(np.isfinite(by_draw), np.abs(by_draw), -1.0)
    return np.take_along_axis(by_draw, size.argmax(0)[None], axis=0)[0]


def _is_share(outcome: str) -> bool:
    return outcome.removeprefix("off_target/").partition("/")[0] in SHARES


def _outcomes(plain: Iterable[str], behaviour: str) -> dict[str, list[int]]:
    """Which counted columns make up each outcome, seen from the edited behaviour."""
    outcomes: dict[str, list[int]] = {}
    for index, name in enumerate(plain):
        measure, _, counted = name.partition("/")
        if counted in ("", behaviour):
            outcomes[name] = [index]
        elif measure in ("in_place", "validity"):
            outcomes.setdefault(f"off_target/{measure}", []).append(index)
        else:
            outcomes[f"off_target/{name}"] = [index]
            if measure == "rate_per_opportunity":
                outcomes.setdefault(f"off_target/{measure}", []).append(index)
    return outcomes
