"""Parquet tables (pyarrow): traces by schema, anything else by column.

A stage's tables carry its `schema_version` in their schema's metadata, and are read at that version
only; files that people bring carry none.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_reasoning.edges.artifacts import BrokenArtifact, publish
from sae_reasoning.edges.schema import require_schema, schema_version
from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace

_SPAN = pa.struct(
    {
        "behaviour": pa.string(),
        "char_start": pa.int32(),
        "char_end": pa.int32(),
        "token_start": pa.int32(),
        "token_end": pa.int32(),
        "annotator": pa.string(),
    }
)
_OPPORTUNITY = pa.struct(
    {
        "behaviour": pa.string(),
        "char_end": pa.int32(),
        "token": pa.int32(),
        "taken": pa.bool_(),
    }
)
TRACE_SCHEMA = pa.schema(
    {
        "trace_id": pa.string(),
        "problem_id": pa.string(),
        "split": pa.string(),
        "writer": pa.string(),
        "model": pa.string(),
        "prompt": pa.string(),
        "text": pa.string(),
        "token_ids": pa.list_(pa.int32()),
        "num_prompt_tokens": pa.int32(),
        "correct": pa.bool_(),
        "truncated": pa.bool_(),
        "spans": pa.list_(_SPAN),
        "opportunities": pa.list_(_OPPORTUNITY),
        "answer_status": pa.string(),
    }
)
_SCHEMA_VERSION = b"schema_version"


def write_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Publish traces as one Parquet file."""
    rows = [dataclasses.asdict(trace) for trace in traces]
    _write(path, pa.Table.from_pylist(rows, TRACE_SCHEMA))


def read_traces(path: Path) -> list[Trace]:
    """All traces of a file, in its order.

    Raises:
        BrokenArtifact: The file is cut short or of another schema, it holds no trace, or a span
            lies outside its text or tokens.
        MissingInput: Another version made it.
    """
    table = _read_own(path)
    if not table.schema.equals(TRACE_SCHEMA):
        missing = sorted(set(TRACE_SCHEMA.names) - set(table.schema.names))
        raise BrokenArtifact(
            f"{path} isn't a table of traces (missing or of another type: "
            f"{', '.join(missing) or 'a column'}); run `make traces` again"
        )
    traces = [
        Trace(
            **row
            | {
                "token_ids": tuple(row["token_ids"]),
                "spans": tuple(TokenSpan(**span) for span in row["spans"]),
                "opportunities": tuple(TokenOpportunity(**o) for o in row["opportunities"]),
            }
        )
        for row in table.to_pylist()
    ]
    if not traces:
        raise BrokenArtifact(f"{path} holds no trace; run `make traces` again")
    for trace in traces:
        _check(trace, path)
    return traces


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a foreign Parquet file, as plain values.

    Raises:
        BrokenArtifact: The file is cut short, or a text in it isn't UTF-8.
    """
    try:
        rows: list[dict[str, Any]] = _read(path).to_pylist()
    except UnicodeDecodeError as error:
        raise BrokenArtifact(
            f"{path} holds text that isn't UTF-8 ({error.reason}); write it again"
        ) from error
    return rows


def write_table(path: Path, columns: Mapping[str, Sequence[Any]] | pd.DataFrame) -> None:
    """Publish columns as one Parquet file."""
    frame = columns if isinstance(columns, pd.DataFrame) else pd.DataFrame(dict(columns))
    _write(path, pa.Table.from_pandas(frame, preserve_index=False))


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file as a data frame.

    Raises:
        BrokenArtifact: The file is cut short.
        MissingInput: Another version made it.
    """
    return _read_own(path).to_pandas()


def _write(path: Path, table: pa.Table) -> None:
    version = schema_version(path)
    if version is not None:
        metadata = (table.schema.metadata or {}) | {_SCHEMA_VERSION: str(version)}
        table = table.replace_schema_metadata(metadata)
    with publish(path) as partial:
        pq.write_table(table, partial)


def _read_own(path: Path) -> pa.Table:
    table = _read(path)
    found = (table.schema.metadata or {}).get(_SCHEMA_VERSION)
    require_schema(path, None if found is None else int(found))
    return table


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenArtifact(
            f"{path} can't be read ({reason}); delete its folder, rerun"
        ) from error


def _check(trace: Trace, path: Path) -> None:
    where = f"{path}: trace {trace.trace_id}"
    for span in trace.spans:
        if not 0 <= span.char_start < span.char_end <= len(trace.text):
            raise BrokenArtifact(
                f"{where}: span {span.behaviour} [{span.char_start}, {span.char_end}) lies outside "
                f"its text of {len(trace.text)} characters; mend the annotation"
            )
        if not trace.num_prompt_tokens <= span.token_start < span.token_end <= len(trace.token_ids):
            raise BrokenArtifact(
                f"{where}: span {span.behaviour} has tokens [{span.token_start}, "
                f"{span.token_end}) outside its response; mend the annotation"
            )
