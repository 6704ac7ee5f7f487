"""The problems that traces were made of."""

from collections.abc import Iterable, Mapping

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.records import REPORT, Trace
from sae_reasoning.tasks.problems import Problem

PROBLEMS_FILE = "problems.parquet"
"""Beside the traces: problems in words, with what their answers are graded by."""


def more_traces(cfg: Config) -> str:
    """What gives more traces, as a message names it: imported ones no option multiplies."""
    source = cfg.traces
    if source.kind == "file" and not (cfg.folder / "traces" / PROBLEMS_FILE).exists():
        return f"add traces to traces.source={source.source}"
    return "raise traces.num_problems"


def posed_in(
    traces: Iterable[Trace], most: Mapping[str, int], report_share: float
) -> dict[str, list[Problem]]:
    """The different problems of traces by split, the first of each, in the traces' order.

    Args:
        traces: Rollouts.
        most: Of each split, problems at most.
        report_share: With which they were split, for the message.

    Raises:
        ConfigError: A split has none.
    """
    posed = dict.fromkeys(Problem(one.problem_id, one.split, one.prompt) for one in traces)
    found = {}
    for split, count in most.items():
        found[split] = [problem for problem in posed if problem.split == split][:count]
        if not found[split]:
            raise ConfigError(
                f"traces.report_share={report_share} leaves no problem to the {split} split; "
                f"{'raise' if split == REPORT else 'lower'} it"
            )
    return found
