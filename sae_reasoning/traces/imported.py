"""Annotated traces that somebody brings along, as JSON lines.

One object a line: `problem_id`, `writer` (`base` or `rl`), `prompt`, `text`, `spans` (each with
`behaviour`, `char_start`, `char_end`), and, where known, `correct` and `truncated`. Opportunities
are every start of a sentence.
"""

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sae_reasoning.config import ConfigError
from sae_reasoning.records import Annotation, Opportunity, Span

_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?])\s+|\n+)(?=\S)")


@dataclass(frozen=True)
class ImportedTrace:
    """One line of the file."""

    problem_id: str
    writer: str
    prompt: str
    text: str
    truncated: bool
    annotation: Annotation


def sentence_starts(text: str) -> list[tuple[int, int]]:
    """For each sentence: one past the last character before it, and its first character."""
    return [(match.start(), match.end()) for match in _SENTENCE_START.finditer(text)]


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
    for before, after in pairwise(spans):
        if after.char_start < before.char_end:
            raise ValueError(f"spans {before} and {after} overlap")
    if row["writer"] not in ("base", "rl"):
        raise ValueError(f"writer={row['writer']!r} must be base or rl")
    tracked = tuple(span for span in spans if span.behaviour in behaviours)
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


def _opportunities(
    text: str, spans: tuple[Span, ...], behaviours: list[str]
) -> tuple[Opportunity, ...]:
    """Every sentence start, and every place where a span starts, once a move."""
    places = dict(sentence_starts(text))
    for span in spans:
        if span.char_start not in places.values():
            places[len(text[: span.char_start].rstrip())] = span.char_start
    onsets = {(span.char_start, span.behaviour) for span in spans}
    return tuple(
        Opportunity(behaviour, end, taken=(start, behaviour) in onsets)
        for end, start in sorted(places.items())
        for behaviour in behaviours
    )
