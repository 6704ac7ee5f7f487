"""Large files are hashed once, until anything of them changes."""

import os
import time
from pathlib import Path

import pytest

from sae_reasoning.config import PairConfig
from sae_reasoning.edges import hashing
from sae_reasoning.edges.artifacts import fingerprint_files
from sae_reasoning.edges.lm.load import describe, load


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of weight files as they are opened to be hashed; every file counts as large and old."""
    monkeypatch.setenv("SAE_REASONING_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(hashing, "_LARGE", 0)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    opened: list[str] = []
    open_file = Path.open

    def note(path: Path, *args: object, **options: object) -> object:
        if path.suffix == ".safetensors" and args == ("rb",):
            opened.append(path.name)
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", note)
    return opened


def test_weights_are_hashed_once_however_many_ask(
    tiny_pair: PairConfig, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = describe(tiny_pair.base)
    assert load(tiny_pair.base, "cpu").facts == describe(tiny_pair.base) == facts
    assert reads == ["model.safetensors"]
    monkeypatch.setattr(hashing, "_LARGE", 1 << 40)  # As if nothing were ever kept.
    assert describe(tiny_pair.base) == facts


def test_content_of_the_same_size_and_time_is_hashed_anew(tmp_path: Path, reads: list[str]) -> None:
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(b"one")
    before = fingerprint_files(tmp_path, "*.safetensors")
    stat = weights.stat()
    time.sleep(0.02)  # Longer than a tick of the filesystem's clock.
    weights.write_bytes(b"two")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights.stat().st_mtime_ns == stat.st_mtime_ns
    assert fingerprint_files(tmp_path, "*.safetensors") != before
    other = tmp_path / "b.safetensors"
    other.write_bytes(b"one")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(weights)
    assert fingerprint_files(tmp_path, "*.safetensors") == before
    assert len(reads) == 3


def test_a_file_that_may_still_be_written_is_hashed_each_time(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(b"one")
    monkeypatch.setattr(time, "time", lambda: weights.stat().st_mtime + 1)
    found = {fingerprint_files(tmp_path, "*.safetensors") for _ in range(2)}
    assert len(found) == 1
    assert len(reads) == 2


def test_a_hash_that_was_cut_short_or_cannot_be_kept_is_made_anew(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    found = fingerprint_files(tmp_path, "*.safetensors")
    (kept,) = (tmp_path / "kept" / "hashes").iterdir()
    kept.write_text(found[:7])
    assert fingerprint_files(tmp_path, "*.safetensors") == found
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAE_REASONING_CACHE", str(tmp_path / "file"))
    assert fingerprint_files(tmp_path, "*.safetensors") == found
    assert len(reads) == 3
