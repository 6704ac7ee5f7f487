"""Grades of what models answered to problems that were posed here, by the task's program."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.prompt import opened_by_prompt
from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.records import Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search.task import SearchGrader
from sae_reasoning.tasks.text.grading import Grader, grade_all, uneven_answers


def grade_traces(
    cfg: Config, traces: Sequence[Trace], problems: Sequence[Problem], warn: Callable[[str], None]
) -> tuple[list[Trace], pd.DataFrame | None]:
    """Rollouts with their grades, and of answers in words what became of them, by writer.

    Args:
        cfg: The experiment.
        traces: Rollouts.
        problems: What was posed.
        warn: Told of rollouts without a grade, and of writers whose answers are read unevenly.
    """
    if cfg.traces.kind == "search":
        grader, posed = SearchGrader(), {one.problem_id: one for one in problems}
        return [
            replace(t, correct=grader.grade(posed[t.problem_id], t.text, truncated=t.truncated))
            for t in traces
        ], None
    with OutsideScorers() as scorers:
        by_reference = Grader({problem.problem_id: problem for problem in problems}, scorers)
        graded, shares = grade_all(traces, by_reference, opens_thought(cfg))
        if share := sum(trace.correct is None for trace in graded) / max(len(graded), 1):
            needs = "" if scorers.has_algebra else " needs math-verify (sae_reasoning[math]) or"
            warn(
                f"{share:.1%} of rollouts could not be graded, and no accuracy counts them: the "
                f"right answer is missing or can't be read, or comparing{needs} takes too long"
            )
    for warning in uneven_answers(graded):
        warn(warning)
    return graded, shares


def opens_thought(cfg: Config) -> Callable[[Trace], bool]:
    """By trace, whether the prompt that its writer got ends in an open thought."""
    tokenizers = {writer: load_tokenizer(model) for writer, model in cfg.pair.readers.items()}

    @cache
    def opened(writer: str, prompt: str) -> bool:
        return bool(opened_by_prompt(tokenizers[writer], prompt))

    return lambda trace: opened(trace.writer, trace.prompt)
