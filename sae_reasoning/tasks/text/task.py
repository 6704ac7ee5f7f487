"""Natural text as a task: sentences by punctuation, grades by program, labels by an annotator."""

from collections.abc import Mapping

from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Annotator, Grader, ResponseFormat, Task
from sae_reasoning.tasks.text.grading import Grader as ReferenceGrader
from sae_reasoning.tasks.text.grading import Scorers
from sae_reasoning.tasks.text.openings import mine_openings
from sae_reasoning.tasks.text.sentences import FirstSentence, sentences

THINK, END_THINK, ANSWER = "<think>", "</think>", "\n\nAnswer:"


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


def text_task(annotator: Annotator, formats: Mapping[str, ResponseFormat], grader: Grader) -> Task:
    """What can be measured in natural text.

    Args:
        annotator: Labels behaviours.
        formats: Of each model of the pair.
        grader: Of responses.
    """
    return Task(
        name="text",
        behaviours=None,
        formats=formats,
        annotator=annotator,
        grader=grader,
        sentence_end=FirstSentence(),
        sentences=sentences,
        miner=mine_openings,
    )
