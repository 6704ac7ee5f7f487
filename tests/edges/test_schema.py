"""Files of a stage carry its version, and no other version's are read."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from sae_reasoning.config import VERSIONS
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    MissingInput,
    Stage,
    read_json,
    require_stage,
    write_json,
)
from sae_reasoning.edges.schema import read_artifact, stage_of, write_artifact
from sae_reasoning.edges.tables import (
    read_rows,
    read_table,
    read_traces,
    write_table,
    write_traces,
)
from sae_reasoning.records import Trace

TRACE = Trace("t", "p", "select", "rl", "m", "1 + 1?", "2", (1, 2), 1, True, False, (), ())


def stamped(path: Path) -> bytes | None:
    metadata = pq.read_schema(path).metadata or {}
    return metadata.get(b"schema_version")


def raise_version(patch: pytest.MonkeyPatch, stage: str) -> None:
    patch.setitem(VERSIONS, stage, VERSIONS[stage] + 1)


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("runs/default/pair/rank/scores.parquet", "rank"),
        ("runs/default/pair/rank.partial-0a1b/parts/rl_1_points.parquet", "rank"),
        ("runs/default/pair/ablate_from_other_pair_reviewed_select/effects.parquet", "ablate"),
        ("runs/default/transfer/transfer.parquet", "transfer"),
        ("runs/rank/pair/train/pooled/layer_1/curve.parquet", "train"),
        ("disk/of this run.cache.partial-0a1b/table.parquet", "cache"),
        ("reports/ranked/table.parquet", ""),
    ],
)
def test_a_file_is_of_the_stage_whose_folder_it_lies_in(path: str, stage: str) -> None:
    assert stage_of(Path(path)) == stage


def test_a_table_of_another_version_is_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "rank" / "scores.parquet"
    write_table(table, {"latent": [1, 2]})
    assert stamped(table) == str(VERSIONS["rank"]).encode()
    assert list(read_table(table).latent) == [1, 2]
    raise_version(monkeypatch, "rank")
    with pytest.raises(MissingInput, match=r"schema_version=\d+, .* reads \d+; run `make rank`"):
        read_table(table)


def test_a_table_without_version_is_refused_in_a_stage_only(tmp_path: Path) -> None:
    brought = tmp_path / "brought.parquet"
    write_table(brought, {"text": ["a"]})
    assert stamped(brought) is None
    assert list(read_table(brought).text) == ["a"]
    own = tmp_path / "contrast" / "contrast.parquet"
    own.parent.mkdir()
    shutil.copy(brought, own)
    assert read_rows(own) == [{"text": "a"}]
    with pytest.raises(MissingInput, match=r"has no schema_version.*`make contrast`"):
        read_table(own)


def test_traces_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traces" / "traces.parquet"
    write_traces(path, [TRACE])
    assert read_traces(path) == [TRACE]
    raise_version(monkeypatch, "traces")
    with pytest.raises(MissingInput, match="make traces"):
        read_traces(path)


def test_an_object_carries_the_version_and_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rank" / "shortlist.json"
    write_artifact(path, {"dictionaries": {}})
    assert read_json(path) == {"schema_version": VERSIONS["rank"], "dictionaries": {}}
    assert read_artifact(path) == read_json(path)
    raise_version(monkeypatch, "rank")
    with pytest.raises(MissingInput, match="make rank"):
        read_artifact(path)
    for content, refusal in (({}, MissingInput), ([], BrokenArtifact)):
        write_json(path, content)
        with pytest.raises(refusal):
            read_artifact(path)


def test_tables_beyond_a_link_carry_the_version_too(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "scratch"
    disk.mkdir(parents=True)
    (tmp_path / "rank").symlink_to(disk)
    with Stage(tmp_path / "rank", {}, {}) as stage:
        write_table(stage.folder / "scores.parquet", pd.DataFrame({"latent": [3]}))
        stage.finish({})
    assert list(read_table(tmp_path / "rank" / "scores.parquet").latent) == [3]


def test_a_stage_of_an_older_schema_is_refused(tmp_path: Path) -> None:
    with Stage(tmp_path / "cache", {}, {}) as stage:
        (stage.folder / "out.txt").write_text("x")
        stage.finish({})
    path = tmp_path / "cache" / "manifest.json"
    write_json(path, read_json(path) | {"schema_version": 1})
    with pytest.raises(MissingInput, match=r"is of schema 1, .*`make cache`"):
        require_stage(tmp_path, "cache", {}, {})
