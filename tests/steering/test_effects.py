"""Outcomes of rollouts and paired effects, on values small enough to check by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.steering.effects import COLUMNS, effects
from sae_reasoning.steering.findings import findings, idle_controls, mismatched_controls
from sae_reasoning.steering.outcomes import Judged, count
from sae_reasoning.steering.ratios import Bootstrap, by_problem


def rollout(behaviours: int, offered: int, taken: int, correct: bool | None = True) -> Judged:
    return Judged(
        text="so birch .",
        num_tokens=3,
        truncated=False,
        correct=correct,
        spans=tuple(Span("backtracking", 10 * i, 10 * i + 5) for i in range(behaviours)),
        opportunities=tuple(
            Opportunity("backtracking", 10 * i, taken=i < taken) for i in range(offered)
        ),
    )


def test_outcomes_of_one_rollout_by_hand():
    counts = count(rollout(behaviours=3, offered=4, taken=2), ["backtracking", "verification"])
    assert counts["rate_per_trace/backtracking"] == (3, 1)
    assert counts["rate_per_opportunity/backtracking"] == (2, 4)
    assert counts["in_place/backtracking"] == (2, 3)
    assert counts["rate_per_trace/verification"] == (0, 1)
    assert counts["rate_per_opportunity/verification"] == (0, 0)
    assert counts["accuracy"] == (1, 1)
    assert counts["length"] == (3, 1)
    assert counts["truncated"] == (0, 1)


def test_a_rollout_that_nothing_can_judge_has_no_accuracy():
    assert count(rollout(0, 0, 0, correct=None), [])["accuracy"] == (0, 0)


def generations(
    rates: dict[str, list[int]], num_draws: int = 2, step: int = 0
) -> tuple[pd.DataFrame, list]:
    """One rollout a problem, condition and draw, with that many behaviours of four opportunities.

    Draws of a control after the first have `step` behaviours more.
    """
    rows, counts = [], []
    for condition, behaviours in rates.items():
        for draw in range(num_draws if "_" in condition else 1):
            for problem, made in enumerate(np.array(behaviours) + (step if draw else 0)):
                rows.append(
                    {
                        "model": "rl",
                        "behaviour": "" if condition == "none" else "backtracking",
                        "edit": "none" if condition == "none" else "ablate",
                        "dose": 0.0,
                        "set_size": 0 if condition == "none" else 1,
                        "first": 0,
                        "where": "all",
                        "found_by": "rl",
                        "condition": condition,
                        "draw": draw,
                        "layer": "1",
                        "latents": f"1:{draw}",
                        "problem_id": f"p{problem}",
                        "norm_sum": 6.0,
                        "num_edited": 3,
                        "num_edited_positions": 3,
                        "num_tokens": 5,
                        "truncated": False,
                    }
                )
                counts.append(
                    count(rollout(int(made), 4, int(made)), ["backtracking", "verification"])
                )
    return pd.DataFrame(rows), counts


RATES = {
    "none": [4, 2, 3, 3],
    "edit": [1, 0, 1, 0],
    "matched_latent": [4, 2, 3, 2],
    "random_direction": [4, 2, 3, 3],
}


@pytest.fixture
def found() -> pd.DataFrame:
    return effects(*generations(RATES), num_resamples=500, seed=0)


def effects_of(*args, **kwargs) -> pd.DataFrame:
    return effects(*generations(*args, **kwargs), num_resamples=500, seed=0)


def value(found: pd.DataFrame, condition: str, outcome: str) -> pd.Series:
    (row,) = found[(found.condition == condition) & (found.outcome == outcome)].itertuples()
    return row


def test_paired_effects_by_hand(found):
    assert list(found.columns) == COLUMNS
    edit = value(found, "edit", "rate_per_trace/backtracking")
    assert (edit.value, edit.difference) == (0.5, -2.5)
    assert edit.difference_from_control == pytest.approx(0.5 - 2.75)
    assert edit.difference_from_random == pytest.approx(-2.5)
    assert (edit.n, edit.num_problems, edit.edit_norm) == (4, 4, 2.0)
    # Each problem's own difference is -3, -2, -2, -3: no resample leaves that range.
    assert -3 <= edit.low <= -2.5 <= edit.high <= -2
    per_opportunity = value(found, "edit", "rate_per_opportunity/backtracking")
    assert (per_opportunity.value, per_opportunity.n) == (2 / 16, 16)
    matched = value(found, "matched_latent", "rate_per_trace/backtracking")
    assert (matched.difference, matched.n) == (-0.25, 8)
    assert value(found, "none", "rate_per_trace/backtracking").value == 3
    assert np.isnan(value(found, "none", "accuracy").difference)


def test_an_edit_that_changes_nothing_has_no_effect(found):
    same = value(found, "random_direction", "rate_per_trace/backtracking")
    assert (same.difference, same.q) == (0, 1)
    assert same.variance_reduction == pytest.approx(1)


def test_equal_resamples_give_a_share_the_rule_of_three_and_other_outcomes_no_interval(found):
    share = value(found, "edit", "accuracy")
    assert (share.difference, share.low, share.high, share.q) == (0, -3 / 4, 3 / 4, 1)
    assert share.relative_high == 3 / 4
    length = value(found, "edit", "length")
    assert (length.difference, length.q) == (0, 1)
    assert np.isnan([length.low, length.high]).all()
    shifted = value(
        effects_of(RATES | {"edit": [3, 1, 2, 2]}), "edit", "rate_per_trace/backtracking"
    )
    assert shifted.difference == -1
    assert np.isnan([shifted.low, shifted.high, shifted.q]).all()


def test_one_problem_says_nothing_beyond_itself():
    found = effects_of({kind: behaviours[:1] for kind, behaviours in RATES.items()})
    edit = value(found, "edit", "rate_per_trace/backtracking")
    assert edit.difference == -3
    inferred = found.filter(regex="low|high|q$|variance_reduction")
    assert inferred.isna().all(axis=None)


def test_draws_that_cancel_leave_a_wide_interval_and_their_largest_change():
    rates = RATES | {"matched_latent": [3, 1, 2, 2]}
    found = effects_of(rates, step=2)
    matched = value(found, "matched_latent", "rate_per_trace/backtracking")
    # The draws change every problem by -1 and by +1.
    assert (matched.difference, matched.low, matched.high) == pytest.approx((0, -1, 1))
    assert abs(matched.largest_draw) == 1
    edit = value(found, "edit", "rate_per_trace/backtracking")
    assert edit.control_high - edit.control_low > 1.8
    # Of four offers, at most four are taken.
    assert findings(found).matched[0] == "-0.03 (largest -0.25)"


def test_a_control_of_one_draw_has_no_q():
    edit = value(effects_of(RATES, 1), "edit", "rate_per_trace/backtracking")
    assert np.isnan([edit.control_q, edit.random_q]).all()
    assert edit.q < 0.05


def test_the_percent_interval_holds_the_noise_of_the_baseline():
    rates = RATES | {"none": [8, 1, 1, 2], "edit": [4, 0, 1, 1]}
    edit = value(effects_of(rates), "edit", "rate_per_trace/backtracking")
    assert edit.relative == pytest.approx(-0.5)
    # Of the problems alone: -1/2, -1, 0 and -1/2.
    assert -1 <= edit.relative_low < edit.relative < edit.relative_high <= 0


def test_a_baseline_that_may_be_nothing_gives_no_percent():
    found = effects_of(RATES | {"none": [0, 0, 0, 1], "edit": [2, 1, 2, 1]})
    assert np.isnan(value(found, "edit", "rate_per_trace/backtracking").relative)
    (row,) = findings(found).itertuples()
    assert row.change.startswith("+0.31 [+")


def test_size_is_told_over_all_positions_and_unlike_controls_are_named(found):
    edit = value(found, "edit", "accuracy")
    # Five tokens and the end, of which three were edited.
    assert (edit.edit_norm_per_token, edit.edited_share) == (1, 0.5)
    assert mismatched_controls(found) == []
    rollouts, counts = generations(RATES)
    rollouts.loc[rollouts.condition == "matched_latent", "norm_sum"] = 3.0
    unlike = effects(rollouts, counts, num_resamples=50, seed=0)
    (said,) = mismatched_controls(unlike)
    assert said == "0.5 times as far: matched latent beside rl backtracking ablate, 1 of rl, all"


def untouched(rollouts: pd.DataFrame, rows: pd.Series) -> None:
    """Make conditions that changed nothing of these rollouts."""
    rollouts.loc[rows, ["norm_sum", "num_edited", "num_edited_positions"]] = 0


def test_a_control_that_changed_nothing_is_named_and_not_beaten():
    rates = RATES | {"random_positions": [4, 2, 3, 3]}
    rollouts, counts = generations(rates)
    assert idle_controls(effects(rollouts, counts, num_resamples=50, seed=0)) == []
    untouched(rollouts, rollouts.condition == "random_positions")
    found = effects(rollouts, counts, num_resamples=500, seed=0)
    outcome = "rate_per_opportunity/backtracking"
    edit = value(found, "edit", outcome)
    assert edit.random_positions_draws == 0
    assert np.isnan([edit.difference_from_random_positions, edit.random_positions_q]).all()
    assert not np.isnan(edit.q_all_controls)
    (said,) = idle_controls(found)
    assert said == "random positions beside rl backtracking ablate, 1 of rl, all"


def test_without_matched_latents_that_changed_anything_nothing_is_said():
    rollouts, counts = generations(RATES)
    matched = rollouts.condition == "matched_latent"
    untouched(rollouts, matched & (rollouts.draw == 0))
    one = value(effects(rollouts, counts, num_resamples=50, seed=0), "edit", "accuracy")
    assert one.control_draws == 1
    untouched(rollouts, matched)
    found = effects(rollouts, counts, num_resamples=50, seed=0)
    edit = value(found, "edit", "rate_per_opportunity/backtracking")
    assert edit.control_draws == 0
    assert np.isnan(edit.q_all_controls)


def test_positions_edited_in_a_rollout_stand_beside_the_controls():
    rollouts, counts = generations(RATES)
    rollouts.loc[rollouts.condition == "random_direction", "num_edited_positions"] = 2
    found = effects(rollouts, counts, num_resamples=50, seed=0)
    assert value(found, "edit", "accuracy").edited_positions == 3
    (row,) = findings(found).to_dict("records")
    assert row["positions a rollout"] == "3 (controls 2 to 3)"


def test_what_was_never_counted_is_unknown_not_zero(found):
    off_target = value(found, "edit", "off_target/rate_per_opportunity/verification")
    assert np.isnan([off_target.value, off_target.difference, off_target.low]).all()
    assert off_target.n == 0


def test_findings_name_every_change_in_starts_per_opportunity(found):
    (row,) = findings(found).to_dict("records")
    assert row["per opportunity"] == "0.75 → 0.12"
    assert row["per trace"] == "3.00 → 0.50"
    assert row["change"].startswith("-0.62 [-")
    assert (row["matched"], row["random"]) == ("-0.06 (largest -0.06)", "+0.00 (largest +0.00)")


def test_findings_show_what_is_not_there_as_such(found):
    unknown = found.copy()
    rates = unknown.outcome.str.startswith("rate_per_opportunity")
    unknown.loc[rates, ["value", "difference", "low", "high", "largest_draw"]] = np.nan
    (row,) = findings(unknown).to_dict("records")
    assert {row[column] for column in ("per opportunity", "change", "matched", "random")} == {"-"}
    assert "nan" not in " ".join(map(str, row.values()))


def test_intervals_agree_with_scipy_on_a_mean():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
    bootstrap = Bootstrap(60, 4000, seed=0)

    def ratios(x):
        return bootstrap.ratios(np.stack([x, np.ones(60)], axis=-1)[None, :, None, :])

    ours = bootstrap.differences(ratios(a), ratios(b), np.array([False]))
    theirs = stats.bootstrap(
        (a - b,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.value[0] == pytest.approx((a - b).mean())
    assert [ours.low[0], ours.high[0]] == pytest.approx([theirs.low, theirs.high], abs=0.04)
    assert np.log10(ours.p[0]) == pytest.approx(np.log10(stats.ttest_rel(a, b).pvalue), abs=0.5)


@pytest.mark.parametrize("num_draws", [2, 3, 5])
@pytest.mark.parametrize(("is_normal", "most"), [(True, 0.07), (False, 0.15)])
def test_one_more_draw_of_a_control_is_seldom_beyond_it(num_draws, is_normal, most):
    """Edits that are no more than draws: called more at p < 0.05 in about one of twenty.

    Where one draw of five does a lot and the others nothing, few draws say less of it: 0.10 in
    1,500 simulations of three draws, so 400 of them stay below 0.15.
    """
    rng = np.random.default_rng(0)
    num_problems, p, excluded, means = 30, [], [], []
    for repeat in range(400):
        effect = rng.normal(0, 0.1, num_draws + 1)
        if not is_normal:
            effect = np.where(rng.random(num_draws + 1) < 0.2, 0.5, 0.0)
        behaviours = rng.normal(effect[:, None], 0.3, (num_draws + 1, num_problems))
        counted = np.stack([behaviours, np.ones_like(behaviours)], axis=-1)[:, :, None, :]
        bootstrap = Bootstrap(num_problems, 200, seed=repeat)
        edit, control = bootstrap.ratios(counted[:1]), bootstrap.ratios(counted[1:])
        found = bootstrap.beyond(edit, control, np.array([False]))
        p.append(found.p[0])
        excluded.append(found.low[0] > 0 or found.high[0] < 0)
        means.append(bootstrap.differences(edit, control, np.array([False])).p[0])
    assert np.mean(np.array(p) < 0.05) < most
    assert np.mean(excluded) < most
    # Held against the mean of the draws, far more would be called more.
    assert np.mean(np.array(means) < 0.05) > np.mean(np.array(p) < 0.05) + 0.04


def test_a_prediction_by_hand():
    """Three draws of 0.1, 0.2 and 0.3 in every problem: one more is 0.2 give or take 0.497."""
    counted = np.ones((4, 50, 1, 2))
    counted[:, :, 0, 0] = np.array([0.9, 0.1, 0.2, 0.3])[:, None]
    counted[0, :, 0, 0] += np.random.default_rng(0).normal(0, 1e-6, 50)
    bootstrap = Bootstrap(50, 500, seed=0)
    edit, control = bootstrap.ratios(counted[:1]), bootstrap.ratios(counted[1:])
    found = bootstrap.beyond(edit, control, np.array([True]))
    reach = stats.t.ppf(0.975, 2) * 0.1 * np.sqrt(4 / 3)
    assert reach == pytest.approx(0.497, abs=1e-3)
    assert found.value[0] == pytest.approx(0.7, abs=1e-5)
    assert [found.low[0], found.high[0]] == pytest.approx([0.7 - reach, 1.0], abs=1e-4)
    assert found.p[0] == pytest.approx(2 * stats.t.sf(0.7 / (0.1 * np.sqrt(4 / 3)), 2), rel=1e-3)


def test_counts_are_summed_by_problem():
    counts = np.array([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]])
    assert by_problem(counts, np.array([1, 0, 1]), 3)[:, 0].tolist() == [[3, 4], [6, 8], [0, 0]]
