"""Pilots: at which starts the answer rests on what a behaviour says.

1. Each control's sentence stands at a start, and the RL model completes it a few times.
2. Where enough of all that is wrong, the RL model goes on freely from the start, as often.
3. A start has *headroom* where at least so much more is right in 2 than after either control in 1.

Starts are drawn at random, and tried until enough have headroom. Their sentences and completions
are apart from all that is reported, so nothing that is reported was chosen for coming out high or
low; what was chosen are places.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sae_reasoning.tasks.protocol import Start


@dataclass(frozen=True)
class PilotControl:
    """What came of a control's sentence at one start.

    Attributes:
        said: The sentence.
        right: Share of its completions that are right, of those that don't do the behaviour; NaN
            without a grade, or where fewer than half don't.
        redone: Share of its completions that do the behaviour.
    """

    said: str
    right: float
    redone: float


@dataclass(frozen=True)
class Pilot:
    """What was tried at one start.

    Attributes:
        start: Where.
        controls: By control, what came of it; at least one.
        of_rl: Share of right answers of what the RL model went on with freely; NaN where that
            wasn't tried, as no headroom could be left.
        in_trace: Whether the rollout that the start was found in is right, 0 or 1; NaN without a
            grade.
    """

    start: Start
    controls: Mapping[str, PilotControl]
    of_rl: float
    in_trace: float

    @property
    def of_control(self) -> float:
        """Right answers after the control that is worth most there; NaN where one isn't known."""
        return float(np.max([one.right for one in self.controls.values()]))

    def has_headroom(self, least: float) -> bool:
        """Whether at least so large a share of right answers rests on the behaviour."""
        return self.of_rl - self.of_control >= least - 1e-9
