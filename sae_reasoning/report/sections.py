"""What the first page says beside the verdicts: a section a result.

Everything is made from tables that stages left; what isn't there is named with the target that
makes it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from sae_reasoning.behaviours.outcomes import (
    ALL,
    ANNOUNCERS,
    KILLED,
    KINDS,
    LEFT_OUT,
    NOT_TESTABLE,
    TRACKERS,
    calls,
    toll,
)
from sae_reasoning.contrast.measures import BASE, RL, Measure
from sae_reasoning.contrast.rates import ENTRY, GIVEN_THINKING, PER_TRACE
from sae_reasoning.contrast.triggers import NONE, OVER, TRIGGER, VALID
from sae_reasoning.contrast.triggers import SKILL as PUSHED
from sae_reasoning.contrast.validity import BY_LOT, OWN_WORDS, SKILL, VALIDITY
from sae_reasoning.report.cards import MODEL_NAMES, NEVER
from sae_reasoning.report.figures import (
    Axis,
    Bar,
    Chart,
    Curve,
    CurvePlot,
    Point,
    Table,
    bars_on_one_axis,
)
from sae_reasoning.report.reviews import Review, agreements, review_rows, tally
from sae_reasoning.report.verdict import never
from sae_reasoning.stats import wilson
from sae_reasoning.steering.recovery import gap_curves
from sae_reasoning.texts import bounded, number

HYBRID, ATTACKS, DICTIONARIES, CALIBRATION = (
    "The base, steered at the right moments",
    "What the attacks left",
    "Quality of the dictionaries",
    "Where the answer is known",
)
"""Headings of sections that need more than the contrast."""

_UNITS = {
    PER_TRACE: "expected starts a rollout",
    GIVEN_THINKING: "probability at an opportunity",
    ENTRY: "probability",
}


@dataclass(frozen=True)
class Section:
    """A part of the page about one result.

    Attributes:
        name: Of the section and of its rows' file.
        title: Heading.
        lead: What is shown and how to read it.
        charts: Bars.
        plots: Curves.
        tables: Tables.
        rows: Rows behind it, written beside the page; none where there are none.
        missing: Why there's nothing, with the remedy, or "".
    """

    name: str
    title: str
    lead: str
    charts: tuple[Chart, ...] = ()
    plots: tuple[CurvePlot, ...] = ()
    tables: tuple[Table, ...] = ()
    rows: pd.DataFrame | None = None
    missing: str = ""


def onsets(measures: Sequence[Measure], behaviours: Sequence[str]) -> Section:
    """How often each model starts each move."""
    charts = []
    said = f" {NEVER}" if any(never(move, measures) for move in behaviours) else ""
    for name, title in (
        (PER_TRACE, "How often a rollout starts the move"),
        (GIVEN_THINKING, "How often it starts at an opportunity, within thought"),
    ):
        if bars := _by_model(measures, behaviours, name, _UNITS[name]):
            charts.append(Chart(title, bars))
    if bars := _by_model(measures, [""], ENTRY, _UNITS[ENTRY]):
        charts.insert(0, Chart("How often a rollout enters thought", bars))
    return Section(
        "onset_mass",
        "When: onset mass",
        "What each model would do at the same opportunities, in probability, on problems that "
        "chose nothing. If only the rate per rollout differs, training taught the model to think."
        + said,
        tuple(charts),
        rows=_rows(measures, (PER_TRACE, GIVEN_THINKING, ENTRY)),
    )


def execution(measures: Sequence[Measure], behaviours: Sequence[str]) -> Section:
    """How well each model carries out each move once it's started."""
    charts = [
        Chart(
            "Started with each model's own words",
            _by_model(measures, behaviours, VALIDITY, "share carried out rightly", OWN_WORDS),
        )
    ]
    pushed = [
        (f"{one.behaviour}, {label}", series, one.value, one.low, one.high, one.n)
        for behaviour in behaviours
        for condition, name, label, series in (
            (TRIGGER, VALID, "pushed", "base"),
            (NONE, VALID, "not pushed", ""),
            (BY_LOT, VALIDITY, "by lot once started", ""),
        )
        if (one := _find(measures, behaviour, name, BASE, condition))
    ]
    if pushed:
        charts.append(
            Chart(
                "The base alone, no word written",
                bars_on_one_axis(pushed, "share carried out rightly"),
            )
        )
    return Section(
        "execution",
        "How: execution validity",
        "The start of the move is written for the model, or its residual is pushed once; a program "
        "judges whether what follows is right.",
        tuple(chart for chart in charts if chart.bars),
        rows=_rows(measures, (VALIDITY, SKILL, VALID, PUSHED, OVER)),
    )


def attacks(found: pd.DataFrame) -> Section:
    """What the attacks left of the shortlists."""
    tables, charts = [], []
    for shortlist in (TRACKERS, ANNOUNCERS):
        own = found[found.shortlist == shortlist]
        if killed := _killed(own):
            charts.append(
                Chart(f"{shortlist}: killed, of those that the attack could test", killed)
            )
        if len(own):
            tables.append(_table(f"{shortlist}: latents killed, by attack", toll(own, shortlist)))
            tables.append(_table(f"{shortlist}: what they're called", calls(own, shortlist)))
    return Section(
        "attacks",
        ATTACKS,
        "Each shortlisted latent is attacked by what a hostile reader would say: that it answers "
        "to a token, a wording, a place. The column `latents` is n; one latent may be killed by "
        "several. Bars are of the RL reader, over all moves, with Wilson's 95 % interval, n listed "
        "latents that the attack could test; intervals of each attack stand on the latent's own "
        "page and in the rows.",
        charts=tuple(charts),
        tables=tuple(tables),
        rows=found,
    )


def _killed(found: pd.DataFrame) -> tuple[Bar, ...]:
    """Of each attack, the share killed of the listed latents that it could test, RL reader.

    One that could test none of them has no share.
    """
    own = found[(found.reader == RL) & (found.kind != ALL)]
    is_tested = ~own.outcome.isin([NOT_TESTABLE, LEFT_OUT])
    figures = []
    for kind in KINDS:
        here = own[(own.kind == kind) & is_tested]
        if len(here):
            share = wilson(int((here.outcome == KILLED).sum()), len(here))
            figures.append((kind, RL, share.value, share.low, share.high, len(here)))
        elif (own.kind == kind).any():
            figures.append((kind, RL, math.nan, math.nan, math.nan, 0))
    return bars_on_one_axis(figures, "share killed", absent="not tested") if figures else ()


def dictionaries(quality: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Section:
    """How well each dictionary rebuilds each reader.

    Args:
        quality: By dictionary and reader, figures of `quality.json`.
    """
    rows = pd.DataFrame(
        [
            {
                "dictionary": name,
                "reader": reader,
                **{
                    key: figures.get(key)
                    for key in ("fvu", "l0", "dead_share", "ce_recovered", "num_tokens")
                },
                "passes": figures.get("passes"),
            }
            for name, readers in quality.items()
            for reader, figures in readers.items()
        ]
    )
    names = {
        "fvu": "variance unexplained",
        "l0": "active latents a token",
        "dead_share": "dead",
        "ce_recovered": "cross-entropy recovered",
        "num_tokens": "n tokens",
    }
    return Section(
        "dictionaries",
        DICTIONARIES,
        "A dictionary that doesn't rebuild both readers can't compare them. Counted over all "
        "tokens of the report split, so without an interval.",
        tables=(_table("By dictionary and reader", rows.rename(columns=names)),),
        rows=rows,
    )


def gap_curve(found: pd.DataFrame) -> Section:
    """How much of the accuracy gap each policy recovers, over the share of tokens steered."""
    drawn = gap_curves(found)
    plots = []
    if len(drawn):
        x = Axis.of([0.0, *drawn.share_steered], "share of tokens steered")
        y = Axis.of([0.0, 1.0, *drawn.low, *drawn.high], "share of the accuracy gap recovered")
        curves = [
            Curve(name, style, tuple(_gap_point(row, x, y) for row in line.itertuples()))
            for style, (name, line) in enumerate(drawn.groupby("line", sort=False))
        ]
        title = f"all problems (n = {drawn.n.iloc[0]})"
        plots.append(CurvePlot(title, x, y, tuple(curves), (0.0, 1.0)))
    return Section(
        "hybrid",
        HYBRID,
        "The base writes; a policy decides at each token whether to push it. 0 is the base alone, "
        "1 the RL model. Random times and random vectors are the controls. 95 % intervals over "
        "problems.",
        plots=tuple(plots),
        rows=found,
    )


def calibrated(found: Mapping[str, Any]) -> Section:
    """How often the verdict is right where the answer is known."""
    bars = bars_on_one_axis(
        [
            (f"truth: {name}", "", one["value"], one["low"], one["high"], one["pairs"])
            for name, one in found["right"].items()
            if one["cells"]
        ],
        "share of verdicts given that are right (n: pairs)",
    )
    rows = pd.DataFrame(found["cells"])
    shown = ["pair", "behaviour", "truth", "verdict"]
    return Section(
        "calibration",
        CALIBRATION,
        "The same procedure on models that were trained to be one or the other. Few cells say "
        "little: look at the intervals.",
        charts=(Chart("Verdicts that are right", bars),) if bars else (),
        tables=(_table(f"{len(rows)} cells", rows[shown]),) if len(rows) else (),
        rows=rows,
    )


def reviewed(reviews: Sequence[Review], num_resamples: int, seed: int) -> Section:
    """What reviewers called the latents, and how far they agree."""
    agreed = agreements(reviews, num_resamples, seed)
    bars = bars_on_one_axis(
        [
            (f"{r.first} and {r.second}", "", r.kappa, r.low, r.high, r.latents)
            for r in agreed.itertuples()
        ],
        "Cohen's κ (n: latents that both called)",
    )
    tables = [_table("Called, by reviewer", tally(reviews))]
    if len(agreed):
        tables.append(_table("Agreement of every two", agreed))
    return Section(
        "reviews",
        "What reviewers say",
        "Calls that people made on the page of latents. κ is 1 where two agree throughout and 0 "
        "where they agree as often as chance; 95 % intervals over latents.",
        charts=(Chart("Agreement beyond chance", bars),) if bars else (),
        tables=tuple(tables),
        rows=review_rows(reviews),
    )


def _by_model(
    measures: Sequence[Measure],
    behaviours: Sequence[str],
    name: str,
    unit: str,
    condition: str = "",
) -> tuple[Bar, ...]:
    figures = [
        (f"{behaviour or 'all problems'}, {MODEL_NAMES[model]}", model, m.value, m.low, m.high, m.n)
        for behaviour in behaviours
        for model in (BASE, RL)
        if (m := _find(measures, behaviour, name, model, condition))
    ]
    if not figures:
        return ()
    bars = bars_on_one_axis(figures, unit)
    if name != PER_TRACE:
        return bars
    moves = [label.partition(",")[0] for label, *_ in figures]
    return tuple(
        replace(bar, said=never(move, measures)) if bar.series == BASE else bar
        for bar, move in zip(bars, moves, strict=True)
    )


def _find(
    measures: Sequence[Measure], behaviour: str, name: str, model: str, condition: str
) -> Measure | None:
    wanted = (behaviour, name, model, condition, 0.95)
    return next(
        (m for m in measures if (m.behaviour, m.measure, m.model, m.condition, m.level) == wanted),
        None,
    )


def _rows(measures: Sequence[Measure], names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([vars(m) for m in measures if m.measure in names])


def _gap_point(row: Any, x: Axis, y: Axis) -> Point:
    share, value = row.share_steered, row.gap_recovered
    low, high = (b if math.isfinite(b) else value for b in (row.low, row.high))
    return Point(
        x.at(share),
        100 - y.at(value),
        100 - y.at(low),
        100 - y.at(high),
        f"{share:.1%} of tokens: {bounded(value, low, high)}",
    )


def _table(title: str, frame: pd.DataFrame) -> Table:
    return Table(
        title,
        tuple(map(str, frame.columns)),
        tuple(tuple(map(_cell, row)) for row in frame.itertuples(index=False)),
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if hasattr(value, "item"):
        return _cell(value.item())
    return str(value)
