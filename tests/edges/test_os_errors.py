"""What the system refuses: inputs by their options, no room by the folder, else by itself."""

import errno
import json
import os
from pathlib import Path

import pytest

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import digest, publish
from sae_reasoning.edges.os_errors import refused
from sae_reasoning.flow import run
from sae_reasoning.opening.sources import read_source

UNREADABLE = "/proc/self/mem"  # Its first byte can't be read, not even by root.


def error_of(number: int, path: Path | str | None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.fixture
def cfg(tiny_config: Config, tmp_path: Path) -> Config:
    tiny_config.traces.source = str(tmp_path / "mine.jsonl")
    tiny_config.train.readers = "released"
    tiny_config.train.released = str(tmp_path / "saes" / "layer_{layer}")
    tiny_config.report.reviews = [str(tmp_path / "calls.json")]
    return tiny_config


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("mine.jsonl", "traces.source"),
        ("saes/layer_1/sae_weights.safetensors", "train.released"),
        ("calls.json", "report.reviews"),
    ],
)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EIO])
def test_an_input_is_named_with_its_option(
    cfg: Config, tmp_path: Path, number: int, path: str, option: str
) -> None:
    said = refused(error_of(number, tmp_path / path), cfg)
    assert said.startswith(f"{option}=") and str(tmp_path / path) in said
    assert "can't be read" in said and "runs=" not in said and "make room" not in said


def test_a_models_file_is_named_with_its_option(cfg: Config) -> None:
    path = f"{cfg.pair.rl.path}/model.safetensors"
    said = refused(error_of(errno.EACCES, path), cfg)
    assert said.startswith(f"pair.rl.path={cfg.pair.rl.path} can't be read: Permission denied")


@pytest.mark.parametrize(
    ("number", "place"),
    [
        (errno.ENOSPC, "tiny/cache.partial-0/shard_00000.h5"),
        (errno.EACCES, "tiny/cache"),
        (errno.EROFS, "tiny"),
        (errno.ENOTDIR, "tiny/cache"),
        (errno.ENOSPC, None),  # As of HDF5.
    ],
)
def test_no_room_and_no_permission_to_write_name_the_results(
    cfg: Config, number: int, place: str | None
) -> None:
    said = refused(error_of(number, place and Path(cfg.runs) / place), cfg)
    assert said.startswith(os.strerror(number))
    assert f"while writing to runs={cfg.runs}" in said and "set runs=… elsewhere" in said
    cfg.organism.others = str(Path(cfg.runs).parent / "organisms")
    said = refused(error_of(errno.ENOSPC, f"{cfg.organism.others}/seed_1"), cfg)
    assert "set organism.others=… elsewhere" in said


def test_no_room_is_no_unreadable_input_where_a_model_of_the_pair_is_being_made(
    cfg: Config,
) -> None:
    cfg.organism.others = str(Path(cfg.runs).parent / "organisms")
    cfg.pair.rl.path = f"{cfg.organism.others}/seed_1/search_rl_llama"
    said = refused(error_of(errno.ENOSPC, f"{cfg.pair.rl.path}/model.safetensors"), cfg)
    assert "set organism.others=… elsewhere" in said and "can't be read" not in said


def test_a_result_that_is_gone_is_no_lack_of_room(cfg: Config) -> None:
    said = refused(error_of(errno.ENOENT, f"{cfg.runs}/tiny/rank/scores.parquet"), cfg)
    assert "scores.parquet is gone" in said and "make its stage again" in said
    assert "make room" not in said


@pytest.mark.parametrize(
    ("number", "path"),
    [(errno.EMFILE, None), (errno.ENOENT, "/elsewhere/x"), (errno.EACCES, "/elsewhere/x")],
)
def test_anything_else_names_itself(cfg: Config, number: int, path: str | None) -> None:
    said = refused(error_of(number, path), cfg)
    assert said.startswith(os.strerror(number)) and (path or "") in said
    assert "runs=" not in said


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Input/output error") as raised:
        digest(Path(UNREADABLE))
    assert raised.value.filename == UNREADABLE
    with pytest.raises(ConfigError, match=rf"traces.source={UNREADABLE} can't be read \(Input"):
        read_source("traces.source", UNREADABLE, print)
    link = tmp_path / "rows.jsonl"
    link.symlink_to(UNREADABLE)
    with pytest.raises(ConfigError, match=r"base_source=.*rows.jsonl can't be read"):
        read_source("traces.base_source", str(link), print)


def test_a_stage_says_which_input_cannot_be_read(tiny_config: Config, tmp_path: Path) -> None:
    rows = [{"problem_id": "a", "writer": "rl", "prompt": "?", "text": "so .", "spans": []}]
    tiny_config.traces.source = str(tmp_path / "mine.jsonl")
    with publish(tmp_path / "mine.jsonl") as partial:
        partial.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    tiny_config.traces.base_source = UNREADABLE
    said = run(["traces"], tiny_config)
    assert said.startswith(f"traces.base_source={UNREADABLE} can't be read: Input/output error")
    assert "make room" not in said and not Path(tiny_config.runs).exists()
