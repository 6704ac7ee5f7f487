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
    NEUTRAL,
    OWN_WORDS,
    TRY,
    Outcomes,
    best_of,
    best_of_tries,
    credited,
    mean_known,
    without_redone,
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

    @property
    def of_control(self) -> float:
        """Value of the sentence as a control; NaN where too few leave the behaviour undone."""
        return float(mean_known(without_redone(self.grades, self.redone)))


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
        truncated: Whether it was cut before it was carried out; then nothing completes it.
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
    truncated: bool
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

        Of a control those completions count that don't do the behaviour (`without_redone`).

        Args:
            rows: Places of the starts.
            control: What completions that do the behaviour again count as, if not as themselves.
        """
        grades = {key: self._counted(key)[rows] for key in self.values}
        if control:
            least = mean_known(grades[RL, control])
            executed = [key for key in grades if key[0] == BASE or key[1] == OWN_WORDS]
            for key in executed:
                grades[key] = credited(grades[key], self.redone[key][rows], least)
        found = {key: mean_known(own) for key, own in grades.items() if TRY not in key[1]}
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
            means = mean_known(self._counted((RL, condition)))
            known = zip(self.starts, means, strict=True)
            found |= {start.key: float(one) for start, one in known if one == one}
        return found

    def redone_shares(self, rows: Sequence[int]) -> Outcomes:
        """Of each execution and control, the share of completions that do the behaviour again."""
        cut = self.truncated(rows)
        return {
            key: np.where(own == 0, self.redone[key][rows].mean(1), np.nan)
            for key, own in cut.items()
        }

    def truncated(self, rows: Sequence[int]) -> Outcomes:
        """Whether each was cut before it was carried out; NaN where nothing was said."""
        said = {key: [own[row] for row in rows] for key, own in self.said.items()}
        return {
            key: np.array([np.nan if one is None else one.truncated for one in own], float)
            for key, own in said.items()
            if TRY not in key[1]
        }

    def _counted(self, key: tuple[str, str]) -> Values:
        """Grades of completions that count at each start; NaN where not all are known."""
        own = self.values[key]
        if key[1].partition(TRY)[0] in (*CONTROLS, NEUTRAL):
            return without_redone(own, self.redone[key])
        return np.where(np.isnan(own).any(1, keepdims=True), np.nan, own)


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
            truncated=one.truncated,
            value=float(grades.mean()),
            redone=float(redone.mean()),
            completions=0 if one.truncated else len(grades),
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
