"""The problems of an experiment, split once into those that select and those that report."""

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.organisms.grammar import REMARKS
from sae_reasoning.organisms.world import PLACES, TRAINED, Difficulty, sample_problem
from sae_reasoning.records import Trace

SELECT, REPORT = "select", "report"
PROBLEMS_FILE = "problems.parquet"
"""Beside the traces: problems in words, with what their answers are graded by."""


def more_traces(cfg: Config) -> str:
    """What gives more traces, as a message names it: imported ones no option multiplies."""
    source = cfg.traces
    if source.kind == "file" and not (cfg.folder / "traces" / PROBLEMS_FILE).exists():
        return f"add traces to traces.source={source.source}"
    return "raise traces.num_problems"


@dataclass(frozen=True)
class PosedProblem:
    """A problem as it is posed to the models.

    Attributes:
        problem_id: The unit of resampling.
        split: `select` or `report`.
        prompt: What is asked.
        reference: What answers are graded by: the right answer, or JSON of what the grader needs;
            "" where nothing is known, or where the organisms' grammar grades.
        grader: How: `math`, `countdown` or `gym:<task>`.
    """

    problem_id: str
    split: str
    prompt: str
    reference: str = ""
    grader: str = ""

    @property
    def key(self) -> int:
        """Of its sampling noise: the same whatever others are posed, and in whatever batch."""
        return noise_key(self.problem_id)


def noise_key(problem_id: str) -> int:
    """Of a problem's sampling noise: what this project numbers has its number, else a hash.

    Ids that came with imported traces may be any text, so they get 63 bits of their SHA-256, which
    no two of a corpus share by accident.
    """
    if re.fullmatch(r"p\d{5}|p[1-9]\d{5,8}", problem_id, re.ASCII):
        return int(problem_id[1:])
    digest = hashlib.sha256(problem_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_search_problems(
    num_problems: int,
    report_share: float,
    seed: int,
    difficulty: Difficulty = TRAINED,
    places: Sequence[str] = PLACES,
    remarks: Sequence[str] = REMARKS,
) -> list[PosedProblem]:
    """Different problems of the organisms' world, `select` first, in the order of their ids.

    The seed's stream is apart from those that the organisms were trained on.
    """
    rng = random.Random(f"traces/{seed}")
    prompts: dict[str, None] = {}
    while len(prompts) < num_problems:
        prompts[sample_problem(rng, difficulty, remarks, places).prompt()] = None
    return in_splits([PosedProblem("", "", prompt) for prompt in prompts], report_share)


def in_splits(problems: Sequence[PosedProblem], report_share: float) -> list[PosedProblem]:
    """Problems with ids in their order, the first of them to select on, the rest to report."""
    num_report = max(1, min(len(problems) - 1, round(len(problems) * report_share)))
    num_select = len(problems) - num_report
    return [
        replace(problem, problem_id=f"p{index:05d}", split=SELECT if index < num_select else REPORT)
        for index, problem in enumerate(problems)
    ]


def posed_in(
    traces: Iterable[Trace], most: Mapping[str, int], report_share: float
) -> dict[str, list[PosedProblem]]:
    """The different problems of traces by split, the first of each, in the traces' order.

    Args:
        traces: Rollouts.
        most: Of each split, problems at most.
        report_share: With which they were split, for the message.

    Raises:
        ConfigError: A split has none.
    """
    posed = dict.fromkeys(PosedProblem(one.problem_id, one.split, one.prompt) for one in traces)
    found = {}
    for split, count in most.items():
        found[split] = [problem for problem in posed if problem.split == split][:count]
        if not found[split]:
            raise ConfigError(
                f"traces.report_share={report_share} leaves no problem to the {split} split; "
                f"{'raise' if split == REPORT else 'lower'} it"
            )
    return found


def assign_splits(problem_ids: list[str], report_share: float, seed: int) -> dict[str, str]:
    """A split for each different problem id, by lot."""
    different = sorted(set(problem_ids))
    random.Random(f"splits/{seed}").shuffle(different)
    num_report = max(1, min(len(different) - 1, round(len(different) * report_share)))
    return {
        problem_id: REPORT if index < num_report else SELECT
        for index, problem_id in enumerate(different)
    }
