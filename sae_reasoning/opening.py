"""The task of an experiment, opened from its config: the one place that knows which there are.

And its problems: rows of the file that `traces.source` names, and what `traces` posed.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_reasoning.config import Config, ConfigError, require_file
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.prompt import prompt_opens_thinking
from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.edges.tables import is_parquet, read_table
from sae_reasoning.edges.tables import read_rows as read_parquet_rows
from sae_reasoning.records import REPORT, SPLITS, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import ResponseFormat, Task
from sae_reasoning.tasks.search.grammar import NEW_REMARKS, REMARKS
from sae_reasoning.tasks.search.problems import draw_problems
from sae_reasoning.tasks.search.task import search_task
from sae_reasoning.tasks.search.world import NEW_PLACES, PLACES, Difficulty
from sae_reasoning.tasks.text.questions import Draw, pose_rows
from sae_reasoning.tasks.text.task import THINK, TextGrader, response_format, text_task
from sae_reasoning.traces.rows import read_rows

Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""Of a file, each with what to call it in a message."""

PROBLEMS_FILE = "problems.parquet"
"""Beside the traces: what was posed, and what answers are graded by."""


def open_task(cfg: Config, traces: Sequence[Trace] = ()) -> Task:
    """The task that `cfg` names.

    Args:
        cfg: The experiment.
        traces: Of it, where there are some: they tell which models open a chain of thought
            themselves.
    """
    if cfg.task_kind == "search":
        return search_task()
    if cfg.traces.kind == "search":  # Graded by the map, whatever else is known of the text.
        search = search_task()
        return text_task(cfg.behaviours, cfg.traces.cues, search.formats, search.grader)
    return text_task(
        cfg.behaviours, cfg.traces.cues, _formats(cfg, traces), TextGrader(OutsideScorers())
    )


def draw_search_problems(cfg: Config) -> list[Problem]:
    """Problems of the search world, as many and as large as `cfg` says."""
    return draw_problems(
        cfg.traces.num_problems,
        cfg.traces.report_share,
        cfg.traces.seed,
        Difficulty(cfg.task.min_edges, cfg.task.max_edges),
        PLACES if cfg.task.places == "known" else NEW_PLACES,
        REMARKS if cfg.task.remarks == "known" else NEW_REMARKS,
    )


def read_source(
    option: str, path: str, warn: Callable[[str], None]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of a file of traces or problems, whatever its form.

    Args:
        option: What names the file.
        path: The file.
        warn: Hears of characters that had to be replaced.

    Raises:
        ConfigError: There is no such file, or it can't be read.
    """
    require_file(option, path)
    file = Path(path)
    try:
        if is_parquet(file):
            return [(f"row {n}", row) for n, row in enumerate(read_parquet_rows(file), start=1)]
        return [(where, row) for where, row in read_rows(file, option, warn)]
    except OSError as error:
        raise ConfigError(
            f"{option}={path} can't be read ({error.strerror or error}); mend it or name another"
        ) from error


def draw_own_problems(cfg: Config, rows: Rows, warn: Callable[[str], None]) -> list[Problem]:
    """Problems of rows in words or numbers, at most `traces.num_problems`, drawn at random.

    Args:
        cfg: The experiment.
        rows: Of a file, or of a dataset.
        warn: Hears of problems that are left out.

    Raises:
        ConfigError: A row has no question, or fewer than two problems are there.
    """
    part = cfg.traces
    draw = Draw(part.num_problems, part.report_share, part.instruction, part.seed)
    return pose_rows(rows, f"traces.source={part.source}", draw, warn)


def _formats(cfg: Config, traces: Sequence[Trace]) -> dict[str, ResponseFormat]:
    prompt = traces[0].prompt if traces else "?"
    writers = {trace.writer for trace in traces if trace.text.lstrip().startswith(THINK)}
    return {
        name: response_format(
            opened=prompt_opens_thinking(load_tokenizer(model), prompt), marks=name in writers
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
