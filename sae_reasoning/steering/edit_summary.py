"""What a table of effects comes to: tables to keep, and lines and rows for people."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from sae_reasoning.robustness.headlines import Headline
from sae_reasoning.steering.findings import (
    MainEdit,
    dose_curves,
    doses,
    findings,
    growing_sets,
    idle_controls,
    mismatched_controls,
    off_target,
    returning,
    shown,
    untold,
)

_SAID = {
    "yes": "significant",
    "no": "not significant",
    "no, damage": "does damage",
    "unknown": "can't be told",
}
_SET_COLUMNS = ["behaviour", "found_by", "where", "set_size"] + [
    f"{side}_{column}"
    for side in ("necessity", "sufficiency")
    for column in ("without", "rate", "difference", "n", "coherent", "significant")
]
_DOSE_COLUMNS = "model behaviour edit set_size dose condition value difference n coherent".split()
_RETURN_COLUMNS = [
    *("model", "behaviour", "set_size", "without", "edit", "latents_and_error"),
    *("whole_residual", "random_span", "returned", "coherent", "n"),
]
MAIN_COLUMNS = [
    *("behaviour", "model", "edit", "positions (controls)", "rate", "change [95 % CI]"),
    *("largest control", "right answers", "significant"),
]


class Table(NamedTuple):
    """One table for people."""

    title: str
    columns: list[str]
    rows: list[list[object]]


class Summary(NamedTuple):
    """What a table of effects comes to.

    Attributes:
        curves: Points of dose–response curves.
        details: Tables that aren't empty.
        warnings: What keeps effects from being told, in a line each.
    """

    curves: pd.DataFrame
    details: list[Table]
    warnings: list[str]


def tables_of(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables beside that of effects, by name."""
    return {
        "sets": growing_sets(found),
        "doses": doses(found),
        "off_target": off_target(found),
        "returning": returning(found),
    }


def summary_of(found: pd.DataFrame, tables: dict[str, pd.DataFrame], split: str) -> Summary:
    """For the console and the tracker.

    Args:
        found: The table of effects.
        tables: Those of `tables_of`.
        split: Of the problems.
    """
    edits = findings(found)
    title = f"edits with controls, changes in starts per opportunity, on the {split} split"
    every = [Table(title, list(edits.columns), edits.values.tolist())]
    every += [
        Table(title, columns, shown(tables[name], columns))
        for name, columns, title in (
            ("sets", _SET_COLUMNS, "growing sets: ablated in the RL model, clamped in the base"),
            ("doses", _DOSE_COLUMNS, "doses, in multiples of the latents' maximum"),
            ("returning", _RETURN_COLUMNS, "does the behaviour come back through the SAE's error?"),
        )
    ]
    idle, unlike, parts = idle_controls(found), mismatched_controls(found), untold(found)
    every += [
        Table("controls that changed nothing", ["control"], [[name] for name in idle]),
        Table(
            "control latents that move the residual less or more than their edit; random "
            "directions move it exactly as far",
            ["control"],
            [[name] for name in unlike],
        ),
        Table(
            "edits of which a part of the coherence guard can't be told",
            ["part", "edit"],
            [[part, edit] for part, edits in parts.items() for edit in edits],
        ),
    ]
    warnings = _warnings(found, parts)
    if idle:
        others = f", and {len(idle) - 1} more" if len(idle) > 1 else ""
        warnings.append(
            f"a control that changed nothing is none, and no edit is held against it: {idle[0]}"
            f"{others}"
        )
    curves = dose_curves(tables["doses"])
    return Summary(curves, [table for table in every if table.rows], warnings)


def _warnings(found: pd.DataFrame, parts: dict[str, list[str]]) -> list[str]:
    """That the guard can't be told of some edits, why, and what helps."""
    if not parts:
        return []
    num = len({edit for edits in parts.values() for edit in edits})
    is_graded = bool(found.n[found.outcome == "accuracy"].any())
    counts = ", ".join(f"{part} of {len(edits)}" for part, edits in parts.items())
    remedy = (
        "raise ablate.num_problems, ablate.samples or ablate.base_samples"
        if is_graded
        else "no answer could be graded; give problems with reference answers (traces.source)"
    )
    return [
        f"whether {num} edits leave the model's text whole can't be told ({counts}), so none of "
        f"them is significant; {remedy}"
    ]


def main_rows(edits: Sequence[MainEdit]) -> list[list[object]]:
    """A row for each behaviour and model, of `MAIN_COLUMNS`."""
    return [
        [
            *(e.behaviour, e.model, e.edit, e.positions.replace("controls ", "")),
            *(e.rates, e.change),
            *(e.control, e.accuracy, f"{e.verdict} ({e.unmet})" if e.unmet else e.verdict),
        ]
        for e in by_behaviour(edits)
    ]


def by_behaviour(edits: Sequence[MainEdit]) -> list[MainEdit]:
    """All edits of one behaviour, then those of the next."""
    behaviours = list(dict.fromkeys(edit.behaviour for edit in edits))
    return sorted(edits, key=lambda edit: behaviours.index(edit.behaviour))


def told(edits: Sequence[MainEdit], latents: Sequence[Headline]) -> list[str]:
    """Of each behaviour a sentence: its best latents, and what editing them did.

    Args:
        edits: Main edits.
        latents: The best latent of each list, that of the list which is edited last; may be empty.
    """
    lines = []
    for behaviour in dict.fromkeys(edit.behaviour for edit in edits):
        own = [one for one in latents if one.behaviour == behaviour]
        best = [f"best {x.kind} {x.latent} (AUROC {x.interval}, {x.label})" for x in own[:-1]]
        best += [f"edited {x.kind}s from {x.latent} ({x.label}):" for x in own[-1:]]
        done = [f"{one.doing} {_SAID[one.verdict]}" for one in edits if one.behaviour == behaviour]
        lines.append(f"{behaviour}: {'; '.join(best)} {', '.join(done)}.")
    return lines
