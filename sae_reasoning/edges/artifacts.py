"""Folders of results that are whole, current and never lost.

A stage works in `<stage>.partial-<fingerprint>` beside its final folder and takes the final name
only when everything is there, so what was made before is kept until what replaces it is whole. A
killed stage leaves its partial folder, and the same config resumes in it; another config starts
another. The fingerprint covers the stage's own config and its inputs' fingerprints. Of processes
that would make a stage at the same time, one does; see lock.py. A stage may be made in parts, by
many processes on many machines: each makes its part in the same partial folder, and whoever is the
last gives it its final name.
"""

import dataclasses
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sae_reasoning.edges.files import publish, sync_folder
from sae_reasoning.edges.hashing import hash_files
from sae_reasoning.edges.lock import Lock, is_held
from sae_reasoning.edges.provenance import package_versions, revision

SCHEMA_VERSION = 2
_PARTS_FILE = "parts.json"
_SMALL = 1 << 20  # Bytes up to which a file's content is compared too, and not its size alone.
_MOST_NAMED = 4  # Missing parts that a message has the commands of.


class MissingInput(ValueError):
    """An input that isn't there; the message names the target that makes it."""


class NotMade(MissingInput):
    """An input that isn't there at all; made from other things than now, or in parts, is else."""


class BrokenArtifact(ValueError):
    """A file that is cut short, foreign or of another schema."""


def write_json(path: Path, content: Any) -> None:
    """Publish `content` as indented JSON; dataclasses become objects."""
    with publish(path) as partial:
        text = json.dumps(_plain(content), indent=2, ensure_ascii=False)
        partial.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        BrokenArtifact: The file isn't whole JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenArtifact(f"{path} is not whole JSON ({error}); delete it and rerun") from error


def fingerprint(content: Any) -> str:
    """Sixteen hex digits that change with any value in `content`."""
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(path: Path) -> str:
    """Fingerprint of one file, or "" where there is none."""
    return hash_files([path]) if path.is_file() else ""


def fingerprint_files(folder: Path, pattern: str = "*") -> str:
    """Fingerprint of file names, sizes and contents."""
    return hash_files(sorted(p for p in folder.glob(pattern) if p.is_file()))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What made a stage's folder, and what is in it: sizes of files, digests of the small ones."""

    stage: str
    fingerprint: str
    schema_version: int
    config: Any
    inputs: dict[str, str]
    packages: dict[str, str]
    git_revision: str | None
    seconds: float
    counts: dict[str, Any]
    files: dict[str, int]
    digests: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest of a finished stage, or None."""
        path = folder / "manifest.json"
        return cls(**read_json(path)) if path.exists() else None

    def damage(self, folder: Path) -> str:
        """The first of the files that isn't as it was written, and what is wrong, or ""."""
        return next(filter(None, (self.flaw(folder / name, name) for name in self.files)), "")

    def flaw(self, path: Path, name: str) -> str:
        """What is wrong with one of the files, or ""."""
        if not path.is_file():
            return f"{path} is missing"
        there, written = path.stat().st_size, self.files.get(name)
        if there != written:
            return f"{path} has {there:,} bytes, not the {written:,} that were written"
        is_changed = name in self.digests and digest(path) != self.digests[name]
        # Whoever opens it next is told that it's in use; HDF5 marks a file that it may write to.
        return f"{path} has been changed" if is_changed and not is_held(path) else ""


@dataclasses.dataclass(frozen=True)
class Part:
    """What one of several makers of a stage makes of it.

    Attributes:
        options: What asks for it on the command line.
        files: What it consists of, below the stage's folder.
    """

    options: str
    files: tuple[str, ...]


class Stage:
    """One stage's folder, from plan to published result.

    with Stage(root / "cache", config, inputs) as stage:
        if not stage.is_current:
            ...write below stage.folder...
            stage.finish(counts)

    While it's being made no other process makes it: one that would make the same waits, and one
    that would make it otherwise is refused.

    Args:
        final: The folder when it's finished.
        config: What its content depends on.
        inputs: Fingerprints of what it's made from.
        shared: Only a part is made, which others may do with their parts at the same time; who
            finds itself the last may `take_over` and finish the stage.
        mends: Whether a finished folder that has lost files is gone on from, with what is left.
        schema: Version of how its content is laid out.
    """

    def __init__(
        self,
        final: Path,
        config: Any,
        inputs: Mapping[str, str],
        *,
        shared: bool = False,
        mends: bool = False,
        schema: int = SCHEMA_VERSION,
    ) -> None:
        self._schema = schema
        self.final, self._real = final, _behind_link(final)
        self.config, self.inputs = _plain(config), dict(inputs)
        self.fingerprint = fingerprint(
            {
                "stage": final.name,
                "schema": schema,
                "config": self.config,
                "inputs": self.inputs,
            }
        )
        self.folder = self._real.with_name(f"{_partial_stem(final)}-{self.fingerprint}")
        self._shared, self._mends = shared, mends
        self._lock = Lock(self._real, self.fingerprint, shared=shared)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._is_current_unlocked():
            return self
        self._lock.take()
        try:
            self._prepare()
        except BaseException:
            self._lock.free()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with suppress(OSError):
                self.folder.rmdir()  # Where nothing was written.
        finally:
            self._lock.free()

    def _is_current_unlocked(self) -> bool:
        """`is_current`, while another process may be renaming what is looked at."""
        try:
            return self.is_current
        except FileNotFoundError:
            return False

    def _prepare(self) -> None:
        old = self._old
        if old.exists() and not self._real.exists():
            os.replace(old, self._real)  # A kill fell between the two renames of `finish`.
        if self.is_current:
            self._lock.free()  # Made while this process waited.
            return
        if self._mends:
            self._keep_what_is_whole()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._shared:
            self._clear_up()

    def _keep_what_is_whole(self) -> None:
        """Go on from a finished folder some of whose files are lost or cut short."""
        with suppress(OSError):  # Another maker of a part is at it, too.
            manifest = self.manifest
            if manifest is None or manifest.fingerprint != self.fingerprint:
                return
            for name in _sizes(self._real):
                if name not in manifest.files or manifest.flaw(self._real / name, name):
                    (self._real / name).unlink()
            os.replace(self._real, self.folder)  # Refused if there is a partial folder already.
            (self.folder / "manifest.json").unlink()

    def _clear_up(self) -> None:
        """Remove what kills within `publish`, or under a lock, have left."""
        for pattern in (".*.tmp", ".*.lock"):
            for leftover in self.folder.rglob(pattern):
                leftover.unlink()

    def note_parts(self, parts: Sequence[Part]) -> None:
        """Write down which parts make up the stage, so that a missing one can be named."""
        write_json(self.folder / _PARTS_FILE, list(parts))

    def take_over(self) -> bool:
        """Leave the part; whether nobody else is at one, so that this process may finish it all."""
        self._lock.free()
        self._lock = Lock(self._real, self.fingerprint)
        if not self._lock.take_at_once():
            return False
        self._shared = False
        return True

    def missing_parts(self) -> list[Part]:
        """Parts that aren't whole yet, of those that were noted."""
        return _missing_parts(self.folder)

    @property
    def _old(self) -> Path:
        return self._real.with_name(f"{self._real.name}.old")

    @property
    def is_resuming(self) -> bool:
        """Whether an earlier, unfinished run of the same config left work to go on from."""
        return self.folder.exists() and any(self.folder.iterdir())

    @property
    def manifest(self) -> Manifest | None:
        """Manifest of the finished folder, current or not."""
        return Manifest.read(self.final)

    @property
    def is_current(self) -> bool:
        """Whether the finished folder is what this config and these inputs make, and whole."""
        manifest = self.manifest
        return (
            manifest is not None
            and manifest.fingerprint == self.fingerprint
            and _sizes(self._real).keys() <= manifest.files.keys()
            and not manifest.damage(self._real)
        )

    def finish(self, counts: Mapping[str, Any]) -> Manifest:
        """Give the folder its final name; remove what it replaces and stale partial folders."""
        assert not self._shared, "others may still be at their parts"
        self._clear_up()
        (self.folder / _PARTS_FILE).unlink(missing_ok=True)
        manifest = Manifest(
            stage=self.final.name,
            fingerprint=self.fingerprint,
            schema_version=self._schema,
            config=self.config,
            inputs=self.inputs,
            packages=package_versions(),
            git_revision=revision(),
            seconds=round(time.monotonic() - self._started, 2),
            counts=_plain(dict(counts)),
            files=_sizes(self.folder),
            digests={
                name: digest(self.folder / name)
                for name, size in _sizes(self.folder).items()
                if size <= _SMALL
            },
        )
        write_json(self.folder / "manifest.json", manifest)
        _remove(self._old)
        if self._real.exists():
            os.replace(self._real, self._old)
        os.replace(self.folder, self._real)
        sync_folder(self._real.parent)
        for stale in (self._old, *_partials(self.final)):
            _remove(stale)
        return manifest


def _behind_link(final: Path) -> Path:
    """Where a stage's folder really is: what is made again stays on the disk that it's linked to.

    Raises:
        BrokenArtifact: The link leads nowhere, or to a disk's root, which can't be replaced.
    """
    if not final.is_symlink():
        return final
    real = final.resolve()
    if not real.parent.is_dir() or real.is_mount():
        why = "is a disk by itself" if real.is_mount() else "isn't there"
        raise BrokenArtifact(
            f"{final} is a link to {real}, which {why}; link it to a folder below, mount what is "
            "missing, or remove the link"
        )
    return real


def _partial_stem(final: Path) -> str:
    """What partial folders' names begin with; beyond a link the stage is named too (schema.py)."""
    names = dict.fromkeys((_behind_link(final).name, final.name))
    return f"{'.'.join(names)}.partial"


def _partials(final: Path) -> list[Path]:
    return sorted(_behind_link(final).parent.glob(f"{glob.escape(_partial_stem(final))}-*"))


def _remove(folder: Path) -> None:
    """Remove a folder, of a link only itself."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def require_stage(
    root: Path, name: str, settings: Mapping[str, Any], now: Mapping[str, str]
) -> Manifest:
    """The manifest of a finished input stage that is what the config now asks for, and whole.

    Args:
        root: Folder of the experiment on the pair.
        name: The stage.
        settings: Its part of the config (`Config.settings`); of `layers` and `behaviours` it may
            have been made for more.
        now: Fingerprints of what is read that no stage makes (`outside_inputs`), by input.

    Raises:
        NotMade: The stage hasn't been run; the message names its target.
        MissingInput: It hasn't been run with this config, or not on the inputs that are there now,
            or has lost files since; likewise.
    """
    manifest = Manifest.read(root / name)
    if manifest is None:
        _refuse_parts(root, name)
        raise NotMade(f"{root / name} is missing; run `make {name}` first, with the same options")
    if manifest.schema_version != SCHEMA_VERSION:
        raise MissingInput(
            f"{root / name} is of schema {manifest.schema_version}, this version reads "
            f"{SCHEMA_VERSION}; run `make {name}` with the same options to make it again"
        )
    if change := _first_change(manifest.config, _plain(settings)):
        raise MissingInput(
            f"{root / name} was made with another config ({change}); run `make {name}` with the "
            "same ARGS first"
        )
    _refuse_stale(root, name, manifest, now)
    if damage := manifest.damage(root / name):
        raise MissingInput(
            f"{root / name} isn't whole any more: {damage}; run `make {name}` with the same "
            "options to make it again"
        )
    return manifest


def _refuse_stale(root: Path, name: str, made: Manifest, now: Mapping[str, str]) -> None:
    """Raise `MissingInput` if a stage, or one that it rests on, was made from other inputs."""
    for source, made_from in made.inputs.items():
        upstream = Manifest.read(root / source)
        found = upstream.fingerprint if upstream else now.get(source, made_from)
        if found != made_from:
            raise MissingInput(
                f"{root / name} was made from another {source} than there is now; run "
                f"`make {name}` first"
            )
        if upstream:
            _refuse_stale(root, source, upstream, now)


def _refuse_parts(root: Path, name: str) -> None:
    """Raise `MissingInput` if a stage is there in parts only."""
    for folder in _partials(root / name):
        if not (folder / _PARTS_FILE).exists():
            continue
        missing = _missing_parts(folder)
        if not missing:
            raise MissingInput(
                f"all parts of {root / name} are made, but nobody has put them together; run "
                f"`make {name}` with the same options"
            )
        lost = next(file for file in missing[0].files if not (folder / file).exists())
        commands = [f'`make {name} ARGS="{part.options}"`' for part in missing]
        if len(commands) > _MOST_NAMED:
            commands[_MOST_NAMED:] = [f"{len(commands) - _MOST_NAMED} more like these"]
        raise MissingInput(
            f"{root / name} is in parts, and {len(missing)} of them not whole: {folder / lost} is "
            f"missing; run {', '.join(commands)}, with the other options as they were"
        )


def _missing_parts(folder: Path) -> list[Part]:
    parts = [Part(p["options"], tuple(p["files"])) for p in read_json(folder / _PARTS_FILE)]
    return [part for part in parts if not all((folder / file).exists() for file in part.files)]


def _first_change(made: Any, wanted: Any, option: str = "") -> str:
    """The first option that differs, or "" where `made` serves."""
    if isinstance(made, dict) and isinstance(wanted, dict):
        for key in {**wanted, **made}:
            inner = f"{option}.{key}".lstrip(".")
            if change := _first_change(made.get(key), wanted.get(key), inner):
                return change
        return ""
    if option in ("layers", "behaviours") and isinstance(made, list) and set(wanted) <= set(made):
        return ""
    return "" if made == wanted else f"{option}={made}, now {wanted}"


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def _plain(content: Any) -> Any:
    """`content` in JSON's types."""
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {f.name: _plain(getattr(content, f.name)) for f in dataclasses.fields(content)}
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, Path):
        return str(content)
    return content
