"""Contents of the plots on pages, laid out in per cent of their width; templates draw them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sae_reasoning.texts import MANY, bounded, ratio

MOST_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A scale, linear or of ratios.

    Attributes:
        low: Value at the left, or bottom.
        high: Value at the right, or top.
        ticks: Values that are labelled.
        unit: What is measured, with its unit.
        is_log: Whether it's logarithmic.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    unit: str
    is_log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], unit: str) -> "Axis":
        """The axis that holds all finite values, with round ticks and a little space."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        step = _round_step((high - low) / MOST_TICKS)
        space = 0.04 * (high - low)
        first, last = math.ceil((low - space) / step), math.floor((high + space) / step)
        ticks = tuple(round(k * step, 10) for k in range(first, last + 1))
        return cls(low - space, high + space, ticks, unit)

    @classmethod
    def of_ratios(cls, values: Iterable[float], unit: str) -> "Axis":
        """The logarithmic axis that holds all ratios, up to a thousand times as much or as little.

        Its ticks are powers of ten, or where those are few, twos and fives between them.
        """
        known = [min(max(v, 1 / MANY), MANY) for v in values if not math.isnan(v)] or [1.0]
        low, high = min(*known, 0.8), max(*known, 1.25)
        space = (high / low) ** 0.04
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            found = [float(f"{f * 10.0**p:.1g}") for p in powers for f in factors]
            ticks = tuple(tick for tick in found if low / space <= tick <= high * space)
            if len(ticks) > MOST_TICKS // 2:
                break
        return cls(low / space, high * space, ticks, unit, is_log=True)

    def at(self, value: float) -> float:
        """Place of a value, in per cent; what lies outside is put at the end."""
        low, high = self.low, self.high
        if self.is_log:
            if value <= 0:
                return 0.0
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(min(max(100 * (value - low) / (high - low), 0.0), 100.0), 2)


@dataclass(frozen=True)
class Bar:
    """One estimate with its interval, and what it was compared with.

    Attributes:
        label: What it is.
        value: Estimate.
        low: Lower bound.
        high: Upper bound.
        n: Problems, or whatever was resampled.
        axis: Its scale.
        series: `base`, `rl` or ""; chooses colour and shape.
        margin: What the bound is compared with.
        comparison: In words, such as `above 0.4`.
        passed: Whether it passed; None where nothing was compared.
        absent: Text where there is no estimate.
        said: Text in place of the estimate, or "".
        other_margin: The lower one, where the interval is to lie within two.
    """

    label: str
    value: float
    low: float
    high: float
    n: int
    axis: Axis
    series: str = ""
    margin: float | None = None
    comparison: str = ""
    passed: bool | None = None
    absent: str = "not measured"
    said: str = ""
    other_margin: float | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether there is anything to draw."""
        return not any(map(math.isnan, (self.value, self.low, self.high)))

    @property
    def figure(self) -> str:
        """The estimate with its interval, as text."""
        if self.said:
            return self.said
        if math.isnan(self.value):
            return self.absent
        return (ratio if self.axis.is_log else bounded)(self.value, self.low, self.high)


@dataclass(frozen=True)
class Chart:
    """Bars under one title.

    Attributes:
        title: Heading.
        bars: In order; they share an axis.
    """

    title: str
    bars: tuple[Bar, ...]

    @property
    def axis(self) -> Axis:
        """The axis that all bars share."""
        return self.bars[0].axis


@dataclass(frozen=True)
class Point:
    """A point of a curve, with its interval; places in per cent, y counted from the top.

    Attributes:
        x: Place.
        y: Place.
        low: Place of the lower bound.
        high: Place of the upper bound.
        text: All of it in words.
    """

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Curve:
    """Points of one series.

    Attributes:
        label: Its name.
        style: Number of its colour, dash and shape.
        points: From left to right.
    """

    label: str
    style: int
    points: tuple[Point, ...]

    @property
    def segments(self) -> list[tuple[Point, Point]]:
        """Neighbouring points."""
        return list(zip(self.points, self.points[1:], strict=False))


@dataclass(frozen=True)
class CurvePlot:
    """Curves over one x.

    Attributes:
        title: Heading, with n.
        x: Horizontal scale.
        y: Vertical scale.
        curves: The series.
        levels: Values of y that are drawn across.
    """

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: What it shows, with n.
        columns: Headings.
        rows: Cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def bars_on_one_axis(
    figures: Sequence[tuple[str, str, float, float, float, int]],
    unit: str,
    absent: str = "not measured",
) -> tuple[Bar, ...]:
    """Bars of (label, series, value, low, high, n) that share an axis which holds 0.

    Args:
        figures: One a bar; `nan` where there is no estimate.
        unit: What is measured, with its unit.
        absent: Text where there is no estimate.
    """
    axis = Axis.of([0.0, *(x for figure in figures for x in figure[2:5])], unit)
    return tuple(
        Bar(label, value, low, high, n, axis, series, absent=absent)
        for label, series, value, low, high, n in figures
    )


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)
