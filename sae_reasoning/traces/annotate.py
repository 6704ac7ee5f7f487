"""Who marks the moves of a response, by the source of the problems."""

from collections.abc import Callable

from sae_reasoning.organisms.grammar import answered_path
from sae_reasoning.organisms.parser import parse
from sae_reasoning.organisms.world import parse_prompt
from sae_reasoning.records import Annotation

Annotator = Callable[[str, str, bool], Annotation]
"""Takes prompt, response and whether it was cut; at the cut there are no opportunities."""


def annotate_search(prompt: str, text: str, truncated: bool) -> Annotation:
    """Moves and grade of a response in the organisms' world, by rule and program."""
    problem = parse_prompt(prompt)
    narration = parse(problem, text, truncated)
    correct = problem.grade(answered_path(text))
    return Annotation(narration.spans, narration.opportunities, correct)


ANNOTATORS: dict[str, Annotator] = {"search": annotate_search}


def annotator_for(source: str) -> Annotator | None:
    """The annotator of `traces.source`; None where traces were imported with their spans."""
    return ANNOTATORS.get(source)
