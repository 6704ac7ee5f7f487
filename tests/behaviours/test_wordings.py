"""Wordings that selection never sees."""

from dataclasses import replace

import numpy as np
from behaviours.examples import made_up_trace, rows_of
from robustness.test_attacks import attacked

from sae_reasoning.behaviours.onset_attribution import draw_onsets
from sae_reasoning.behaviours.scores import label_rows
from sae_reasoning.behaviours.windows import cell_index, label_bits
from sae_reasoning.behaviours.wordings import draw_wordings, hold_out, wording
from sae_reasoning.records import Trace
from sae_reasoning.robustness.outcomes import LEXICAL, REFUTED, ROBUST, WORDING, label_of

WORDS = ("wait", "hold", "stuck", "no", "that")


def worded(number: int, split: str) -> Trace:
    """A trace whose two behaviours begin with two of five words; each word is its first token."""
    spans = [("a", 8, 12), ("a", 24, 28)]
    trace = made_up_trace(number, spans=spans, split=split)
    words = [WORDS[(number + place) % len(WORDS)] for place in range(2)]
    rng = np.random.default_rng(number)
    tokens = rng.integers(20, 24, 40)
    for (_, start, _), word in zip(spans, words, strict=True):
        tokens[start] = 100 + WORDS.index(word)
    return replace(
        trace,
        text=" ".join(words),
        token_ids=tuple(tokens.tolist()),
        spans=tuple(
            replace(span, char_start=trace_start, char_end=trace_start + len(word))
            for span, word, trace_start in zip(
                trace.spans, words, (0, len(words[0]) + 1), strict=True
            )
        ),
    )


TRACES = [worded(i, ("select", "report")[i >= 40]) for i in range(80)]


def test_a_fifth_of_the_spans_is_held_out_and_never_more_than_half() -> None:
    (word,) = draw_wordings(TRACES, ["a"], seed=0)["a"]
    assert word in WORDS
    others = {draw_wordings(TRACES, ["a"], seed)["a"] for seed in range(20)}
    assert len(others) > 2
    alone = [replace(t, text="wait wait", spans=t.spans[:1]) for t in TRACES]
    alone = [replace(t, spans=(replace(t.spans[0], char_start=0, char_end=4),)) for t in alone]
    assert draw_wordings(alone, ["a"], seed=0) == {"a": ()}


def test_selection_sees_neither_the_spans_nor_their_opportunities() -> None:
    held = {"a": ("wait",)}
    for before, after in zip(TRACES, hold_out(TRACES, held), strict=True):
        kept = [wording(after, s) for s in after.spans if s.behaviour == "a"]
        assert len(kept) == len([o for o in after.opportunities if o.behaviour == "a"])
        if before.split == "select":
            assert "wait" not in kept
            assert len(after.spans) == len(before.spans)
        else:
            assert after == before


def test_rows_in_held_out_wordings_are_on_neither_side_of_selection() -> None:
    labels = label_rows(TRACES, rows_of(TRACES), ["a"], seed=0)
    (word,) = labels.wordings["a"]
    rows = rows_of(TRACES)
    renamed = [
        replace(t, spans=tuple(replace(s, behaviour=wording(t, s)) for s in t.spans))
        for t in TRACES
    ]
    is_held = label_bits(renamed, rows, [word]) > 0
    is_select = np.repeat([t.split == "select" for t in TRACES], np.diff(rows.row_of_trace))
    assert (labels.classes.of_row[is_held & is_select] == -1).all()
    assert (labels.classes.of_row[is_held & ~is_select] >= 0).all()
    select, report = (
        labels.spans.of_cell(cell_index(0, "rl", split)) for split in ("select", "report")
    )
    touched = [
        is_held[a:b].any()
        for a, b in zip(labels.spans.start[select], labels.spans.stop[select], strict=True)
    ]
    assert not any(touched)
    assert labels.spans.is_positive[report].sum() > labels.spans.is_positive[select].sum()
    assert 100 + WORDS.index(word) not in labels.onset_ids["a"]
    held = hold_out(TRACES, labels.wordings)
    onsets = draw_onsets(held, ["a"], 1000, seed=0)
    shown = sum(s.behaviour == "a" for t in held for s in t.spans if t.split == "select")
    assert len(onsets) == shown < sum(len(t.spans) for t in TRACES if t.split == "select")


def test_a_latent_that_knows_the_words_it_was_chosen_by_is_refuted() -> None:
    held = {"a": ("wait", "stuck")}
    rows = rows_of(TRACES)
    renamed = [
        replace(t, spans=tuple(replace(s, behaviour=wording(t, s)) for s in t.spans))
        for t in TRACES
    ]
    knows_words = label_bits(renamed, rows, ["hold", "no", "that"]) > 0
    knows_move = label_bits(TRACES, rows, ["a"]) > 0
    dense = np.stack([knows_words, knows_move], axis=1) * 1.0
    outcomes = attacked(TRACES, rows, dense, held, 0)
    assert [one[WORDING] for one in outcomes] == [REFUTED, ROBUST]
    assert label_of(outcomes[0]) == LEXICAL
