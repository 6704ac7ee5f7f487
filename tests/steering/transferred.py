"""What `ablate` leaves of a target that was edited through a source; to be checked by hand."""

import pandas as pd

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.steering.effects import effects
from sae_reasoning.steering.outcomes import Judged, count

MOVES = ["backtracking", "verification"]
KINDS = {
    "none": (8, 7, 8, 7, 8, 7),
    "edit": (1, 2, 1, 0, 1, 1),
    "permuted_match": (8, 7, 8, 7, 7, 7),
    "matched_latent": (8, 7, 8, 7, 8, 6),
    "random_direction": (8, 7, 7, 7, 8, 7),
    "own_latents": (0, 1, 0, 0, 1, 0),
}
"""Of eight opportunities of backtracking, how many are taken; each on four problems."""
LATENTS = {"edit": "0:3 1:5", "own_latents": "1:5 1:9"}


def counts_of(taken: int, other_right: int) -> dict[str, tuple[float, float]]:
    """So many starts of backtracking, and of ten verifications so many that are right."""
    spans = [Span("backtracking", 10 * i, 10 * i + 5) for i in range(taken)]
    spans += [Span("verification", 1000 + 10 * i, 1005 + 10 * i) for i in range(10)]
    offered = [Opportunity("backtracking", 10 * i, taken=i < taken) for i in range(8)]
    right = (True,) * (taken + other_right) + (False,) * (10 - other_right)
    return count(Judged("so .", 3, False, True, tuple(spans), tuple(offered), right), MOVES)


def effects_of(model: str = "rl", edit: str = "ablate", *, others: int = 10, **changed: object):
    """The table of effects when the target is edited through `default/one`."""
    rows, counts = [], []
    for kind, taken in (KINDS | changed).items():
        for draw in range(1 if kind in ("none", "edit", "own_latents") else 3):
            for problem, made in enumerate(taken * 4):
                rows.append(
                    {
                        "model": model,
                        "behaviour": "" if kind == "none" else "backtracking",
                        "edit": "none" if kind == "none" else edit,
                        "dose": 0.0,
                        "set_size": 0 if kind == "none" else 2,
                        "first": 0,
                        "where": "opportunities",
                        "found_by": "" if kind == "none" else "default/one",
                        "condition": kind,
                        "draw": draw,
                        "layer": "0+1",
                        "latents": LATENTS.get(kind, f"0:{20 + draw}"),
                        "problem_id": f"p{problem}",
                        "norm_sum": 1.0,
                        "num_edited": 1,
                        "num_edited_positions": 1,
                        "num_tokens": 3,
                        "truncated": False,
                    }
                )
                # Draws differ a little, as draws do.
                made_here = max(made - (draw and problem % 6 == 0), 0)
                counts.append(counts_of(made_here, others if kind == "edit" else 10))
    return effects(pd.DataFrame(rows), counts, num_resamples=300, seed=0)


MATCHED_LATENTS = pd.DataFrame(
    {
        "behaviour": ["backtracking"] * 3 + ["verification"],
        "other_layer": [0, 1, 1, 0],
        "other_latent": [3, 5, 7, 3],
        "value": [0.9, 0.5, 0.1, 0.2],
        "same_word": [0.4, 0.4, 0.1, 0.2],
    }
)
