"""Problems in words, from rows of a file, of a dataset, or of reasoning-gym.

A row of a file or dataset is a question with its right answer, under any of the usual names, or a
countdown: numbers and a target. Where the answer is worked and ends in `#### n`, n is it.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_reasoning.config import ConfigError
from sae_reasoning.tasks.problems import Problem, in_splits
from sae_reasoning.tasks.text.answers import is_plainly_equal, worked_answer
from sae_reasoning.tasks.text.grading import COUNTDOWN, GYM, MATH
from sae_reasoning.texts import silent

_QUESTION = ("question", "problem", "prompt", "query")
_ANSWER = ("answer", "final_answer", "ground_truth", "expected_answer", "solution")
_NUMBERS = ("nums", "numbers")
_NOTHING = frozenset(("", "None", "null", "NULL", "<NA>", "NaT", "NaN", "nan"))
"""What a missing answer is written as."""


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that a short name stands for.

    Attributes:
        path: Hub id.
        name: Its configuration; none where it has one only.
        split: Which part is taken unless another is asked for.
    """

    path: str
    name: str | None
    split: str


DATASETS = {
    "gsm8k": KnownDataset("openai/gsm8k", "main", "test"),
    "math500": KnownDataset("HuggingFaceH4/MATH-500", None, "test"),
    "aime": KnownDataset("HuggingFaceH4/aime_2024", None, "train"),
    "countdown": KnownDataset("Jiayi-Pan/Countdown-Tasks-3to4", None, "train"),
}


@dataclass(frozen=True)
class Draw:
    """Which problems are taken, and how they're put.

    Attributes:
        num_problems: At most.
        report_share: Share of them to report on.
        instruction: Put behind each question.
        seed: Of the draw, and of the order.
    """

    num_problems: int
    report_share: float
    instruction: str
    seed: int


def pose_rows(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    source: str,
    draw: Draw,
    warn: Callable[[str], None] = silent,
) -> list[Problem]:
    """As many different problems of some rows, drawn at random where there are more.

    A question that stands there with two different answers is left out.

    Args:
        rows: Each with what to call it in a message.
        source: Option and value, for messages.
        draw: Which are taken.
        warn: Told of questions that are left out.

    Raises:
        ConfigError: A row has no question, or fewer than two problems are there.
    """
    posed: dict[str, Problem] = {}
    first: dict[str, str] = {}
    torn: dict[str, str] = {}
    for where, row in rows:
        try:
            one = _posed(row, draw.instruction)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{source}, {where}: {str(error).strip(chr(39))}; give a question and its answer, "
                "or nums and a target"
            ) from error
        known = posed.setdefault(one.prompt, one)
        first.setdefault(one.prompt, where)
        if not known.reference:
            posed[one.prompt] = one  # The answer may stand in a later row.
        elif one.reference and not _same(known, one):
            torn.setdefault(
                one.prompt,
                f"{first[one.prompt]} says {known.reference!r}, {where} {one.reference!r}",
            )
    if torn:
        warn(
            f"{source}: {len(torn)} questions have several answers and are left out (of the first, "
            f"{next(iter(torn.values()))}); keep one row of each"
        )
    kept = [problem for prompt, problem in posed.items() if prompt not in torn]
    return _drawn(kept, source, draw)


def _same(one: Problem, other: Problem) -> bool:
    """Whether two problems have the same right answer, as far as their spelling tells."""
    return (
        one.reference == other.reference or is_plainly_equal(one.reference, other.reference) is True
    )


def pose_gym(entries: Mapping[str, Sequence[Mapping[str, Any]]], draw: Draw) -> list[Problem]:
    """Problems of reasoning-gym tasks, equally many of each; an entry is kept whole to grade by.

    Args:
        entries: By task.
        draw: Which are taken.
    """
    posed: dict[str, Problem] = {}
    for task, own in entries.items():
        for entry in own:
            prompt = _with(str(entry["question"]), draw.instruction)
            reference = json.dumps(dict(entry), default=str, sort_keys=True)
            posed.setdefault(prompt, Problem("", "", prompt, reference, f"{GYM}:{task}"))
    source = f"traces.source=gym:{','.join(entries)}"
    return _drawn(list(posed.values()), source, draw)


def _drawn(problems: list[Problem], source: str, draw: Draw) -> list[Problem]:
    if len(problems) < 2:
        raise ConfigError(
            f"{source} holds {len(problems)} different problem(s), but one split selects and "
            "another reports; give two or more"
        )
    # At random, as files are often sorted by kind or difficulty.
    random.Random(f"questions/{draw.seed}").shuffle(problems)
    return in_splits(problems[: draw.num_problems], draw.report_share)


def _posed(row: Mapping[str, Any], instruction: str) -> Problem:
    numbers = next((row[key] for key in _NUMBERS if row.get(key) is not None), None)
    if numbers is not None and row.get("target") is not None:
        numbers, target = [int(n) for n in numbers], int(row["target"])
        question = (
            f"Write an arithmetic expression that equals {target}. It has to use each of the "
            f"numbers {', '.join(map(str, numbers))} exactly once, and may use + - * / and "
            "brackets."
        )
        reference = json.dumps({"numbers": numbers, "target": target})
        return Problem("", "", _with(question, instruction), reference, COUNTDOWN)
    question = _first(row, _QUESTION)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"it has only {', '.join(map(str, row)) or 'no key'}")
    return Problem("", "", _with(question.strip(), instruction), _reference(row), MATH)


def _reference(row: Mapping[str, Any]) -> str:
    """The right answer; of a worked one, what it ends in."""
    answer = _first(row, _ANSWER)
    if isinstance(answer, (list, tuple)):
        answer = answer[0] if len(answer) == 1 else answer
    text = "" if _is_missing(answer) else str(answer).strip()
    if "####" in text or "\\boxed" in text:
        text = worked_answer(text)
    return "" if _is_missing(text) else text


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if not _is_missing(row.get(key))), None)


def _is_missing(value: Any) -> bool:
    """Whether a cell holds nothing, in any way that a table says so."""
    if isinstance(value, str):
        return value.strip() in _NOTHING or value.strip().lower() == "nan"
    if isinstance(value, (list, tuple)):
        return all(map(_is_missing, value))
    return value is None or str(value) in _NOTHING or value != value


def _with(question: str, instruction: str) -> str:
    return f"{question}\n\n{instruction}" if instruction else question
