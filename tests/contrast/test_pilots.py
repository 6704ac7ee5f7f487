"""Pilots: where the answer rests on a behaviour."""

import numpy as np
import pytest

from sae_reasoning.contrast.pilots import Pilot, PilotControl
from sae_reasoning.records import REPORT
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start

START = Start(Problem("p", REPORT, "?"), "rl", "backtracking", "p/0", (1,), "so", True)


@pytest.mark.parametrize(
    ("of_control", "of_rl", "has_headroom"),
    [(0.0, 1.0, True), (0.5, 1.0, True), (0.0, 0.5, True), (0.5, 0.5, False), (1.0, np.nan, False)],
)
def test_a_start_has_headroom_where_the_rl_model_is_right_more_often_than_after_any_control(
    of_control: float, of_rl: float, has_headroom: bool
) -> None:
    wrong, tried = PilotControl("back to b", 0.0, 0.0), PilotControl("back to a", of_control, 0.0)
    for controls in (
        {"displaced": tried},
        {"displaced": tried, "foreign": wrong},
        {"displaced": wrong, "foreign": tried},
    ):
        assert Pilot(START, controls, of_rl, 1.0).has_headroom(0.5) == has_headroom
    unknown = PilotControl("back to c", np.nan, 1.0)
    both = {"displaced": wrong, "foreign": unknown}
    assert not Pilot(START, both, 1.0, 1.0).has_headroom(0.5)
