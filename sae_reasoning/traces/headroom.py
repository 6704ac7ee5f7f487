"""How often each model answers rightly, and whether that leaves anything to be explained.

Where both models solve almost all problems, or almost none, no behaviour can be worth anything to
the answer, and whatever is measured by answers says nothing. That is told before it is measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sae_reasoning.config import TracesConfig
from sae_reasoning.records import MODELS, Trace
from sae_reasoning.stats import bootstrap_of_sums

ACCURACY = "accuracy.json"
"""Beside the traces: accuracy by writer, and what it leaves."""
ENOUGH, NONE_LEFT, NONE_YET, UNKNOWN = "enough", "none left", "none yet", "unknown"
"""Headroom: some problems are solved and some aren't; all are solved; none is; no grades."""

_HARDER = {"gsm8k": "math500", "math500": "aime", "countdown": "math500", "gym": "math500"}
_EASIER = {"aime": "math500", "math500": "gsm8k", "countdown": "gsm8k"}
_MANY_CUT = 0.5


@dataclass(frozen=True)
class Accuracy:
    """Of a writer's graded traces, the share that is right.

    Attributes:
        writer: `base` or `rl`.
        value: The share; NaN where none is graded.
        low: Lower bound of the 95 % interval over problems.
        high: Upper bound.
        problems: Problems with a graded trace.
        graded: Graded traces.
        traces: All traces.
        truncated: Share of them that were cut.
    """

    writer: str
    value: float
    low: float
    high: float
    problems: int
    graded: int
    traces: int
    truncated: float

    def __str__(self) -> str:
        if not self.graded:
            return f"{self.writer}: none graded"
        return f"{self.writer} {self.value:.1%} right [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True)
class Headroom:
    """Both accuracies, and what they leave.

    Attributes:
        accuracies: By writer.
        kind: ENOUGH, NONE_LEFT, NONE_YET or UNKNOWN.
    """

    accuracies: tuple[Accuracy, ...]
    kind: str

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {"headroom": self.kind, "accuracies": [asdict(one) for one in self.accuracies]}


def accuracy_of(
    traces: Sequence[Trace], writer: str, num_resamples: int = 1000, seed: int = 0
) -> Accuracy:
    """The accuracy of a writer, with its interval over resampled problems."""
    own = [trace for trace in traces if trace.writer == writer]
    sums: dict[str, list[int]] = {}
    for trace in own:
        if trace.correct is not None:
            right, graded = sums.get(trace.problem_id, (0, 0))
            sums[trace.problem_id] = [right + trace.correct, graded + 1]
    counts = np.array(list(sums.values()), dtype=float).reshape(-1, 2)
    found = bootstrap_of_sums(counts, lambda s: s[..., 0] / s[..., 1], num_resamples, seed)
    return Accuracy(
        writer,
        found.value,
        found.low,
        found.high,
        len(sums),
        int(counts[:, 1].sum()),
        len(own),
        float(np.mean([trace.truncated for trace in own])) if own else float("nan"),
    )


def headroom_of(traces: Sequence[Trace], low: float, high: float) -> Headroom:
    """Whether both accuracies are at an end of the scale.

    Args:
        traces: Of both writers, or of one.
        low: Accuracy up to which a model solves nothing.
        high: Accuracy from which it solves everything.
    """
    writers = [writer for writer in MODELS if any(t.writer == writer for t in traces)]
    found = tuple(accuracy_of(traces, writer) for writer in writers)
    graded = [one for one in found if one.graded]
    if not graded:
        return Headroom(found, UNKNOWN)
    if all(one.value >= high for one in graded):
        return Headroom(found, NONE_LEFT)
    return Headroom(found, NONE_YET if all(one.value <= low for one in graded) else ENOUGH)


def writers_in_words(headroom: Headroom) -> str:
    """How many traces each writer has, how many of them are right and how many truncated."""
    return "; ".join(
        f"{one.writer} {one.traces:,} traces, "
        + (f"{one.value:.1%} right [{one.low:.1%}, {one.high:.1%}], " if one.graded else "")
        + ("" if one.graded else "none graded, ")
        + f"{one.truncated:.1%} truncated"
        for one in headroom.accuracies
    )


def advice(headroom: Headroom, part: TracesConfig, max_edges: int) -> str:
    """What to take instead where no headroom is left; "" where there is some.

    Args:
        headroom: Of the traces.
        part: Their options.
        max_edges: `task.max_edges`, which the search world's difficulty hangs on.
    """
    if headroom.kind not in (NONE_LEFT, NONE_YET):
        return ""
    said = "; ".join(map(str, headroom.accuracies))
    is_easy = headroom.kind == NONE_LEFT
    why = (
        f"both models solve almost everything (traces.headroom_high={part.headroom_high})"
        if is_easy
        else f"both models solve almost nothing (traces.headroom_low={part.headroom_low})"
    )
    return (
        f"no headroom: {said}; {why}, so what a behaviour is worth to the answer can't be "
        f"measured here. {_remedy(headroom, part, max_edges)}"
    )


def _remedy(headroom: Headroom, part: TracesConfig, max_edges: int) -> str:
    is_easy = headroom.kind == NONE_LEFT
    if not is_easy and all(one.truncated > _MANY_CUT for one in headroom.accuracies):
        return (
            f"Most rollouts are cut; raise traces.max_new_tokens={part.max_new_tokens} before "
            "anything else"
        )
    if part.kind == "search":
        edges = min(max_edges + 2, 8) if is_easy else max(max_edges - 2, 1)
        return f"Take {'longer' if is_easy else 'shorter'} paths: task.max_edges={edges}"
    name = part.source.partition(":")[0]
    other = (_HARDER if is_easy else _EASIER).get(name)
    if other is not None:
        return f"Take {'harder' if is_easy else 'easier'} problems: traces.source={other}"
    if part.kind == "file":
        return (
            f"Take {'harder' if is_easy else 'easier'} problems into {part.source}, those that "
            f"the base solves between 0.1 and 0.9 of the time"
        )
    if is_easy:
        return "Take harder problems from a file of your own: traces.source=FILE"
    return "Take easier problems: traces.source=gym:chain_sum, or another task of reasoning-gym"
