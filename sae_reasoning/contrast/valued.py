"""Executions at starts, with the grades of what the RL model completed them to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from sae_reasoning.contrast.execution import BEST_OF
from sae_reasoning.contrast.pilots import Pilot
from sae_reasoning.contrast.sentences import CarriedOut, Sentence
from sae_reasoning.contrast.value import (
    CONTROLS,
    OWN_WORDS,
    TRY,
    Outcomes,
    best_of,
    best_of_tries,
    credited,
)
from sae_reasoning.records import BASE, RL
from sae_reasoning.tasks.protocol import Start

Said = dict[tuple[str, str], list[Sentence | None]]
"""What was said at each start, by model and condition; None where nothing was."""

Values = Float[np.ndarray, "start completion"]
Redone = Bool[np.ndarray, "start completion"]


class Completed(NamedTuple):
    """What the RL model's completions of one sentence come to.

    Attributes:
        grades: 1 is right, 0 wrong, NaN where there is no grade.
        redone: Whether each begins with an opening of the behaviour: what was said left it undone.
    """

    grades: Float[np.ndarray, " completion"]
    redone: Bool[np.ndarray, " completion"]


@dataclass(frozen=True)
class Row:
    """One execution and what came of it, for a table.

    Attributes:
        behaviour: What was started.
        problem_id: On which problem.
        split: Of the problem.
        start: Where.
        model: Who carried it out.
        condition: Under which.
        said: The sentence.
        value: Share of completions that are right; NaN where they have no grade.
        redone: Share of completions that begin with the behaviour, as it was left undone.
        completions: How many there are.
    """

    behaviour: str
    problem_id: str
    split: str
    start: str
    model: str
    condition: str
    said: str
    value: float
    redone: float
    completions: int


@dataclass(frozen=True)
class Valued:
    """Executions at the same starts, and what they are worth.

    Attributes:
        starts: Where, of all behaviours on one split.
        said: What was said, by model and condition.
        values: Grades of its completions, by model and condition; NaN where there are none.
        redone: Which completions begin with the behaviour.
    """

    starts: list[Start]
    said: Said
    values: Mapping[tuple[str, str], Values]
    redone: Mapping[tuple[str, str], Redone]

    def of(self, behaviour: str) -> tuple[list[Start], list[int]]:
        """Starts of a behaviour, and their places."""
        rows = [i for i, start in enumerate(self.starts) if start.behaviour == behaviour]
        return [self.starts[row] for row in rows], rows

    def outcomes(self, rows: Sequence[int], control: str = "") -> Outcomes:
        """Mean grade of each execution at some starts; of several tries, the best one's too.

        Args:
            rows: Places of the starts.
            control: What completions that do the behaviour again count as, if not as themselves.
        """
        grades = {key: own[rows] for key, own in self.values.items()}
        if control:
            least = grades[RL, control].mean(1)
            executed = [key for key in grades if key[0] == BASE or key[1] == OWN_WORDS]
            for key in executed:
                grades[key] = credited(grades[key], self.redone[key][rows], least)
        found = {key: own.mean(1) for key, own in grades.items() if TRY not in key[1]}
        for model, condition in ((BASE, OWN_WORDS), *((RL, one) for one in CONTROLS)):
            tries = [
                own
                for (whose, name), own in grades.items()
                if (whose, name.partition(TRY)[0]) == (model, condition)
            ]
            if tries:
                best = BEST_OF if condition == OWN_WORDS else best_of(condition)
                found[model, best] = best_of_tries(np.stack(tries))
        return found

    def control(self) -> dict[str, float]:
        """Value of the control at each start that has one, displaced before foreign."""
        found: dict[str, float] = {}
        for condition in reversed(CONTROLS):
            means = self.values[RL, condition].mean(1)
            known = zip(self.starts, means, strict=True)
            found |= {start.key: float(one) for start, one in known if one == one}
        return found


@dataclass(frozen=True)
class BothSplits:
    """What was valued of a contrast.

    Attributes:
        select: Controls on the select split.
        report: All executions on the report split.
        pilots: By which starts of the report split were chosen.
        rule: Where a behaviour has been carried out.
    """

    select: Valued
    report: Valued
    pilots: list[Pilot]
    rule: CarriedOut


def rows_of(valued: Valued) -> list[Row]:
    """A row for each execution that was said."""
    return [
        Row(
            behaviour=start.behaviour,
            problem_id=start.problem.problem_id,
            split=start.problem.split,
            start=start.key,
            model=model,
            condition=condition,
            said=one.said,
            value=float(grades.mean()),
            redone=float(redone.mean()),
            completions=len(grades),
        )
        for key, own in valued.said.items()
        for start, one, grades, redone in zip(
            valued.starts, own, valued.values[key], valued.redone[key], strict=True
        )
        for model, condition in (key,)
        if one is not None
    ]


def value_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table, with its columns where there are none."""
    columns = [column.name for column in fields(Row)]
    return pd.DataFrame([asdict(row) for row in rows], columns=columns)
