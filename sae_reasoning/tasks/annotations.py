"""What annotators are given and give: responses, and what is said of each."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sae_reasoning.records import Annotation
from sae_reasoning.tasks.problems import Problem


class Unlabelled(NamedTuple):
    """A response to be labelled.

    Attributes:
        problem: What was asked.
        text: The response.
        truncated: Whether it was cut.
    """

    problem: Problem
    text: str
    truncated: bool


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


@dataclass
class Labelled:
    """What an annotator says of several responses.

    Attributes:
        annotations: In order, without grades; None for a response that it could not label.
        reasons: Why not, by the response's place in order.
        placement: Of an annotator that quotes, its quotes and those found in the texts.
    """

    annotations: list[Annotation | None]
    reasons: dict[int, str] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)


def nothing() -> None:
    """Do nothing."""


class OneByOne(ABC):
    """An annotator that reads one response at a time, at no cost worth telling."""

    @abstractmethod
    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """Behaviours of one response."""

    def annotate_all(
        self, responses: Sequence[Unlabelled], advance: Callable[[], None] = nothing
    ) -> Labelled:
        """Behaviours of each response.

        Args:
            responses: In any order.
            advance: Called after each.
        """
        found: list[Annotation | None] = []
        for problem, text, truncated in responses:
            found.append(self.annotate(problem, text, truncated=truncated))
            advance()
        return Labelled(found)

    def costs(self, responses: Sequence[Unlabelled]) -> Mapping[str, str]:
        """What labelling takes, in words; nothing."""
        return {}
