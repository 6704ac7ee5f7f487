"""Differences between readers and between writers, paired by problem."""

import numpy as np
import pytest
from shortlists import span_detector

from sae_reasoning.behaviours.grid import (
    RATE,
    READERS_DIFFER,
    SPAN_AUROC,
    WRITERS_DIFFER,
    compare_grid,
    compare_rates,
)
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.stats import Ranked, auroc

PROBLEMS = 80


def _intervals() -> Intervals:
    """A span and a window of each problem, by both writers, on the report split."""
    cells = sorted(cell_index(0, writer, "report") for writer in ("base", "rl"))
    cell = np.repeat(cells, 2 * PROBLEMS)
    n = len(cell)
    place = np.arange(n)
    problem = np.tile(np.repeat(np.arange(PROBLEMS), 2), 2)
    return Intervals(place, place + 1, cell, place % 2 == 0, problem, np.zeros(n, np.int64))


def _maxima(intervals: Intervals, values: np.ndarray) -> SparseMaxima:
    interval = np.flatnonzero(values > 0)
    return SparseMaxima(
        intervals, 1, interval, np.zeros_like(interval), values[interval].astype(np.float32)
    )


def test_a_reader_that_represents_the_move_better_is_higher_on_the_same_text() -> None:
    rng = np.random.default_rng(0)
    intervals = _intervals()
    noise = rng.random(len(intervals.cell))
    values = {"base": noise + 0.2 * intervals.is_positive, "rl": noise + intervals.is_positive}
    maxima = {reader: _maxima(intervals, own) for reader, own in values.items()}
    table = compare_grid(
        {"a": [span_detector(1, 0)]},
        ["a"],
        lambda reader, layer: maxima[reader],
        lambda reader, layer: maxima[reader],
        num_resamples=300,
        seed=0,
    )
    assert len(table) == 8
    here = table[table.measure == SPAN_AUROC].set_index(["between", "fixed"])
    for fixed in ("base", "rl"):
        readers = here.loc[READERS_DIFFER, fixed]
        assert readers.rl == 1.0
        assert readers.low > 0
        assert readers.q < 0.05
        assert readers.difference == pytest.approx(readers.rl - readers.base)
        assert here.loc[WRITERS_DIFFER, fixed].p > 0.01
    assert (table[table.measure == RATE].difference == 0).all()  # It fires everywhere in both.


def test_pairing_by_problem_narrows_the_interval_of_a_difference() -> None:
    """What makes a problem easy makes it easy for both readers."""
    rng = np.random.default_rng(1)
    intervals = _intervals()
    shared = rng.normal(size=len(intervals.cell)) + 3 + intervals.is_positive
    values = {"base": shared, "rl": shared + rng.normal(0, 0.05, len(shared))}
    maxima = {reader: _maxima(intervals, own) for reader, own in values.items()}
    table = compare_grid(
        {"a": [span_detector(1, 0)]},
        ["a"],
        lambda reader, layer: maxima[reader],
        lambda reader, layer: maxima[reader],
        num_resamples=300,
        seed=0,
    )
    row = table[(table.measure == SPAN_AUROC) & (table.between == READERS_DIFFER)].iloc[0]
    assert row.high - row.low < 0.2 * (row.rl_high - row.rl_low)
    cell = intervals.of_cell(cell_index(0, "base", "report"))
    expected = auroc(values["rl"][cell][:, None], intervals.is_positive[cell])[0]
    assert row.rl == pytest.approx(expected, abs=1e-3)


def test_the_interval_of_a_rates_difference_holds_it_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        problem = np.repeat(np.arange(60), 5)
        sides = []
        for rate in (0.2, 0.35):
            lean = rng.normal(0, 0.1, 60)[problem]
            fires = rng.random(300) < np.clip(rate + lean, 0, 1)
            sides.append(Ranked(fires.astype(float), np.zeros(300, bool), problem))
        found = compare_rates(*sides, num_resamples=300, seed=seed)
        covered += found.difference.low <= 0.15 <= found.difference.high
    assert 0.9 <= covered / 200 <= 0.985
