"""Tables for people, made of the table of effects.

An edit's effect on its own behaviour is *significant against all controls* if it lies within the
coherence guard, differs from no edit, and goes significantly further than every control that was
made (`q_all_controls` < 0.05, see effects.py). Where a control tells nothing (one draw, too few
opportunities), where matched latents and random directions weren't made, or where it goes far
enough but the guard can't be told, it is neither significant nor not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sae_reasoning.steering.coherence import PARTS
from sae_reasoning.steering.conditions import (
    ABLATE,
    CLAMP,
    EDIT,
    ERROR,
    MATCHED,
    MEAN,
    NONE,
    OTHER,
    OWN,
    PERMUTED,
    RANDOM,
    RESIDUAL,
    SPAN,
)
from sae_reasoning.steering.effects import AGAINST, CONTROLS, EDIT_KEYS

_FOUND = 0.05
_ALIKE = (0.67, 1.5)
"""Sizes of a control that is as large as its edit, in multiples of the edit's."""
_ABSENT = "-"
_OF_EDIT = ["model", *EDIT_KEYS]
PER_OPPORTUNITY = "rate_per_opportunity"


def is_significant(row: pd.Series) -> bool | None:
    """Whether what an edit did to its own behaviour is more than damage and more than its controls.

    Args:
        row: Of the table of effects: the edit's, for one outcome.

    Returns:
        None where that can't be told.
    """
    if row.q_all_controls != row.q_all_controls:
        return None
    if row.q_all_controls >= _FOUND:
        return False
    return is_coherent(row)


def is_coherent(row: pd.Series) -> bool | None:
    """Whether a condition is within the coherence guard; None where that can't be told."""
    return None if pd.isna(row.coherent) else bool(row.coherent)


def told_coherent(row: pd.Series) -> str:
    """The same for people, with the parts that aren't met."""
    found = is_coherent(row)
    if found is None:
        return f"unknown: {row.unknown}"
    return "yes" if found else f"no: {row.damaged}"


def held_against(row: pd.Series) -> str:
    """The controls beside an edit, by their prefixes in the table of effects."""
    return " ".join(name for name in CONTROLS if row[f"{name}_draws"] > 0)


def own_effects(found: pd.DataFrame, measure: str = PER_OPPORTUNITY) -> pd.DataFrame:
    """Rows about the behaviour whose latents are edited, with whether the effect is significant."""
    own = found[found.outcome == measure + "/" + found.behaviour]
    told = [is_significant(row) if row.condition == EDIT else None for _, row in own.iterrows()]
    return own.assign(significant=pd.array(told, dtype="boolean"))


def main_edits(found: pd.DataFrame) -> pd.DataFrame:
    """Rows of each behaviour's main edit, by model: the first with matched latents beside it."""
    controlled = found[found.condition == MATCHED]
    return found.merge(controlled.drop_duplicates(["model", "behaviour"])[_OF_EDIT], on=_OF_EDIT)


def findings(found: pd.DataFrame) -> pd.DataFrame:
    """Each edit that has controls: its behaviour per opportunity, its controls' change, the damage.

    All changes are differences in starts per opportunity. Controls: the mean of their draws, and
    the largest change by any one draw. Positions are the median of those edited in a rollout, and
    beside it what controls' medians span.
    """
    rows = []
    for key, part in found.groupby(_OF_EDIT, sort=False):
        values = part.set_index(["condition", "outcome"])
        if (MATCHED, "accuracy") not in values.index:
            continue
        named = dict(zip(_OF_EDIT, key, strict=True))
        rate = f"{PER_OPPORTUNITY}/{named['behaviour']}"
        edited = values.loc[(EDIT, rate)]
        trace = f"rate_per_trace/{named['behaviour']}"
        rows.append(
            {
                "model": named["model"],
                "behaviour": named["behaviour"],
                "edit": _edit_name(named),
                "positions a rollout": _positions(values.edited_positions.xs(rate, level=1)),
                "per opportunity": _both(values.value[NONE, rate], edited.value),
                "change": _change(edited),
                **{
                    name: _control(values.loc[(kind, rate)])
                    for name, kind in (
                        ("matched", MATCHED),
                        ("random", RANDOM),
                        ("other behaviour's", OTHER),
                        ("vector", MEAN),
                        ("permuted", PERMUTED),
                        ("own latents", OWN),
                    )
                    if (kind, rate) in values.index
                },
                "per trace": _both(values.value[NONE, trace], values.value[EDIT, trace]),
                "right answers": _both(
                    values.value[NONE, "accuracy"], values.value[EDIT, "accuracy"]
                ),
                "coherent": told_coherent(edited),
                "significant": is_significant(edited),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class MainEdit:
    """What the main edit of a behaviour's latents did to it in one model.

    Attributes:
        model: `base` or `rl`.
        behaviour: Whose latents were edited.
        edit: What was done to how many latents, in words.
        positions: Median of positions edited in a rollout, and what its controls' medians span.
        rates: Starts per opportunity without and with the edit.
        change: Their difference with its 95 % interval.
        control: The largest change by any draw of any control.
        accuracy: Share of right answers without and with the edit.
        is_significant: Whether the edit differs from no edit and goes further than every control,
            within the coherence guard; none where that can't be told.
        is_coherent: Whether the edit is within the coherence guard; none where that can't be told.
        unmet: Parts of the guard that lie beyond it, or can't be told.
    """

    model: str
    behaviour: str
    edit: str
    positions: str
    rates: str
    change: str
    control: str
    accuracy: str
    is_significant: bool | None
    is_coherent: bool | None
    unmet: str = ""

    @property
    def doing(self) -> str:
        """As a sentence begins: what is done where."""
        return f"{'ablating' if self.edit.startswith(ABLATE) else 'steering'} {self.model}"

    @property
    def verdict(self) -> str:
        """`yes`, `no`, `unknown`, or `no, damage`."""
        if self.is_coherent is False:
            return "no, damage"
        if self.is_significant is None:
            return "unknown"
        return "yes" if self.is_significant else "no"


def main_effects(found: pd.DataFrame) -> list[MainEdit]:
    """The main edit of each behaviour, by model; behaviours in the order of the table."""
    rows = main_edits(found)
    made = []
    for key, part in rows.groupby(_OF_EDIT, sort=False):
        named = dict(zip(_OF_EDIT, key, strict=True))
        values = part.set_index(["condition", "outcome"])
        rate = f"{PER_OPPORTUNITY}/{named['behaviour']}"
        edited = values.loc[(EDIT, rate)]
        draws = [
            float(values.largest_draw[kind, rate])
            for name in CONTROLS
            if (kind := AGAINST[name], rate) in values.index
        ]
        known = [draw for draw in draws if draw == draw]
        done = "ablate" if named["edit"] == ABLATE else f"{named['edit']} {named['dose']:g}x"
        made.append(
            MainEdit(
                model=named["model"],
                behaviour=named["behaviour"],
                edit=f"{done}, {named['set_size']} latents",
                positions=_positions(values.edited_positions.xs(rate, level=1)),
                rates=_both(values.value[NONE, rate], edited.value),
                change=_change(edited),
                control=f"{max(known, key=abs):+.2f}" if known else _ABSENT,
                accuracy=_both(values.value[NONE, "accuracy"], values.value[EDIT, "accuracy"]),
                is_significant=is_significant(edited),
                is_coherent=is_coherent(edited),
                unmet=edited.damaged or edited.unknown,
            )
        )
    return made


def _edit_name(named: dict[str, object]) -> str:
    dose = "" if named["edit"] == ABLATE else f" {named['dose']:g}"
    return f"{named['edit']}{dose}, {named['set_size']} of {named['found_by']}, {named['where']}"


def growing_sets(found: pd.DataFrame) -> pd.DataFrame:
    """Necessity (ablated in the RL model) beside sufficiency (clamped in the base), by size.

    Columns `necessity*` and `sufficiency*`: starts per opportunity without and with the edit, their
    difference with its interval and q, opportunities, whether it's coherent, and whether it's
    significant as a drop or as a rise, and against which controls (the main set has more). Of
    clamps, those of the main dose: the one that has matched latents beside it, or else comes with
    most sizes.
    """
    own = own_effects(found)
    own = own[own.condition.isin([EDIT, NONE]) & (own["first"] == 0)]
    keys = ["behaviour", "where", "found_by", "set_size"]
    sides = []
    clamped = "base" if (own.model == "base").any() else "rl"  # The one that stands alone.
    for name, model, edit, sign in (
        ("necessity", "rl", ABLATE, -1),
        ("sufficiency", clamped, CLAMP, 1),
    ):
        side = own[(own.model == model) & (own.edit == edit)]
        edited = side[side.condition == EDIT].set_index([*keys, "dose"])
        without = side[side.condition == NONE].set_index([*keys, "dose"]).value
        columns = {
            "without": without.reindex(edited.index),
            "rate": edited.value,
            "difference": edited.difference,
            "low": edited.low,
            "high": edited.high,
            "q": edited.q,
            "n": edited.n,
            "coherent": edited.coherent,
            # What can't be told doesn't fail, whichever way it went.
            "significant": (edited.significant & (sign * edited.difference > 0)).mask(
                edited.significant.isna()
            ),
            "held_against": [held_against(row) for _, row in edited.iterrows()],
            "latents": edited.latents,
        }
        table = pd.DataFrame(columns).reset_index()
        if len(table):
            of_edit = (found.model == model) & (found.edit == edit)
            controlled = found[of_edit & (found.condition == MATCHED)].dose
            table = table[
                table.dose == (controlled.iloc[0] if len(controlled) else main_dose(table))
            ]
        table = table.rename(columns={column: f"{name}_{column}" for column in ("dose", *columns)})
        sides.append(table)
    return sides[0].merge(sides[1], on=keys, how="outer").sort_values(keys, ignore_index=True)


def main_dose(table: pd.DataFrame) -> float:
    """The dose that comes with most sizes."""
    return float(table.groupby("dose").set_size.nunique().idxmax())


def doses(found: pd.DataFrame) -> pd.DataFrame:
    """Starts per opportunity by dose, of latents and of the mean difference in the same size."""
    own = own_effects(found)
    own = own[(own.edit != ABLATE) & own.condition.isin([EDIT, MEAN, RANDOM, MATCHED])]
    return own[
        [
            *("model", "behaviour", "edit", "set_size", "where", "found_by", "dose", "condition"),
            *(
                "value",
                "difference",
                "low",
                "high",
                "q",
                "n",
                "edit_norm",
                "coherent",
                "significant",
            ),
        ]
    ].reset_index(drop=True)


def dose_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Of `doses`, the points of curves: the sets that have most doses, with their controls.

    Args:
        table: As `doses` makes it.

    Returns:
        Its rows with a column `line`, by line and dose.
    """
    keys = ["model", "edit", "set_size", "where", "found_by"]
    if table.empty:
        return table.assign(line=[])
    main = table[table.condition == EDIT].groupby(keys).dose.nunique()
    chosen = main[main == main.groupby(["model", "edit"]).transform("max")].index
    rows = table[table.set_index(keys).index.isin(chosen)]
    line = rows.model + " " + rows.edit + ", " + rows.behaviour + ", " + rows.condition
    return rows.assign(line=line).sort_values(["line", "dose"], ignore_index=True)


def off_target(found: pd.DataFrame) -> pd.DataFrame:
    """Every edited set of latents by every behaviour: the change in its starts per opportunity."""
    edits = found[found.condition == EDIT]
    measured = edits.outcome.str.removeprefix("off_target/")
    keys = ["model", *EDIT_KEYS, "latents"]
    columns = [*keys, "value", "difference", "low", "high", "q", "n", "coherent"]
    prefix = f"{PER_OPPORTUNITY}/"
    is_rate = measured.str.startswith(prefix).astype(bool)
    behaviours = measured[is_rate].str.removeprefix(prefix)
    return edits.loc[is_rate, columns].assign(affected=behaviours).reset_index(drop=True)


def of_the_text(found: pd.DataFrame) -> pd.DataFrame:
    """What edits do to the text itself: a row for each part of the coherence guard of text.

    Columns `part`, its value `without` the edit and with it, the difference and its interval, n.
    """
    names = {part.outcome: part.name for part in PARTS}
    rows = found[found.outcome.isin(names)]
    without = rows[rows.condition == NONE].set_index([*_OF_EDIT, "outcome"]).value
    edits = rows[rows.condition == EDIT].set_index([*_OF_EDIT, "outcome"])
    edits = edits.assign(without=without.reindex(edits.index)).reset_index()
    columns = [*_OF_EDIT, "without", "value", "difference", "low", "high", "n"]
    return edits[columns].assign(part=edits.outcome.map(names))


def returning(found: pd.DataFrame) -> pd.DataFrame:
    """Whether the behaviour comes back through what an ablation leaves (2606.18322).

    Starts per opportunity when the latents are ablated, when the span of their decoder rows is
    taken from the SAE's error too, and when it's taken from the whole residual; beside a random
    subspace of as many dimensions. `returned` is the share of the deepest drop that the plain
    ablation doesn't reach.
    """
    rows = []
    own = own_effects(found)
    for key, part in own.groupby(_OF_EDIT, sort=False):
        values = part.set_index("condition")
        if ERROR not in values.index or RESIDUAL not in values.index:
            continue
        drop = {kind: -values.difference[kind] for kind in (EDIT, ERROR, RESIDUAL)}
        whole = max(drop.values())
        named = dict(zip(_OF_EDIT, key, strict=True))
        rows.append(
            {
                **{name: named[name] for name in ("model", "behaviour", "set_size", "where")},
                "without": values.value[NONE],
                **{
                    f"{kind}{suffix}": values[column].get(kind, np.nan)
                    for kind in (EDIT, ERROR, RESIDUAL, SPAN)
                    for suffix, column in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
                "coherent": " ".join(
                    kind
                    for kind in (EDIT, ERROR, RESIDUAL, SPAN)
                    if kind in values.index and is_coherent(values.loc[kind])
                ),
                "returned": 1 - drop[EDIT] / whole if whole > 0 else np.nan,
                "n": int(values.n[EDIT]),
            }
        )
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame, columns: Sequence[str]) -> list[list[object]]:
    """Rows for a console: differences as `value [low, high]` where bounds are there, else None."""
    return [list(_cells(row, columns)) for _, row in table.iterrows()]


def _cells(row: pd.Series, columns: Sequence[str]) -> Iterator[object]:
    for column in columns:
        low = f"{column.removesuffix('difference')}low"
        if column.endswith("difference") and low in row.index:
            high = f"{low.removesuffix('low')}high"
            yield _with_interval(row[column], row[low], row[high])
        else:
            yield None if row[column] is pd.NA else row[column]


def _with_interval(value: float, low: float, high: float) -> str:
    return _ABSENT if value != value else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def mismatched_controls(found: pd.DataFrame) -> list[str]:
    """Edits whose other latents move the residual much less or more, with how many times as far."""
    sizes = found.groupby([*_OF_EDIT, "condition"], sort=False)
    wide = sizes.edit_norm_per_token.first().unstack()
    said = []
    for kind in (MATCHED, OTHER, PERMUTED):
        if kind not in wide:
            continue
        times = (wide[kind] / wide[EDIT]).dropna()
        unlike = times[(times < _ALIKE[0]) | (times > _ALIKE[1])]
        said += [
            f"{size:.2g} times as far: {kind.replace('_', ' ')} beside {key[0]} {key[1]} "
            f"{_edit_name(dict(zip(_OF_EDIT, key, strict=True)))}"
            for key, size in unlike.items()
        ]
    return said


def untold(found: pd.DataFrame) -> dict[str, list[str]]:
    """Parts of the coherence guard that can't be told of edits, with the edits."""
    edits = found[(found.condition == EDIT) & found.coherent.isna()].drop_duplicates(_OF_EDIT)
    parts: dict[str, list[str]] = {}
    for _, row in edits.iterrows():
        name = f"{row.model} {row.behaviour} {_edit_name(row.to_dict())}"
        for part in row.unknown.split(", "):
            parts.setdefault(part, []).append(name)
    return parts


def idle_controls(found: pd.DataFrame) -> list[str]:
    """Controls that changed nothing anywhere beside an edit that did: they say nothing of it."""
    shares = found.groupby([*_OF_EDIT, "condition"], sort=False).edited_share.first().unstack()
    said = []
    for kind in AGAINST.values():
        if kind not in shares:
            continue
        idle = shares.index[(shares[kind] == 0) & (shares[EDIT] > 0)]
        said += [
            f"{kind.replace('_', ' ')} beside {key[0]} {key[1]} "
            f"{_edit_name(dict(zip(_OF_EDIT, key, strict=True)))}"
            for key in idle
        ]
    return said


def _change(row: pd.Series) -> str:
    """A difference in starts per opportunity, with its interval."""
    if row.difference != row.difference:
        return _ABSENT
    interval = "unknown" if row.low != row.low else f"{row.low:+.2f}, {row.high:+.2f}"
    return f"{row.difference:+.2f} [{interval}]"


def _positions(medians: pd.Series) -> str:
    """Positions edited in a rollout, by the edit and by its controls."""
    controls = medians[medians.index.isin([AGAINST[name] for name in CONTROLS])]
    ends = dict.fromkeys(f"{end:g}" for end in (controls.min(), controls.max()))
    return f"{medians[EDIT]:g} (controls {' to '.join(ends)})"


def _control(row: pd.Series) -> str:
    """The same of a control: the mean of its draws, and the one that differs most."""
    if row.difference != row.difference:
        return _ABSENT
    return f"{row.difference:+.2f} (largest {row.largest_draw:+.2f})"


def _both(without: float, edited: float) -> str:
    """A figure without and with the edit."""
    if without != without and edited != edited:
        return _ABSENT
    return " → ".join(_ABSENT if x != x else f"{x:.2f}" for x in (without, edited))
