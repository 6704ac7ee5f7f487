"""The rates of both writers, side by side."""

import pandas as pd
import pytest

from sae_reasoning.traces.summary import beside_each_other

SUMMARY = pd.DataFrame(
    [
        ("base", 4, 0.25, 0.0, "deduction", 8, 2.0, 10, 0.8),
        ("base", 4, 0.25, 0.0, "backtracking", 0, 0.0, 4, 0.0),
        ("rl", 2, float("nan"), 0.5, "deduction", 8, 4.0, 8, 1.0),
        ("rl", 2, float("nan"), 0.5, "backtracking", 3, 1.5, 4, 0.75),
    ],
    columns=[
        *("writer", "traces", "correct", "truncated", "behaviour", "spans", "per_trace"),
        *("opportunities", "taken"),
    ],
)


def test_each_behaviour_is_one_row_in_the_order_of_the_config() -> None:
    rates = beside_each_other(SUMMARY)
    assert rates.behaviour.tolist() == ["deduction", "backtracking"]
    assert rates["rl: a trace"].tolist() == [4.0, 1.5]
    assert rates["base: of opportunities"].tolist() == [0.8, 0.0]


@pytest.mark.parametrize("writer", ["base", "rl"])
def test_a_writer_that_stands_alone_has_its_own_columns(writer: str) -> None:
    rates = beside_each_other(SUMMARY[SUMMARY.writer == writer])
    assert set(rates.columns) == {
        "behaviour",
        f"{writer}: a trace",
        f"{writer}: of opportunities",
    }
