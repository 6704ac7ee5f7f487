"""Natural text as a task: sentences by punctuation, grades by program, labels by an annotator."""

from collections import Counter
from collections.abc import Iterable, Mapping

from sae_reasoning.records import BASE
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Annotator, Grader, Instructions, ResponseFormat, Task
from sae_reasoning.tasks.text.grading import Grader as ReferenceGrader
from sae_reasoning.tasks.text.grading import Scorers
from sae_reasoning.tasks.text.openings import mine_openings
from sae_reasoning.tasks.text.sentences import FirstSentence, sentences
from sae_reasoning.tasks.text.tutor import TextTutor

THINK, END_THINK, ANSWER = "<think>", "</think>", "\n\nAnswer:"
THINKING_MARKS = {
    THINK: END_THINK,
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "[THINK]": "[/THINK]",
}
"""What opens a chain of thought, and what closes it."""


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


def response_format(*, opened: str = "", written: str = "") -> ResponseFormat:
    """How a model lays out its responses.

    Args:
        opened: The mark with which its prompts have opened the chain of thought; "" for none.
        written: The mark with which its responses open one themselves; "" for none.
    """
    if mark := opened or written:
        prefix = "" if opened else written
        return ResponseFormat(prefix, THINKING_MARKS[mark], ANSWER, not opened)
    return ResponseFormat(answer_prefix=ANSWER)


def written_mark(responses: Iterable[str]) -> str:
    """The mark with which most of those responses begin that begin with one; "" where none does."""
    begun = (text.lstrip() for text in responses)
    found = Counter(m for text in begun for m in THINKING_MARKS if text.startswith(m))
    return found.most_common(1)[0][0] if found else ""


def text_task(
    annotator: Annotator,
    formats: Mapping[str, ResponseFormat],
    grader: Grader,
    instructions: Instructions | None = None,
) -> Task:
    """What can be measured in natural text.

    Args:
        annotator: Labels behaviours.
        formats: Of each model of the pair.
        grader: Of responses.
        instructions: What prompts may ask for.
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
        tutor=TextTutor(formats[BASE]) if BASE in formats else None,
        instructions=instructions,
    )
