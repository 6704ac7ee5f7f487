"""Steering vectors that, added once at onset-1, make the base carry a behaviour out.

No word is written. The vector, its layer and its size are chosen on the select split by how often
the base then carries the behaviour out; on the report split the choice is compared, start by start
and with common random numbers, with no steering, with random directions and those that permuted
labels give (at its layer, each with the dose that is best for it on the select split), and with
what was chosen for the other behaviours. What is compared is what executions are worth, less what
a control would earn wherever the behaviour starts: a vector that only makes the opening gains
nothing. Worth is validity less that of a random fill where a program judges (`ByProgram`), and
otherwise value less that of a control (`ByCompletion`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.contrast.measures import Measure, Recorder, Resampling
from sae_reasoning.contrast.sentences import Sentence
from sae_reasoning.contrast.value import COMPLETION, Scale, against
from sae_reasoning.records import BASE
from sae_reasoning.steering.controls import random_direction
from sae_reasoning.steering.vectors import RANDOM, Direction, Steer
from sae_reasoning.tasks.protocol import Start, Task

Steered = Callable[[Sequence[Start], Sequence[Steer]], list[Sentence]]
"""Lets the base go on from each start, steered once; what is added doesn't change the noise."""

VECTOR, NONE, OTHER = "steering vector", "none", "steering vector of"
STARTED, VALID, CORRECTED, OVER = (
    "steered/started",
    "steered/valid",
    "steered/chance_corrected",
    "steered/chance_corrected_over",
)
SKILL, SKILL_OVER = "steered/value_skill", "steered/value_skill_over"
"""The same where executions are valued by completion; each is taken against a control."""

Judged = Float[np.ndarray, "start 3"]
"""Of each start: whether the behaviour was started, what its execution came to (0 if it wasn't),
and the share of that which counts as the control, as the behaviour was left undone."""


@runtime_checkable
class Worth(Protocol):
    """Says what executions are worth."""

    def judge(self, starts: Sequence[Start], sentences: Sequence[Sentence]) -> Judged:
        """Of free sentences at some starts."""
        ...

    def control(self, starts: Sequence[Start]) -> Float[np.ndarray, " start"]:
        """What an execution comes to without the ability, at each start; NaN where unknown."""
        ...

    def measures(
        self,
        record: Recorder,
        control: Float[np.ndarray, " start"],
        name: str,
        own: Judged,
        best: Judged | None,
    ) -> list[Measure]:
        """Estimates under one condition.

        Args:
            record: Makes them, of all starts of a behaviour on the report split.
            control: What `control` says of those.
            name: Of the condition.
            own: What came of it.
            best: What came of the chosen vector; None where this is it.
        """
        ...


@dataclass(frozen=True)
class ByProgram:
    """Validity by the task's judge, against a random fill.

    Attributes:
        task: With a judge and its null.
        seed: Of the random fills.
    """

    task: Task
    seed: int

    def judge(self, starts: Sequence[Start], sentences: Sequence[Sentence]) -> Judged:
        """Whether each sentence has the behaviour's form, and is valid."""
        assert self.task.judge is not None
        judged = self.task.judge.judge_free(starts, [one.said for one in sentences])
        return np.array([(one.is_formed, bool(one.is_valid), 0) for one in judged], float)

    def control(self, starts: Sequence[Start]) -> Float[np.ndarray, " start"]:
        """Probability that a random fill is valid."""
        assert self.task.null is not None
        return np.asarray(self.task.null.chance(starts, 1, self.seed))

    def measures(
        self,
        record: Recorder,
        control: Float[np.ndarray, " start"],
        name: str,
        own: Judged,
        best: Judged | None,
    ) -> list[Measure]:
        """Valid executions, beyond chance, and the best vector's lead."""
        found = [
            record.share(measure, BASE, name, own[:, column])
            for measure, column in ((STARTED, 0), (VALID, 1))
        ]
        found.append(record.beyond_chance(CORRECTED, BASE, name, own[:, 1], control, own[:, 0]))
        if best is not None:
            gains = (earned(best, control), earned(own, control))
            found.append(record.difference(OVER, BASE, name, *gains))
        return found


@dataclass(frozen=True)
class ByCompletion:
    """Value by completion, on the scale of each control.

    Attributes:
        value: Whether each sentence is the behaviour, and its value if it is.
        controls: Value of the control at each start that has one, by `Start.key`; used to choose.
        scales: Of the report split's starts, by control; used to compare.
    """

    value: Callable[[Sequence[Start], Sequence[Sentence]], Judged]
    controls: Mapping[str, float]
    scales: Mapping[str, Scale]
    name = COMPLETION

    def judge(self, starts: Sequence[Start], sentences: Sequence[Sentence]) -> Judged:
        """Whether the annotator finds the behaviour, and what it is then worth to the answer."""
        return self.value(starts, sentences)

    def control(self, starts: Sequence[Start]) -> Float[np.ndarray, " start"]:
        """Value of the control."""
        return np.array([self.controls.get(start.key, np.nan) for start in starts])

    def measures(
        self,
        record: Recorder,
        control: Float[np.ndarray, " start"],
        name: str,
        own: Judged,
        best: Judged | None,
    ) -> list[Measure]:
        """Value skill, where a sentence that isn't the behaviour counts as the control.

        Each scale has its own control.
        """
        found = [record.share(STARTED, BASE, name, own[:, 0])]
        for kind, scale in self.scales.items():
            outcome = _or_control(scale, own)
            found.append(scale.skill(against(SKILL, kind), BASE, name, outcome))
            if best is not None:
                over = against(SKILL_OVER, kind)
                found.append(scale.apart(over, BASE, name, _or_control(scale, best), outcome))
        return found


def _or_control(scale: Scale, own: Judged) -> Float[np.ndarray, " start"]:
    """What each execution came to; the control's outcome where the behaviour wasn't started."""
    found = np.full(len(own), np.nan)
    started, outcome, undone = own[scale.rows].T
    found[scale.rows] = np.where(started > 0, outcome + undone * scale.control, scale.control)
    return found


def earned(
    judged: Float[np.ndarray, "*vector start 3"], control: Float[np.ndarray, " start"]
) -> Float[np.ndarray, "*vector start"]:
    """What executions came to, less what the control would earn where the behaviour started."""
    return np.asarray(judged[..., 1] - control * (judged[..., 0] - judged[..., 2]))


@dataclass(frozen=True)
class Chosen:
    """What the select split chose for one behaviour.

    Attributes:
        behaviour: What it is for.
        kind: How the direction was found.
        layer: Decoder block.
        dose: Size, in multiples of the mean norm of the residual there.
        size: The same in units of the residual.
        select_valid: What executions came to on select starts, on average: the share that is valid,
            or their value.
        select_beyond_chance: The same, less what the control would earn where the behaviour
            started.
        direction: The direction itself [d_model].
    """

    behaviour: str
    kind: str
    layer: int
    dose: float
    size: float
    select_valid: float
    select_beyond_chance: float
    direction: Float[Tensor, " d_model"]

    def steer(self) -> Steer:
        """What is added to a row."""
        return Steer(self.layer, self.direction * self.size)


def choose(
    starts: Sequence[Start],
    directions: Sequence[Direction],
    norms: Mapping[int, float],
    doses: Sequence[float],
    steered: Steered,
    worth: Worth,
) -> list[Chosen]:
    """Each direction with the dose under which the base's executions are worth most.

    The best comes first.

    Args:
        starts: Of one behaviour, on the select split; those without a control are left out.
        directions: Candidates.
        norms: Mean norm of the residual at onset-1, by layer.
        doses: Sizes to try, in multiples of it.
        steered: Lets the base go on.
        worth: Says what comes of it.
    """
    if not starts or not directions:
        return []
    control = worth.control(starts)
    starts = [start for start, one in zip(starts, control, strict=True) if not np.isnan(one)]
    control = control[~np.isnan(control)]
    if not starts:
        return []
    tried = [(direction, dose) for direction in directions for dose in doses]
    steers = [
        Steer(direction.layer, direction.vector * dose * norms[direction.layer])
        for direction, dose in tried
    ]
    judged = _judged(starts, steers, steered, worth)
    gained = _mean_of_known(earned(judged, control))
    found = []
    for number, direction in enumerate(directions):
        own = gained[number * len(doses) : (number + 1) * len(doses)]
        best = int(own.argmax())
        found.append(
            Chosen(
                behaviour=starts[0].behaviour,
                kind=direction.kind,
                layer=direction.layer,
                dose=doses[best],
                size=doses[best] * norms[direction.layer],
                select_valid=float(np.nanmean(judged[number * len(doses) + best, :, 1])),
                select_beyond_chance=float(own[best]),
                direction=direction.vector,
            )
        )
    return sorted(found, key=lambda one: -one.select_beyond_chance)


def _mean_of_known(values: Float[np.ndarray, "row start"]) -> Float[np.ndarray, " row"]:
    """Mean over the starts that have a value; what has none anywhere is never the best."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), -np.inf)


def compare(
    starts: Sequence[Start],
    chosen: Chosen,
    controls: Sequence[Chosen],
    others: Sequence[Chosen],
    steered: Steered,
    worth: Worth,
    resampling: Resampling,
) -> list[Measure]:
    """The chosen steering vector against its controls, on the report split.

    Args:
        starts: Of the same behaviour.
        chosen: Its steering vector.
        controls: Random and permuted directions, each with its best dose.
        others: Vectors of the other behaviours; each is added at its own layer, with its own size.
        steered: Lets the base go on.
        worth: Says what comes of it.
        resampling: Makes intervals.
    """
    conditions = {VECTOR: chosen.steer(), NONE: Steer(-1, torch.zeros_like(chosen.direction))}
    for number, direction in enumerate(controls, 1):
        conditions[f"{direction.kind} {number}"] = direction.steer()
    for other in others:
        conditions[f"{OTHER} {other.behaviour}"] = other.steer()
    judged = _judged(starts, list(conditions.values()), steered, worth)
    record = Recorder(resampling, chosen.behaviour, [start.problem.problem_id for start in starts])
    found = []
    control = worth.control(starts)
    for name, own in zip(conditions, judged, strict=True):
        found += worth.measures(record, control, name, own, None if name == VECTOR else judged[0])
    return found


def random_directions(
    layer: int, d_model: int, count: int, rng: np.random.Generator
) -> list[Direction]:
    """Random directions of one layer."""
    return [Direction(RANDOM, layer, random_direction(d_model, rng)) for _ in range(count)]


def _judged(
    starts: Sequence[Start], steers: Sequence[Steer], steered: Steered, worth: Worth
) -> Float[np.ndarray, "vector start 3"]:
    """Whether the behaviour was started, and what came of it, at every start and vector."""
    # All vectors at one start side by side: what they share is read once.
    rows = [start for start in starts for _ in steers]
    sentences = steered(rows, list(steers) * len(starts))
    judged = worth.judge(rows, sentences)
    return np.asarray(judged).reshape(len(starts), len(steers), 3).swapaxes(0, 1)
