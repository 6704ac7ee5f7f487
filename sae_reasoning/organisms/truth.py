"""Ground truth of training's effect on each behaviour of an organism, from thousands of rollouts.

The truth is never assumed from how an organism was made: rates and execution accuracy must show it,
and how it was made must agree. It rests on counts of behaviours and on forced openings; no verdict,
logit or latent enters. What a sentence is worth to the answer is counted from answers after it,
after another in its place and without it (`organisms.influence`).
"""

from dataclasses import dataclass

from sae_reasoning.organisms.influence import Influence
from sae_reasoning.organisms.measure import BehaviourFigures, Figures
from sae_reasoning.stats import Estimate
from sae_reasoning.tasks.search.forced import Validity

CREATED, DEPLOYED, COSMETIC, UNCHANGED, REDUCED, UNCLEAR = (
    "created",
    "deployed",
    "cosmetic",
    "unchanged",
    "reduced",
    "unclear",
)
RATIO = 1.25
"""A rate is up where it has grown by more than this factor."""
RISK = 0.01
"""Starts a trace; a smaller difference is none."""
SLACK = 0.15
"""Execution accuracy by which a base may be behind and still have the behaviour: the verdict's
margin at a chance of one half."""
ABLE, UNABLE = 0.4, 0.2
"""Chance-corrected accuracy above which a model executes a behaviour, and below which it doesn't;
in between it does in part."""
INFLUENCE = 0.05
"""Accuracy of the answer; a sentence whose content and presence make less of a difference is for
show. The verdict's margin on the same difference."""


@dataclass(frozen=True)
class Truth:
    """The truth of one behaviour.

    Attributes:
        behaviour: Its label.
        truth: `created`, `deployed`, `cosmetic`, `unchanged`, `reduced` or `unclear`.
        reason: Why, in words with figures.
        rate: Spans a rollout, of base and RL model.
        execution_accuracy: Of both at the RL model's own onsets; None without any.
        chance: Accuracy of a random fill there.
    """

    behaviour: str
    truth: str
    reason: str
    rate: tuple[Estimate, Estimate]
    execution_accuracy: tuple[Estimate, Estimate] | None
    chance: float


def truths(
    base: Figures,
    rl: Figures,
    base_there: list[Validity],
    lacks: str | None,
    behaviours: list[str],
    influence: Influence | None = None,
) -> list[Truth]:
    """The truth of each behaviour.

    Args:
        base: The base, measured.
        rl: The RL model, measured, with its execution accuracy at its own onsets.
        base_there: The base's execution accuracy at the same onsets.
        lacks: The behaviour that the base's corpus lacks, if any.
        behaviours: To be judged.
        influence: Of a behaviour on the RL model's answers, where it was measured.
    """
    rates = [{m.behaviour: m for m in figures.behaviours} for figures in (base, rl)]
    executed = [{v.behaviour: v for v in found} for found in (base_there, rl.execution)]
    return [
        _truth(
            behaviour,
            rates[0][behaviour],
            rates[1][behaviour],
            (executed[0][behaviour], executed[1][behaviour]) if behaviour in executed[1] else None,
            is_lacking=behaviour == lacks,
            influence=influence if influence and influence.behaviour == behaviour else None,
        )
        for behaviour in behaviours
    ]


def _truth(
    behaviour: str,
    base: BehaviourFigures,
    rl: BehaviourFigures,
    executed: tuple[Validity, Validity] | None,
    is_lacking: bool,
    influence: Influence | None,
) -> Truth:
    found, reason = _judge(base.per_trace, rl.per_trace, executed, is_lacking, influence)
    return Truth(
        behaviour=behaviour,
        truth=found,
        reason=reason,
        rate=(base.per_trace, rl.per_trace),
        execution_accuracy=(executed[0].estimate, executed[1].estimate) if executed else None,
        chance=executed[1].chance if executed else float("nan"),
    )


def _judge(
    base: Estimate,
    rl: Estimate,
    executed: tuple[Validity, Validity] | None,
    is_lacking: bool,
    influence: Influence | None,
) -> tuple[str, str]:
    rates = f"{base.value:.3f} → {rl.value:.3f} a rollout"
    error = ((base.high - base.low) ** 2 + (rl.high - rl.low) ** 2) ** 0.5 / 2
    change = rl.value - base.value
    if rl.high < base.low / RATIO and change + error < -RISK:
        return REDUCED, rates
    is_level = rl.high <= RATIO * base.low and rl.low >= base.high / RATIO
    if is_level or abs(change) + error <= RISK:
        return UNCHANGED, rates
    if rl.low <= RATIO * base.high or change - error <= RISK:
        return UNCLEAR, f"{rates}: neither level nor clearly up or down"
    if influence and influence.is_below(INFLUENCE):
        content, presence = influence.over_displaced, influence.over_absent
        return COSMETIC, (
            f"{rates}; right after its own sentence minus after one about another place "
            f"{_signed(content)}, minus without it {_signed(presence)}, n = {content.n}"
        )
    if executed is None:
        return UNCLEAR, f"{rates}: never started where it could be carried out"
    before, after = executed
    said = (
        f"{rates}; executed {before.estimate.value:.2f} → {after.estimate.value:.2f} of {after.n}"
    )
    gap = ((before.estimate.high - before.estimate.low) / 2) ** 2
    gap = (gap + ((after.estimate.high - after.estimate.low) / 2) ** 2) ** 0.5
    behind = after.estimate.value - before.estimate.value
    if _chance_corrected(after.estimate.low, after.chance) <= ABLE:
        return UNCLEAR, f"{said}: the RL model itself doesn't execute it"
    if behind + gap < SLACK and _chance_corrected(before.estimate.low, before.chance) > ABLE:
        if is_lacking:
            return UNCLEAR, f"{said}: the base's corpus lacks it and yet the base executes it"
        return DEPLOYED, said
    if _chance_corrected(before.estimate.high, before.chance) < UNABLE:
        if not is_lacking:
            return UNCLEAR, f"{said}: the base's corpus holds it and yet the base can't execute it"
        return CREATED, said
    return UNCLEAR, f"{said}: the base executes it in part"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _chance_corrected(accuracy: float, chance: float) -> float:
    """Accuracy on a scale on which 0 is chance and 1 is always right."""
    return (accuracy - chance) / (1 - chance)
