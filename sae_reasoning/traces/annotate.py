"""Who marks the moves of a response, and who hears opportunities while it is written.

Both by the source of the problems; in natural text, of anything else, by the words of moves.
"""

from collections.abc import Callable, Sequence

from sae_reasoning.records import Annotation
from sae_reasoning.tasks.search.grammar import answered_path
from sae_reasoning.tasks.search.parser import Listener, read
from sae_reasoning.tasks.search.world import parse_prompt
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.sentences import SentenceListener, sentence_opportunities

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
    """The annotator of `traces.source`; None where its text is natural."""
    return ANNOTATORS.get(source)


def annotate_by_cues(
    lexicon: Lexicon, behaviours: Sequence[str], grade: Callable[[str, str, bool], bool | None]
) -> Annotator:
    """Who marks moves of natural text by their words, and grades it.

    Args:
        lexicon: Cues of the moves.
        behaviours: The moves.
        grade: Takes what an annotator takes; None where there's no grade.
    """

    def annotate(prompt: str, text: str, truncated: bool) -> Annotation:
        spans = lexicon.spans(text)
        opportunities = sentence_opportunities(text, spans, behaviours)
        return Annotation(spans, opportunities, grade(prompt, text, truncated))

    return annotate


def hear_sentences(behaviours: Sequence[str]) -> Hear:
    """Who hears one natural text: where a sentence may start, any move could.

    Some full stops turn out to be decimal points, which nobody can know before what follows; they
    are heard as ends, while `sentence_opportunities` of the whole text leaves them out.
    """
    moves, listener = frozenset(behaviours), SentenceListener()

    def hear(piece: str) -> frozenset[str] | None:
        return moves if listener.may_start_after(piece) else None

    return hear


LISTENERS: dict[str, Callable[[str], Hear]] = {"search": hear_search}


def listener_for(source: str) -> Callable[[str], Hear] | None:
    """By prompt, who hears opportunities; None where only whole texts can be annotated."""
    return LISTENERS.get(source)
