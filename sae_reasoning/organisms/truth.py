"""What training did to each move of an organism, as measured by program on thousands of rollouts.

Truth is never assumed from how an organism was made: the rates and validities must say it, and how
it was made must not speak against it. It rests on counts of moves made and on forced starts; no
verdict, no logit and no latent enters.
"""

from dataclasses import dataclass

from sae_reasoning.organisms.measure import Figures, MoveFigures
from sae_reasoning.stats import Estimate
from sae_reasoning.tasks.search.forced import Validity

CREATED, DEPLOYED, UNCHANGED, REDUCED, UNCLEAR = (
    "created",
    "deployed",
    "unchanged",
    "reduced",
    "unclear",
)
RATIO = 1.25
"""A rate is up where it has grown by more than this factor."""
RISK = 0.01
"""Moves a trace; a smaller difference is none."""
SLACK = 0.15
"""Validity that a base may lack and still have the move; the verdict's margin at a chance of a
half."""
ABLE, UNABLE = 0.4, 0.2
"""Of the way from chance to certainty: above the one a model carries the move out, below the other
it doesn't, in between it does in part."""


@dataclass(frozen=True)
class Truth:
    """What happened to one move.

    Attributes:
        behaviour: The move.
        truth: `created`, `deployed`, `unchanged`, `reduced` or `unclear`.
        reason: Why, in words with figures.
        rate: Spans a rollout, of base and second model.
        validity: Execution validity of both at the second model's own onsets; None without any.
        chance: What a continuation by lot earns there.
    """

    behaviour: str
    truth: str
    reason: str
    rate: tuple[Estimate, Estimate]
    validity: tuple[Estimate, Estimate] | None
    chance: float


def truths(
    base: Figures, second: Figures, base_there: list[Validity], lacks: str | None, moves: list[str]
) -> list[Truth]:
    """The truth of each move.

    Args:
        base: The base, measured.
        second: What it became, measured, with its validity at its own onsets.
        base_there: The base's validity at the same onsets.
        lacks: The move that the base never met, if any.
        moves: Moves to judge.
    """
    rates = [{m.move: m for m in figures.moves} for figures in (base, second)]
    validities = [{v.move: v for v in found} for found in (base_there, second.validity)]
    return [
        _truth(
            move,
            rates[0][move],
            rates[1][move],
            (validities[0][move], validities[1][move]) if move in validities[1] else None,
            is_lacking=move == lacks,
        )
        for move in moves
    ]


def _truth(
    move: str,
    base: MoveFigures,
    second: MoveFigures,
    validity: tuple[Validity, Validity] | None,
    is_lacking: bool,
) -> Truth:
    found, reason = _judge(base.per_trace, second.per_trace, validity, is_lacking)
    return Truth(
        behaviour=move,
        truth=found,
        reason=reason,
        rate=(base.per_trace, second.per_trace),
        validity=(validity[0].estimate, validity[1].estimate) if validity else None,
        chance=validity[1].chance if validity else float("nan"),
    )


def _judge(
    base: Estimate,
    second: Estimate,
    validity: tuple[Validity, Validity] | None,
    is_lacking: bool,
) -> tuple[str, str]:
    rates = f"{base.value:.3f} → {second.value:.3f} a rollout"
    error = ((base.high - base.low) ** 2 + (second.high - second.low) ** 2) ** 0.5 / 2
    change = second.value - base.value
    if second.high < base.low / RATIO and change + error < -RISK:
        return REDUCED, rates
    is_level = second.high <= RATIO * base.low and second.low >= base.high / RATIO
    if is_level or abs(change) + error <= RISK:
        return UNCHANGED, rates
    if second.low <= RATIO * base.high or change - error <= RISK or validity is None:
        return UNCLEAR, f"{rates}: neither level nor clearly up or down"
    before, after = validity
    said = (
        f"{rates}; executed {before.estimate.value:.2f} → {after.estimate.value:.2f} of {after.n}"
    )
    gap = ((before.estimate.high - before.estimate.low) / 2) ** 2
    gap = (gap + ((after.estimate.high - after.estimate.low) / 2) ** 2) ** 0.5
    behind = after.estimate.value - before.estimate.value
    if _skill(after.estimate.low, after.chance) <= ABLE:
        return UNCLEAR, f"{said}: the second model itself doesn't carry it out"
    if behind + gap < SLACK and _skill(before.estimate.low, before.chance) > ABLE:
        if is_lacking:
            return UNCLEAR, f"{said}: the base never met it and yet carries it out"
        return DEPLOYED, said
    if _skill(before.estimate.high, before.chance) < UNABLE:
        if not is_lacking:
            return UNCLEAR, f"{said}: the base met it and yet can't carry it out"
        return CREATED, said
    return UNCLEAR, f"{said}: the base carries it out in part"


def _skill(validity: float, chance: float) -> float:
    """How far validity is from chance (0) to certainty (1)."""
    return (validity - chance) / (1 - chance)
