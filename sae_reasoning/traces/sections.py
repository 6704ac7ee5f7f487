"""Sections of the form `["label"] text ["end-section"]`, as language models write them.

They often don't keep to it: the quotation marks are missing, a number stands before the label, an
end is left out or stands twice. Whatever names a known label in brackets begins a section, and the
next such header ends it too. What can't be read is counted, not dropped silently.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from sae_reasoning.tasks.text.labels import spelt

_MARK = re.compile(
    r"\[\s*(?:\d+\s*[.:)]\s*)?"
    r"(?P<quote>[\"'“”]?)\s*(?P<label>[A-Za-z][A-Za-z_ -]*[A-Za-z])\s*[\"'“”]?\s*\]"
)
_END = "end-section"

VENHOFF_LABELS = (
    "initializing deduction adding-knowledge example-testing uncertainty-estimation backtracking"
).split()
"""Of the form's authors (2506.18167)."""


@dataclass(frozen=True)
class Section:
    """A passage and what it was called.

    Attributes:
        label: Lower case, words joined by hyphens; "" where it has none that can be read.
        text: As quoted.
    """

    label: str
    text: str


def parse_sections(annotated: str, labels: Collection[str]) -> list[Section]:
    """All sections, in order; one without a readable header has the label "".

    Args:
        annotated: The text with its brackets.
        labels: Known labels. Another one in quotation marks is a header too; without them it's
            taken for text, as mathematics is full of brackets.
    """
    sections: list[Section] = []
    label: str | None = None
    begin = 0
    for mark in _MARK.finditer(annotated):
        name = spelt(mark["label"])
        is_end = name == _END
        if not is_end and name not in labels and not mark["quote"]:
            continue
        between = annotated[begin : mark.start()]
        # Text before an end without a header is a section whose header is lost; before a header
        # it was left unmarked.
        if label is not None or (is_end and between.strip()):
            sections.append(Section(label or "", between.strip()))
        label = None if is_end else name
        begin = mark.end()
    if label is not None:
        sections.append(Section(label, annotated[begin:].strip()))
    return sections
