"""Whether what a behaviour says makes a difference to the answer, counted by program.

At spans of a model's own rollouts the model goes on after the sentence as it wrote it, after the
same sentence about another place, and without it. What nothing acts on changes nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sae_reasoning.organisms.measure import Rolled, Write
from sae_reasoning.stats import Estimate, paired_bootstrap
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS, VERIFICATION, answered_path
from sae_reasoning.tasks.search.world import REAL

_RESAMPLES = 2000


@dataclass(frozen=True)
class Influence:
    """Accuracy after a behaviour's sentence, and what replacing it costs.

    Attributes:
        behaviour: Its label.
        own: Share of right answers after the sentence as it was written.
        over_displaced: The same minus that after a sentence about another place.
        over_absent: The same minus that without the sentence.
    """

    behaviour: str
    own: Estimate
    over_displaced: Estimate
    over_absent: Estimate

    def is_below(self, margin: float) -> bool:
        """Whether both intervals lie within `margin` of no difference."""
        both = (self.over_displaced, self.over_absent)
        return all(-margin < one.low and one.high < margin for one in both)


def influence_of_verification(
    rolled: Sequence[Rolled], write: Write, count: int, samples: int, seed: int
) -> Influence | None:
    """Influence of verification on the answer; None where nothing was verified.

    Args:
        rolled: Rollouts of the model, one a problem.
        write: The model.
        count: Rollouts at most; of each one span, drawn at random.
        samples: Answers after each beginning.
        seed: Of draws and sampling.
    """
    rng = random.Random(f"influence/{seed}")
    chosen: list[tuple[Rolled, str, str, str]] = []
    for one in rolled:
        spans = [s for s in one.narration.spans if s.behaviour == VERIFICATION]
        if spans and len(chosen) < count:
            span = rng.choice(spans)
            said = one.text[span.char_start : span.char_end]
            other = _displaced(one, said, rng)
            if other:
                chosen.append((one, one.text[: span.char_start], said, other))
    if not chosen:
        return None
    right = []
    for beginnings in (
        [before + said for _, before, said, _ in chosen],
        [before + other for _, before, _, other in chosen],
        [before.rstrip() for _, before, _, _ in chosen],
    ):
        prompts = [one.problem.prompt() for one, *_ in chosen for _ in range(samples)]
        repeated = [text for text in beginnings for _ in range(samples)]
        graded = [
            chosen[row // samples][0].problem.grade(answered_path(text))
            for row, (text, _, _) in enumerate(write(prompts, repeated, seed))
        ]
        right.append(np.array(graded, float).reshape(len(chosen), samples).mean(1))
    own, displaced, absent = right
    return Influence(
        behaviour=VERIFICATION,
        own=paired_bootstrap(own, _RESAMPLES, seed),
        over_displaced=paired_bootstrap(own - displaced, _RESAMPLES, seed),
        over_absent=paired_bootstrap(own - absent, _RESAMPLES, seed),
    )


def _displaced(rolled: Rolled, said: str, rng: random.Random) -> str | None:
    """The same words about another place of the problem, with what its note calls for."""
    opening = next((o for o in ALL_OPENINGS[VERIFICATION] if said.startswith(f"{o} ")), None)
    notes = rolled.problem.notes
    others = sorted(place for place in notes if f"{place}#" not in said)
    if opening is None or not others:
        return None
    place = rng.choice(others)
    verdict = grammar.GOOD if notes[place] == REAL else grammar.BAD
    return grammar.verify(opening, place, notes[place], verdict)
