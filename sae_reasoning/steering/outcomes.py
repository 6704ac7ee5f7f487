"""What rollouts are judged by: a numerator and a denominator of every outcome."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.steering.degeneration import degeneration


@dataclass(frozen=True)
class Judged:
    """A rollout with everything that outcomes are counted on.

    Attributes:
        text: The response.
        num_tokens: Its length.
        truncated: Whether it was cut; it counts up to its cut.
        correct: The grade, or None where nothing can judge.
        spans: Its behaviours.
        opportunities: Where behaviours could start.
        is_right: Of each behaviour, whether it was carried out rightly; empty where nothing can
            judge.
    """

    text: str
    num_tokens: int
    truncated: bool
    correct: bool | None
    spans: tuple[Span, ...]
    opportunities: tuple[Opportunity, ...]
    is_right: tuple[bool, ...] = ()


def count(rollout: Judged, behaviours: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Numerator and denominator of every outcome.

    `in_place/<behaviour>` is the share of behaviours that start where the behaviour could start; a
    behaviour elsewhere is a form without its occasion. `validity/<behaviour>` is the share that was
    carried out rightly.
    """
    judged = rollout.correct is not None
    repeated, compression = degeneration(rollout.text)
    counts = {
        "accuracy": (float(rollout.correct or 0), float(judged)),
        "length": (float(rollout.num_tokens), 1.0),
        "truncated": (float(rollout.truncated), 1.0),
        "repeated_3grams": (repeated, 1.0),
        "compression": (compression, 1.0),
    }
    for behaviour in behaviours:
        own = [span.behaviour == behaviour for span in rollout.spans]
        made = float(sum(own))
        right = float(sum(a and b for a, b in zip(own, rollout.is_right, strict=False)))
        offered = [o.taken for o in rollout.opportunities if o.behaviour == behaviour]
        counts[f"rate_per_trace/{behaviour}"] = (made, 1.0)
        counts[f"rate_per_opportunity/{behaviour}"] = (float(sum(offered)), float(len(offered)))
        counts[f"in_place/{behaviour}"] = (float(sum(offered)), made)
        counts[f"validity/{behaviour}"] = (right, made if rollout.is_right else 0.0)
    return counts


def judged_counts(
    rollouts: pd.DataFrame, behaviours: Sequence[str]
) -> list[dict[str, tuple[float, float]]]:
    """`count` of each row of a table of generations."""
    return [
        count(
            Judged(
                text=row.text,
                num_tokens=row.num_tokens,
                truncated=row.truncated,
                correct=None if pd.isna(row.correct) else bool(row.correct),
                spans=tuple(Span(**span) for span in row.spans),
                opportunities=tuple(Opportunity(**o) for o in row.opportunities),
                is_right=tuple(map(bool, row.is_right)),
            ),
            behaviours,
        )
        for row in rollouts.itertuples(index=False)
    ]
