"""Execution accuracy: what both models make of a behaviour whose opening is written for them.

A model is started with an opening of its own: drawn from its own distribution over openings at that
place. A base that fails from those may still succeed from others, so its best condition is looked
for beside them: the opening that does best on the select split, and the best of several samples.
Levels that need no ability: slots filled at random, the heuristic that does best on the select
split, and a chain of thought whose sentences are shuffled before the start. The share of
continuations that have the behaviour's form tells a model that chooses wrongly from one that does
not write the behaviour.
"""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.faithfulness import shuffled
from sae_reasoning.contrast.measures import DIFFERENCE, Measure, Recorder, Resampling
from sae_reasoning.contrast.starts import Begun, LogProbs, own_openings
from sae_reasoning.records import BASE, MODELS, REPORT, RL, SELECT
from sae_reasoning.tasks.protocol import Execution, ExecutionJudge, Judgement, Start, Task

Continue = Callable[[str, Sequence[Begun], str, int], list[str]]
"""Takes a model, starts with their openings, a name for the noise and the number of the sample;
gives what the model adds to each."""

OWN_OPENING, BEST_OPENING, BEST_OF = "own opening", "best opening", "best of k"
SHUFFLED, RANDOM_FILL, HEURISTIC = "shuffled CoT", "random fill", "best heuristic"
HEURISTIC_FAILS = "own opening where the best heuristic fails"
FILL_THERE = "random fill where the best heuristic fails"
ACCURACY, CORRECTED, OVER_HEURISTIC, WELL_FORMED = (
    "execution_accuracy",
    "chance_corrected_accuracy",
    "accuracy_over_heuristic",
    "well_formed",
)


def is_valid(judgements: Sequence[Judgement]) -> Float[np.ndarray, " item"]:
    """1 where an execution is valid; what the judge can't tell counts as not."""
    return np.array([bool(one.is_valid) for one in judgements], float)


def execution_accuracy(
    starts: Sequence[Start],
    log_probs: Mapping[str, LogProbs],
    continue_: Continue,
    task: Task,
    *,
    best_of: int,
    resampling: Resampling,
) -> list[Measure]:
    """Execution accuracy of one behaviour, raw and chance-corrected.

    Args:
        starts: Of one behaviour, on both splits.
        log_probs: Of each model, at each start, of each opening.
        continue_: Lets a model go on.
        task: With openings, a judge and its null.
        best_of: Samples of the base, of which the best counts.
        resampling: Makes intervals; its seed also draws openings and orders.
    """
    assert task.openings is not None and task.judge is not None and task.null is not None
    report = [start for start in starts if start.problem.split == REPORT]
    select = [start for start in starts if start.problem.split == SELECT]
    if not report:
        return []
    behaviour, seed, judge = report[0].behaviour, resampling.seed, task.judge
    record = Recorder(resampling, behaviour, [start.problem.problem_id for start in report])
    openings = task.openings.of(behaviour)
    chance = task.null.chance(report, 1, seed)
    found: list[Measure] = []

    def add(model: str, condition: str, valid: np.ndarray, chance: np.ndarray) -> None:
        found.append(record.share(ACCURACY, model, condition, valid))
        found.append(record.beyond_chance(CORRECTED, model, condition, valid, chance))

    def run(model: str, said: Sequence[str], sample: int) -> Float[np.ndarray, " start"]:
        return is_valid(_executed(judge, report, said, continue_, model, sample))

    own = {}
    for model in MODELS:
        said = own_openings(report, openings, log_probs[model], seed)
        judged = _executed(judge, report, said, continue_, model, 0)
        own[model] = is_valid(judged)
        add(model, OWN_OPENING, own[model], chance)
        formed = np.array([one.is_formed for one in judged], float)
        found.append(record.share(WELL_FORMED, model, OWN_OPENING, formed))
        rng = random.Random(f"shuffled/{seed}/{behaviour}")
        mixed = [
            Begun(start, opening, shuffled(task, model, start.text, rng))
            for start, opening in zip(report, said, strict=True)
        ]
        texts = continue_(model, mixed, "shuffled", 0)
        valid = is_valid(judge.judge(_executions(report, said, texts)))
        found.append(record.share(ACCURACY, model, SHUFFLED, valid))
    gap = (DIFFERENCE, OWN_OPENING, own[RL], own[BASE])
    found.append(record.difference(ACCURACY, *gap))
    found.append(record.relative_difference(CORRECTED, *gap, 1 - chance))
    best = _best_opening(select, openings, continue_, judge)
    if best:
        add(BASE, BEST_OPENING, run(BASE, [best] * len(report), 1), chance)
    any_valid = own[BASE].copy()
    for sample in range(2, best_of + 1):
        again = own_openings(report, openings, log_probs[BASE], seed + sample)
        any_valid = np.maximum(any_valid, run(BASE, again, sample))
    add(BASE, BEST_OF, any_valid, task.null.chance(report, best_of, seed))
    found.append(record.share(ACCURACY, BASE, RANDOM_FILL, chance))
    rule = _best_heuristic(task, report, select)
    return found + ([] if rule is None else _over_heuristic(record, own, rule, chance))


def _over_heuristic(
    record: Recorder,
    own: Mapping[str, Float[np.ndarray, " start"]],
    rule: Float[np.ndarray, " start"],
    chance: Float[np.ndarray, " start"],
) -> list[Measure]:
    """How much better models are than the best heuristic, and what comes where that fails."""
    found = [record.share(ACCURACY, BASE, HEURISTIC, rule)]
    fails = np.flatnonzero(rule == 0)
    there = record.at(fails.tolist())
    for model, valid in own.items():
        found.append(record.difference(OVER_HEURISTIC, model, HEURISTIC, valid, rule))
        if len(fails):
            found.append(there.share(ACCURACY, model, HEURISTIC_FAILS, valid[fails]))
    if len(fails):
        found.append(there.share(ACCURACY, BASE, FILL_THERE, chance[fails]))
    return found


def _best_heuristic(
    task: Task, starts: Sequence[Start], select: Sequence[Start]
) -> Float[np.ndarray, " start"] | None:
    """Where the heuristic that is right most often on the select split is right.

    Without starts there it is the best on these very starts, which favours it. None where the
    behaviour has no heuristic.
    """
    assert task.null is not None
    tried = task.null.heuristics(select or starts)
    if not tried:
        return None
    return task.null.heuristics(starts)[max(tried, key=lambda rule: tried[rule].sum())]


def _executed(
    judge: ExecutionJudge,
    starts: Sequence[Start],
    openings: Sequence[str],
    continue_: Continue,
    model: str,
    sample: int,
) -> list[Judgement]:
    begun = [Begun(*one) for one in zip(starts, openings, strict=True)]
    texts = continue_(model, begun, "forced", sample)
    return judge.judge(_executions(starts, openings, texts))


def _executions(
    starts: Sequence[Start], openings: Sequence[str], texts: Sequence[str]
) -> list[Execution]:
    return [Execution(*one) for one in zip(starts, openings, texts, strict=True)]


def _best_opening(
    starts: Sequence[Start], openings: Sequence[str], continue_: Continue, judge: ExecutionJudge
) -> str | None:
    """The opening after which the base is right most often on the select split."""
    if not starts:
        return None
    rows = [(start, opening) for opening in openings for start in starts]
    begun, said = [start for start, _ in rows], [opening for _, opening in rows]
    valid = is_valid(_executed(judge, begun, said, continue_, BASE, 0))
    return openings[int(valid.reshape(len(openings), len(starts)).mean(1).argmax())]
