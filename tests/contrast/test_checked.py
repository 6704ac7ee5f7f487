"""Statements within spans that a program checks, counted by hand."""

from sae_reasoning.contrast.checked import COVERED, REPAIRED, RIGHT, checked_spans
from sae_reasoning.contrast.measures import Resampling
from sae_reasoning.records import TokenSpan, Trace
from sae_reasoning.tasks.text.arithmetic import checked_equalities

SAID = [
    ("Check: 3 + 4 = 7.", ""),
    ("Check: 3 * 4 = 13, 1 + 1 = 2.", "Wait, 3 * 4 = 12."),
    ("Check: 5 + 5 = 11.", "So 2 + 2 = 5."),
    ("Check: is that right?", ""),
]


def trace(number: int, writer: str, said: str, more: str, split: str = "report") -> Trace:
    text = f"{said} {more}"
    span = TokenSpan("verification", 0, len(said), 1, 2, "cues")
    return Trace(
        f"{number}/{writer}", f"p{number}", split, writer, "m", "?", text, (1, 2), 1,
        None, False, (span,), (),
    )  # fmt: skip


def test_spans_count_once_false_statements_each_and_only_those_within_a_span() -> None:
    made = [trace(n, "rl", *said) for n, said in enumerate(SAID)]
    made += [trace(n, "base", *SAID[3]) for n in range(4)]
    made += [trace(9, "rl", *SAID[2], split="select")]
    found = checked_spans(
        made, checked_equalities, ["verification", "backtracking"], Resampling(20, 0)
    )
    own = {(m.measure, m.model): (m.value, m.items) for m in found if m.model in ("base", "rl")}
    assert own[COVERED, "rl"] == (3 / 4, 4) and own[COVERED, "base"] == (0, 4)
    assert own[RIGHT, "rl"] == (1 / 3, 3)
    assert own[REPAIRED, "rl"] == (1 / 2, 2)
    assert {m.behaviour for m in found} == {"verification"}
