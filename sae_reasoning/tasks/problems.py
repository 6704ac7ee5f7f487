"""The problems of an experiment, split once into those that select and those that report."""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sae_reasoning.records import REPORT, SELECT


@dataclass(frozen=True)
class Problem:
    """A problem as it is posed to the models.

    Attributes:
        problem_id: The unit of resampling.
        split: `select` or `report`.
        prompt: What is asked.
        reference: What answers are graded by: the right answer, or JSON of what the grader needs;
            "" where nothing is known, or where the task grades by the prompt.
        grader: How: `math`, `countdown` or `gym:<task>`; "" where the task grades by the prompt.
    """

    problem_id: str
    split: str
    prompt: str
    reference: str = ""
    grader: str = ""

    @property
    def right_answer(self) -> str:
        """The right answer as the reference spells it; "" where that says only how to check."""
        if self.grader in ("", "math"):
            return self.reference.strip()
        return str(json.loads(self.reference).get("answer", "")).strip()

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


def in_splits(problems: Sequence[Problem], report_share: float) -> list[Problem]:
    """Problems with ids in their order, the first of them to select on, the rest to report."""
    num_report = max(1, min(len(problems) - 1, round(len(problems) * report_share)))
    num_select = len(problems) - num_report
    return [
        replace(problem, problem_id=f"p{index:05d}", split=SELECT if index < num_select else REPORT)
        for index, problem in enumerate(problems)
    ]


def assign_splits(problem_ids: list[str], report_share: float, seed: int) -> dict[str, str]:
    """A split for each different problem id, at random."""
    different = sorted(set(problem_ids))
    random.Random(f"splits/{seed}").shuffle(different)
    num_report = max(1, min(len(different) - 1, round(len(different) * report_share)))
    return {
        problem_id: REPORT if index < num_report else SELECT
        for index, problem_id in enumerate(different)
    }
