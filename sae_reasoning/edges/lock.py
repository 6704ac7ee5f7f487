"""One maker at a time, over processes and over machines that share a file system.

The lock is a file that its holder keeps locked (flock), so a killed holder frees it. It names the
work and who does it. The last holder removes it; a waiting process checks that what it has locked
is the file that others see, and starts again where it isn't.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

_log = logging.getLogger(__name__)

_BETWEEN_TRIES = 0.2
_TRIES_TO_OPEN = 3
_NO_LOCKS_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


class InUse(ValueError):
    """Another process is at other work in the same place; the message says which process."""


def is_held(file: Path) -> bool:
    """Whether another process has locked a file itself, as HDF5 does where it may write to it."""
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # No locks here.
            return False
    return False


class Lock:
    """A lock on `place`, for `work`.

    Args:
        place: What is to be written; the lock is beside it.
        work: Names what is made of it, exactly.
        shared: Whether others at the same work may hold it too.
    """

    def __init__(self, place: Path, work: str, *, shared: bool = False) -> None:
        self.path = place.with_name(f".{place.name}.lock")
        self._place, self._work, self._shared = place, work, shared
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Wait while another process is at the same work.

        Raises:
            InUse: It is at other work.
        """
        tries = 0
        while not self.take_at_once():
            holder = self._holder()
            # A holder that has just come may not have put its name in place of the last one's.
            if tries and holder.get("work", self._work) != self._work:
                raise InUse(
                    f"{self._place} is being made with other settings by {_named(holder)}; wait "
                    "until it ends, or name another folder by experiment=…"
                )
            if tries == 1:
                _log.warning("%s is being made by %s; waiting", self._place, _named(holder))
            tries += 1
            time.sleep(_BETWEEN_TRIES)

    def take_at_once(self) -> bool:
        """Take it if nobody is in the way; whether it's taken."""
        file = self._open()
        try:
            kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
            if not _flock(file, kind) or not self._is_seen(file):
                file.close()
                return False
            file.truncate(0)
            json.dump({"work": self._work, "pid": os.getpid(), "host": socket.gethostname()}, file)
            file.flush()
        except BaseException:
            file.close()
            raise
        self._file = file
        return True

    def free(self) -> None:
        """Let the next one in."""
        if self._file is None:
            return
        # Whoever shares it goes on, and the last one removes it.
        if not self._shared or _flock(self._file, fcntl.LOCK_EX):
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def _open(self) -> IO[str]:
        for tries_left in reversed(range(_TRIES_TO_OPEN)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self.path.open("a+", encoding="utf-8")
            except FileNotFoundError:  # Another process has just removed the folder, empty.
                if not tries_left:
                    raise
        raise AssertionError("it was opened, or the last try has raised")

    def _is_seen(self, file: IO[str]) -> bool:
        """Whether `file` is still what stands under its name."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _holder(self) -> dict[str, Any]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}


def _flock(file: IO[str], kind: int) -> bool:
    """Lock `file` if that can be done at once; true, too, where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    return True


def _named(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    host = "" if holder["host"] == socket.gethostname() else f" on {holder['host']}"
    return f"process {holder['pid']}{host}"
