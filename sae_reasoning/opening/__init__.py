"""The task of an experiment, opened from its config: the one place that knows which there are.

And its problems, as `traces` posed them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sae_reasoning.config import COUNTDOWN3, Config, ConfigError
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.prompt import opened_by_prompt
from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.edges.tables import read_table
from sae_reasoning.opening.annotators import open_annotator
from sae_reasoning.records import REPORT, SPLITS, Trace
from sae_reasoning.tasks.countdown.task import CountdownJudge
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import ResponseFormat, Task
from sae_reasoning.tasks.search.task import SearchAnnotator, search_task
from sae_reasoning.tasks.text.arithmetic import checked_equalities
from sae_reasoning.tasks.text.instructions import text_instructions
from sae_reasoning.tasks.text.task import TextGrader, response_format, text_task, written_mark

PROBLEMS_FILE = "problems.parquet"
"""Beside the traces: what was posed, and what answers are graded by."""


def open_task(cfg: Config, traces: Sequence[Trace] = (), folder: Path | None = None) -> Task:
    """The task that `cfg` names, with the annotator of its traces.

    Args:
        cfg: The experiment.
        traces: Of it, where there are some: they tell which models open a chain of thought
            themselves.
        folder: Of the stage `traces`, where it isn't the finished one.

    Raises:
        ConfigError: The annotator knows no such behaviour.
    """
    annotator = open_annotator(cfg, cfg.traces.annotator, folder or cfg.place("traces"))
    if cfg.task_kind == "search":
        by_rule = isinstance(annotator, SearchAnnotator)
        return replace(search_task(), annotator=annotator, opportunities_by_rule=by_rule)
    asked = text_instructions(cfg.behaviours, cfg.traces.meanings)
    if cfg.traces.kind == "search":  # Graded by the map, whatever else is known of the text.
        search = search_task()
        return text_task(annotator, search.formats, search.grader, asked)
    task = text_task(annotator, _formats(cfg, traces), TextGrader(OutsideScorers()), asked)
    task = replace(task, check=checked_equalities)
    return replace(task, judge=CountdownJudge()) if cfg.traces.kind == COUNTDOWN3 else task


def _formats(cfg: Config, traces: Sequence[Trace]) -> dict[str, ResponseFormat]:
    prompt = traces[0].prompt if traces else "?"
    return {
        name: response_format(
            opened=opened_by_prompt(load_tokenizer(model), prompt),
            written=written_mark(trace.text for trace in traces if trace.writer == name),
        )
        for name, model in cfg.pair.readers.items()
    }


def read_problems(folder: Path) -> dict[str, list[Problem]]:
    """Problems by split, in the order in which they were posed.

    Args:
        folder: Of the stage `traces`.
    """
    rows = read_table(folder / PROBLEMS_FILE).to_dict("records")
    problems = [Problem(**{str(name): str(value) for name, value in row.items()}) for row in rows]
    return {split: [one for one in problems if one.split == split] for split in SPLITS}


def first_problems(cfg: Config, most: Mapping[str, int]) -> dict[str, list[Problem]]:
    """The first problems of each split, at most so many.

    Raises:
        ConfigError: A split has none.
    """
    found = {}
    for split, problems in read_problems(cfg.place("traces")).items():
        found[split] = problems[: most[split]]
        if not problems:
            raise ConfigError(
                f"traces.report_share={cfg.traces.report_share} leaves no problem to the {split} "
                f"split; {'raise' if split == REPORT else 'lower'} it"
            )
    return found
