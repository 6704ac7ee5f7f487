"""What waits on disk comes back as it went, and leaves nothing behind."""

from pathlib import Path

import numpy as np
import pytest

from sae_reasoning.behaviours.scratch import Scratch, SortedRuns
from sae_reasoning.behaviours.streams import uncut


def test_pieces_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    scratch = Scratch(np.int32, tmp_path)
    scratch.append(np.arange(5))
    assert scratch.gather([(3, 5), (0, 2), (4, 4)]).tolist() == [3, 4, 0, 1]
    scratch.append(np.arange(5, 8))
    assert scratch.mapped().tolist() == list(range(8))
    assert len(scratch) == 8
    assert not list(tmp_path.iterdir())


def test_numbers_outlive_the_file_they_are_mapped_from(tmp_path: Path) -> None:
    def made() -> np.ndarray:
        scratch = Scratch(np.float32, tmp_path)
        scratch.append(np.full(1000, 1.5))
        return scratch.mapped()

    assert made().sum() == 1500
    assert len(Scratch(np.float32, tmp_path).mapped()) == 0


@pytest.mark.parametrize("capacity", [1, 7, 64, 1000])
def test_runs_on_disk_are_one_sorted_whole(capacity: int, tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 100, 300)
    runs = SortedRuns(capacity, tmp_path)
    for part in np.array_split(keys, 11):
        runs.add(part)
    parts = list(runs.ranges(np.array([0, 10, 10, 55, 100])))
    assert np.concatenate(parts).tolist() == np.sort(keys).tolist()
    assert [len(part) for part in parts] == [
        ((keys >= low) & (keys < high)).sum()
        for low, high in ((0, 10), (10, 10), (10, 55), (55, 100))
    ]


def test_no_runs_have_no_keys() -> None:
    (found,) = SortedRuns(8).ranges(np.array([0, 10]))
    assert not len(found)


def test_equal_keys_are_never_parted() -> None:
    keys = np.array([0, 1, 2, 3, 8, 9, 10, 16, 17, 40])
    assert [part.tolist() for part in uncut(keys, 2, size=3)] == [
        [0, 1, 2, 3],
        [8, 9, 10],
        [16, 17, 40],
    ]
