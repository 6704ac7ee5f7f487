"""Two annotators of the same traces."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sae_reasoning.records import TokenSpan, Trace
from sae_reasoning.stats import kappa
from sae_reasoning.traces.agreement import ALL, NONE, agree, sentence_labels

TEXT = "One. Two. Three. Four."
SENTENCES = {"One": (0, 4), "Two": (5, 9), "Three": (10, 16), "Four": (17, 22)}


def spans(**marks: str) -> tuple[TokenSpan, ...]:
    return tuple(TokenSpan(b, *SENTENCES[name], 1, 2, "x") for name, b in marks.items())


def trace(problem: str, marks: tuple[TokenSpan, ...]) -> Trace:
    return Trace(
        trace_id=f"{problem}/rl/0", problem_id=problem, split="report", writer="rl", model="m",
        prompt="", text=TEXT, token_ids=(0,) * 9, num_prompt_tokens=1, correct=None,
        truncated=False, spans=marks, opportunities=(),
    )  # fmt: skip


def test_a_sentence_has_the_move_that_covers_half_of_it() -> None:
    marks = (TokenSpan("a", 0, 9, 1, 2, "x"), TokenSpan("b", 10, 12, 2, 3, "x"))
    assert sentence_labels(TEXT, marks) == ["a", "a", NONE, NONE]


def test_kappa_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(3, size=50), rng.integers(3, size=50)
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    assert kappa(table.ravel()) == pytest.approx(cohen_kappa_score(first, second))
    assert np.isnan(kappa(np.array([4.0, 0.0, 0.0, 0.0])))


def test_agreement_by_hand() -> None:
    ones = [trace("p1", spans(One="a", Two="b")), trace("p2", spans(One="a"))]
    others = [trace("p1", spans(One="a", Two="a")), trace("p2", spans(One="a"))]
    kappas, confusion = agree(ones, others, ["a", "b"], num_resamples=50)
    rows = kappas.set_index("behaviour")
    # a: both 2, second alone 1, neither 5: observed 7/8, expected (2·3 + 6·5)/64.
    assert rows.loc["a", "kappa"] == pytest.approx((7 / 8 - 36 / 64) / (1 - 36 / 64))
    assert rows.loc["a", ["by_first", "by_second", "by_both", "sentences"]].tolist() == [2, 3, 2, 8]
    assert rows.loc["b", ["kappa", "by_first", "by_second"]].tolist() == [0.0, 1, 0]
    assert rows.loc["a", "low"] <= rows.loc["a", "kappa"] <= rows.loc["a", "high"]
    assert rows.loc[ALL, "by_both"] == 2
    assert {tuple(row) for row in confusion.itertuples(index=False)} == {
        ("a", "a", 2), ("b", "a", 1), (NONE, NONE, 5),
    }  # fmt: skip


def test_annotators_that_agree_have_kappa_one() -> None:
    same = [trace("p1", spans(One="a")), trace("p2", spans(Two="b"))]
    kappas, _ = agree(same, [replace(t) for t in same], ["a", "b"], num_resamples=20)
    assert kappas["kappa"].tolist() == [1.0, 1.0, 1.0]
