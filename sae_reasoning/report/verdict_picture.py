"""The verdicts of some runs in one picture (SVG): how often a behaviour starts, and how well."""

import math
from collections.abc import Iterator, Mapping
from html import escape

from sae_reasoning.contrast.execution import ACCURACY, OWN_OPENING, RANDOM_FILL
from sae_reasoning.contrast.rates import PER_TRACE
from sae_reasoning.records import BASE, MODELS, RL
from sae_reasoning.report.findings import Files, measured
from sae_reasoning.report.verdict import CREATED, DEPLOYED

_ROW, _TOP, _WIDTH = 22, 54, 860
_RATES, _SHARES, _PANEL = 230, 500, 220
_LEAST, _MOST = 0.001, 10.0  # Starts a trace, of the logarithmic axis.
_COLOURS = {BASE: "#8a8a8a", RL: "#c2410c", CREATED: "#b91c1c", DEPLOYED: "#1d4ed8"}


def verdict_picture(runs: Mapping[str, Files]) -> str:
    """An SVG with a row a behaviour of each run: rates, execution accuracy and verdict."""
    lines, y = list(_axes()), _TOP
    for run, files in runs.items():
        y += _ROW
        lines.append(_text(10, y, run.removeprefix("default/"), weight="bold"))
        for one in files["report/verdict.json"]["verdicts"]:
            y += _ROW
            name, contrast = one["behaviour"], files["contrast/contrast.parquet"]
            colour = _COLOURS.get(one["verdict"], "#444")
            lines.append(_text(22, y, name))
            lines.append(_text(740, y, one["verdict"], colour=colour, weight="bold"))
            chance = _SHARES + _PANEL * measured(contrast, name, ACCURACY, BASE, RANDOM_FILL).value
            if math.isfinite(chance):
                lines.append(_line(chance, y - 11, chance, y + 3, "#444"))
            for model in MODELS:
                rate = measured(contrast, name, PER_TRACE, model)
                share = measured(contrast, name, ACCURACY, model, OWN_OPENING)
                bounds = (rate.low, rate.value, rate.high)
                lines += _point([_RATES + _PANEL * _log(v) for v in bounds], y, _COLOURS[model])
                bounds = (share.low, share.value, share.high)
                lines += _point([_SHARES + _PANEL * v for v in bounds], y, _COLOURS[model])
    height = y + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
    head += 'font-family="sans-serif" font-size="12">'
    ground = f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([head, ground, *lines, "</svg>", ""])


def _axes() -> Iterator[str]:
    yield _text(_RATES, 18, "starts a trace (log scale)")
    yield _text(_SHARES, 18, "executed rightly once started (│ chance)")
    yield _text(10, 18, "●", colour=_COLOURS[BASE]) + _text(24, 18, "base")
    yield _text(64, 18, "●", colour=_COLOURS[RL]) + _text(78, 18, "RL model, 95 % CI")
    for value in (0.001, 0.01, 0.1, 1, 10):
        yield _text(_RATES + _PANEL * _log(value), 42, f"{value:g}", anchor="middle")
    for value in (0, 0.5, 1):
        yield _text(_SHARES + _PANEL * value, 42, f"{value:.0%}", anchor="middle")
    for left in (_RATES, _SHARES):
        yield _line(left, 48, left + _PANEL, 48, "#bbb")


def _log(rate: float) -> float:
    """Place on the logarithmic axis; what is rarer or more frequent is put at its end."""
    if rate != rate:
        return rate
    return math.log(min(max(rate, _LEAST), _MOST) / _LEAST) / math.log(_MOST / _LEAST)


def _point(places: list[float], y: float, colour: str) -> list[str]:
    if not all(map(math.isfinite, places)):
        return []
    low, at, high = places
    dot = f'<circle cx="{at:.1f}" cy="{y - 4}" r="4" fill="{colour}" fill-opacity="0.85"/>'
    return [_line(low, y - 4, high, y - 4, colour), dot]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, colour: str = "#222", weight: str = "normal", anchor: str = ""
) -> str:
    placed = f' text-anchor="{anchor}"' if anchor else ""
    return (
        f'<text x="{x:.1f}" y="{y}" fill="{colour}" font-weight="{weight}"{placed}>'
        f"{escape(text)}</text>"
    )
