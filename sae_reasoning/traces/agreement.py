"""Do two annotators see the same moves? Cohen's κ per behaviour, and who calls what what.

The unit is the sentence: an annotator gives it the move whose spans cover most of its characters,
or none where less than half of it is covered. Intervals resample problems.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.records import Span, TokenSpan, Trace
from sae_reasoning.stats import bootstrap_of_sums, kappa
from sae_reasoning.tasks.text.sentences import sentences

NONE = "(none)"
ALL = "(all moves)"

_COVERED = 0.5


def sentence_labels(text: str, spans: Sequence[Span | TokenSpan]) -> list[str]:
    """The move of each sentence, or NONE."""
    labels = []
    for start, end in sentences(text):
        covered: defaultdict[str, int] = defaultdict(int)
        for span in spans:
            shared = min(span.char_end, end) - max(span.char_start, start)
            if shared > 0:
                covered[span.behaviour] += shared
        most = max(covered, key=lambda behaviour: covered[behaviour], default=NONE)
        labels.append(most if covered and covered[most] >= _COVERED * (end - start) else NONE)
    return labels


def agree(
    ones: Sequence[Trace],
    others: Sequence[Trace],
    behaviours: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far two annotators of the same traces agree.

    Args:
        ones: Traces as the first marks them.
        others: The same traces, in the same order, as the second does.
        behaviours: Moves.
        num_resamples: Resamples of problems.
        seed: Of the resamples.

    Returns:
        κ (columns behaviour, kappa, low, high, problems, sentences, by_first, by_second, by_both),
        and the confusion table (first, second, sentences; pairs that occur).
    """
    names = [*behaviours, NONE]
    tables: defaultdict[str, Float[np.ndarray, "first second"]] = defaultdict(
        lambda: np.zeros((len(names), len(names)))
    )
    for one, other in zip(ones, others, strict=True):
        assert (one.trace_id, one.text) == (other.trace_id, other.text)
        for first, second in zip(
            sentence_labels(one.text, one.spans),
            sentence_labels(other.text, other.spans),
            strict=True,
        ):
            tables[one.problem_id][names.index(first), names.index(second)] += 1
    stacked = np.stack(list(tables.values())) if tables else np.zeros((0, len(names), len(names)))
    rows = [
        _row(name, _against_rest(stacked, index), num_resamples, seed)
        for index, name in enumerate(behaviours)
    ]
    rows.append(_row(ALL, stacked.reshape(len(stacked), -1), num_resamples, seed))
    summed = stacked.sum(0)
    confusion = [
        {"first": names[i], "second": names[j], "sentences": int(summed[i, j])}
        for i, j in np.argwhere(summed)
    ]
    return pd.DataFrame(rows), pd.DataFrame(confusion, columns=["first", "second", "sentences"])


def _against_rest(
    tables: Float[np.ndarray, "problem first second"], index: int
) -> Float[np.ndarray, "problem 4"]:
    """Each problem's table of one move against all else."""
    both = tables[:, index, index]
    first = tables[:, index].sum(-1) - both
    second = tables[:, :, index].sum(-1) - both
    return np.stack([both, first, second, tables.sum((1, 2)) - both - first - second], axis=1)


def _row(
    name: str, sums: Float[np.ndarray, "problem cell"], num_resamples: int, seed: int
) -> dict[str, object]:
    found = bootstrap_of_sums(sums, kappa, num_resamples, seed)
    total = sums.sum(0)
    size = round(len(total) ** 0.5)
    table = total.reshape(size, size)[: size - 1 if name == ALL else 1]
    marked = total.reshape(size, size)[:, : size - 1 if name == ALL else 1]
    return {
        "behaviour": name,
        "kappa": found.value,
        "low": found.low,
        "high": found.high,
        "problems": found.n,
        "sentences": int(total.sum()),
        "by_first": int(table.sum()),
        "by_second": int(marked.sum()),
        "by_both": int(np.trace(total.reshape(size, size)[: table.shape[0], : table.shape[0]])),
    }
