"""Texts in which a latent fires: its highest activations, and a random sample of the rest.

Its highest activations, one a problem, and some from every quarter of its active values at random:
a latent whose best examples look like a behaviour may fire on anything below them. All are of the
report split, which selected nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from sae_reasoning.records import Trace
from sae_reasoning.report.firing import Firing
from sae_reasoning.texts import MAX_PIECE, shown

TOP = "highest"
QUARTERS = ("75–100 %", "50–75 %", "25–50 %", "0–25 %")
"""Bands of the active values, from the highest quarter down."""
NUM_TOP, NUM_A_QUARTER = 8, 3
BEFORE, AFTER = 40, 24
"""Tokens shown before and after the one that chose the example."""
_NUM_BINS = 24


@dataclass(frozen=True)
class Mark:
    """A span of a behaviour within an example; tokens are counted from the example's first."""

    behaviour: str
    first: int
    last: int


@dataclass(frozen=True)
class Example:
    """One text, both readers' activations on it, and the behaviours in it.

    Attributes:
        band: `highest`, or the quarter of active values that it's from.
        trace: Its trace's name.
        problem: Its problem's name.
        writer: `base` or `rl`.
        prompt: What was asked.
        tokens: Its tokens, without characters that act unseen.
        chosen: Which token chose it.
        is_cut: Whether text is left out before and after.
        values: By reader, the activation of each token that it fires on.
        marks: Spans of behaviours.
    """

    band: str
    trace: str
    problem: str
    writer: str
    prompt: str
    tokens: tuple[str, ...]
    chosen: int
    is_cut: tuple[bool, bool]
    values: dict[str, dict[int, float]]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Histogram:
    """Active values of one latent, per reader, in the same bins.

    Attributes:
        edges: Of the bins, in units of the residual stream.
        counts: Tokens in each bin, by reader.
        active: Tokens on which it fires, by reader.
        tokens: Tokens read.
    """

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]
    active: dict[str, int]
    tokens: int


def histogram(firing: Mapping[str, Firing], num_tokens: int) -> Histogram:
    """Active values of a latent, by reader."""
    most = max((float(f.value.max()) for f in firing.values() if len(f.value)), default=1.0)
    edges = np.linspace(0, most, _NUM_BINS + 1)
    return Histogram(
        tuple(float(f"{edge:.4g}") for edge in edges),
        {r: tuple(map(int, np.histogram(f.value, edges)[0])) for r, f in firing.items()},
        {r: len(f.value) for r, f in firing.items()},
        num_tokens,
    )


def choose(
    firing: Firing, problem_of_row: Callable[[int], str], seed: int
) -> list[tuple[str, int]]:
    """Bands and rows of the examples, no problem twice.

    Args:
        firing: Of the latent, in the reader that it's listed for.
        problem_of_row: Problem of a row.
        seed: Of what is drawn at random.
    """
    chosen: list[tuple[str, int]] = []
    seen: set[str] = set()

    def take(band: str, places: Int[np.ndarray, " place"], most: int) -> None:
        for row in firing.row[places].tolist():
            if most and (problem := problem_of_row(row)) not in seen:
                seen.add(problem)
                chosen.append((band, row))
                most -= 1

    order = np.argsort(-firing.value, kind="stable")
    take(TOP, order, NUM_TOP)
    random = np.random.default_rng(seed)
    for band, quarter in zip(QUARTERS, np.array_split(order, len(QUARTERS)), strict=True):
        take(band, random.permutation(quarter), NUM_A_QUARTER)
    return chosen


def token_pieces(text: str, ends: Sequence[int]) -> list[str]:
    """A text split after each token, so that nothing between tokens is lost.

    Args:
        text: All of it.
        ends: One past each token's last character.
    """
    starts = [0, *ends[:-1]]
    pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    if pieces:
        pieces[-1] += text[ends[-1] :]
    return pieces


def example(
    band: str,
    trace: Trace,
    pieces: Sequence[str],
    position: int,
    first_kept: int,
    firing: Mapping[str, Mapping[int, float]],
) -> Example:
    """The text round one token.

    Args:
        band: That it was chosen for.
        trace: That holds it.
        pieces: Text of each of the trace's tokens.
        position: Of the token.
        first_kept: First position whose activations were read.
        firing: By reader, activations by position.
    """
    start = max(first_kept, position - BEFORE)
    stop = min(len(trace.token_ids), position + AFTER + 1)
    marks = [
        Mark(
            span.behaviour, max(span.token_start, start) - start, min(span.token_end, stop) - start
        )
        for span in trace.spans
        if span.token_start < stop and span.token_end > start
    ]
    return Example(
        band=band,
        trace=shown(trace.trace_id),
        problem=shown(trace.problem_id),
        writer=trace.writer,
        prompt=shown(trace.prompt),
        tokens=tuple(shown(piece, MAX_PIECE) for piece in pieces[start:stop]),
        chosen=position - start,
        is_cut=(start > first_kept, stop < len(trace.token_ids)),
        values={
            reader: {
                place - start: float(f"{value:.4g}")
                for place, value in values.items()
                if start <= place < stop
            }
            for reader, values in firing.items()
        },
        marks=tuple(marks),
    )
