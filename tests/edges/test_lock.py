"""Two real processes at one stage: one makes it, and the other waits, shares or is refused."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sae_reasoning.edges.artifacts import Stage
from sae_reasoning.edges.lock import InUse, Lock

ROOT = Path(__file__).parents[2]

MAKER = """
import signal, sys, time
from pathlib import Path
from sae_reasoning.edges.artifacts import Stage

# A shell that starts tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

final, config, shared, until = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "shared", sys.argv[4]
with Stage(final, config, {}, shared=shared) as stage:
    if stage.is_current:
        print("current")
    else:
        print("making", flush=True)
        while not Path(until).exists():
            time.sleep(0.01)
        (stage.folder / "out.txt").write_text(sys.argv[5])
        if not shared:
            stage.finish({})
        print("made")
"""


class Maker:
    """Another process that makes a stage, and ends when `go` is called."""

    def __init__(
        self, final: Path, config: str = "a", kind: str = "alone", content: str = ""
    ) -> None:
        self._until = final.with_name(f"go_{time.monotonic_ns()}")
        arguments = [str(final), config, kind, str(self._until), content]
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAKER, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def is_making(self) -> bool:
        assert self.process.stdout
        return self.process.stdout.readline() == "making\n"

    def go(self) -> None:
        self._until.touch()

    def wait(self) -> tuple[str, str]:
        """What it printed, and its complaints."""
        output, complaints = self.process.communicate(timeout=30)
        self._until.unlink(missing_ok=True)
        return output, complaints


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_second_process_waits_and_finds_the_stage_made(tmp_path: Path):
    first = Maker(tmp_path / "cache", content="first")
    assert first.is_making()
    second = Maker(tmp_path / "cache", content="second")
    assert second.process.stderr
    complaint = second.process.stderr.readline()
    assert f"cache is being made by process {first.process.pid}; waiting" in complaint
    first.go()
    assert first.wait() == ("made\n", "")
    assert second.wait() == ("current\n", "")
    assert (tmp_path / "cache" / "out.txt").read_text() == "first"
    assert names(tmp_path) == {"cache"}


def test_a_process_with_other_settings_is_refused_and_harms_nothing(tmp_path: Path):
    first = Maker(tmp_path / "cache", "a", content="first")
    assert first.is_making()
    with pytest.raises(
        InUse, match=rf"with other settings by process {first.process.pid}; wait .* experiment="
    ):
        Stage(tmp_path / "cache", "b", {}).__enter__()
    first.go()
    assert first.wait() == ("made\n", "")
    assert names(tmp_path) == {"cache"}


def test_a_killed_maker_leaves_its_place_to_the_next(tmp_path: Path):
    first = Maker(tmp_path / "cache", "a")
    assert first.is_making()
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(30)
    assert (tmp_path / ".cache.lock").exists()
    with Stage(tmp_path / "cache", "b", {}) as stage:
        (stage.folder / "out.txt").write_text("second")
        stage.finish({})
    first.wait()
    assert names(tmp_path) == {"cache"}


def test_the_next_goes_on_in_the_folder_of_a_maker_that_fails(tmp_path: Path):
    first = Maker(tmp_path / "cache")
    assert first.is_making()
    second = Maker(tmp_path / "cache", content="second")
    first.process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in first.wait()[1]
    assert second.is_making()
    second.go()
    assert second.wait()[0] == "made\n"
    assert (tmp_path / "cache" / "out.txt").read_text() == "second"
    assert names(tmp_path) == {"cache"}


def test_parts_are_made_at_the_same_time_and_the_whole_after_them(tmp_path: Path):
    final = tmp_path / "rank"
    parts = [Maker(final, kind="shared", content="part") for _ in range(2)]
    assert all(part.is_making() for part in parts)
    whole = Maker(final, content="whole")
    assert whole.process.stderr
    assert "waiting" in whole.process.stderr.readline()
    for part in parts:
        assert not final.exists()
        part.go()
        assert part.wait()[0] == "made\n"
    assert whole.is_making()
    whole.go()
    assert whole.wait()[0] == "made\n"
    assert (final / "out.txt").read_text() == "whole"
    assert names(tmp_path) == {"rank"}


def test_a_part_leaves_what_others_are_writing(tmp_path: Path):
    with Stage(tmp_path / "rank", "a", {}, shared=True) as one:
        writing = one.folder / ".scores.parquet.7.tmp"
        writing.touch()
        with Stage(tmp_path / "rank", "a", {}, shared=True):
            assert writing.exists()
        assert (tmp_path / ".rank.lock").exists()
    assert writing.exists()
    assert not (tmp_path / ".rank.lock").exists()
    with Stage(tmp_path / "rank", "a", {}):
        assert not writing.exists()


def test_whoever_waited_for_a_lock_that_is_gone_takes_a_new_one(tmp_path: Path):
    first, second, third = (Lock(tmp_path / "rank", "a") for _ in range(3))
    first.take()
    waited_for = second.path.open("a+")
    first.free()
    second.take()
    assert not third._is_seen(waited_for)
    assert not third.take_at_once()
    second.free()
    assert third.take_at_once()
    third.free()
    waited_for.close()
    assert names(tmp_path) == set()
