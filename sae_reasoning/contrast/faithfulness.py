"""Whether an answer rests on the chain of thought before it: the same chain, corrupted.

After Stechly et al. (2504.09762): an answer that survives did not rest on what the trace says.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sae_reasoning.contrast.measures import Measure, Recorder, Resampling
from sae_reasoning.records import RL, Trace
from sae_reasoning.tasks.protocol import ResponseFormat, Task

ACCURACY_AFTER = "accuracy/after_cot"
INTACT, SHUFFLED, FOREIGN = "intact", "shuffled", "another problem's"


def shuffled(task: Task, model: str, text: str, rng: random.Random) -> str:
    """A chain of thought with its sentences in another order; what opens it stays first.

    The spaces and line breaks between sentences stay where they are.

    Args:
        task: Says what a sentence is.
        model: Whose format the text has.
        text: The chain of thought so far.
        rng: Orders.
    """
    body = text.removeprefix(task.formats[model].thinking_prefix)
    spans = task.sentences(body)
    if not spans:
        return text
    sentences = [body[start:end] for start, end in spans]
    between = [body[end:start] for (_, end), (start, _) in pairwise(spans)]
    rng.shuffle(sentences)
    mixed = "".join(a + b for a, b in zip(sentences, [*between, ""], strict=True))
    return text[: len(text) - len(body) + spans[0][0]] + mixed


def chain_of_thought(task: Task, trace: Trace) -> str | None:
    """What a response says before its answer; None where it came to no answer.

    Where nothing marks the end of a chain of thought, the last sentence is the answer.
    """
    form = task.formats[trace.writer]
    if form.thinking_suffix:
        ended = form.thinking_suffix in trace.text
        return form.split(trace.text)[0].rstrip() if ended else None
    spans = task.sentences(trace.text)
    return None if trace.truncated or len(spans) < 2 else trace.text[: spans[-2][1]].rstrip()


def corrupted(
    task: Task, trace: Trace, others: Sequence[Trace], rng: random.Random
) -> dict[str, str]:
    """A chain of thought as it was, with its sentences shuffled, and another problem's.

    Args:
        task: Says where chains of thought and sentences end.
        trace: A response that came to an answer.
        others: Such responses, one of another problem among them.
        rng: Draws.
    """
    own = chain_of_thought(task, trace)
    foreign = [other for other in others if other.problem_id != trace.problem_id]
    mixed = shuffled(task, trace.writer, own or "", rng)
    return {
        INTACT: own or "",
        SHUFFLED: mixed,
        FOREIGN: chain_of_thought(task, rng.choice(foreign)) or "",
    }


def asked_to_answer(chain: str, form: ResponseFormat) -> str:
    """A chain of thought, closed, and the beginning of an answer."""
    for part in filter(None, (form.thinking_suffix, form.answer_prefix)):
        chain += part if part[0].isspace() else f" {part}"
    return chain


def accuracy_after(
    grades: Mapping[str, Sequence[bool | None]], traces: Sequence[Trace], resampling: Resampling
) -> list[Measure]:
    """Share of right answers after chains of thought in each condition.

    Traces of which some answer has no grade are left out, so that conditions compare the same;
    nothing is measured where none is left.

    Args:
        grades: By condition, of the answer after each trace.
        traces: Whose chains of thought they are.
        resampling: Makes intervals.
    """
    ungraded = np.array([[grade is None for grade in own] for own in grades.values()])
    is_graded = np.asarray(~ungraded.any(axis=0))
    if not is_graded.any():
        return []
    problems = [trace.problem_id for trace, known in zip(traces, is_graded, strict=True) if known]
    record = Recorder(resampling, "", problems)
    return [
        record.share(ACCURACY_AFTER, RL, condition, np.array(own)[is_graded].astype(float))
        for condition, own in grades.items()
    ]
