import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.activation_format import (
    INDICES,
    RowIndex,
    StoreAttributes,
    shard_files,
    shard_path,
)
from sae_reasoning.edges.activation_layout import Layout, fill_shards, missing_shards
from sae_reasoning.edges.activation_store import (
    ActivationStore,
    StoreWriter,
    check_same_rows,
)
from sae_reasoning.edges.artifacts import BrokenArtifact, MissingInput
from sae_reasoning.edges.lm.read import ReadBatch
from sae_reasoning.edges.lock import InUse

D_MODEL = 6
LENGTHS = (7, 4, 9, 3, 8, 5)
FIRST_KEPT = (2, 1, 4, 3, 0, 1)


def attributes(layout: Layout, dtype: str = "float32") -> StoreAttributes:
    return StoreAttributes(
        model="reader",
        revision="",
        model_fingerprint="m",
        tokenizer_fingerprint="t",
        traces_fingerprint="r",
        layer=1,
        dtype=dtype,
        d_model=D_MODEL,
        num_traces=len(layout.first_kept),
        num_tokens=layout.num_tokens,
        num_shards=len(layout.shards),
    )


def read_backwards(sequences: Sequence[Sequence[int]]) -> Iterator[ReadBatch]:
    """A reader for which the residual at a token says (token, position); padding is NaN."""
    for start in range(0, len(sequences), 2):
        rows = list(range(len(sequences)))[::-1][start : start + 2]
        width = max(len(sequences[row]) for row in rows)
        resid = torch.full((len(rows), width, D_MODEL), torch.nan)
        is_token = torch.zeros(len(rows), width, dtype=torch.bool)
        for place, row in enumerate(rows):
            length = len(sequences[row])
            is_token[place, :length] = True
            resid[place, :length] = torch.tensor(sequences[row])[:, None].float()
            resid[place, :length, 1] = torch.arange(length).float()
        yield ReadBatch(rows, {1: resid}, is_token)


def make_store(
    folder: Path, dtype: str = "float32", shard_tokens: int = 12, scale: int = 1
) -> ActivationStore:
    """Traces whose token at position p of trace t is 100 t + p."""
    lengths = [length * scale for length in LENGTHS]
    layout = Layout.plan(lengths, FIRST_KEPT, shard_tokens)
    sequences = [[100 * t + p for p in range(n)] for t, n in enumerate(lengths)]
    writer = StoreWriter(folder, attributes(layout, dtype), [f"trace-{t}" for t in range(6)])
    assert sum(fill_shards({1: writer}, layout, sequences, read_backwards)) == sum(lengths)
    return ActivationStore.open(folder)


def make_rows(folder: Path, num_rows: int, shard_tokens: int = 64) -> ActivationStore:
    """A store of one-token traces whose row i is i."""
    layout = Layout.plan([1] * num_rows, [0] * num_rows, shard_tokens)
    writer = StoreWriter(folder, attributes(layout), ["trace"] * num_rows)
    for shard in range(len(layout.shards)):
        rows = layout.rows_of_shard(shard)
        index = np.arange(rows.start, rows.stop, dtype=np.int32)
        values = torch.from_numpy(index).float()[:, None].repeat(1, D_MODEL)
        writer.write(shard, values, RowIndex(index, index, np.zeros_like(index)))
    return ActivationStore.open(folder)


def taken(batches: Iterator[torch.Tensor], count: int) -> list[int]:
    return torch.cat([batch[:, 0] for batch in islice(batches, count)]).int().tolist()


def test_rows_stand_in_trace_order_and_only_kept_tokens_have_one(tmp_path):
    store = make_store(tmp_path / "layer_1")
    expected = [
        (t, p)
        for t, (n, first) in enumerate(zip(LENGTHS, FIRST_KEPT, strict=True))
        for p in range(first, n)
    ]
    assert list(zip(store.trace_index.tolist(), store.position.tolist(), strict=True)) == expected
    assert store.token_id.tolist() == [100 * t + p for t, p in expected]
    values = store.read(slice(None))
    assert values[:, 0].tolist() == store.token_id.tolist()
    assert values[:, 1].tolist() == store.position.tolist()
    assert store.row_of_trace.tolist() == [0, 5, 8, 13, 13, 21, 25]
    assert len(list((tmp_path / "layer_1").iterdir())) == store.attributes.num_shards == 3


def test_batches_give_the_rows_in_order_with_their_tokens(tmp_path):
    store = make_store(tmp_path / "layer_1")
    batches = list(store.batches(range(3, 20), size=6))
    assert [len(batch.activations) for batch in batches] == [6, 6, 5]
    for name in ("token_id", "trace_index", "position"):
        found = np.concatenate([getattr(batch, name) for batch in batches])
        assert found.tolist() == getattr(store, name)[3:20].tolist()
    assert torch.equal(torch.cat([b.activations for b in batches]), store.read(range(3, 20)))


def test_read_takes_any_rows_in_any_order(tmp_path):
    store = make_rows(tmp_path, 200)
    rows = np.array([150, 3, 4, 5, 63, 64, 3, 199])
    assert store.read(rows)[:, 0].tolist() == rows.tolist()
    assert store.read(torch.from_numpy(rows))[:, 2].tolist() == rows.tolist()
    assert store.read(np.array([], np.int64)).shape == (0, D_MODEL)
    with pytest.raises(IndexError, match="200 rows"):
        store.read(np.array([200]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_store_round_trips_its_dtype_exactly(tmp_path, dtype):
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    values = every.view(torch.bfloat16 if dtype == "bfloat16" else torch.float16)
    values = values[values.isfinite()][: 6000 * D_MODEL].reshape(-1, D_MODEL)
    values = values.to(getattr(torch, dtype))
    layout = Layout.plan([len(values)], [0], 10)
    writer = StoreWriter(tmp_path, attributes(layout, dtype), ["trace"])
    index = np.zeros(len(values), np.int32)
    writer.write(0, values, RowIndex(index, index, index))
    store = ActivationStore.open(tmp_path)
    assert store.dtype == dtype
    assert torch.equal(store.read(slice(None)), values.float())
    with h5py.File(shard_path(tmp_path, 0)) as file:
        assert file["activations"].chunks is None
        assert file["activations"].dtype == {"bfloat16": np.uint16}.get(dtype, dtype)
        assert file["activations"][:].tobytes() == values.view(torch.uint8).numpy().tobytes()


def test_an_epoch_of_shuffled_batches_visits_every_row_once(tmp_path):
    store = make_rows(tmp_path, 200)
    rows = range(10, 190)
    epochs = taken(store.shuffled_batches(20, seed=1, rows=rows, mixing_tokens=32), 18)
    first, second = epochs[:180], epochs[180:]
    assert sorted(first) == sorted(second) == list(rows)
    assert first != second
    assert abs(np.corrcoef(first, list(rows))[0, 1]) < 0.3


def test_a_batch_may_be_larger_than_the_rows_there_are(tmp_path):
    store = make_rows(tmp_path, 7)
    assert sorted(taken(store.shuffled_batches(14, seed=0), 1)) == sorted([*range(7), *range(7)])
    with pytest.raises(ValueError, match="no rows to shuffle"):
        next(store.shuffled_batches(4, seed=0, rows=range(3, 3)))


@pytest.mark.parametrize("skip", [1, 3, 9, 23])
def test_shuffled_batches_depend_on_the_seed_alone_and_can_be_skipped(tmp_path, skip):
    store = make_rows(tmp_path, 100)

    def stream(seed: int, skip_batches: int = 0) -> Iterator[torch.Tensor]:
        return store.shuffled_batches(
            11, seed, mixing_tokens=40, skip_batches=skip_batches, rows=range(0, 97)
        )

    whole = taken(stream(5), 30)
    assert whole == taken(stream(5), 30)
    assert whole != taken(stream(6), 30)
    assert whole[11 * skip :] == taken(stream(5, skip), 30 - skip)


def test_mixing_holds_no_more_than_its_buffer(tmp_path):
    d_model, num_rows = 256, 60_000  # 61 MB on disk
    layout = Layout.plan([1] * num_rows, [0] * num_rows, 20_000)
    attrs = replace(attributes(layout), d_model=d_model)
    writer = StoreWriter(tmp_path, attrs, ["trace"] * num_rows)
    for shard in range(3):
        index = np.arange(20_000, dtype=np.int32) + 20_000 * shard
        writer.write(shard, torch.zeros(20_000, d_model), RowIndex(index, index, index))
    script = (
        "import resource, sys; from itertools import islice; from pathlib import Path\n"
        "from sae_reasoning.edges.activation_store import ActivationStore\n"
        "store = ActivationStore.open(Path(sys.argv[1]))\n"
        "stream = store.shuffled_batches(512, 0, mixing_tokens=4096)\n"
        "next(stream)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _ in islice(stream, 200): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    buffer_kib = 4096 * d_model * 4 / 1024
    assert int(done.stdout) < 3 * buffer_kib


def test_shards_hold_whole_traces_up_to_their_size():
    layout = Layout.plan([5, 5, 30, 2, 0, 2], [0, 1, 0, 0, 0, 5], shard_tokens=10)
    assert layout.shards == (range(0, 2), range(2, 3), range(3, 6))
    assert [len(layout.rows_of_shard(shard)) for shard in range(3)] == [9, 30, 2]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (torch.nan, "float32", r"are NaN on trace trace-2, position 5; set the model's dtype"),
        (1e6, "float16", r"layer 1 are infinite on trace trace-2, .*set cache.dtype=bfloat16"),
        (torch.inf, "bfloat16", r"are infinite .*set the model's dtype=float32"),
    ],
)
def test_values_that_are_not_finite_are_refused_by_trace(tmp_path, value, dtype, message):
    def read(sequences: Sequence[Sequence[int]]) -> Iterator[ReadBatch]:
        for batch in read_backwards(sequences):
            batch.residuals[1][batch.residuals[1][..., 0] == 205] = value
            yield batch

    layout = Layout.plan(LENGTHS, FIRST_KEPT, 12)
    sequences = [[100 * t + p for p in range(n)] for t, n in enumerate(LENGTHS)]
    writer = StoreWriter(tmp_path, attributes(layout, dtype), [f"trace-{t}" for t in range(6)])
    with pytest.raises(ConfigError, match=message) as error:
        list(fill_shards({1: writer}, layout, sequences, read))
    assert "\n" not in str(error.value)
    assert missing_shards([writer], layout)[0] == 1  # What was whole before stays.


def test_missing_shards_and_stores_are_named(tmp_path):
    with pytest.raises(MissingInput, match="make cache"):
        ActivationStore.open(tmp_path / "layer_1")
    make_store(tmp_path / "layer_1")
    shard_path(tmp_path / "layer_1", 1).unlink()
    with pytest.raises(BrokenArtifact, match=r"shard_00001.h5 is missing"):
        ActivationStore.open(tmp_path / "layer_1")


def test_a_missing_last_shard_is_noticed(tmp_path):
    make_store(tmp_path)
    shard_path(tmp_path, 2).unlink()
    with pytest.raises(BrokenArtifact, match=r"shard_00002.h5 is missing of 3"):
        ActivationStore.open(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_shard_cut_short_is_refused(tmp_path, share):
    make_store(tmp_path, scale=4)
    path = shard_path(tmp_path, 1)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BrokenArtifact, match=r"cut short.*make cache") as error:
        ActivationStore.open(tmp_path)
    assert "\n" not in str(error.value)


def test_a_shard_cut_short_while_open_is_noticed(tmp_path):
    store = make_store(tmp_path)
    path = shard_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:2200])
    with pytest.raises(BrokenArtifact, match="cut short while"):
        store.read(slice(None))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema_version", 99, "schema 99, this version reads 1"),
        ("model_fingerprint", "other", "foreign .model_fingerprint=other"),
        ("tokenizer_fingerprint", "other", "foreign .tokenizer_fingerprint=other"),
        ("layer", 3, "of layer 3"),
        ("shard", 0, "says that it is shard 0"),
        ("num_rows", 3, "another shape"),
        ("model", None, "lacks an attribute"),
    ],
)
def test_a_foreign_shard_is_refused(tmp_path, name, value, message):
    folder = tmp_path / "layer_1"
    make_store(folder)
    with h5py.File(shard_path(folder, 1), "a") as file:
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value
    with pytest.raises(BrokenArtifact, match=message):
        ActivationStore.open(folder)


def test_a_store_of_another_model_is_refused_where_one_is_expected(tmp_path):
    make_store(tmp_path)
    assert ActivationStore.open(tmp_path, {"model_fingerprint": "m", "layer": 1}).layer == 1
    with pytest.raises(BrokenArtifact, match="model_fingerprint=m, wanted is other"):
        ActivationStore.open(tmp_path, {"model_fingerprint": "other"})


def test_stores_of_other_rows_are_told_apart(tmp_path):
    one, same = make_store(tmp_path / "a"), make_store(tmp_path / "b", dtype="float16")
    check_same_rows(one, same)
    with pytest.raises(BrokenArtifact, match="other rows"):
        check_same_rows(one, make_rows(tmp_path / "c", 25))


def test_a_full_disk_is_one_line_and_harms_no_shard(tmp_path):
    make_store(tmp_path, shard_tokens=400, scale=40)
    whole = shard_path(tmp_path, 0).read_bytes()
    for number in range(1, len(list(tmp_path.iterdir()))):
        shard_path(tmp_path, number).unlink()
    layout = Layout.plan([length * 40 for length in LENGTHS], FIRST_KEPT, 400)
    writer = StoreWriter(tmp_path, attributes(layout), ["trace"] * 6)
    index = np.zeros(len(layout.rows_of_shard(1)), np.int32)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(ConfigError, match=r"can't be written .*set runs=") as error:
            writer.write(1, torch.zeros(len(index), D_MODEL), RowIndex(index, index, index))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["shard_00000.h5"]
    assert shard_path(tmp_path, 0).read_bytes() == whole


@pytest.fixture
def held_shard(tmp_path: Path) -> Iterator[Path]:
    """A whole shard that another process holds open for writing."""
    make_store(tmp_path)
    path = shard_path(tmp_path, 1)
    hold = f"import h5py; file = h5py.File({str(path)!r}, 'r+'); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        yield path
        holder.communicate(b"\n")


def test_a_shard_that_another_process_holds_is_in_use_not_broken(held_shard):
    with pytest.raises(InUse, match=r"in use by .*HDF5_USE_FILE_LOCKING") as error:
        ActivationStore.open(held_shard.parent)
    assert str(held_shard) in str(error.value)
    assert "delete" not in str(error.value)
    assert "\n" not in str(error.value)


def test_what_the_system_refuses_to_read_is_not_called_broken(tmp_path):
    make_store(tmp_path)
    path = shard_path(tmp_path, 1)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"can't be read \(Is a directory") as error:
        ActivationStore.open(tmp_path)
    assert "delete" not in str(error.value)
    path.rmdir()
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(BrokenArtifact, match=r"shard_00001\.h5 is missing"):
        ActivationStore.open(tmp_path)


def test_a_shard_without_a_kept_token_is_written_and_read(tmp_path):
    layout = Layout.plan([3, 9, 2, 4], [3, 1, 2, 0], 6)
    assert [len(layout.rows_of_shard(shard)) for shard in range(3)] == [0, 8, 4]
    writer = StoreWriter(tmp_path, attributes(layout), ["trace"] * 4)
    sequences = [[100 * t + p for p in range(n)] for t, n in enumerate((3, 9, 2, 4))]
    assert sum(fill_shards({1: writer}, layout, sequences, read_backwards)) == 18
    store = ActivationStore.open(tmp_path)
    assert store.trace_index.tolist() == [1] * 8 + [3] * 4
    assert store.read(slice(None))[:, 0].tolist() == store.token_id.tolist()
    assert store.read(np.array([7, 8]))[:, 0].tolist() == [108, 300]


def test_a_store_in_which_no_token_is_kept_is_written_and_read(tmp_path):
    layout = Layout.plan([3, 2], [3, 2], 6)
    writer = StoreWriter(tmp_path, attributes(layout), ["trace"] * 2)
    assert sum(fill_shards({1: writer}, layout, [[1, 2, 3], [4, 5]], read_backwards)) == 5
    store = ActivationStore.open(tmp_path)
    assert store.read(slice(None)).shape == (0, D_MODEL)
    assert list(store.batches(None, 4)) == []


def test_shards_stand_in_the_order_of_their_numbers_beyond_five_digits(tmp_path):
    numbers = [0, 7, 10_000, 99_999, 100_000, 100_001, 1_000_000]
    for number in reversed(numbers):
        shard_path(tmp_path, number).touch()
    assert shard_files(tmp_path) == [shard_path(tmp_path, number) for number in numbers]


def test_all_room_is_reserved_before_the_first_value_is_written(tmp_path, monkeypatch):
    reserved: list[bool] = []
    write = h5py.Dataset.__setitem__

    def look_and_write(dataset: h5py.Dataset, *args: object) -> None:
        stat = os.stat(dataset.file.filename)
        reserved.append(stat.st_blocks * 512 >= stat.st_size > dataset.nbytes)
        write(dataset, *args)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", look_and_write)
    store = make_rows(tmp_path, 100_000, shard_tokens=100_000)
    assert reserved == [True] * (len(INDICES) + 2)  # Activations and norms beside them.
    assert store.read(np.array([99_999]))[0, 0] == 99_999


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_filesystem_that_cannot_reserve_is_written_all_the_same(tmp_path, monkeypatch, number):
    def refuse(*_args: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert make_rows(tmp_path, 8).read(slice(None))[:, 0].tolist() == list(range(8))


def test_a_disk_that_fills_up_while_room_is_reserved_is_refused(tmp_path, monkeypatch):
    def refuse(*_args: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ConfigError, match=r"No space left on device.*set runs="):
        make_rows(tmp_path, 8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("skip", [0, 1, 5, 13])
def test_rows_that_take_no_part_are_in_no_batch_and_others_once_an_epoch(tmp_path, skip):
    store = make_store(tmp_path, scale=4)
    rows = range(3, store.num_tokens - 2)
    kept = np.ones(store.num_tokens, bool)
    kept[[5, 6, 20, 21, 22, 40]] = False
    every = sum(kept[rows.start : rows.stop])

    def stream(skipped: int) -> Iterator[torch.Tensor]:
        return store.shuffled_batches(
            7, seed=3, rows=rows, mixing_tokens=16, skip_batches=skipped, kept=kept
        )

    whole = list(islice(stream(0), 30))
    seen = torch.cat(whole)[:every]
    wanted = store.read(np.array([row for row in rows if kept[row]]))
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, wanted.tolist()))
    assert torch.equal(torch.stack(list(islice(stream(skip), 10))), torch.stack(whole[skip:][:10]))
    inside = [batch.activations for batch in store.batches(rows, 3, kept)]
    assert torch.equal(torch.cat(inside), wanted)


def test_norms_are_the_same_however_rows_are_cut_into_shards(tmp_path):
    norms = [
        make_store(tmp_path / str(size), "float16", size, scale=6).norm for size in (12, 40, 1000)
    ]
    assert np.array_equal(norms[0], norms[1])
    assert np.array_equal(norms[0], norms[2])
    store = ActivationStore.open(tmp_path / "12")
    np.testing.assert_allclose(norms[0], store.read(slice(None)).norm(dim=1), rtol=1e-6)
