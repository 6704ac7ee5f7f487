"""Coherence, growing sets and what comes back, on effects small enough to follow."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_reasoning.edges.plots import plot_effects
from sae_reasoning.records import Opportunity, Span
from sae_reasoning.steering.effects import effects
from sae_reasoning.steering.findings import (
    dose_curves,
    doses,
    findings,
    growing_sets,
    idle_controls,
    main_edits,
    main_effects,
    mismatched_controls,
    off_target,
    own_effects,
    returning,
    shown,
)
from sae_reasoning.steering.outcomes import Judged, count

MOVES = ["backtracking", "verification"]


def rollout(taken: int, right: int, others: int = 10) -> Judged:
    """A rollout with ten opportunities of one behaviour and ten of another, some right."""
    return Judged(
        text="",
        num_tokens=9,
        truncated=False,
        correct=True,
        spans=(
            *(Span("backtracking", i, i + 1) for i in range(taken)),
            *(Span("verification", 20 + i, 21 + i) for i in range(others)),
        ),
        opportunities=(
            *(Opportunity("backtracking", i, i < taken) for i in range(10)),
            *(Opportunity("verification", 20 + i, i < others) for i in range(10)),
        ),
        is_right=(True,) * taken + tuple(i < right for i in range(others)),
    )


def experiment(*cells: dict, behaviours: list[str] = MOVES) -> pd.DataFrame:
    """Effects of rollouts of a hundred problems; each cell says its condition, `taken`, `right`."""
    rows, counts = [], []
    rng = np.random.default_rng(0)
    plain = {"edit": "none", "condition": "none", "behaviour": "", "taken": 8, "right": 10}
    models = list(dict.fromkeys(cell.get("model", "rl") for cell in cells))
    for cell in [*({**plain, "model": model} for model in models), *cells]:
        filled = {
            **{"model": "rl", "behaviour": "backtracking", "edit": "ablate", "dose": 0.0},
            **{"set_size": 1, "first": 0, "where": "opportunities", "found_by": "rl"},
            **{"condition": "edit", "draw": 0, "layer": "1", "latents": "1:2", "right": 10},
            **cell,
        }
        # Problems differ in what a condition does, or nothing could be resampled.
        for problem, noise in enumerate(rng.integers(-1, 2, 100)):
            taken = int(np.clip(filled["taken"] + noise, 0, 10))
            made = rollout(taken, filled["right"], filled.get("others", 10))
            counts.append(count(made, behaviours))
            rows.append(
                {k: v for k, v in filled.items() if k not in ("taken", "right", "others")}
                | {"problem_id": f"p{problem}", "norm_sum": 2.0, "num_edited": 1}
                | {"num_edited_positions": 1, "num_tokens": 9, "truncated": False}
            )
    return effects(pd.DataFrame(rows), counts, num_resamples=300, seed=0)


def controls(taken: int, **cell: object) -> list[dict]:
    return [
        {"condition": kind, "draw": draw, "taken": taken, **cell}
        for kind in ("matched_latent", "random_direction")
        for draw in (0, 1)
    ]


def edited(found: pd.DataFrame) -> pd.Series:
    (row,) = own_effects(found).query("condition == 'edit'").to_dict("records")
    return row


def test_an_effect_stands_that_is_coherent_and_more_than_its_controls():
    row = edited(experiment({"taken": 2}, *controls(8)))
    assert row["coherent"]
    assert row["significant"]
    assert row["difference"] < -0.4


def test_the_main_effect_says_in_words_what_was_done_and_whether_it_is_significant():
    (found,) = main_effects(experiment({"taken": 2}, *controls(8)))
    assert (found.model, found.behaviour, found.edit) == ("rl", "backtracking", "ablate, 1 latents")
    assert (found.doing, found.verdict) == ("ablating rl", "yes")
    assert found.positions == "1 (controls 1)"
    assert found.rates.startswith("0.8") and " → 0.2" in found.rates
    assert abs(float(found.control)) < 0.1
    (same,) = main_effects(experiment({"taken": 4}, *controls(4)))
    assert same.verdict == "no"
    (damaging,) = main_effects(experiment({"taken": 2, "right": 2}, *controls(8)))
    assert damaging.verdict == "no, damage"


def test_an_effect_that_a_control_has_too_does_not_stand():
    row = edited(experiment({"taken": 4}, *controls(4)))
    assert row["coherent"]
    assert not row["significant"]


def test_an_effect_within_what_its_controls_draws_do_does_not_stand():
    """Further than their mean for sure, yet one of them is as far."""
    one, other = controls(8)[:2]
    found = experiment({"taken": 4}, one, other | {"taken": 4}, *controls(8)[2:])
    row = edited(found)
    assert row["q"] < 0.05
    assert row["difference_from_control"] < -0.15
    assert row["control_high"] > 0
    assert not row["significant"]


def test_an_effect_must_go_further_than_each_other_behaviours_latents():
    def others(*taken: int) -> list[dict]:
        return [
            {"condition": "other_behaviour", "draw": d, "taken": t} for d, t in enumerate(taken)
        ]

    row = edited(experiment({"taken": 4}, *controls(8), *others(8, 4)))
    assert row["other_draws"] == 2
    assert row["difference_from_other"] == pytest.approx(0, abs=0.05)
    assert not row["significant"]
    # One goes farther for sure, another less far for sure.
    between = edited(experiment({"taken": 4}, *controls(8), *others(6, 0)))
    assert between["difference_from_other"] > 0.3
    assert not between["significant"]
    assert edited(experiment({"taken": 1}, *controls(8), *others(8, 4)))["significant"]


def test_an_effect_that_the_same_edit_has_anywhere_does_not_stand():
    lot = {"condition": "random_positions", "taken": 2}
    assert not edited(experiment({"taken": 2}, *controls(8), lot))["significant"]
    assert edited(experiment({"taken": 2}, *controls(8), lot | {"taken": 8}))["significant"]


def test_a_control_of_one_draw_leaves_open_whether_an_effect_stands():
    row = own_effects(experiment({"taken": 2}, *controls(8)[:3])).query("condition == 'edit'")
    assert np.isnan(row.random_q.item())
    assert row.significant.item() is pd.NA


def test_whether_edits_stand_is_corrected_for_how_many_there_are():
    """By the least sure of its comparisons each, over the edits of their own behaviours alone."""
    some = [
        [{"taken": taken, "set_size": size}, *controls(8, set_size=size)]
        for size, taken in ((1, 2), (2, 8), (5, 8), (9, 8))
    ]
    own = own_effects(experiment(*(cell for part in some for cell in part)))
    own = own[own.condition == "edit"].set_index("set_size")
    assert own.significant.tolist() == [True, False, False, False]
    alone = own_effects(experiment(*some[0])).query("condition == 'edit'").q_all_controls.item()
    assert own.q_all_controls[1] == pytest.approx(4 * alone)


def test_a_behaviour_by_itself_is_held_against_accuracy_and_degeneration():
    row = edited(experiment({"taken": 2}, *controls(8), behaviours=["backtracking"]))
    assert row["coherent"] and row["significant"]


def test_where_other_behaviours_are_never_started_any_more_the_edit_does_damage():
    kept = experiment({"taken": 2}, *controls(8))
    without = experiment({"taken": 2, "others": 0}, *controls(8))
    assert edited(kept)["coherent"] and not edited(without)["coherent"]
    assert edited(without)["damaged"] == "other behaviours' validity"


def test_an_edit_with_nothing_beside_it_neither_stands_nor_fails():
    row = own_effects(experiment({"taken": 2})).query("condition == 'edit'").iloc[0]
    assert row["q"] < 0.05
    assert row["significant"] is pd.NA
    assert shown(row.to_frame().T, ["significant"]) == [[None]]  # Consoles write a dash.
    for taken in (2, 8, 10):  # Be it a drop or not.
        (side,) = growing_sets(experiment({"taken": taken})).itertuples()
        assert side.necessity_significant is pd.NA


@pytest.mark.parametrize(("right", "is_coherent"), [(9, True), (8, False)])
def test_an_edit_is_coherent_while_the_other_behaviours_stay_right(right, is_coherent):
    found = experiment({"taken": 2, "right": right}, *controls(8))
    row = edited(found)
    assert row["coherent"] == row["significant"] == is_coherent
    validity = found[(found.outcome == "off_target/validity") & (found.condition == "edit")]
    assert validity.value.item() == right / 10
    assert found[found.condition == "none"].coherent.all()


def test_growing_sets_have_necessity_beside_sufficiency():
    sizes = [
        {"taken": 8 - size, "set_size": size, "latents": f"1:{size}"} for size in (1, 2, 5)
    ] + [
        {"model": "base", "edit": "clamp", "dose": 1.0, "taken": 8 + size, "set_size": size}
        for size in (1, 2)
    ]
    sweep = [{"model": "base", "edit": "clamp", "dose": 2.0, "taken": 9, "set_size": 2}]
    single = [{"taken": 8, "first": 3, "latents": "1:9"}]
    table = growing_sets(experiment(*sizes, *sweep, *single)).set_index("set_size")
    assert table.index.tolist() == [1, 2, 5]
    assert table.necessity_difference.is_monotonic_decreasing
    assert table.sufficiency_dose[[1, 2]].tolist() == [1.0, 1.0]
    assert table.sufficiency_difference[2] > table.sufficiency_difference[1] > 0
    assert np.isnan(table.sufficiency_difference[5])
    assert table.necessity_n.tolist() == [1000, 1000, 1000]


def test_a_clamp_that_stops_the_behaviour_does_not_suffice_for_it():
    of_clamp = {"model": "base", "edit": "clamp", "dose": 1.0}
    down = [of_clamp | {"taken": 2}, *controls(8, **of_clamp)]
    found = experiment({"taken": 7, "edit": "scale", "dose": 2.0}, *down)
    assert own_effects(found).query("condition == 'edit' and model == 'base'").significant.item()
    assert not growing_sets(found).sufficiency_significant.item()


def test_doses_show_latents_beside_the_vector_of_their_size():
    cells = [
        {"edit": "clamp", "dose": dose, "taken": taken, "condition": kind}
        for dose in (1.0, 2.0)
        for kind, taken in (("edit", 8 + int(dose)), ("mean_difference", 8))
    ]
    table = doses(experiment(*cells))
    assert table.groupby("condition").dose.apply(list).to_dict() == {
        "edit": [1.0, 2.0],
        "mean_difference": [1.0, 2.0],
    }


def test_every_edited_set_meets_every_behaviour():
    table = off_target(experiment({"taken": 2}))
    assert table.affected.tolist() == ["backtracking", "verification"]
    assert table.difference.to_numpy() == pytest.approx([-0.6, 0], abs=0.05)


def test_what_comes_back_through_the_error_is_a_share_of_the_deepest_drop():
    paths = {"edit": 5, "latents_and_error": 4, "whole_residual": 2, "random_span": 8}
    cells = [{"condition": kind, "taken": taken} for kind, taken in paths.items()]
    (row,) = returning(experiment(*cells)).to_dict("records")
    assert row["returned"] == pytest.approx(0.5, abs=0.03)  # 3 of the 6 that can be taken away
    assert row["coherent"] == "edit latents_and_error whole_residual random_span"


def test_the_main_edit_is_the_first_that_has_controls():
    found = experiment({"taken": 7, "set_size": 9}, {"taken": 2}, *controls(8))
    assert set(main_edits(found).set_size) == {1}


def test_differences_are_shown_with_their_bounds():
    table = pd.DataFrame({"a": [1], "x_difference": [0.5], "x_low": [0.25], "x_high": [0.75]})
    assert shown(table, ["a", "x_difference"]) == [[1, "+0.500 [+0.250, +0.750]"]]


def test_a_picture_of_effects_is_drawn_where_an_edit_was_measured(tmp_path: Path):
    plot_effects(main_edits(experiment({"taken": 2}, *controls(8))), tmp_path / "effects.png")
    assert (tmp_path / "effects.png").stat().st_size > 1000


def test_tables_of_no_edit_or_of_one_without_controls_have_no_rows(tmp_path: Path):
    found = experiment({"taken": 2})
    for table in (found, found[:0]):
        assert main_effects(table) == []
        assert findings(table).empty and returning(table).empty
        assert dose_curves(doses(table)).empty
        assert idle_controls(table) == mismatched_controls(table) == []
        assert list(off_target(table)) == list(off_target(found))
        plot_effects(main_edits(table), tmp_path / "effects.png")
        assert not (tmp_path / "effects.png").exists()
    assert growing_sets(found[:0]).empty and off_target(found[:0]).empty
    assert off_target(found).affected.tolist() == ["backtracking", "verification"]
