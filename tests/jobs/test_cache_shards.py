"""A corpus split among workers: files of their own, the same bytes, what is lost redone alone."""

import multiprocessing
import shutil
import threading
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from jobs.test_cache import contents, put_traces, run

from sae_reasoning.config import CacheConfig, Config, ConfigError
from sae_reasoning.edges.activation_format import StoreAttributes, shard_path
from sae_reasoning.edges.activation_layout import Layout, fill_shards, row_index
from sae_reasoning.edges.activation_store import ActivationStore, StoreWriter
from sae_reasoning.edges.artifacts import Manifest, MissingInput, require_stage
from sae_reasoning.edges.lm.read import ReadBatch

NUM_SHARDS = 3


def worker(cfg: Config, shard: int, only: str = "") -> Config:
    """The same experiment, of which one worker makes its part."""
    return replace(cfg, cache=replace(cfg.cache, num_shards=NUM_SHARDS, shard=shard, only=only))


@pytest.fixture
def split_config(tiny_config: Config) -> Config:
    """An experiment with some ten files a reader and layer."""
    tiny_config.cache.shard_tokens, tiny_config.cache.token_budget = 200, 400
    put_traces(tiny_config, num_traces=60)
    return tiny_config


@pytest.fixture
def by_one(split_config: Config) -> dict[str, bytes]:
    """What a single process writes; it's removed again."""
    run(split_config)
    folder = split_config.folder / "cache"
    whole = contents(folder)
    shutil.rmtree(folder)
    return whole


def start(cfg: Config) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=run, args=(cfg,))
    process.start()
    return process


def partial_of(cfg: Config) -> Path:
    (partial,) = cfg.folder.glob("cache.partial-*")
    return partial


def test_workers_at_the_same_time_write_the_bytes_that_one_writes(split_config, by_one):
    workers = [start(worker(split_config, shard)) for shard in range(NUM_SHARDS)]
    for process in workers:
        process.join()
        assert process.exitcode == 0
    assert contents(split_config.folder / "cache") == by_one
    manifest = Manifest.read(split_config.folder / "cache")
    assert manifest == run(split_config)[0]  # One worker, too, finds it up to date.
    assert {path.name for path in split_config.folder.iterdir()} == {"traces", "cache"}


def test_readers_may_be_split_as_well(split_config, by_one):
    parts = [(shard, only) for only in ("rl", "base") for shard in range(NUM_SHARDS)]
    for shard, only in parts:
        assert not (split_config.folder / "cache").exists()
        manifest, _ = run(worker(split_config, shard, only))
    assert manifest is not None
    assert set(manifest.counts) == {"traces", "rows", "outlying", "base", "rl"}
    assert contents(split_config.folder / "cache") == by_one


def test_a_killed_worker_is_named_and_its_shard_is_redone_alone(split_config, by_one):
    killed = start(worker(split_config, 1))
    deadline = time.monotonic() + 60
    while len(list(split_config.folder.glob("cache.partial-*/*/*/shard_*.h5"))) < 3:
        assert killed.is_alive(), "the worker ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.join()
    done_before = set(partial_of(split_config).rglob("shard_*.h5"))
    assert {int(path.stem[6:]) % NUM_SHARDS for path in done_before} == {1}
    for shard in (0, 2):
        manifest, shown = run(worker(split_config, shard))
        assert manifest is None
    assert "cache.num_shards=3 cache.shard=1" in shown
    with pytest.raises(MissingInput) as refusal:
        require_stage(split_config.folder, "cache", split_config.settings("cache"), {})
    assert "shard_00" in str(refusal.value)
    assert '`make cache ARGS="cache.num_shards=3 cache.shard=1"`' in str(refusal.value)
    assert "shard=2" not in str(refusal.value)
    written = {
        path.relative_to(partial_of(split_config)): path.stat().st_mtime_ns
        for path in partial_of(split_config).rglob("shard_*.h5")
    }
    manifest, _ = run(worker(split_config, 1))
    folder = split_config.folder / "cache"
    assert manifest is not None
    assert contents(folder) == by_one
    assert all((folder / path).stat().st_mtime_ns == at for path, at in written.items())


def test_a_file_that_a_finished_cache_has_lost_is_remade_alone(split_config, by_one):
    run(split_config)
    folder = split_config.folder / "cache"
    lost = shard_path(folder / "rl" / "layer_1", 2)
    short = shard_path(folder / "base" / "layer_0", 4)
    lost.unlink()
    short.write_bytes(short.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"shard_00002.h5 is missing; run `make cache` again"):
        ActivationStore.open(lost.parent)
    kept = {
        path.relative_to(folder): path.stat().st_mtime_ns
        for path in folder.rglob("shard_*.h5")
        if path != short
    }
    _, shown = run(split_config)
    assert f"{len(kept)} there" in shown
    assert contents(folder) == by_one
    assert all((folder / path).stat().st_mtime_ns == at for path, at in kept.items())


def test_a_file_that_another_worker_is_making_is_left_to_it(tmp_path):
    layout = Layout.plan([4, 4, 4], [0, 0, 0], shard_tokens=4)
    sequences = [(5, 6, 7, 8)] * 3
    said = StoreAttributes("m", "", "m", "t", "r", 1, "float32", 2, 3, 12, 3)
    writer = StoreWriter(tmp_path / "layer_1", said, ["a", "b", "c"])

    def read(group):
        tokens = torch.ones(1, 4, dtype=torch.bool)
        for row in range(len(group)):
            yield ReadBatch([row], {1: torch.zeros(1, 4, 2)}, tokens)

    other = writer.lock(1)
    other.take()
    filling = threading.Thread(
        target=lambda: list(fill_shards({1: writer}, layout, sequences, read))
    )
    filling.start()
    deadline = time.monotonic() + 30
    while not writer.has(0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    assert filling.is_alive()
    assert not writer.has(2)
    index = row_index(layout, layout.shards[1], sequences[1:2])
    writer.write(1, torch.full((4, 2), 7.0), index)  # What only the other would write.
    other.free()
    filling.join(30)
    store = ActivationStore.open(writer.folder)
    assert store.read(range(12))[:, 0].tolist() == [0.0] * 4 + [7.0] * 4 + [0.0] * 4
    assert {path.name for path in writer.folder.iterdir()} == {
        f"shard_0000{i}.h5" for i in range(3)
    }


def test_more_workers_than_files_are_refused(split_config):
    split_config.cache.shard_tokens = 100_000
    with pytest.raises(ConfigError, match=r"num_shards=3 exceeds the 1 files.*shard_tokens=\d"):
        run(worker(split_config, 0))


def test_a_worker_beyond_the_last_is_refused():
    with pytest.raises(ConfigError, match=r"cache.shard=4 is none of cache.num_shards=4; .* to 3"):
        CacheConfig(num_shards=4, shard=4)


def test_how_the_work_is_split_enters_no_fingerprint(split_config):
    whole = split_config.settings("cache")
    assert worker(split_config, 2, "rl").settings("cache") == whole
    assert worker(split_config, 0).is_partial("cache")
    only_cut = replace(split_config, cache=replace(split_config.cache, num_shards=4))
    assert not only_cut.is_partial("cache")
