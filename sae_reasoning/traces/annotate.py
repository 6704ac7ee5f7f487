"""Who marks the moves of a response, and who hears opportunities while it is written.

Both by the source of the problems.
"""

from collections.abc import Callable

from sae_reasoning.organisms.grammar import answered_path
from sae_reasoning.organisms.parser import Listener, read
from sae_reasoning.organisms.world import parse_prompt
from sae_reasoning.records import Annotation

Annotator = Callable[[str, str, bool], Annotation]
"""Takes prompt, response and whether it was cut; at the cut there are no opportunities."""


def annotate_search(prompt: str, text: str, truncated: bool) -> Annotation:
    """Moves and grade of a response in the organisms' world, by rule and program."""
    problem = parse_prompt(prompt)
    reading = read(problem, text, truncated)
    correct = problem.grade(answered_path(text))
    narration = reading.narration
    return Annotation(narration.spans, narration.opportunities, correct, reading.is_right)


Hear = Callable[[str], frozenset[str] | None]
"""Takes a response piece by piece and gives the moves that could start after the piece; None where
no sentence ends with it, so that it has to be heard again with what follows."""


def hear_search(prompt: str) -> Hear:
    """Who hears the answer to a prompt of the organisms' world."""
    return Listener(parse_prompt(prompt)).hear


ANNOTATORS: dict[str, Annotator] = {"search": annotate_search}


def annotator_for(source: str) -> Annotator | None:
    """The annotator of `traces.source`; None where traces were imported with their spans."""
    return ANNOTATORS.get(source)


LISTENERS: dict[str, Callable[[str], Hear]] = {"search": hear_search}


def listener_for(source: str) -> Callable[[str], Hear] | None:
    """By prompt, who hears opportunities; None where only whole texts can be annotated."""
    return LISTENERS.get(source)
