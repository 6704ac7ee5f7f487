"""Tables of the pages of findings, as Markdown, from the tables of the runs they report.

A page holds blocks between two comments. The first word names the table, the others are the runs
(`<experiment>/<pair>`) that it's made from:

    <!-- findings: verdicts default/organism_deployed_llama default/organism_created_llama -->
    ...
    <!-- end of findings -->
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pandas as pd

from sae_reasoning.contrast.execution import ACCURACY, OWN_OPENING, RANDOM_FILL
from sae_reasoning.contrast.rates import PER_TRACE
from sae_reasoning.contrast.steered import NONE as NOT_STEERED
from sae_reasoning.contrast.steered import VALID, VECTOR
from sae_reasoning.records import BASE, MODELS, RL, SPAN_DETECTORS
from sae_reasoning.robustness.outcomes import CONTEXTUAL, LABELS
from sae_reasoning.steering.conditions import ABLATE, EDIT, MEAN, NONE
from sae_reasoning.steering.effects import CONTROLS
from sae_reasoning.steering.findings import (
    PER_OPPORTUNITY,
    is_coherent,
    is_significant,
    main_edits,
    told_coherent,
)
from sae_reasoning.texts import bounded, number

_BLOCK = re.compile(
    r"(<!-- findings: (?P<table>\w+)(?P<runs>[^>]*?) -->\n).*?(<!-- end of findings -->)", re.DOTALL
)
_LEVEL = 0.95
_ALL = "all"
_UNKNOWN = "–"
_CONTRAST, _VERDICT = "contrast/contrast.parquet", "report/verdict.json"
_EFFECTS, _HYBRID = "ablate/effects.parquet", "hybrid/hybrid.parquet"
_ATTACKS, _BASELINES = "rank/attacks.parquet", "rank/baseline_comparison.parquet"

Files = Mapping[str, Any]
"""Content of a run's files, by their names below its folder."""
Rows = list[dict[str, str]]
"""A table's rows: cells by column."""


@dataclass(frozen=True)
class Block:
    """One table of a page.

    Attributes:
        table: Its name, one of `TABLES`.
        runs: What it's made from, each as `<experiment>/<pair>`.
    """

    table: str
    runs: tuple[str, ...]

    @classmethod
    def of(cls, found: re.Match[str]) -> Self:
        """The block that a page's comment asks for."""
        return cls(found["table"], tuple(found["runs"].split()))


@dataclass(frozen=True)
class Table:
    """How one table is made.

    Attributes:
        files: What it reads of every run.
        rows: Its rows, of the name and the files of a run.
    """

    files: tuple[str, ...]
    rows: Callable[[Files], Rows]

    def write(self, runs: Mapping[str, Files]) -> str:
        """The table in Markdown, with the rows of each run; a cell that a row lacks is a dash."""
        rows = [
            {"pair": f"`{name.removeprefix('default/')}`"} | row
            for name, files in runs.items()
            for row in self.rows(files)
        ]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[row.get(column, _UNKNOWN) for column in columns] for row in rows]
        lines = [columns, ["---"] * len(columns), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [Block.of(found) for found in _BLOCK.finditer(page)]


def fill(page: str, written: Mapping[Block, str]) -> str:
    """The page with the tables that are written; other blocks stay as they are."""

    def one(found: re.Match[str]) -> str:
        table = written.get(Block.of(found))
        return found[0] if table is None else f"{found[1]}{table}\n{found[4]}"

    return _BLOCK.sub(one, page)


@dataclass(frozen=True)
class Figure:
    """One row of a run's `contrast.parquet`; NaN and 0 where it wasn't measured."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> str:
        """The figure with its interval; small rates with more places."""
        return bounded(self.value, self.low, self.high, 2 if self.value >= 0.1 else 3)

    @property
    def point(self) -> str:
        """The figure alone."""
        return number(self.value, 2 if self.value >= 0.1 else 3)


def measured(
    contrast: pd.DataFrame, behaviour: str, measure: str, model: str, condition: str = ""
) -> Figure:
    """One figure of the contrast at 95 %."""
    keys = {"behaviour": behaviour, "measure": measure, "model": model, "condition": condition}
    rows = contrast[contrast.level == _LEVEL]
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    if rows.empty:
        return Figure(float("nan"), float("nan"), float("nan"), 0)
    row = rows.iloc[0]
    return Figure(float(row.value), float(row.low), float(row.high), int(row.n))


def _summary(files: Files) -> Rows:
    """When and how in one line a behaviour."""
    return [
        {
            "behaviour": row["behaviour"],
            "mean starts a trace, base → RL": _both(files, row, PER_TRACE),
            "executed rightly once started, base → RL": _both(files, row, ACCURACY, OWN_OPENING),
            "verdict": _verdict(row),
        }
        for row in files[_VERDICT]["verdicts"]
    ]


def _verdicts(files: Files) -> Rows:
    """When and how with every interval."""
    rows = []
    for row in files[_VERDICT]["verdicts"]:
        of = partial(measured, files[_CONTRAST], row["behaviour"])
        chance, executed = of(ACCURACY, BASE, RANDOM_FILL), of(ACCURACY, RL, OWN_OPENING)
        steered, without = of(VALID, BASE, VECTOR), of(VALID, BASE, NOT_STEERED)
        execution = _both(files, row, ACCURACY, OWN_OPENING)
        rows.append(
            {
                "behaviour": row["behaviour"],
                "mean starts a trace, base → RL": _both(files, row, PER_TRACE),
                "execution accuracy, base → RL (chance)": f"{execution} ({chance.point})",
                "base, steered once (not)": f"{steered.interval} ({without.point})",
                "problems: rates, starts": f"{of(PER_TRACE, RL).n}, {executed.n}",
                "verdict": _verdict(row),
            }
        )
    return rows


def _both(files: Files, row: Mapping[str, str], measure: str, condition: str = "") -> str:
    found = (measured(files[_CONTRAST], row["behaviour"], measure, m, condition) for m in MODELS)
    return " → ".join(one.interval for one in found)


def _verdict(row: Mapping[str, str]) -> str:
    return f"**{row['verdict']}**" + (f" ({row['qualifier']})" if row["qualifier"] else "")


_SPOKEN = {
    "control": "matched latents",
    "random": "random directions",
    "random_positions": "random positions",
    "other": "other behaviours' latents",
    "permuted": "any match",
}


def _edits(files: Files) -> Rows:
    """Each behaviour's main edit in each model, with what is left of it after every control."""
    rows = []
    effects = main_edits(files[_EFFECTS])
    for (model, behaviour), part in effects.groupby(["model", "behaviour"], sort=False):
        by, rate = part.set_index(["condition", "outcome"]), f"{PER_OPPORTUNITY}/{behaviour}"
        edit, without = by.loc[(EDIT, rate)], by.loc[(NONE, rate)]
        right = " → ".join(number(by.value[when, "accuracy"], 2) for when in (NONE, EDIT))
        dose = "" if edit.edit == ABLATE else f" at {edit.dose:g} × their maximum"
        row = {
            "edit": f"{edit.edit}{dose}, {edit.set_size} latents, {model}",
            "behaviour": str(behaviour),
            "starts per opportunity (n)": (
                f"{number(without.value, 2)} → {number(edit.value, 2)} ({edit.n})"
            ),
            "change": _change(edit.difference, edit.low, edit.high),
        }
        for name in CONTROLS:
            left = [edit[c] for c in (f"difference_from_{name}", f"{name}_low", f"{name}_high")]
            if left[0] == left[0]:
                row[f"less {_SPOKEN.get(name, name.replace('_', ' '))}"] = _change(*left)
        row["significant"] = _significance(edit)
        if (MEAN, rate) in by.index:
            mean = by.loc[(MEAN, rate)]
            row["mean difference"] = _change(mean.difference, mean.low, mean.high)
        rows.append(row | {"right answers": right})
    return rows


def _significance(edit: pd.Series) -> str:
    found, coherent = is_significant(edit), is_coherent(edit)
    if coherent is False or (found is None and coherent is None):
        return told_coherent(edit)
    if found is None:
        return "unknown"
    return f"{'**yes**' if found else 'no'}, q = {number(edit.q_all_controls, 3)}"


def _change(*estimate: float) -> str:
    signed = [f"{'+' if one > 0 else ''}{number(one, 2)}" for one in estimate]
    return _UNKNOWN if estimate[0] != estimate[0] else "{} [{}, {}]".format(*signed)


def _hybrid(files: Files) -> Rows:
    """Gap recovered by each policy at its largest budget, also where the rarest is needed."""
    rows, found = [], files[_HYBRID]
    of_all, others = (found[found.behaviour.eq(_ALL) == is_all] for is_all in (True, False))
    rarest = ""
    if len(others):  # Some of its problems may lack a grade under some policy.
        rarest = str(others.groupby("behaviour", sort=False).n.max().idxmin())
    by = found.fillna({"budget": -1.0}).set_index(["policy", "vector", "budget", "behaviour"])
    for key, part in of_all.fillna({"budget": -1.0}).groupby(["policy", "vector"], sort=False):
        last = part.loc[part.budget.idxmax()]
        row = {
            "policy": last.policy,
            "vector": last.vector,
            "tokens steered": f"{last.share_steered:.1%}",
            "accuracy": number(last.accuracy, 2),
            "gap recovered (n)": _gap(last),
        }
        if (needed := (*key, last.budget, rarest)) in by.index:
            row[f"where {rarest} is needed (n)"] = _gap(by.loc[needed])
        rows.append(row)
    return rows


def _gap(estimate: pd.Series) -> str:
    return f"{bounded(estimate.gap_recovered, estimate.low, estimate.high, 2)} ({estimate.n})"


def _attacks(files: Files) -> Rows:
    """Labels of each behaviour's span detectors, in the base and in the RL reader."""
    found = files[_ATTACKS]
    found = found[(found.shortlist == SPAN_DETECTORS) & found.reader.isin(MODELS)]
    found = found.drop_duplicates(["behaviour", "layer", "latent", "reader"])
    rows = []
    for behaviour, part in found.groupby("behaviour", sort=False):
        counts = part.groupby(["label", "reader"]).size()
        held = part[part.label == CONTEXTUAL].groupby(["layer", "latent"]).size()
        row = {
            "behaviour": str(behaviour),
            "span detectors": str(len(part[["layer", "latent"]].drop_duplicates())),
            "contextual in both readers": str((held == len(MODELS)).sum()),
        }
        for name in LABELS:
            row[f"{name}, base / RL"] = " / ".join(str(counts.get((name, m), 0)) for m in MODELS)
        rows.append(row)
    return rows


def _baselines(files: Files) -> Rows:
    """How many latents of each list outperform each baseline, base / RL reader."""
    rows = []
    for (shortlist, behaviour), part in files[_BASELINES].groupby(
        ["shortlist", "behaviour"], sort=False
    ):
        row = {"latents": str(shortlist).replace("_", " "), "behaviour": str(behaviour)}
        for baseline, of_one in part.groupby("baseline", sort=False):
            by_reader = {reader: one.outperforms for reader, one in of_one.groupby("reader")}
            row[f"outperform {str(baseline).replace('_', ' ')}, base / RL"] = " / ".join(
                f"{one.sum()} of {len(one)}"
                for model in MODELS
                if (one := by_reader.get(model)) is not None
            )
        rows.append(row)
    return rows


TABLES = {
    "summary": Table((_CONTRAST, _VERDICT), _summary),
    "verdicts": Table((_CONTRAST, _VERDICT), _verdicts),
    "edits": Table((_EFFECTS,), _edits),
    "hybrid": Table((_HYBRID,), _hybrid),
    "attacks": Table((_ATTACKS,), _attacks),
    "baselines": Table((_BASELINES,), _baselines),
}
"""Every table that a block may name."""
