"""Pilots: at which starts the answer rests on what a behaviour says.

1. A control's sentence stands at a start, and the RL model completes it a few times.
2. Where enough of that is wrong, the RL model goes on freely from the start, as often.
3. A start has *headroom* where at least so much more is right in 2 than in 1.

Starts are drawn at random, and tried until enough have headroom. Their sentences and completions
are apart from all that is reported, so nothing that is reported was chosen for coming out high or
low; what was chosen are places.
"""

from dataclasses import dataclass

from sae_reasoning.tasks.protocol import Start


@dataclass(frozen=True)
class Pilot:
    """What was tried at one start.

    Attributes:
        start: Where.
        control: Which control's sentence stood there.
        said: That sentence.
        of_control: Share of its completions that are right, of those that don't do the behaviour;
            NaN without a grade, or where fewer than half don't.
        of_rl: The same of what the RL model went on with freely; NaN where that wasn't tried, as
            no headroom could be left.
        in_trace: Whether the rollout that the start was found in is right, 0 or 1; NaN without a
            grade.
        redone: Share of the control's completions that do the behaviour.
    """

    start: Start
    control: str
    said: str
    of_control: float
    of_rl: float
    in_trace: float
    redone: float

    def has_headroom(self, least: float) -> bool:
        """Whether at least so large a share of right answers rests on the behaviour."""
        return self.of_rl - self.of_control >= least - 1e-9
