"""How far two annotators agree: Cohen's κ per behaviour, and a confusion table.

The unit is the sentence: it bears the behaviour whose spans cover most of its characters, or none
where less than half of it is covered. Intervals resample problems.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.records import Trace
from sae_reasoning.stats import bootstrap_of_sums, kappa
from sae_reasoning.tasks.text.labels import NONE, sentence_labels

ALL = "(all behaviours)"


def agree(
    ones: Sequence[Trace],
    others: Sequence[Trace],
    behaviours: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far two annotators of the same traces agree.

    Args:
        ones: Traces as the first labels them.
        others: The same traces, in the same order, as the second does.
        behaviours: Labels to compare.
        num_resamples: Resamples of problems.
        seed: Of the resamples.

    Returns:
        κ (columns behaviour, kappa, low, high, problems, sentences, by_first, by_second, by_both),
        and the confusion table (first, second, sentences; pairs that occur).
    """
    pairs = []
    for one, other in zip(ones, others, strict=True):
        assert (one.trace_id, one.text) == (other.trace_id, other.text)
        labels = (sentence_labels(trace.text, trace.spans) for trace in (one, other))
        pairs += [(one.problem_id, *pair) for pair in zip(*labels, strict=True)]
    return agree_on(pairs, behaviours, num_resamples, seed)


def agree_on(
    labelled: Iterable[tuple[str, str, str]],
    behaviours: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far two label the same sentences alike.

    Args:
        labelled: Of each sentence its problem, and what either calls it: a behaviour or NONE.
        behaviours: Labels to compare.
        num_resamples: Resamples of problems.
        seed: Of the resamples.

    Returns:
        What `agree` returns.
    """
    names = [*behaviours, NONE]
    tables: defaultdict[str, Float[np.ndarray, "first second"]] = defaultdict(
        lambda: np.zeros((len(names), len(names)))
    )
    for problem_id, first, second in labelled:
        tables[problem_id][names.index(first), names.index(second)] += 1
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
    """Each problem's table of one behaviour against all else."""
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
