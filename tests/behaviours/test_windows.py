from dataclasses import replace

import numpy as np
import pytest
from behaviours.examples import made_up_trace, rows_of

from sae_reasoning.behaviours import windows
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import (
    MAX_INTERVALS,
    NO_SPANS,
    POSITIONAL,
    TESTED,
    behaviour_status,
    cell_index,
    classify_rows,
    group_index,
    label_bits,
    onset_intervals,
    onset_tokens,
    span_intervals,
)
from sae_reasoning.records import TokenOpportunity


def test_a_span_covers_its_own_tokens_and_an_onset_the_one_before() -> None:
    traces = [made_up_trace(0, spans=[]), made_up_trace(1, spans=[("a", 10, 14)])]
    rows = rows_of(traces)  # 38 rows a trace, the first the last prompt position, token 2
    spans = span_intervals(traces, rows, ["a"], seed=0)
    onsets = onset_intervals(traces, rows, ["a"], seed=0)
    assert (spans.start[0], spans.stop[0]) == (38 + 8, 38 + 12)
    assert rows.token_id[spans.start[0]] == 10
    assert (onsets.start.tolist(), onsets.stop.tolist()) == ([38 + 7], [38 + 8])
    assert onsets.stratum.tolist() == [9]
    assert label_bits(traces, rows, ["b", "a"])[46:50].tolist() == [2, 2, 2, 2]


def test_windows_are_as_long_as_their_span_and_never_touch_one() -> None:
    traces = [made_up_trace(i, spans=[("a", 5, 9), ("b", 9, 20), ("a", 30, 33)]) for i in range(50)]
    rows = rows_of(traces)
    bits = label_bits(traces, rows, ["a", "b"])
    spans = span_intervals(traces, rows, ["a", "b"], seed=3)
    for b, lengths in ((0, [3, 4]), (1, [11])):
        here = spans.of_cell(cell_index(b, "rl", "select"))
        windows = np.flatnonzero(~spans.is_positive[here]) + here.start
        assert len(windows) == (here.stop - here.start) / 2
        for i in windows:
            assert spans.stop[i] - spans.start[i] in lengths
            assert not (bits[spans.start[i] : spans.stop[i]] >> b & 1).any()
            trace = spans.problem[i]
            assert rows.row_of_trace[trace] < spans.start[i]  # The prompt's last token is left out.
            assert spans.stop[i] <= rows.row_of_trace[trace + 1]
    again = span_intervals(traces, rows, ["a", "b"], seed=3)
    assert (again.start == spans.start).all()


def test_a_span_without_room_for_a_window_stands_alone() -> None:
    traces = [made_up_trace(0, spans=[("a", 4, 35)])]
    assert span_intervals(traces, rows_of(traces), ["a"], seed=0).is_positive.tolist() == [True]


def test_intervals_are_bounded_however_many_spans_there_are() -> None:
    spans = [("a", start, start + 1) for start in range(4, 40, 2)]
    traces = [made_up_trace(i, spans=spans) for i in range(150)]
    found = span_intervals(traces, rows_of(traces), ["a"], seed=0)
    assert found.is_positive.sum() == MAX_INTERVALS


def test_shifted_labels_keep_their_number_in_every_trace_and_their_runs() -> None:
    traces = [made_up_trace(i, spans=[("a", 10, 14)], split="report") for i in range(20)]
    rows = rows_of(traces)
    bits = label_bits(traces, rows, ["a"])
    classes = classify_rows(bits, traces, rows, shift_seed=5)
    is_move = classes.has(0)[classes.of_row].reshape(20, 38)
    assert (is_move.sum(1) == 4).all()
    assert (np.abs(np.diff(is_move.astype(int), axis=1)).sum(1) <= 3).all()
    assert (is_move != classify_rows(bits, traces, rows, shift_seed=None).has(0)[0]).any()
    assert set(classes.group.tolist()) == {group_index("rl", "report")}


def test_a_behaviour_made_once_at_one_place_is_only_positional() -> None:
    def both(name: str, starts: list[int]) -> list:
        return [
            made_up_trace(10 * i + j, spans=[(name, start, start + 2)], split=split)
            for i, split in enumerate(("select", "report"))
            for j, start in enumerate(starts)
        ]

    fixed = behaviour_status(both("a", [4, 4, 5, 4, 4]), ["a", "z"])
    assert fixed["a", "rl"] == POSITIONAL
    assert fixed["a", "base"] == fixed["z", "rl"] == NO_SPANS
    assert behaviour_status(both("a", [4, 9, 15, 4, 20]), ["a"])["a", "rl"] == TESTED


def test_onset_tokens_come_from_the_select_split_only() -> None:
    traces = [
        made_up_trace(0, spans=[("a", 10, 12), ("a", 20, 22)]),
        made_up_trace(1, spans=[("a", 20, 22)]),
        made_up_trace(2, spans=[("a", 30, 32)], split="report"),
    ]
    assert onset_tokens(traces, ["a"]) == {"a": (20, 10)}


def test_an_onset_token_belongs_to_the_behaviour_that_it_opens_most() -> None:
    traces = [
        made_up_trace(0, spans=[("a", 10, 12), ("b", 20, 22)]),
        made_up_trace(1, spans=[("a", 10, 12), ("b", 30, 32)]),
        made_up_trace(2, spans=[("b", 10, 12), ("untracked", 30, 32)]),
        made_up_trace(3, spans=[("untracked", 20, 22)]),
        made_up_trace(4, spans=[("untracked", 20, 22)]),
    ]
    assert onset_tokens(traces, ["a", "b"]) == {"a": (10,), "b": (30,)}


@pytest.mark.parametrize("tokens", [2, 3])
def test_an_opportunity_whose_token_is_not_cached_is_left_out(tokens: int) -> None:
    traces = [made_up_trace(0, spans=[("a", tokens, 9)])]
    assert len(onset_intervals(traces, rows_of(traces), ["a"], 0).start) == tokens - 2


def test_a_rate_counts_the_opportunities_that_were_left_undrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "MAX_INTERVALS", 3)
    trace = made_up_trace(0, spans=[("a", 4 + 4 * i, 6 + 4 * i) for i in range(6)])
    missed = tuple(TokenOpportunity("a", 0, 30 + i, False) for i in range(2))
    trace = replace(trace, opportunities=trace.opportunities + missed)
    onsets = onset_intervals([trace], rows_of([trace]), ["a"], seed=0)
    cell = cell_index(0, "rl", "select")
    assert onsets.is_positive.sum() == 3
    fires = SparseMaxima(
        onsets,
        2,
        np.flatnonzero(onsets.is_positive),
        np.zeros(3, int),
        np.ones(3, np.float32),
    )
    assert fires.firing_rates(cell).tolist() == pytest.approx([6 / 8, 0])
