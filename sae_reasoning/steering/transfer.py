"""Do the latents of one pair change the same behaviours in another? By source, target, behaviour.

The target's models are edited through the latents that match the source's. In the same batches
stand matches of *other* latents of the source (the null: any match would do) and the target's own
latents (what could be had there). A matched latent's effect *carries over* if it is significant as
an edit's effect is (findings.py: coherent, apart from no edit, and further than every control, the
null and other behaviours' matches among them, at q < 0.05) and goes the way that is asked: down
where latents are ablated, up where they're clamped.
"""

from collections.abc import Sequence

import pandas as pd

from sae_reasoning.steering.coherence import VALIDITY
from sae_reasoning.steering.conditions import (
    ABLATE,
    EDIT,
    MATCHED,
    NONE,
    OTHER,
    OWN,
    PERMUTED,
    RANDOM,
)
from sae_reasoning.steering.effects import EDIT_KEYS
from sae_reasoning.steering.findings import PER_OPPORTUNITY, is_coherent, is_significant

_BESIDE = {"permuted": PERMUTED, "matched": MATCHED, "random": RANDOM, "other": OTHER, "own": OWN}
_BEYOND = {name: name for name in _BESIDE} | {"matched": "control"}
"""Prefixes of these columns in the table of effects."""
_INTERVAL = ("low", "high", "q")

CELLS = [
    *("source", "target", "model", "edit", "dose", "where", "behaviour", "latents", "set_size"),
    *("num_shared", "likeness", "same_word", "n", "num_problems", "without", "value"),
    *("difference", "low", "high", "q", "coherent", "carries_over"),
    *("validity", "validity_without", "others_valid", "others_valid_low"),
    *("accuracy", "accuracy_without"),
    *(
        column
        for name in _BESIDE
        for column in (name, *(f"{name}_{part}" for part in (*_INTERVAL, "coherent")))
    ),
    *("permuted_largest", "permuted_draws"),
    *(
        column
        for name in _BEYOND
        for column in (f"beyond_{name}", *(f"beyond_{name}_{part}" for part in _INTERVAL))
    ),
]
"""Columns of `transfer.parquet`; rates are starts per opportunity, on the target's problems.

source, target       pairs; where they are one, the target's own latents
model, edit, dose, where, behaviour    what is done to whom
latents, set_size    those edited
num_shared           of them, among the target's own that stand beside them
likeness, same_word  medians over the source's latents that they match, as in `match`
n                    opportunities with the edit
without, value, difference (low, high, q)    rate without and with it, and the change
coherent             whether it is within the coherence guard; missing where that can't be told
carries_over         whether the effect is significant and goes the way asked; missing on the
                     diagonal, and where it can't be told
validity (_without)  share of the behaviour's starts that are carried out rightly
others_valid (_low)  what is left of the other behaviours' validity, as a share
accuracy (_without)  right answers
permuted, matched, random, other (behaviours' matched latents), own    change by what it is compared
                     with; by `_largest` of `_draws` draws
beyond_<name>        the change less that one, with its interval and q
"""


def cells(
    found: pd.DataFrame, matched_latents: pd.DataFrame, *, source: str, target: str
) -> pd.DataFrame:
    """Every behaviour and model of one target, edited through one source; then the target's own.

    Args:
        found: The table of effects of `ablate` with `matches_of`.
        matched_latents: Its table of that name.
        source: Name of the pair whose latents are matched here.
        target: Name of the pair whose models are.
    """
    rows: list[dict[str, object]] = []
    for key, part in found.groupby(["model", *EDIT_KEYS], sort=False):
        named = dict(zip(["model", *EDIT_KEYS], key, strict=True))
        outcomes = {kind: own.set_index("outcome") for kind, own in part.groupby("condition")}
        behaviour, sign = str(named["behaviour"]), -1 if named["edit"] == ABLATE else 1
        rate = f"{PER_OPPORTUNITY}/{behaviour}"
        common = {
            **{name: named[name] for name in ("model", "edit", "dose", "where", "behaviour")},
            "target": target,
            "without": outcomes[NONE].value[rate],
            "validity_without": outcomes[NONE].value[f"validity/{behaviour}"],
            "accuracy_without": outcomes[NONE].value["accuracy"],
        }
        edited = outcomes[EDIT].loc[rate]
        beside = {n: outcomes[k].loc[rate] for n, k in _BESIDE.items() if k in outcomes}
        latents = edited.latents.split()
        asked = matched_latents[matched_latents.behaviour == behaviour]
        names = asked.other_layer.astype(str) + ":" + asked.other_latent.astype(str)
        alike = asked[names.isin(latents)]
        row = common | _change(outcomes[EDIT], behaviour) | {"source": source}
        own_latents = beside["own"].latents.split() if "own" in beside else []
        row |= {
            "num_shared": len(set(latents) & set(own_latents)),
            "likeness": alike.value.median(),
            "same_word": alike.same_word.median(),
            "carries_over": pd.NA,
            "permuted_draws": 0,
        }
        # Without the null, or with a control that tells nothing, it isn't known.
        if "permuted" in beside:
            is_apart = is_significant(edited)
            row |= {
                "carries_over": pd.NA
                if is_apart is None
                else is_apart and sign * edited.difference > 0,
                "permuted_largest": beside["permuted"].largest_draw,
                "permuted_draws": beside["permuted"].num_draws,
            }
        for name, other in beside.items():
            row |= {name: other.difference, f"{name}_coherent": other.coherent}
            row |= {f"{name}_{part}": other[part] for part in _INTERVAL}
            before = _BEYOND[name]
            row[f"beyond_{name}"] = edited[f"difference_from_{before}"]
            row |= {f"beyond_{name}_{part}": edited[f"{before}_{part}"] for part in _INTERVAL}
        rows.append(row)
        if "own" in beside:
            rows.append(common | _change(outcomes[OWN], behaviour) | {"source": target})
    return pd.DataFrame(rows).reindex(columns=CELLS).astype({"carries_over": "boolean"})


def _change(outcomes: pd.DataFrame, behaviour: str) -> dict[str, object]:
    """What one condition did; its rows by outcome."""
    rate, others = (
        outcomes.loc[f"{PER_OPPORTUNITY}/{behaviour}"],
        outcomes.reindex([VALIDITY]).iloc[0],
    )
    kept = ("latents", "n", "num_problems", "value", "difference", "low", "high", "q", "coherent")
    return {name: rate[name] for name in kept} | {
        "set_size": len(rate.latents.split()),
        "validity": outcomes.value[f"validity/{behaviour}"],
        "others_valid": 1 + others.relative,
        "others_valid_low": 1 + others.relative_low,
        "accuracy": outcomes.value["accuracy"],
    }


def join(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of all cells; a target's own latents, which every source met, stand in it once."""
    keys = ["model", "edit", "set_size", "behaviour", "source", "target"]
    table = pd.concat(parts, ignore_index=True).drop_duplicates(keys)
    return table.sort_values(keys, ascending=[False, *[True] * 5], ignore_index=True)


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """For people: the change by source, a column for each target; `*` carries over.

    In brackets the null's change. `!` isn't coherent, `?` may not be. On the diagonal the target's
    own latents.
    """
    shown = pd.DataFrame(
        {
            "edit": table.edit + " " + table.set_size.astype(str) + ", " + table.model,
            "behaviour": table.behaviour,
            "found in": table.source,
            "target": "in " + table.target,
            "cell": [_cell(row) for _, row in table.iterrows()],
        }
    )
    keys = ["edit", "behaviour", "found in"]
    wide = shown.pivot(index=keys, columns="target", values="cell")
    order = pd.MultiIndex.from_frame(shown[keys].drop_duplicates())
    return wide.reindex(order).fillna("-").reset_index()


def _cell(row: pd.Series) -> str:
    damaged = {None: "?", True: "", False: "!"}[is_coherent(row)]
    if row.source == row.target:
        return f"{row.difference:+.2f}{damaged} (own)"
    mark = "" if pd.isna(row.carries_over) or not row.carries_over else "*"
    null = "-" if pd.isna(row.permuted) else f"{row.permuted:+.2f}"
    return f"{row.difference:+.2f}{mark}{damaged} ({null})"
