"""Annotated traces that somebody brings along, as JSON lines.

One object a line: `problem_id`, `writer` (`base` or `rl`), `prompt`, `text`, `spans` (each with
`behaviour`, `char_start`, `char_end`), and, where known, `correct` and `truncated`. Opportunities
are every start of a sentence. A span begins with its first character that is no white space.
"""

import json
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sae_reasoning.config import ConfigError
from sae_reasoning.records import Annotation, Opportunity, Span

_SENTENCE_START = re.compile(r"(?:^\s*|(?<=[.!?])\s+|\n\s*)(?=\S)")


@dataclass(frozen=True)
class ImportedTrace:
    """One line of the file."""

    problem_id: str
    writer: str
    prompt: str
    text: str
    truncated: bool
    annotation: Annotation


def sentence_starts(text: str) -> list[int]:
    """The first character of each sentence."""
    return [match.end() for match in _SENTENCE_START.finditer(text)]


def read_imported(path: Path, behaviours: list[str]) -> list[ImportedTrace]:
    """All traces of a JSON-lines file; spans of moves that aren't tracked are left out.

    Raises:
        ConfigError: The file is missing or empty, or a line is malformed; the message names it.
    """
    if not path.is_file():
        raise ConfigError(
            f"traces.source={path} is neither `search` nor a file; name a JSON-lines file of traces"
        )
    traces = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            try:
                traces.append(_parse(json.loads(line), behaviours))
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"traces.source={path}, line {number}: {type(error).__name__}: {error}; "
                    "mend the line (README, “Your own pair”)"
                ) from error
    writers = {trace.writer for trace in traces}
    if writers != {"base", "rl"}:
        raise ConfigError(
            f"traces.source={path} holds traces of {sorted(writers) or 'nobody'}; it needs both "
            "writers, base and rl"
        )
    return traces


def _parse(row: dict, behaviours: list[str]) -> ImportedTrace:
    text = row["text"]
    spans = sorted(
        (Span(s["behaviour"], int(s["char_start"]), int(s["char_end"])) for s in row["spans"]),
        key=lambda span: span.char_start,
    )
    for span in spans:
        if not 0 <= span.char_start < span.char_end <= len(text):
            raise ValueError(
                f"span {span.behaviour} [{span.char_start}, {span.char_end}) lies outside its text "
                f"of {len(text)} characters"
            )
        if not text[span.char_start : span.char_end].strip():
            raise ValueError(f"span {span} holds white space only")
    for before, after in pairwise(spans):
        if after.char_start < before.char_end:
            raise ValueError(f"spans {before} and {after} overlap")
    if row["writer"] not in ("base", "rl"):
        raise ValueError(f"writer={row['writer']!r} must be base or rl")
    tracked = tuple(_trimmed(span, text) for span in spans if span.behaviour in behaviours)
    return ImportedTrace(
        problem_id=str(row["problem_id"]),
        writer=row["writer"],
        prompt=row["prompt"],
        text=text,
        truncated=bool(row.get("truncated", False)),
        annotation=Annotation(
            tracked, _opportunities(text, tracked, behaviours), row.get("correct")
        ),
    )


def _trimmed(span: Span, text: str) -> Span:
    own = text[span.char_start : span.char_end]
    return replace(span, char_start=span.char_end - len(own.lstrip()))


def _opportunities(
    text: str, spans: tuple[Span, ...], behaviours: list[str]
) -> tuple[Opportunity, ...]:
    """Every sentence start, and every place where a span starts, once a move."""
    onsets = {(span.char_start, span.behaviour) for span in spans}
    places = {*sentence_starts(text), *(span.char_start for span in spans)}
    return tuple(
        Opportunity(behaviour, place, taken=(place, behaviour) in onsets)
        for place in sorted(places)
        for behaviour in behaviours
    )
