"""What the operating system refused, in one line: an input that can't be read, or no room."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from sae_reasoning.config import Config

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What only writing comes to."""


def refused(error: OSError, config: Config) -> str:
    """What the operating system refused, what it was wanted for, and the remedy.

    Args:
        error: Raised by it, so it has a number.
        config: Its options name what is read and where is written.
    """
    reason = (error.strerror or str(error)).splitlines()[0]
    path = _path_of(error)
    place = f" ({path})" if path else ""
    kept = "what was made before is kept"
    if error.errno not in _OF_WRITING and (read := _option_of(path, _inputs(config))):
        return f"{read} can't be read: {reason}{place}; mend it or name another, and run it again"
    if written := _option_of(path, _outputs(config)):
        if error.errno == errno.ENOENT:
            return (
                f"{path} is gone, which was made below {written}: {reason}; make its stage again, "
                f"and let nothing else remove what is there; {kept}"
            )
    elif error.errno in _OF_WRITING:
        written = f"runs={config.runs}"
    else:
        return f"{reason}{place}; {kept}; mend that, and run it again"
    option = written.partition("=")[0]
    return (
        f"{reason}{place} while writing to {written}; {kept}; make room or permit writing, or "
        f"set {option}=… elsewhere, and run it again"
    )


def _path_of(error: OSError) -> str:
    """The file that was refused; some errors have a descriptor for it, or none."""
    name = error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else ""


def _option_of(path: str, named: Mapping[str, str]) -> str:
    """The option, with its value, that names a path or a folder above it; "" where none does."""
    for option, value in named.items():
        if path and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(value)):
            return f"{option}={value}"
    return ""


def _inputs(config: Config) -> dict[str, str]:
    models = {f"pair.{name}": model for name, model in config.pair.readers.items()}
    models["match.model"] = config.match.model
    named = {
        f"{model}.{option}": getattr(one, option)
        for model, one in models.items()
        for option in ("path", "tokenizer", "adapter")
    }
    for option, file in config.files.items():
        named[option.split(" ")[0]] = str(file)
    return {option: value for option, value in named.items() if value}


def _outputs(config: Config) -> dict[str, str]:
    named = {
        "runs": config.runs,
        "organism.folder": config.organism.folder,
        "organism.others": config.organism.others,
        "calibrate.output": config.calibrate.output,
        "fetch.folder": config.fetch.folder,
    }
    return {option: value for option, value in named.items() if value}
