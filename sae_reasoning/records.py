"""Frozen types that the rooms hand to each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One move in one text.

    Attributes:
        behaviour: Name of the move.
        char_start: First character in the trace's text.
        char_end: One past the last character.
    """

    behaviour: str
    char_start: int
    char_end: int


@dataclass(frozen=True)
class Opportunity:
    """A place in a text where a move could start.

    Attributes:
        behaviour: Name of the move.
        char_end: One past the last character before the move would start; the token that ends here
            is onset-1, the one whose activation predicts the move's first token.
        taken: Whether the move starts here.
    """

    behaviour: str
    char_end: int
    taken: bool
