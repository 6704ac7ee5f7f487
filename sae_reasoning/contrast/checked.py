"""What a program can check of what behaviours say: statements within their spans, true or false.

Of every span of a behaviour on the report split: whether it holds a statement that can be checked,
whether all of those hold, and whether the trace repairs later what doesn't. Evidence beside the
verdict: a behaviour may be made without a statement, and a displaced sentence may be true as well.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from sae_reasoning.contrast.measures import Measure, Resampling, compared
from sae_reasoning.contrast.rates import over
from sae_reasoning.records import MODELS, REPORT, Trace
from sae_reasoning.tasks.protocol import Checked

COVERED, RIGHT, REPAIRED = MEASURES = ("checked/covered", "checked/right", "checked/repaired")
"""Share of spans with a statement; of those, all true; of false statements, repaired later."""


def checked_spans(
    traces: Sequence[Trace],
    check: Callable[[str], list[Checked]],
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Shares of each model's own spans on the report split; without what there is none of.

    Args:
        traces: Of both writers, annotated.
        check: Finds statements in a whole trace.
        behaviours: Whose spans.
        resampling: Makes intervals.
    """
    own = [trace for trace in traces if trace.split == REPORT]
    number = {p: row for row, p in enumerate(sorted({trace.problem_id for trace in own}))}
    # By behaviour: [problem, model] of spans, covered, right; false statements, and repaired.
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((5, len(number), len(MODELS))))
    for trace in own:
        said = check(trace.text)
        at = number[trace.problem_id], MODELS.index(trace.writer)
        for span in trace.spans:
            inside = [one for one in said if span.char_start <= one.start < span.char_end]
            wrong = [one for one in inside if not one.is_true]
            repaired = sum(one.is_repaired for one in wrong)
            covered = bool(inside)
            counts[span.behaviour][(slice(None), *at)] += (
                *(1, covered, covered and not wrong),
                *(len(wrong), repaired),
            )
    found = []
    for behaviour in behaviours:
        spans, covered, right, wrong, repaired = counts[behaviour]
        for measure, above, below in (
            (COVERED, covered, spans),
            (RIGHT, right, covered),
            (REPAIRED, repaired, wrong),
        ):
            if below.any():
                items = (int(below[:, 0].sum()), int(below[:, 1].sum()))
                found += compared(resampling, behaviour, measure, over(above, below), items)
    return found
