"""What the base pays beyond the RL model, in nats, on the content of the RL model's behaviours."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.measures import Measure, Resampling, by_problem
from sae_reasoning.records import BASE, RL, Trace
from sae_reasoning.tasks.protocol import Task

CONTENT_LOSS, BASE_BEYOND_RL = "content_loss", "base-rl"


def content_loss(
    task: Task,
    traces: Sequence[Trace],
    offsets: Sequence[Sequence[tuple[int, int]]],
    losses: Mapping[str, Sequence[Float[np.ndarray, " token"]]],
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Nats a span that the base pays beyond the RL model on a behaviour's content words.

    The same on as many content words outside the behaviour is taken off, so that what the base
    finds harder everywhere does not count.

    Args:
        task: Says which words carry content.
        traces: The RL model's.
        offsets: Characters of the response tokens of each.
        losses: Of each model and trace, nats of every token.
        behaviours: Whose content.
        resampling: Makes intervals.
    """
    assert task.content is not None
    found = []
    contents = [task.content(trace.text) for trace in traces]
    for behaviour in behaviours:
        rows: list[list[float]] = []
        problems = []
        for index, trace in enumerate(traces):
            gap = losses[BASE][index] - losses[RL][index]
            is_inside = np.zeros(len(gap), bool)
            for span in trace.spans:
                if span.behaviour == behaviour:
                    is_inside[span.token_start : span.token_end] = True
            is_content = np.zeros(len(gap), bool)
            for place, (start, end) in enumerate(offsets[index]):
                # Every piece of a content word counts; a piece may hold the space before it.
                if any(start < last and first < end for first, last in contents[index]):
                    is_content[trace.num_prompt_tokens + place] = True
            inside, outside = gap[is_inside & is_content], gap[~is_inside & is_content]
            spans = sum(span.behaviour == behaviour for span in trace.spans)
            rows.append([inside.sum(), len(inside), outside.sum(), len(outside), float(spans)])
            problems.append(trace.problem_id)
        sums = by_problem(problems, np.array(rows))
        if not sums[:, 4].sum():
            continue

        def a_span(of: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore", invalid="ignore"):
                beyond = of[..., 0] / of[..., 1] - of[..., 2] / of[..., 3]
                return beyond * of[..., 1] / of[..., 4]

        estimate = resampling.estimate(sums, a_span)
        found.append(
            Measure(
                behaviour=behaviour,
                measure=CONTENT_LOSS,
                model=BASE_BEYOND_RL,
                condition="",
                value=estimate.value,
                low=estimate.low,
                high=estimate.high,
                level=0.95,
                n=estimate.n,
                items=int(sums[:, 4].sum()),
            )
        )
    return found
