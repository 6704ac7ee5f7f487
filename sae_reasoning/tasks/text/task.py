"""Natural text as a task: behaviours by cue words, sentences by punctuation, grades by program."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from sae_reasoning.records import Annotation
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Grader, Listen, ResponseFormat, Task
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.grading import Grader as ReferenceGrader
from sae_reasoning.tasks.text.grading import Scorers
from sae_reasoning.tasks.text.openings import mine_openings
from sae_reasoning.tasks.text.sentences import (
    FirstSentence,
    SentenceListener,
    sentence_opportunities,
    sentences,
)

THINK, END_THINK, ANSWER = "<think>", "</think>", "\n\nAnswer:"


class CueAnnotator:
    """Marks behaviours by their cue words; wherever a sentence starts, any of them could.

    Args:
        cues: Words of each behaviour; looked at when first used, as traces may bring their marks.
        behaviours: To mark.
    """

    name = "cues"

    def __init__(self, cues: Mapping[str, Sequence[str]], behaviours: Sequence[str]) -> None:
        self._cues, self._behaviours = cues, tuple(behaviours)

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(self._cues, self._behaviours)

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """A span for each sentence with a cue, and every sentence start as an opportunity.

        Raises:
            ConfigError: A behaviour has no cue words.
        """
        spans = self._lexicon.spans(response)
        return Annotation(spans, sentence_opportunities(response, spans, self._behaviours), None)

    def listen(self, problem: Problem) -> Listen:
        """A streaming annotator of one response.

        Some full stops turn out to be decimal points, which nobody can know before what follows;
        they are taken for ends, while `annotate` leaves them out.
        """
        every, listener = frozenset(self._behaviours), SentenceListener()
        return lambda piece: every if listener.hear(piece) else None


class TextGrader:
    """Grades the answer of a response by its problem's reference.

    Args:
        scorers: What judges where plain comparison doesn't.
    """

    def __init__(self, scorers: Scorers) -> None:
        self._scorers = scorers

    def grade(
        self, problem: Problem, response: str, *, truncated: bool, opened: bool = False
    ) -> bool | None:
        """Right or wrong; None where the problem has no reference, or nothing can compare."""
        grader = ReferenceGrader({problem.problem_id: problem}, self._scorers)
        return grader.correct(problem.problem_id, response, truncated, opened=opened)


def response_format(*, opened: bool, marks: bool) -> ResponseFormat:
    """How a model lays out its responses.

    Args:
        opened: Whether its prompts have opened the chain of thought.
        marks: Whether some of its responses open one themselves.
    """
    if opened or marks:
        return ResponseFormat("" if opened else THINK, END_THINK, ANSWER, not opened)
    return ResponseFormat(answer_prefix=ANSWER)


def text_task(
    behaviours: Sequence[str],
    cues: Mapping[str, Sequence[str]],
    formats: Mapping[str, ResponseFormat],
    grader: Grader,
) -> Task:
    """What can be measured in natural text.

    Args:
        behaviours: To mark in new text.
        cues: Words of each.
        formats: Of each model of the pair.
        grader: Of responses.
    """
    return Task(
        name="text",
        behaviours=None,
        formats=formats,
        annotator=CueAnnotator(cues, behaviours),
        grader=grader,
        sentence_end=FirstSentence(),
        sentences=sentences,
        miner=mine_openings,
    )
