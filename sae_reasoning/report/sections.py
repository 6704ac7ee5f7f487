"""Sections of the first page below the verdicts, one a result.

Each is made from the tables of a stage. A stage that wasn't run has a section that names the
target which makes it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from sae_reasoning.contrast import steered, value
from sae_reasoning.contrast.execution import ACCURACY, CORRECTED, OWN_OPENING, RANDOM_FILL
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.rates import ENTER_THINKING, PER_OPPORTUNITY, PER_TRACE
from sae_reasoning.contrast.steered import CORRECTED as STEERED
from sae_reasoning.contrast.steered import NONE, OVER, VALID, VECTOR
from sae_reasoning.records import BASE, ONSET_PREDICTORS, RL, SPAN_DETECTORS
from sae_reasoning.report.cards import MODEL_NAMES, NEVER, plain_name
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
from sae_reasoning.report.never import never
from sae_reasoning.report.reviews import Review, agreements, review_rows, tally
from sae_reasoning.robustness.outcomes import (
    ALL,
    EXCLUDED,
    KINDS,
    NOT_TESTABLE,
    REFUTED,
    attack_summary,
    count_labels,
)
from sae_reasoning.stats import wilson
from sae_reasoning.steering.recovery import gap_curves
from sae_reasoning.texts import bounded, number

HYBRID, ATTACKS, DICTIONARIES, CALIBRATION = (
    "Hybrid: the base, steered when a policy says so",
    "Robustness of the shortlisted latents",
    "Quality of the dictionaries",
    "Calibration on models whose answer is known",
)
"""Headings of sections that need more than the contrast."""

_OF_VALUE = (
    value.VALUE,
    value.OVER,
    value.SKILL,
    value.BY_PROGRAM,
    value.HEADROOM,
    value.REDONE,
    value.ON_SELECT,
    steered.SKILL,
)
"""Beginnings of the measures of execution value."""
_UNITS = {
    PER_TRACE: "expected starts a rollout",
    PER_OPPORTUNITY: "probability of a start at an opportunity",
    ENTER_THINKING: "probability",
}


@dataclass(frozen=True)
class Section:
    """A part of the page about one result.

    Attributes:
        name: Of the section and of its rows' file.
        title: Heading.
        lead: Contents, and how to read them.
        charts: Bars.
        plots: Curves.
        tables: Tables.
        rows: Rows behind the figures, written beside the page; None where there are none.
        missing: Why the section is empty, with the remedy; else "".
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
    """How often each model starts each behaviour."""
    charts = []
    said = f" {NEVER}" if any(never(behaviour, measures) for behaviour in behaviours) else ""
    for name, title in (
        (PER_TRACE, "Expected starts of each behaviour in a rollout"),
        (PER_OPPORTUNITY, "Probability that it starts at an opportunity, while thinking"),
    ):
        if bars := _by_model(measures, behaviours, name, _UNITS[name]):
            charts.append(Chart(title, bars))
    if bars := _by_model(measures, [""], ENTER_THINKING, _UNITS[ENTER_THINKING]):
        charts.insert(0, Chart("Probability that a rollout enters thinking", bars))
    return Section(
        "onset_probability",
        "When: onset probability",
        "Probability with which each model starts each behaviour at the same opportunities, on "
        "problems of the report split. If only the rate per rollout differs, training taught the "
        "model to think." + said,
        tuple(charts),
        rows=_rows(measures, (PER_TRACE, PER_OPPORTUNITY, ENTER_THINKING)),
    )


def execution(measures: Sequence[Measure], behaviours: Sequence[str], judge: str = "") -> Section:
    """How well each model executes each behaviour once it is started."""
    charts = [
        Chart(
            "Started with each model's own opening",
            _by_model(measures, behaviours, ACCURACY, "execution accuracy", OWN_OPENING),
        )
    ]
    under_vector = [
        (f"{one.behaviour}, {label}", series, one.value, one.low, one.high, one.n)
        for behaviour in behaviours
        for condition, name, label, series in (
            (VECTOR, VALID, "best steering vector", "base"),
            (NONE, VALID, "not steered", ""),
            (RANDOM_FILL, ACCURACY, "random fill, once started", ""),
        )
        if (one := _find(measures, behaviour, name, BASE, condition))
    ]
    if under_vector:
        charts.append(
            Chart(
                "The base steered at one position, without a forced opening",
                bars_on_one_axis(under_vector, "share started and executed rightly"),
            )
        )
    return Section(
        "execution",
        "How: execution accuracy",
        "The opening of the behaviour is forced, or the residual stream is steered at one "
        f"position; {judge or 'the judge'} says whether the model's continuation executes the "
        "behaviour rightly. A random fill of the slots is chance.",
        tuple(chart for chart in charts if chart.bars),
        rows=_rows(measures, (ACCURACY, CORRECTED, VALID, STEERED, OVER)),
    )


def values(measures: Sequence[Measure], behaviours: Sequence[str]) -> Section | None:
    """What executions are worth to the answer; None where they weren't valued."""
    if not any(one.measure == value.VALUE for one in measures):
        return None
    shown = [
        *((BASE, one, f"base, {one}") for one in value.CONDITIONS),
        (RL, OWN_OPENING, "RL model, own words"),
        *((RL, one, f"RL model, {one}") for one in value.CONTROLS),
    ]
    charts = []
    for behaviour in behaviours:
        figures = [
            (label, model, one.value, one.low, one.high, one.n)
            for model, condition, label in shown
            if (one := _find(measures, behaviour, value.VALUE, model, condition))
        ]
        if figures:
            bars = bars_on_one_axis(figures, "share of completions that are right")
            charts.append(Chart(f"{behaviour}: completed by the RL model after", bars))
    skills = [
        {
            "behaviour": one.behaviour,
            "measure": plain_name(f"{one.measure} {one.model} {one.condition}"),
            "value [95 %]": bounded(one.value, one.low, one.high),
            "n problems": one.n,
            "starts": one.items,
        }
        for one in measures
        if one.measure.startswith((value.SKILL, value.OVER, value.BY_PROGRAM, steered.SKILL))
        and one.level == 0.95
    ]
    names = tuple({one.measure for one in measures if one.measure.startswith(_OF_VALUE)})
    return Section(
        "value",
        "How: execution value",
        "At those of the RL model's own onsets at which pilots find that the answer rests on it, "
        "the behaviour is carried out to the end of a sentence, in words of each model's own, or "
        "by a control; then the RL model completes the response several times, and answers are "
        "graded. Value skill is 0 where a sentence is worth what the control is, and 1 where it is "
        "worth what the RL model's own is; a completion that does the behaviour again counts as "
        "the control. A displaced sentence is the RL model's from another "
        "place of the same problem, a foreign one from another problem; a neutral one isn't the "
        "behaviour. Headroom is the share of onsets that pilots find so; what rests on a behaviour "
        "wherever it starts is told from all that they tried. Every sentence with its value is in "
        "contrast/value.parquet.",
        charts=tuple(charts),
        tables=(_table("On the scale of skill", pd.DataFrame(skills)),) if skills else (),
        rows=_rows(measures, names),
    )


def attacks(found: pd.DataFrame) -> Section:
    """How many shortlisted latents each attack refutes."""
    tables, charts = [], []
    for shortlist in (SPAN_DETECTORS, ONSET_PREDICTORS):
        own = found[found.shortlist == shortlist]
        latents = shortlist.replace("_", " ")
        if refuted := _refuted(own):
            charts.append(
                Chart(f"{latents}: refuted, of those that the attack could test", refuted)
            )
        if len(own):
            tables.append(
                _table(f"{latents}: latents refuted, by attack", attack_summary(own, shortlist))
            )
            tables.append(_table(f"{latents}: labels", count_labels(own, shortlist)))
    return Section(
        "attacks",
        ATTACKS,
        "Each attack tests another explanation of a shortlisted latent: that it responds to a "
        "token, a wording, a position. The column `latents` is n; several attacks may refute one "
        "latent. Bars are of the RL reader, over all behaviours, with Wilson's 95 % interval; n is "
        "the listed latents that the attack could test. Intervals of each attack are on the "
        "latent's page and in the rows.",
        charts=tuple(charts),
        tables=tuple(tables),
        rows=found,
    )


def _refuted(found: pd.DataFrame) -> tuple[Bar, ...]:
    """Of each attack, the share refuted of the listed latents that it could test, RL reader.

    One that could test none of them has no share.
    """
    own = found[(found.reader == RL) & (found.kind != ALL)]
    is_tested = ~own.outcome.isin([NOT_TESTABLE, EXCLUDED])
    figures = []
    for kind in KINDS:
        here = own[(own.kind == kind) & is_tested]
        if len(here):
            share = wilson(int((here.outcome == REFUTED).sum()), len(here))
            figures.append((kind, RL, share.value, share.low, share.high, len(here)))
        elif (own.kind == kind).any():
            figures.append((kind, RL, math.nan, math.nan, math.nan, 0))
    if all(not figure[-1] for figure in figures):
        return ()
    return bars_on_one_axis(figures, "share refuted", absent="not tested")


def dictionaries(quality: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Section:
    """How well each dictionary reconstructs each reader.

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
        "A dictionary must reconstruct both readers to compare them. Figures are of all tokens of "
        "the report split, so they have no interval.",
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
        counts = "–".join(map(str, sorted({drawn.n.min(), drawn.n.max()})))
        title = f"all problems (n = {counts})"
        plots.append(CurvePlot(title, x, y, tuple(curves), (0.0, 1.0)))
    return Section(
        "hybrid",
        HYBRID,
        "The base writes; a policy decides at each token whether it is steered. 0 is the base "
        "alone, 1 the RL model. Random times and random vectors are the controls. 95 % intervals "
        "over problems.",
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
        "The same procedure on models trained so that the answer is known: one cell a pair and "
        "behaviour. With few cells, read the intervals.",
        charts=(Chart("Verdicts that are right", bars),) if bars else (),
        tables=(_table(f"{len(rows)} cells", rows[shown]),) if len(rows) else (),
        rows=rows,
    )


def reviewed(reviews: Sequence[Review], num_resamples: int, seed: int) -> Section:
    """Reviewers' labels of the latents, and how far they agree."""
    agreed = agreements(reviews, num_resamples, seed)
    bars = bars_on_one_axis(
        [
            (f"{r.first} and {r.second}", "", r.kappa, r.low, r.high, r.latents)
            for r in agreed.itertuples()
        ],
        "Cohen's κ (n: latents that both labelled)",
    )
    tables = [_table("Labels, by reviewer", tally(reviews))]
    if len(agreed):
        tables.append(_table("Agreement of each two reviewers", agreed))
    return Section(
        "reviews",
        "Reviewers' labels",
        "Labels that people gave on the page of latents. κ is 1 where two reviewers always agree "
        "and 0 where they agree as often as by chance; 95 % intervals over latents.",
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
    labels = [label.partition(",")[0] for label, *_ in figures]
    return tuple(
        replace(bar, said=never(behaviour, measures)) if bar.series == BASE else bar
        for bar, behaviour in zip(bars, labels, strict=True)
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
