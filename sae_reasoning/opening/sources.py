"""Files that `traces` reads: rows of traces or problems, and texts that somebody labelled."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_reasoning.config import ConfigError, require_file
from sae_reasoning.edges.tables import is_parquet
from sae_reasoning.edges.tables import read_rows as read_parquet_rows
from sae_reasoning.traces.fitted import LabelledText
from sae_reasoning.traces.imported import parse_imported
from sae_reasoning.traces.rows import read_rows

Rows = list[tuple[str, Mapping[str, Any]]]
"""Rows of a file, each with what to call it in a message."""


def read_source(option: str, path: str, warn: Callable[[str], None]) -> Rows:
    """Rows of a file of traces or problems, whatever its form.

    Args:
        option: What names the file.
        path: The file.
        warn: Told of characters that had to be replaced.

    Raises:
        ConfigError: There is no such file, or it can't be read.
    """
    require_file(option, path)
    file = Path(path)
    try:
        if is_parquet(file):
            return [(f"row {n}", row) for n, row in enumerate(read_parquet_rows(file), start=1)]
        return [(where, row) for where, row in read_rows(file, option, warn)]
    except OSError as error:
        raise ConfigError(
            f"{option}={path} can't be read ({error.strerror or error}); mend it or name another"
        ) from error


def read_labelled(
    option: str, path: str, behaviours: Sequence[str], offsets: str, warn: Callable[[str], None]
) -> list[LabelledText]:
    """Responses of a file with the labels that they bear.

    Args:
        option: What names the file.
        path: The file, in any form that `traces.source` takes.
        behaviours: Labels that count.
        offsets: What the file's offsets count.
        warn: Told of what may not be meant.

    Raises:
        ConfigError: There is no such file, a row of it is malformed, or it labels no behaviour.
    """
    rows = read_source(option, path, warn)
    # Who wrote them doesn't matter to what they are called.
    traces, _ = parse_imported(
        rows, f"{option}={path}", behaviours, writer="rl", offsets=offsets, warn=warn
    )
    return [LabelledText(one.problem_id, one.text, one.annotation.spans) for one in traces]
