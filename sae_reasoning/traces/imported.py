"""Annotated traces that somebody brings along: rows of three forms, told apart by their keys.

- `spans`: our own: each with `behaviour`, `char_start`, `char_end`.
- `label` (or `labels`): span JSONL as Doccano writes it: `[[start, end, name], ...]`.
- `annotated_response`: sections `["label"] text ["end-section"]`, quoted from `response` more or
  less verbatim; each is looked for in it (placing.py).

Beside that a row may have `text` (or `response`), `prompt` (or `question`), `problem_id`, `writer`,
`correct`, `truncated`, `split` and `opportunities`. Where it has no opportunities they are every
start of a sentence; a span begins with its first character that is no white space. Rows without
`problem_id` are numbered, so files that hold the same problems in the same order belong together.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sae_reasoning.config import ConfigError
from sae_reasoning.records import Annotation, Opportunity, Span
from sae_reasoning.traces.placing import place
from sae_reasoning.traces.sections import VENHOFF_LABELS, parse_sections
from sae_reasoning.traces.sentences import sentence_opportunities

_WRITERS, _SPLITS = ("base", "rl"), ("select", "report")

# A chat template's text once its special tokens have been dropped.
_CHAT = re.compile(r"\A(?:system\n.*?\n)?user\n(?P<prompt>.*?)\nassistant\n", re.DOTALL)


@dataclass(frozen=True)
class ImportedTrace:
    """One row of a file.

    Attributes:
        problem_id: Problem it answers.
        writer: `base` or `rl`.
        prompt: What was asked; "" where the file doesn't say.
        text: What was answered.
        truncated: Whether it was cut.
        split: `select` or `report`, where the file says so.
        annotation: Its moves.
    """

    problem_id: str
    writer: str
    prompt: str
    text: str
    truncated: bool
    split: str | None
    annotation: Annotation


@dataclass
class Placement:
    """How many quoted sections of each label there were, and how many were found in their text.

    A label of "" is a section whose header can't be read; it's never placed.
    """

    quoted: Counter[str] = field(default_factory=Counter)
    placed: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Placement") -> None:
        """Count another file's too."""
        self.quoted += other.quoted
        self.placed += other.placed

    @property
    def share(self) -> float:
        """Of all sections, those placed."""
        return self.placed.total() / self.quoted.total() if self.quoted else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """One row a label: sections, placed, lost, share placed."""
        return [
            {
                "label": label or "(no readable header)",
                "sections": count,
                "placed": self.placed[label],
                "lost": count - self.placed[label],
                "share": self.placed[label] / count,
            }
            for label, count in sorted(self.quoted.items())
        ]


def is_trace(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a response, and isn't only a problem."""
    return "text" in row or "response" in row


def read_rows(path: Path, option: str) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a JSON array or of JSON lines, each with what to call it in a message.

    Args:
        path: The file.
        option: What named it, for messages.

    Raises:
        ConfigError: It isn't JSON of objects; the message names the line.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{option}={path} isn't UTF-8 text ({error.reason} at byte {error.start}); name JSON, "
            "JSON lines or Parquet"
        ) from error
    try:
        if content.lstrip().startswith("["):
            rows = [(f"record {n}", row) for n, row in enumerate(json.loads(content), start=1)]
        else:
            rows = []
            for number, line in enumerate(content.splitlines(), start=1):
                if line.strip():
                    rows.append((f"line {number}", _loads(line, number)))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{option}={path}, line {error.lineno}: {error.msg} at column {error.colno}; write one "
            "JSON object a line, or one array of objects"
        ) from error
    for where, row in rows:
        if not isinstance(row, dict):
            raise ConfigError(
                f"{option}={path}, {where}: {type(row).__name__} where an object belongs; write "
                "one JSON object a line"
            )
    if not rows:
        raise ConfigError(f"{option}={path} holds nothing; name a file with a trace a line")
    return rows


def _loads(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        error.lineno = number  # Within the file, not within its line.
        raise


def parse_imported(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    source: str,
    behaviours: Sequence[str],
    *,
    writer: str = "",
    marked: bool = True,
) -> tuple[list[ImportedTrace], Placement]:
    """Traces of a file's rows; spans of moves that aren't tracked are left out.

    Args:
        rows: Each with what to call it in a message.
        source: Option and file, for messages.
        behaviours: Moves tracked.
        writer: Of rows that don't say who wrote them; "" refuses those.
        marked: Whether rows must hold moves; another annotator needs none.

    Raises:
        ConfigError: A row is malformed, or no move of `behaviours` is in any; the message names it.
    """
    traces = []
    placement = Placement()
    labels: Counter[str] = Counter()
    for number, (where, row) in enumerate(rows):
        try:
            traces.append(_parse(row, number, behaviours, writer, marked, placement, labels))
        except (KeyError, TypeError, ValueError) as error:
            says = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"{source}, {where}: {says}; {_remedy(row)}") from error
    if marked and not any(trace.annotation.spans for trace in traces):
        there = ", ".join(f"{label} ({n})" for label, n in labels.most_common()) or "nothing"
        raise ConfigError(
            f"{source} marks no move of behaviours={list(behaviours)}, but {there}; set behaviours="
            "to what is marked, or traces.annotator=cues or llm to mark the texts anew"
        )
    return traces, placement


def _remedy(row: Mapping[str, Any]) -> str:
    if not is_trace(row):
        return f"it has only {', '.join(row) or 'no key'}; put the response under `text`"
    if not {"spans", "label", "labels", "annotated_response"} & set(row):
        return "give its moves under `spans`, or set traces.annotator=cues or llm to mark them"
    return "mend it (README, “Your own pair”)"


def _parse(
    row: Mapping[str, Any],
    number: int,
    behaviours: Sequence[str],
    default_writer: str,
    marked: bool,
    placement: Placement,
    labels: Counter[str],
) -> ImportedTrace:
    text = _string(row, "text") if "text" in row else _string(row, "response")
    prompt = _string(row, "prompt") if row.get("prompt") is not None else ""
    prompt = prompt or (_string(row, "question") if row.get("question") is not None else "")
    chat = _CHAT.match(text) if "annotated_response" in row and not prompt else None
    if chat:
        prompt, text = chat["prompt"].strip(), text[chat.end() :]
    writer = row.get("writer") or default_writer
    if writer not in _WRITERS:
        raise ValueError(
            f"writer={writer!r} must be base or rl"
            if writer
            else "no writer; add `writer` to it, or set traces.writer=base or rl for all"
        )
    if row.get("split") not in (None, *_SPLITS):
        raise ValueError(f"split={row['split']!r} must be select or report")
    spans = _spans(row, text, behaviours, placement) if marked else []
    _check(spans, text)
    labels.update(span.behaviour for span in spans)
    tracked = tuple(_trimmed(span, text) for span in spans if span.behaviour in behaviours)
    return ImportedTrace(
        problem_id=str(row.get("problem_id", f"q{number:05d}")),
        writer=writer,
        prompt=prompt,
        text=text,
        truncated=bool(row.get("truncated", False)),
        split=row.get("split"),
        annotation=Annotation(
            tracked, _opportunities(row, text, tracked, behaviours), row.get("correct")
        ),
    )


def _string(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {type(value).__name__}, not a text")
    return value


def _spans(
    row: Mapping[str, Any], text: str, behaviours: Sequence[str], placement: Placement
) -> list[Span]:
    """Moves in one of the three forms, in order."""
    if row.get("spans") is not None:
        found = [
            Span(s["behaviour"], int(s["char_start"]), int(s["char_end"])) for s in row["spans"]
        ]
    elif "annotated_response" in row:
        return _placed(_string(row, "annotated_response"), text, behaviours, placement)
    else:
        key = "label" if "label" in row else "labels"
        if key not in row:
            raise ValueError("its moves are missing")
        found = [_labelled(entry, key) for entry in row[key]]
    return sorted(found, key=lambda span: (span.char_start, span.char_end))


def _labelled(entry: Any, key: str) -> Span:
    if not isinstance(entry, (list, tuple)) or len(entry) != 3:
        raise ValueError(f"{key} holds {entry!r} where [start, end, name] belongs")
    start, end, name = entry
    return Span(str(name), int(start), int(end))


def _placed(
    annotated: str, text: str, behaviours: Sequence[str], placement: Placement
) -> list[Span]:
    sections = parse_sections(annotated, {*VENHOFF_LABELS, *behaviours})
    places = place([section.text for section in sections], text)
    spans = []
    for section, found in zip(sections, places, strict=True):
        placement.quoted[section.label] += 1
        if found is not None and section.label:
            placement.placed[section.label] += 1
            spans.append(Span(section.label, found.start, found.end))
    return spans


def _check(spans: Sequence[Span], text: str) -> None:
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


def _trimmed(span: Span, text: str) -> Span:
    own = text[span.char_start : span.char_end]
    return replace(span, char_start=span.char_end - len(own.lstrip()))


def _opportunities(
    row: Mapping[str, Any], text: str, spans: tuple[Span, ...], behaviours: Sequence[str]
) -> tuple[Opportunity, ...]:
    given = row.get("opportunities")
    if given is None:
        return sentence_opportunities(text, spans, behaviours)
    # Whether one is taken follows from the spans, which may have been edited since.
    onsets = {(span.behaviour, span.char_start) for span in spans}
    found = []
    for behaviour, end in ((str(o["behaviour"]), int(o["char_end"])) for o in given):
        if not 0 <= end <= len(text):
            raise ValueError(
                f"opportunity at {end} lies outside its text of {len(text)} characters"
            )
        onset = len(text) - len(text[end:].lstrip())
        taken = (behaviour, onset) in onsets
        onsets.discard((behaviour, onset))
        found.append(Opportunity(behaviour, end, taken))
    found += [Opportunity(behaviour, start, taken=True) for behaviour, start in onsets]
    found.sort(key=lambda o: o.char_end)
    return tuple(o for o in found if o.behaviour in behaviours)


def note_single_writer(writers: Sequence[str], say: Callable[[str], None]) -> None:
    """Say what one writer alone is good for; with both there's nothing to say."""
    if len(set(writers)) == 1:
        say(
            f"all traces are {writers[0]}'s: cache and train read them, while rank, ablate, "
            "contrast and report compare two writers; add the other's (traces.base_source, or a "
            "`writer` a line)"
        )
