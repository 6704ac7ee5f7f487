"""Annotated traces that somebody brings along: rows of three forms, recognised by their keys.

- `spans`: our own: each with `behaviour`, `char_start`, `char_end`.
- `label`, `labels`, `entities` or a task's `annotations`: as Doccano and Label Studio write them
  (annotation_tools.py).
- `annotated_response`: sections `["label"] text ["end-section"]`, quoted from `response` more or
  less verbatim; each is looked for in it (placing.py).

Beside that a row may have `text` (or `response`), `prompt` (or `question`), `problem_id`, `writer`,
`correct`, `truncated`, `split` and `opportunities`. Where it has no opportunities they are every
start of a sentence; a span begins with its first character that is no white space. In files without
any `problem_id` rows are numbered, so files that hold the same problems in the same order belong
together; a row that lacks one where others have it is a problem of its own. Null is absent.
"""

import difflib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sae_reasoning.config import ConfigError
from sae_reasoning.records import MODELS, SPLITS, Annotation, Opportunity, Span
from sae_reasoning.tasks.annotations import Placement
from sae_reasoning.tasks.text.placing import place
from sae_reasoning.tasks.text.sentences import sentence_opportunities
from sae_reasoning.texts import silent
from sae_reasoning.traces.annotation_tools import (
    MARKED_UNDER,
    Mark,
    is_old_doccano,
    is_task,
    is_unmarked,
    marks_of,
    unit_of,
    unpacked,
)
from sae_reasoning.traces.chat_headers import split_chat
from sae_reasoning.traces.offsets import BYTES, CODEPOINTS, UNITS, UTF16, Ruler, misfits
from sae_reasoning.traces.rows import (
    flag_of,
    integer_of,
    objects_of,
    present,
    problem_id_of,
    says_nothing,
    text_of,
)
from sae_reasoning.traces.sections import VENHOFF_LABELS, parse_sections

_MOST_LABELS = 8
"""Labels that a message names."""


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
        annotation: Its behaviours.
        where: What to call it in a message: option, file and row.
        is_numbered: Whether its problem is named by its place in the file, as by nothing else.
    """

    problem_id: str
    writer: str
    prompt: str
    text: str
    truncated: bool
    split: str | None
    annotation: Annotation
    where: str = ""
    is_numbered: bool = False


def is_trace(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a response, and isn't only a problem with an empty column for one."""
    given = present(row)
    if is_task(given) or is_old_doccano(given):
        return True
    marked = {"spans", "annotated_response", *MARKED_UNDER} & set(given)
    return any(
        given.get(key, "") != "" or (key in given and marked) for key in ("text", "response")
    )


def parse_imported(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    source: str,
    behaviours: Sequence[str],
    *,
    writer: str = "",
    marked: bool = True,
    offsets: str = CODEPOINTS,
    warn: Callable[[str], None] = silent,
) -> tuple[list[ImportedTrace], Placement]:
    """Traces of a file's rows; spans of behaviours that aren't tracked are left out.

    Args:
        rows: Each with what to call it in a message.
        source: Option and file, for messages.
        behaviours: Those tracked.
        writer: Of rows that don't say who wrote them; "" refuses those.
        marked: Whether rows must hold labels; another annotator needs none.
        offsets: What the rows' offsets count, of UNITS.
        warn: Told of what may not be meant.

    Raises:
        ConfigError: A row is malformed, or none holds a behaviour of `behaviours`.
    """
    if marked and (bare := [where for where, row in rows if is_unmarked(row)]):
        warn(f"{source}: {len(bare)} tasks (first: {bare[0]}) bear no annotation and are left out")
        rows = [(where, row) for where, row in rows if not is_unmarked(row)]
    parser = _Parser(behaviours, writer, marked, offsets)
    traces = []
    for where, row in rows:
        try:
            traces.append(parser.parse(row, f"{source}, {where}"))
        except (KeyError, TypeError, ValueError) as error:
            says = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"{source}, {where}: {says}; {_remedy(row)}") from error
    untracked = _untracked(parser.labels, behaviours)
    if marked and not any(trace.annotation.spans for trace in traces):
        raise ConfigError(
            f"{source} labels none of behaviours={list(behaviours)}, but {untracked or 'nothing'}"
            "; set behaviours= to what is labelled, or traces.annotator=cues, llm or fitted to "
            "label the texts anew"
        )
    if untracked:
        warn(
            f"{source}: spans of labels that behaviours doesn't name are left out: {untracked}; if "
            "they are meant, add them to behaviours or mend them in the file"
        )
    parser.note_units(source, warn)
    parser.note_grades(source, warn)
    return _numbered(traces, source, warn), parser.placement


def _untracked(labels: Counter[str], behaviours: Sequence[str]) -> str:
    """Labels that aren't tracked, with how many there are; first what may be misspelt."""
    tracked = {behaviour.casefold(): behaviour for behaviour in behaviours}
    near, far = [], []
    for label, count in labels.most_common():
        if label in behaviours:
            continue
        found = difflib.get_close_matches(label.casefold(), tracked, n=1, cutoff=0.75)
        if found:
            near.append(f"{label} ({count}; did you mean {tracked[found[0]]}?)")
        else:
            far.append(f"{label} ({count})")
    others = len(near) + len(far) - _MOST_LABELS
    more = [f"{others} more"] if others > 0 else []
    return ", ".join([*near, *far][:_MOST_LABELS] + more)


def _remedy(row: Mapping[str, Any]) -> str:
    given = present(row)
    if not is_trace(row):
        return f"it has only {', '.join(given) or 'no key'}; put the response under `text`"
    if not {"spans", "annotated_response", *MARKED_UNDER} & set(given):
        return "give its behaviours under `spans`, or set traces.annotator=cues or llm to label it"
    return "mend it (conf/README.md, “Traces that you have”)"


def _numbered(
    traces: list[ImportedTrace], source: str, warn: Callable[[str], None]
) -> list[ImportedTrace]:
    """Traces with an id for each problem, where rows don't name it."""
    named = Counter(trace.problem_id for trace in traces if trace.problem_id)
    for problem_id, count in named.items():
        if count > 1 and says_nothing(problem_id):
            warn(
                f"{source}: {count} rows have problem_id={problem_id!r}, and count as one problem; "
                "if it stands for a missing one, leave it out"
            )
    if not named:
        return [
            replace(trace, problem_id=f"q{number:05d}", is_numbered=True)
            for number, trace in enumerate(traces)
        ]
    if lacking := [trace.where for trace in traces if not trace.problem_id]:
        warn(
            f"{len(lacking)} rows have no problem_id where others have one (first: {lacking[0]}); "
            "each counts as a problem of its own; name it where several rows answer the same one"
        )
    option = source.partition("=")[0]  # Another file's row in the same place is another problem.
    return [
        trace
        if trace.problem_id
        else replace(trace, problem_id=f"{option}:{number:05d}", is_numbered=True)
        for number, trace in enumerate(traces)
    ]


class _Parser:
    """Reads the rows of a file, and counts what it meets in them.

    Args:
        behaviours: Those tracked.
        writer: Of rows that don't say.
        marked: Whether rows must hold labels.
        offsets: What their offsets count.
    """

    def __init__(self, behaviours: Sequence[str], writer: str, marked: bool, offsets: str) -> None:
        self.placement = Placement()
        self.labels: Counter[str] = Counter()
        self._behaviours, self._writer = behaviours, writer
        self._marked, self._unit = marked, offsets
        # By another unit: rows whose spans fit words better in it, and how many do worse.
        self._better: defaultdict[str, list[str]] = defaultdict(list)
        self._worse: Counter[str] = Counter()
        # Rows by what they say of their grade.
        self._grades: Counter[str] = Counter()

    def parse(self, row: Mapping[str, Any], where: str) -> ImportedTrace:
        """The trace of a row.

        Raises:
            KeyError | TypeError | ValueError: The row is malformed.
        """
        is_unsaid = row.get("correct") is None
        row = unpacked(row)
        text = text_of(row, "text") if "text" in row else text_of(row, "response")
        prompt = text_of(row, "prompt") if "prompt" in row else ""
        prompt = prompt or (text_of(row, "question") if "question" in row else "")
        if "annotated_response" in row and (chat := split_chat(text)):
            prompt, text = prompt or chat[0], chat[1]
        writer = row.get("writer") or self._writer
        if writer not in MODELS:
            raise ValueError(
                f"writer={writer!r} must be base or rl"
                if writer
                else "no writer; add `writer` to it, or set traces.writer=base or rl for all"
            )
        if row.get("split") not in (None, *SPLITS):
            raise ValueError(f"split={row['split']!r} must be select or report")
        ruler = Ruler(text, self._unit)
        spans: list[Span] = []
        if self._marked and "spans" not in row and "annotated_response" in row:
            spans = self._placed(text_of(row, "annotated_response"), text)
        elif self._marked:
            spans, ruler = self._counted(row, text, where)
        _check_words(spans, text)
        self.labels.update(span.behaviour for span in spans)
        tracked = tuple(_trimmed(s, text) for s in spans if s.behaviour in self._behaviours)
        _check_overlap(tracked)
        correct = flag_of(row, "correct")
        is_unsaid = is_unsaid and row.get("correct") is None
        self._grades["graded" if correct is not None else "none" if is_unsaid else "NaN"] += 1
        return ImportedTrace(
            problem_id=problem_id_of(row) or "",
            writer=writer,
            prompt=prompt,
            text=text,
            truncated=bool(flag_of(row, "truncated")),
            split=row.get("split"),
            annotation=Annotation(
                tracked,
                _opportunities(row, text, ruler, tracked, self._behaviours),
                correct,
            ),
            where=where,
        )

    def _counted(self, row: Mapping[str, Any], text: str, where: str) -> tuple[list[Span], Ruler]:
        """Behaviours given by offsets, as code points, and what the row's offsets count."""
        marks = _own_marks(row) if "spans" in row else marks_of(row)
        if marks is None:
            raise ValueError("its behaviours are missing")
        ruler = Ruler(text, unit_of(marks, text, self._unit))
        if not any(mark.quote for mark in marks):
            self._compare_units(marks, text, where)
        try:
            spans = [_in_codepoints(Span(mark.name, mark.start, mark.end), ruler) for mark in marks]
        except ValueError as error:
            places = [(mark.start, mark.end) for mark in marks]
            fits = [unit for unit in UNITS if misfits(text, places, unit) < math.inf]
            raise ValueError(
                f"{error}, but would fit as {UNITS[fits[0]]} (traces.offsets={fits[0]})"
                if fits
                else error
            ) from error
        return sorted(spans, key=lambda span: (span.char_start, span.char_end)), ruler

    def _compare_units(self, marks: Sequence[Mark], text: str, where: str) -> None:
        """See whether marks fit the text's words better in another unit."""
        places = [(mark.start, mark.end) for mark in marks]
        here = misfits(text, places, self._unit)
        for unit in (CODEPOINTS, UTF16, BYTES):
            there = misfits(text, places, unit)
            if there < here:
                self._better[unit].append(where)
            self._worse[unit] += there > here

    def note_units(self, source: str, warn: Callable[[str], None]) -> None:
        """Say if spans fit the words of their texts better in another unit."""
        for unit, rows in self._better.items():
            if len(rows) > self._worse[unit]:
                warn(
                    f"{source}: in {len(rows)} rows (first: {rows[0].rpartition(', ')[2]}) spans "
                    f"begin or end within words as {UNITS[self._unit]}, but not, or less, as "
                    f"{UNITS[unit]}; if that is what they count, set traces.offsets={unit}"
                )

    def note_grades(self, source: str, warn: Callable[[str], None]) -> None:
        """Say how many rows bear no grade where others do, or where something stands for one."""
        ungraded, nan = self._grades["none"] + self._grades["NaN"], self._grades["NaN"]
        if ungraded and (nan or self._grades["graded"]):
            said = f", {nan} of them with NaN or the like there" if nan else ""
            warn(
                f"{source}: {ungraded} of {self._grades.total()} rows have no grade in `correct`"
                f"{said}; they count as ungraded, and no accuracy has them"
            )

    def _placed(self, annotated: str, text: str) -> list[Span]:
        """Behaviours given by quotes."""
        sections = parse_sections(annotated, {*VENHOFF_LABELS, *self._behaviours})
        places = place([section.text for section in sections], text)
        spans = []
        for section, found in zip(sections, places, strict=True):
            self.placement.quoted[section.label] += 1
            if found is not None and section.label:
                self.placement.placed[section.label] += 1
                spans.append(Span(section.label, found.start, found.end))
        return spans


def _own_marks(row: Mapping[str, Any]) -> list[Mark]:
    return [
        Mark(
            str(entry["behaviour"]),
            integer_of(entry["char_start"], "char_start"),
            integer_of(entry["char_end"], "char_end"),
        )
        for entry in objects_of(row, "spans")
    ]


def _in_codepoints(span: Span, ruler: Ruler) -> Span:
    try:
        start, end = ruler.codepoint(span.char_start), ruler.codepoint(span.char_end)
        if start >= end:
            raise ValueError("it's empty")
    except ValueError as error:
        says = f": {error}"
        if not 0 <= span.char_start < span.char_end <= ruler.length:
            says = f" lies outside its text of {ruler.length} {UNITS[ruler.unit]}"
        raise ValueError(f"span {_shown(span)}{says}") from error
    return replace(span, char_start=start, char_end=end)


def _shown(span: Span) -> str:
    return f"{span.behaviour} [{span.char_start}, {span.char_end})"


def _check_words(spans: Sequence[Span], text: str) -> None:
    for span in spans:
        if not text[span.char_start : span.char_end].strip():
            raise ValueError(f"span {_shown(span)} holds white space only")


def _check_overlap(spans: Sequence[Span]) -> None:
    for before, after in pairwise(spans):
        if after.char_start < before.char_end:
            raise ValueError(f"spans {_shown(before)} and {_shown(after)} overlap")


def _trimmed(span: Span, text: str) -> Span:
    own = text[span.char_start : span.char_end]
    return replace(span, char_start=span.char_end - len(own.lstrip()))


def _opportunities(
    row: Mapping[str, Any],
    text: str,
    ruler: Ruler,
    spans: tuple[Span, ...],
    behaviours: Sequence[str],
) -> tuple[Opportunity, ...]:
    if row.get("opportunities") is None:
        return sentence_opportunities(text, spans, behaviours)
    # Whether one is taken follows from the spans, which may have been edited since.
    onsets = {(span.behaviour, span.char_start) for span in spans}
    found = []
    for one in objects_of(row, "opportunities"):
        behaviour = str(one["behaviour"])
        try:
            end = ruler.codepoint(integer_of(one["char_end"], "char_end"))
        except ValueError as error:
            raise ValueError(f"opportunity of {behaviour}: {error}") from error
        onset = len(text) - len(text[end:].lstrip())
        taken = (behaviour, onset) in onsets
        onsets.discard((behaviour, onset))
        found.append(Opportunity(behaviour, end, taken))
    found += [Opportunity(behaviour, start, taken=True) for behaviour, start in onsets]
    found.sort(key=lambda o: o.char_end)
    return tuple(o for o in found if o.behaviour in behaviours)


def with_prompts(traces: Sequence[ImportedTrace]) -> list[ImportedTrace]:
    """Traces with what they were asked, where the file says so in another row on the problem.

    The same writer's counts first; where rows differ, none does.
    """
    said: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for trace in traces:
        if trace.prompt:
            said[trace.problem_id, trace.writer].add(trace.prompt)
            said[trace.problem_id, ""].add(trace.prompt)
    asked = {key: min(prompts) for key, prompts in said.items() if len(prompts) == 1}

    def prompt_of(trace: ImportedTrace) -> str:
        own = asked.get((trace.problem_id, trace.writer), "")
        return trace.prompt or own or asked.get((trace.problem_id, ""), "")

    return [replace(trace, prompt=prompt_of(trace)) for trace in traces]
