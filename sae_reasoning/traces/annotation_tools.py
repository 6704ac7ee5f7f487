"""Rows as annotation tools export them, put into one form.

- Doccano: `label` (or `labels`) as `[[start, end, name], ...]`; newer ones `entities`, each with
  `label`, `start_offset` and `end_offset`; old ones call the text `data`.
- Label Studio: a task with `data` and `annotations` (JSON), or `label` with regions (JSON-MIN).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_reasoning.traces.offsets import CODEPOINTS, UNITS, Ruler
from sae_reasoning.traces.rows import integer_of, objects_of, present

MARKED_UNDER = ("label", "labels", "entities", "annotations")
"""Keys under which tools keep what is marked."""

_OWN = {"prompt", "question", "problem_id", "writer", "split", "model", "trace_id"}
_STARTS, _ENDS = ("start_offset", "start", "char_start"), ("end_offset", "end", "char_end")


@dataclass(frozen=True)
class Mark:
    """A stretch of text that somebody gave a name.

    Attributes:
        name: The label.
        start: First character, in whatever unit the tool counts.
        end: One past the last.
        quote: What stands there, where the tool says so.
    """

    name: str
    start: int
    end: int
    quote: str | None = None


def is_task(row: Mapping[str, Any]) -> bool:
    """Whether a row is a task of Label Studio's."""
    return isinstance(row.get("data"), Mapping) and any(
        key in row for key in ("annotations", "completions", "predictions")
    )


def is_old_doccano(row: Mapping[str, Any]) -> bool:
    """Whether a row's text is called `data`, as old versions of Doccano did."""
    return isinstance(row.get("data"), str) and any(key in row for key in MARKED_UNDER)


def is_unmarked(row: Mapping[str, Any]) -> bool:
    """Whether a row is a task that nobody has annotated, or that was skipped."""
    return is_task(row) and not _annotations(row)


def unpacked(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its text under `text`, and a task's regions under `label`; other rows as they are.

    Raises:
        ValueError: It can't be told which of a task's texts or annotations counts.
    """
    row = present(row)
    if is_task(row):
        return _task(row)
    if "text" not in row and is_old_doccano(row):
        row["text"] = row.pop("data")
    return row


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    data = present(row["data"])
    if not {"text", "response"} & set(data):
        texts = [key for key, value in data.items() if isinstance(value, str) and key not in _OWN]
        if len(texts) != 1:
            raise ValueError(f"its data has {', '.join(data) or 'nothing'}; call the text `text`")
        data["text"] = data.pop(texts[0])
    found = _annotations(row)
    if len(found) > 1:
        best = [one for one in found if one.get("ground_truth")]
        marks = [sorted(_regions(one), key=str) for one in best or found]
        if any(others != marks[0] for others in marks[1:]):
            raise ValueError(
                f"it has {len(found)} annotations that differ; keep one, or mark one as ground "
                "truth"
            )
        found = best or found
    return data | {"label": _regions(found[0]) if found else []}


def _annotations(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    every = row.get("annotations") or row.get("completions") or []
    given = every if isinstance(every, list) else []
    return [
        one
        for one in given
        if isinstance(one, Mapping) and not one.get("was_cancelled") and not one.get("skipped")
    ]


def _regions(annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of an annotation, the stretches of text; choices, relations and ratings are others."""
    every = [one["value"] for one in objects_of(annotation, "result") if "value" in one]
    values = [dict(value) for value in every if isinstance(value, Mapping)]
    return [value for value in values if "labels" in value or "hypertextlabels" in value]


def marks_of(row: Mapping[str, Any]) -> list[Mark] | None:
    """The labels of a row; None where it has no such column.

    Raises:
        ValueError: An entry isn't of a known form.
    """
    there = [key for key in MARKED_UNDER if key in row]
    for key in there:
        if not isinstance(row[key], (list, tuple)):
            raise ValueError(f"{key} is {row[key]!r} where [[start, end, name], ...] belongs")
    key = next((key for key in there if row[key]), "")
    return [mark for entry in row.get(key, ()) for mark in _marks(entry, key)] if there else None


def _marks(entry: Any, key: str) -> Iterable[Mark]:
    if isinstance(entry, Mapping):
        start, end = (next((entry[k] for k in n if k in entry), None) for n in (_STARTS, _ENDS))
        names = next((entry[k] for k in ("labels", "hypertextlabels", "label") if k in entry), None)
        names = names if isinstance(names, list) else [names]
    elif isinstance(entry, (list, tuple)) and len(entry) == 3:
        start, end, name = entry
        names = [str(name) if isinstance(name, int) else name]
    else:
        raise ValueError(f"{key} holds {entry!r} where [start, end, name] belongs")
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{key} holds {entry!r}, whose label isn't a name")
    quote = entry.get("text") if isinstance(entry, Mapping) else None
    for name in names:
        yield Mark(
            name,
            integer_of(start, f"start of {name}"),
            integer_of(end, f"end of {name}"),
            quote if isinstance(quote, str) else None,
        )


def unit_of(marks: Sequence[Mark], text: str, unit: str) -> str:
    """The unit that marks are counted in: what they quote tells, else it's `unit`.

    Raises:
        ValueError: What is quoted stands there in no unit.
    """
    quoting = [mark for mark in marks if mark.quote is not None]
    for one in (unit, *UNITS):
        ruler = Ruler(text, one)
        if all(_quotes(mark, text, ruler) for mark in quoting):
            return one
    ruler = Ruler(text, CODEPOINTS)
    wrong = next(mark for mark in quoting if not _quotes(mark, text, ruler))
    raise ValueError(
        f"{wrong.name} [{wrong.start}, {wrong.end}) quotes {wrong.quote!r}, which doesn't stand "
        "there; export it again"
    )


def _quotes(mark: Mark, text: str, ruler: Ruler) -> bool:
    try:
        there = text[ruler.codepoint(mark.start) : ruler.codepoint(mark.end)]
    except ValueError:
        return False
    return _squeezed(there) == _squeezed(mark.quote or "")


def _squeezed(text: str) -> str:
    # Label Studio writes line breaks in quotes as \n, and may cut white space.
    return "".join(text.replace("\\n", " ").split())
