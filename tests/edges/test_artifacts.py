"""Stages: whole or not there, current or made anew, never harmed by what replaces them."""

from pathlib import Path

import pytest

from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
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
