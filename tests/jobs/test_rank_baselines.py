"""Scores of baselines, kept on disk between a pass and the end of the stage."""

from pathlib import Path

import numpy as np
import pytest

from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.readings.baselines import load_baselines, save_baselines
from sae_reasoning.stats import Ranked


@pytest.mark.parametrize("name", ["a/b", "/", "a/rl", "../b", "b.npy", 'ä 🤔\\:*?"<>|', "a\nb"])
def test_a_behaviour_may_be_called_anything(tmp_path: Path, name: str) -> None:
    behaviours = ["plain", name]
    cells = [cell_index(number, "rl", "report") for number in range(2)]
    place = np.arange(8)
    intervals = Intervals(place, place + 1, np.repeat(cells, 4), place % 2 == 0, place // 2, place)
    kept = {
        (behaviour, "rl"): Ranked(
            np.arange(4) + 10.0 * number,
            intervals.is_positive[intervals.of_cell(cells[number])],
            intervals.problem[intervals.of_cell(cells[number])],
        )
        for number, behaviour in enumerate(behaviours)
    }
    save_baselines(tmp_path / "rivals.npz", {"probe": kept})
    (found,) = load_baselines(tmp_path / "rivals.npz", intervals, behaviours).values()
    assert list(found) == list(kept)
    for key, own in kept.items():
        assert found[key].scores.tolist() == own.scores.tolist()
