"""Whether an answer rests on the chain of thought before it: the same chain, corrupted.

After Stechly et al. (2504.09762): an answer that survives did not rest on what the trace says.
"""

import random
from collections.abc import Sequence

import numpy as np

from sae_reasoning.contrast.measures import Measure, Recorder, Resampling
from sae_reasoning.records import RL, Trace
from sae_reasoning.tasks.protocol import Task

ACCURACY_AFTER = "accuracy/after_cot"
INTACT, SHUFFLED, FOREIGN = "intact", "shuffled", "another problem's"


def shuffled(task: Task, model: str, text: str, rng: random.Random) -> str:
    """A chain of thought with its sentences in another order; what opens it stays first.

    Args:
        task: Says what a sentence is.
        model: Whose format the text has.
        text: The chain of thought so far.
        rng: Orders.
    """
    prefix = task.formats[model].thinking_prefix
    body = text.removeprefix(prefix)
    sentences = [body[start:end] for start, end in task.sentences(body)]
    rng.shuffle(sentences)
    return " ".join([*([prefix] if prefix and text.startswith(prefix) else []), *sentences])


def corrupted(
    task: Task, trace: Trace, others: Sequence[Trace], rng: random.Random
) -> dict[str, str]:
    """A chain of thought as it was, with its sentences shuffled, and another problem's."""
    split = task.formats[trace.writer].split
    own = split(trace.text)[0].rstrip()
    foreign = [other for other in others if other.problem_id != trace.problem_id]
    return {
        INTACT: own,
        SHUFFLED: shuffled(task, trace.writer, own, rng),
        FOREIGN: split(rng.choice(foreign).text)[0].rstrip(),
    }


def accuracy_after(
    condition: str, traces: Sequence[Trace], right: Sequence[bool | None], resampling: Resampling
) -> Measure:
    """Share of right answers after chains of thought in one condition.

    Args:
        condition: What was done to them.
        traces: Whose they are.
        right: Grades of the answers; None counts as wrong, as no answer does.
        resampling: Makes intervals.
    """
    record = Recorder(resampling, "", [trace.problem_id for trace in traces])
    return record.share(ACCURACY_AFTER, RL, condition, np.array([bool(r) for r in right], float))
