"""Frozen types that the rooms hand to each other."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

BASE, RL = MODELS = ("base", "rl")
"""The models of a pair: writers of traces and readers of them."""
SELECT, REPORT = SPLITS = ("select", "report")
"""Problems on which anything is chosen, and the others, on which it is reported."""


class Comparison(Enum):
    """What comes of comparing an answer with the right one."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"
    """The answer says nothing that could be compared."""
    UNDECIDED = "undecided"
    """The right answer can't be read, it takes too long, or what would tell isn't installed."""


@dataclass(frozen=True)
class Span:
    """One behaviour in one text.

    Attributes:
        behaviour: Name of the behaviour.
        char_start: First character in the trace's text.
        char_end: One past the last character.
    """

    behaviour: str
    char_start: int
    char_end: int


@dataclass(frozen=True)
class Opportunity:
    """A place in a text where a behaviour could start.

    Attributes:
        behaviour: Name of the behaviour.
        char_end: One past the last character before the behaviour would start, white space included
            where tokens may hold it; the last token that ends here or earlier is onset-1, the one
            whose activation predicts the behaviour's first token.
        taken: Whether the behaviour starts here.
    """

    behaviour: str
    char_end: int
    taken: bool


@dataclass(frozen=True)
class Annotation:
    """What an annotator says of one response.

    Attributes:
        spans: Its behaviours, in order; they don't overlap.
        opportunities: Where behaviours could start.
        correct: The grade, or None where nothing can judge.
        is_right: Of each behaviour, whether it was carried out rightly; empty where nothing can
            judge.
    """

    spans: tuple[Span, ...]
    opportunities: tuple[Opportunity, ...]
    correct: bool | None
    is_right: tuple[bool, ...] = ()


@dataclass(frozen=True)
class TokenSpan:
    """A span with its tokens.

    Attributes:
        behaviour: Name of the behaviour.
        char_start: First character in the trace's text.
        char_end: One past the last character.
        token_start: Index of the first token, the onset, in the trace's `token_ids`.
        token_end: One past the last token.
        annotator: Who says so.
    """

    behaviour: str
    char_start: int
    char_end: int
    token_start: int
    token_end: int
    annotator: str


@dataclass(frozen=True)
class TokenOpportunity:
    """An opportunity with its token.

    Attributes:
        behaviour: Name of the behaviour.
        char_end: One past the last character before the behaviour would start.
        token: Index of onset-1 in the trace's `token_ids`.
        taken: Whether the behaviour starts here.
    """

    behaviour: str
    char_end: int
    token: int
    taken: bool


@dataclass(frozen=True)
class Trace:
    """One model's rollout on one problem, with its grade and behaviours.

    Attributes:
        trace_id: Unique in its table.
        problem_id: Problem it answers; the unit of resampling.
        split: `select` or `report`, by problem.
        writer: `base` or `rl`.
        model: Name of the writer.
        prompt: What was asked.
        text: What was answered, without special tokens.
        token_ids: BOS where there is one, prompt, response as it was sampled, and what ended it.
        num_prompt_tokens: Tokens before the response, BOS included.
        correct: The grade, or None.
        truncated: Whether the rollout was cut.
        spans: Its behaviours.
        opportunities: Where behaviours could start.
        answer_status: What became of its answer, where a program graded it: `found`, `unreadable`,
            `none` or `truncated`; all but the first count as wrong.
    """

    trace_id: str
    problem_id: str
    split: str
    writer: str
    model: str
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    correct: bool | None
    truncated: bool
    spans: tuple[TokenSpan, ...]
    opportunities: tuple[TokenOpportunity, ...]
    answer_status: str = ""


@runtime_checkable
class SentenceEnd(Protocol):
    """Says where the first sentence of a text ends, while it is written.

    Attributes:
        marks: Characters; a text without any of them has not ended.
    """

    marks: str

    def find(self, text: str, *, is_last: bool) -> int | None:
        """One past the last character of the mark; None where it has not ended.

        Args:
            text: So far.
            is_last: Whether nothing follows.
        """
        ...
