"""The coherence guard on natural text, on rollouts that were planted."""

import random

import pandas as pd
import pytest

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.steering.effects import effects
from sae_reasoning.steering.findings import main_effects, own_effects, untold
from sae_reasoning.steering.outcomes import Judged, count

MOVES = ["backtracking", "verification"]
SENTENCES = 10


def natural(
    rng: random.Random,
    *,
    taken: float = 0.6,
    others: float = 0.3,
    right: float | None = 0.7,
    loops: bool = False,
    length: int = SENTENCES,
    truncated: float = 0.05,
) -> Judged:
    """A response of sentences, each of which may start a behaviour; nothing judges how."""
    length += rng.randint(-2, 2)
    words = ["loop"] if loops else [str(rng.randrange(10**6)) for _ in range(length)]
    starts = [
        (name, place)
        for place in range(length)
        for name, rate in zip(MOVES, (taken, others), strict=True)
        if rng.random() < rate
    ]
    return Judged(
        text=" ".join(rng.choice(words) if loops else word for word in words * (1 + 9 * loops)),
        num_tokens=length,
        truncated=rng.random() < truncated,
        correct=None if right is None else rng.random() < right,
        spans=tuple(Span(name, place, place + 1) for name, place in starts),
        opportunities=tuple(
            Opportunity(name, place, (name, place) in starts)
            for place in range(length)
            for name in MOVES
        ),
    )


def edited_by(
    num_problems: int = 250, behaviours: list[str] = MOVES, draws: int = 2, **edit
) -> pd.DataFrame:
    """Effects of an edit that does what `edit` says, beside controls that do nothing."""
    rows, counts = [], []
    plain = {"right": None} if "right" in edit and edit["right"] is None else {}
    cells = [("none", 0, plain), ("edit", 0, edit)]
    cells += [
        (kind, n, plain) for kind in ("matched_latent", "random_direction") for n in range(draws)
    ]
    for condition, draw, does in cells:
        is_edit = condition != "none"
        for problem in range(num_problems):
            made = natural(random.Random(f"{condition}/{draw}/{problem}"), **does)
            counts.append(count(made, behaviours))
            rows.append(
                {
                    **{"model": "rl", "behaviour": MOVES[0] if is_edit else ""},
                    **{"edit": "ablate" if is_edit else "none", "dose": 0.0},
                    **{"set_size": int(is_edit), "first": 0, "where": "opportunities"},
                    **{"found_by": "rl", "condition": condition, "draw": draw, "layer": "1"},
                    **{"latents": f"1:{draw}", "problem_id": f"p{problem}", "norm_sum": 2.0},
                    **{"num_edited": 1, "num_edited_positions": 1, "num_tokens": made.num_tokens},
                    "truncated": made.truncated,
                }
            )
    return effects(pd.DataFrame(rows), counts, num_resamples=100, seed=0)


def edit_of(found: pd.DataFrame) -> pd.Series:
    own = own_effects(found)
    return own[own.condition == "edit"].iloc[0]


def test_an_edit_of_natural_text_can_be_significant_against_all_controls():
    found = edited_by(taken=0.1)
    edit = edit_of(found)
    assert edit.coherent and edit.significant
    assert (edit.damaged, edit.unknown) == ("", "")
    (main,) = main_effects(found)
    assert (main.verdict, main.is_coherent, main.unmet) == ("yes", True, "")
    assert not untold(found)


@pytest.mark.parametrize(
    ("does", "part"),
    [
        ({"right": 0.3}, "accuracy"),
        ({"others": 0.1}, "other behaviours"),
        ({"loops": True}, "repeated 3-grams, compression"),
        ({"length": 2 * SENTENCES}, "length"),
        ({"truncated": 0.5}, "truncated"),
    ],
)
def test_what_an_edit_damages_is_named_and_its_effect_is_not_significant(does, part):
    edit = edit_of(edited_by(taken=0.1, **does))
    assert not edit.coherent and not edit.significant
    assert part in edit.damaged


def test_with_few_problems_the_guard_cannot_be_told_and_that_is_said():
    found = edited_by(num_problems=20, draws=4, taken=0.1)
    edit = edit_of(found)
    assert pd.isna(edit.coherent) and pd.isna(edit.significant)
    assert "accuracy" in edit.unknown.split(", ")
    assert untold(found)["accuracy"] == ["rl backtracking ablate, 1 of rl, opportunities"]
    (main,) = main_effects(found)
    assert main.verdict == "unknown"
    # An edit that goes no further than its controls isn't significant, whatever the guard says.
    assert not edit_of(edited_by(num_problems=20)).significant


def test_without_grades_nobody_knows_what_an_edit_costs():
    edit = edit_of(edited_by(taken=0.1, right=None))
    assert pd.isna(edit.coherent)
    assert edit.unknown == "accuracy"
    # Other damage is seen nevertheless.
    assert not edit_of(edited_by(taken=0.1, right=None, loops=True)).coherent


def test_a_behaviour_that_is_alone_is_held_against_accuracy_and_degeneration():
    assert edit_of(edited_by(behaviours=MOVES[:1], taken=0.1)).significant


def test_rows_without_an_edit_are_coherent():
    found = edited_by(num_problems=20)
    assert found.coherent[found.condition == "none"].all()
