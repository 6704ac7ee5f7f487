"""Stages: whole or not there, current or made anew, never harmed by what replaces them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    MissingInput,
    Stage,
    fingerprint_files,
    publish,
    read_json,
    require_stage,
)


def make(final: Path, config: dict, inputs: dict[str, str], content: str = "x") -> str:
    with Stage(final, config, inputs) as stage:
        (stage.folder / "out.txt").write_text(content)
        return stage.finish({"n": 1}).fingerprint


def test_a_stage_is_current_until_config_inputs_or_files_change(tmp_path: Path) -> None:
    final = tmp_path / "cache"
    make(final, {"a": 1}, {"traces": "t"})
    assert Stage(final, {"a": 1}, {"traces": "t"}).is_current
    assert not Stage(final, {"a": 2}, {"traces": "t"}).is_current
    assert not Stage(final, {"a": 1}, {"traces": "u"}).is_current
    (final / "out.txt").write_text("cut short or grown")
    assert not Stage(final, {"a": 1}, {"traces": "t"}).is_current


def test_what_was_made_stands_until_its_replacement_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "cache"
    make(final, {"a": 1}, {}, "first")
    with Stage(final, {"a": 2}, {}) as stage:
        (stage.folder / "out.txt").write_text("half")
    assert (final / "out.txt").read_text() == "first"
    assert Stage(final, {"a": 2}, {}).is_resuming
    make(final, {"a": 2}, {}, "second")
    assert (final / "out.txt").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    final = tmp_path / "cache"
    make(final, {"a": 1}, {}, "first")
    final.rename(tmp_path / "cache.old")
    with Stage(final, {"a": 1}, {}) as stage:
        assert stage.is_current


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with publish(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"train": {"sae": {"k": 8}}}, r"train\.sae\.k=16, now 8.*run `make train`"),
        ({"train": {"sae": {"k": 16}}, "layers": [1, 3]}, r"layers=\[1, 2\], now \[1, 3\]"),
    ],
)
def test_an_input_made_with_another_config_is_refused(
    tmp_path: Path, settings: dict, says: str
) -> None:
    made = {"train": {"sae": {"k": 16}}, "layers": [1, 2]}
    make(tmp_path / "train", made, {})
    with pytest.raises(MissingInput, match=says):
        require_stage(tmp_path, "train", {"layers": [1, 2]} | settings, {})


def test_an_input_made_for_more_layers_serves(tmp_path: Path) -> None:
    make(tmp_path / "train", {"layers": [1, 2]}, {})
    assert require_stage(tmp_path, "train", {"layers": [2]}, {}).stage == "train"


def test_an_input_made_from_another_input_or_model_is_refused(tmp_path: Path) -> None:
    traces = make(tmp_path / "traces", {}, {"base": "b"})
    make(tmp_path / "cache", {}, {"traces": traces, "base": "b"})
    assert require_stage(tmp_path, "cache", {}, {"base": "b"})
    with pytest.raises(MissingInput, match="another base"):
        require_stage(tmp_path, "cache", {}, {"base": "c"})
    make(tmp_path / "traces", {"seed": 1}, {"base": "b"})
    with pytest.raises(MissingInput, match="another traces"):
        require_stage(tmp_path, "cache", {}, {"base": "b"})


def test_a_missing_stage_names_its_target(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="run `make cache` first"):
        require_stage(tmp_path, "cache", {}, {})


def test_json_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(BrokenArtifact, match="is not whole JSON"):
        read_json(tmp_path / "a.json")


def test_a_fingerprint_sees_every_byte_of_a_large_file(tmp_path: Path) -> None:
    content = bytearray(3 << 20)
    (tmp_path / "weights").write_bytes(content)
    before = fingerprint_files(tmp_path)
    content[len(content) // 2] = 1
    (tmp_path / "weights").write_bytes(content)
    assert fingerprint_files(tmp_path) != before


def test_an_input_that_rests_on_a_changed_file_is_refused_however_far_down(tmp_path: Path) -> None:
    now = {"rl": "r", "traces.source": "s"}
    traces = make(tmp_path / "traces", {}, now)
    contrast = make(tmp_path / "contrast", {}, {"traces": traces, "rl": "r"})
    assert require_stage(tmp_path, "contrast", {}, now).fingerprint == contrast
    edited = now | {"traces.source": "t"}
    for name in ("traces", "contrast"):
        with pytest.raises(MissingInput, match=r"traces was made from another traces.source .*run"):
            require_stage(tmp_path, name, {}, edited)
    # What isn't there any more can't be compared.
    assert require_stage(tmp_path, "contrast", {}, {"rl": "r"})


def test_an_input_whose_files_are_lost_cut_or_changed_is_refused_and_made_anew(
    tmp_path: Path,
) -> None:
    folder, file = tmp_path / "rank", tmp_path / "rank" / "out.txt"
    for harm, says in (
        (file.unlink, "out.txt is missing"),
        (lambda: file.write_text("wh"), "out.txt has 2 bytes, not the 5 that were written"),
        (lambda: file.write_text("while"), "out.txt has been changed"),
    ):
        make(folder, {}, {}, "whole")
        assert require_stage(tmp_path, "rank", {}, {})
        harm()
        with pytest.raises(MissingInput, match=rf"rank isn't whole .*{says}; run `make rank`"):
            require_stage(tmp_path, "rank", {}, {})
        assert not Stage(folder, {}, {}).is_current
    make(folder, {}, {}, "whole")
    (folder / "notes.txt").write_text("of a reader")
    assert require_stage(tmp_path, "rank", {}, {})


def test_a_file_that_another_process_holds_is_not_called_changed(tmp_path: Path) -> None:
    make(tmp_path / "rank", {}, {}, "whole")
    file = tmp_path / "rank" / "out.txt"
    hold = (
        f"import fcntl; file = open({str(file)!r}, 'r+'); fcntl.flock(file, fcntl.LOCK_EX); "
        "file.write('W'); file.flush(); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert file.read_text() == "Whole"
        assert require_stage(tmp_path, "rank", {}, {})
        holder.communicate(b"\n")
    with pytest.raises(MissingInput, match=r"out\.txt has been changed"):
        require_stage(tmp_path, "rank", {}, {})


def test_a_large_file_is_known_by_its_size_alone(tmp_path: Path) -> None:
    make(tmp_path / "cache", {}, {}, "x" * (2 << 20))
    manifest = Manifest.read(tmp_path / "cache")
    assert manifest and manifest.files == {"out.txt": 2 << 20} and not manifest.digests


def test_a_linked_folder_is_made_anew_where_it_is_linked_to(tmp_path: Path) -> None:
    root, disk = tmp_path / "runs", tmp_path / "disk"
    disk.mkdir()
    make(root / "cache", {"a": 1}, {}, "first")
    (root / "cache").rename(disk / "of this run")
    (root / "cache").symlink_to(disk / "of this run")
    for count, content in enumerate(("second", "third", "fourth"), start=2):
        with Stage(root / "cache", {"a": count}, {}) as stage:
            assert not stage.is_current
            assert stage.folder.parent == disk
            (stage.folder / "out.txt").write_text(content)
            stage.finish({})
        assert (root / "cache").is_symlink()
        assert (root / "cache" / "out.txt").read_text() == content
        assert Stage(root / "cache", {"a": count}, {}).is_current
        assert require_stage(root, "cache", {"a": count}, {}).stage == "cache"
        assert os.listdir(disk) == ["of this run"] and os.listdir(root) == ["cache"]


def test_links_that_an_earlier_version_left_behind_are_in_nobodys_way(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("kept")
    make(tmp_path / "cache", {"a": 1}, {})
    (tmp_path / "cache.old").symlink_to(elsewhere)
    make(tmp_path / "cache", {"a": 2}, {})
    assert not (tmp_path / "cache.old").is_symlink()
    assert (elsewhere / "kept.txt").read_text() == "kept"


def test_a_link_may_stand_before_its_folder_but_not_lead_to_a_missing_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk" / "cache")
    make(tmp_path / "cache", {}, {})
    assert (tmp_path / "disk" / "cache" / "out.txt").exists()
    for place, says in ((tmp_path / "gone" / "train", "isn't there"), (Path("/"), "is a disk")):
        link = tmp_path / "train"
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        with pytest.raises(BrokenArtifact, match=f"train is a link to {place}, which {says}"):
            Stage(link, {}, {})


_MAKE = r"""
import sys
from pathlib import Path
from sae_reasoning.edges.artifacts import Manifest, Stage, read_json, write_json
with Stage(Path("rank"), {"name": "\u03ba \U0001f914"}, {}) as stage:
    write_json(stage.folder / "words.json", ["\u03ba", "\U0001f914"])
    stage.finish({})
assert read_json(Path("rank/words.json")) == ["\u03ba", "\U0001f914"]
print(Manifest.read(Path("rank")).git_revision)
"""


def test_an_installed_package_says_its_version_and_never_anothers_revision(tmp_path: Path) -> None:
    """Copied into a repository of something else, and run where text isn't UTF-8 by itself."""
    package = Path(__file__).parents[2] / "sae_reasoning"
    installed = tmp_path / "venv" / "sae_reasoning"
    (installed / "edges").mkdir(parents=True)
    needed = ("__init__", "artifacts", "files", "hashing", "lock", "provenance")
    for name in ("__init__.py", *(f"edges/{one}.py" for one in needed)):
        (installed / name).write_bytes((package / name).read_bytes())
    shutil.copytree(package / "config", installed / "config")
    (tmp_path / ".gitignore").write_text("venv\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "theirs"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    environment = {
        name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
    }
    environment |= {"PYTHONPATH": str(installed.parent), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", _MAKE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sae_reasoning 0.")


def test_a_checkout_says_its_own_revision(tmp_path: Path) -> None:
    make(tmp_path / "rank", {}, {})
    manifest = Manifest.read(tmp_path / "rank")
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    # An unpacked archive of the sources has no revision.
    here = done.stdout.strip() if done.returncode == 0 else "sae_reasoning 0."
    assert manifest and str(manifest.git_revision).startswith(here)
