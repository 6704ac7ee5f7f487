"""Estimates of the contrast, small enough to check by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sae_reasoning.contrast.content_loss import content_loss
from sae_reasoning.contrast.measures import Recorder, Resampling, compared
from sae_reasoning.contrast.rates import (
    ANNOTATED_PER_OPPORTUNITY,
    ANNOTATED_PER_TRACE,
    ENTER_THINKING,
    OCCURS,
    OWN_TRACES,
    PER_OPPORTUNITY,
    PER_TRACE,
    annotated_rates,
    by_writer,
    rates,
)
from sae_reasoning.contrast.starts import places_of
from sae_reasoning.contrast.weights import weight_changes
from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace
from sae_reasoning.stats import most_of_none, wilson
from sae_reasoning.stats.resampling import resample_weights
from sae_reasoning.tasks.search.task import search_task

HOW = Resampling(num_resamples=400, seed=0)


def written(problem: str, writer: str, *opportunities: TokenOpportunity, text: str = "x") -> Trace:
    return Trace(
        trace_id=f"{problem}/{writer}",
        problem_id=problem,
        split="report",
        writer=writer,
        model=writer,
        prompt="p",
        text=text,
        token_ids=(1, 2, 3, 4),
        num_prompt_tokens=1,
        correct=True,
        truncated=False,
        spans=(),
        opportunities=opportunities,
    )


def test_rates_are_what_each_model_would_do_at_the_same_places_and_in_its_own_traces() -> None:
    could = TokenOpportunity("backtracking", 0, 2, taken=False)
    traces = [
        written("p1", "base", could),
        written("p1", "rl", could, could),
        written("p2", "base", could),
        written("p2", "rl", could, could),
    ]
    places = places_of(traces, ["backtracking"])
    masses = {"base": np.full(6, 0.2), "rl": np.array([0.4, 0.8, 0.8, 0.4, 0.8, 0.8])}
    entries = {"base": {"p1": 0.1, "p2": 0.1}, "rl": {"p1": 1.0, "p2": 1.0}}
    found = {
        (m.measure, m.model): m
        for m in rates(traces, places, masses, entries, ["backtracking"], HOW)
        if m.level == 0.95
    }
    assert found[ENTER_THINKING, "rl/base"].value == pytest.approx(10)
    # The base: enters 0.1 of the time, meets one place, starts at 0.2; RL: 1, two places, 0.8.
    assert found[PER_TRACE, "base"].value == pytest.approx(0.02)
    assert found[PER_TRACE, "rl"].value == pytest.approx(1.6)
    assert found[PER_TRACE, "rl/base"].value == pytest.approx(80)
    assert found[OWN_TRACES, "rl"].value == pytest.approx(0.8)
    # Both writers' places weigh the same: (0.4 + 0.8) / 2.
    assert found[PER_OPPORTUNITY, "rl"].value == pytest.approx(0.6)
    assert found[PER_OPPORTUNITY, "rl/base"].value == pytest.approx(3)
    assert found[PER_OPPORTUNITY, "rl-base"].n == 2
    assert (found[OCCURS, "base"].value, found[OCCURS, "base"].items) == (0, 2)


def test_the_interval_of_a_ratio_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(150):
        base = rng.poisson(1.0, 80)
        rl = rng.poisson(1.0, 80) + rng.poisson(0.5, 80)
        sums = np.stack([base, np.ones(80), rl, np.ones(80)], axis=1).astype(float)
        sums = sums.reshape(80, 2, 1, 2)
        how = Resampling(300, trial)
        ratio = next(
            m
            for m in compared(how, "", "m", sums, (80, 80))
            if (m.model, m.level) == ("rl/base", 0.95)
        )
        covered += ratio.low <= 1.5 <= ratio.high
    assert 0.88 <= covered / 150 <= 0.99


def test_a_base_that_never_does_it_has_a_ratio_without_an_upper_bound() -> None:
    """Most resamples draw none of the two problems in which the base does it."""
    sums = np.ones((60, 2, 1, 2))
    sums[:, 0, 0, 0] = 0.0
    sums[:2, 0, 0, 0] = 1.0
    found = {m.model: m for m in compared(HOW, "", "m", sums, (60, 60)) if m.level == 0.95}
    ratio = found["rl/base"]
    assert ratio.value == pytest.approx(30)
    assert 8 < ratio.low < 30
    assert ratio.high == np.inf
    sums[:2, 0, 0, 0] = 0.0
    never = {m.model: m for m in compared(HOW, "", "m", sums, (60, 60)) if m.level == 0.95}
    assert [never["rl/base"].value, never["rl/base"].high] == [np.inf, np.inf]
    assert never["rl/base"].low == pytest.approx(1 / most_of_none(60))
    # An opportunity's rate is bounded in its own unit: at 3 in 100, as the RL model's is.
    sums[..., 1], sums[:, 1, 0, 0] = 100.0, 3.0
    rare = {m.model: m for m in compared(HOW, "", "m", sums, (60, 60)) if m.level == 0.95}
    assert rare["rl/base"].low == pytest.approx(1 / most_of_none(60))
    sums[..., 1] = 1.0
    sums[..., 0] = 0.0
    neither = {m.model: m for m in compared(HOW, "", "m", sums, (60, 60)) if m.level == 0.95}
    assert np.isnan([neither["rl/base"].value, neither["rl/base"].low]).all()
    bounds = neither["rl-base"].low, neither["rl-base"].value, neither["rl-base"].high
    assert bounds == pytest.approx((-most_of_none(60), 0, most_of_none(60)))
    nothing = compared(HOW, "", "m", np.zeros((60, 2, 1, 2)), (0, 0))  # Of no opportunity.
    assert np.isnan([[m.value, m.low, m.high] for m in nothing]).all()


def test_writers_count_the_same_within_every_resample() -> None:
    """The interval is that of the mean of both writers' rates, resampled as such."""
    rng = np.random.default_rng(3)
    offered = np.stack([rng.integers(1, 3, 30), rng.integers(0, 40, 30)], axis=1).astype(float)
    mass = offered[:, :, None] * rng.uniform(0.1, 0.9, (30, 2, 2))
    found = compared(HOW, "", "m", by_writer(mass, offered), (30, 30))
    rl = next(m for m in found if m.model == "rl")
    weights = np.concatenate([*resample_weights(30, HOW.num_resamples, HOW.seed)])
    drawn = np.mean([weights @ mass[:, w, 1] / (weights @ offered[:, w]) for w in (0, 1)], axis=0)
    assert (rl.low, rl.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert rl.value == pytest.approx(np.mean(mass[:, :, 1].sum(0) / offered.sum(0)))


def test_a_chance_corrected_difference_is_on_the_scale_of_chance_corrected_accuracy() -> None:
    record = Recorder(HOW, "", [f"p{i}" for i in range(80)])
    one, other = np.ones(80), np.array([1.0] * 64 + [0.0] * 16)
    chance = np.full(80, 0.5)
    gap = record.relative_difference("m", "rl-base", "", one, other, 1 - chance)
    raw = record.difference("m", "rl-base", "", one, other)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.4, 2 * raw.low, 2 * raw.high))
    flat = record.relative_difference("m", "rl-base", "", one, one, 1 - chance)
    assert flat.value == 0
    assert flat.high == pytest.approx(2 * record.difference("m", "rl-base", "", one, one).high)


def test_what_hardly_any_problem_loses_of_a_gap_is_as_unsure_as_a_share() -> None:
    record = Recorder(HOW, "", [f"p{i}" for i in range(80)])
    gap = np.array([1.0] * 40 + [0.0] * 40)
    none = record.share_of_gap("m", "base", "", np.zeros(80), gap)
    bounds = wilson(0, 40)  # Where there is no gap, nothing can be lost.
    assert (none.value, none.low, none.high) == pytest.approx((0, -bounds.high, bounds.high))
    assert none.n == none.items == 80
    lost = np.where(np.arange(80) < 20, 1.0, 0.0)
    half = record.share_of_gap("m", "base", "", lost, gap)
    assert half.value == 0.5
    assert 0.2 < half.high - half.low < 0.4


def test_chance_corrected_accuracy_is_0_at_chance_and_1_at_certainty_and_keeps_width() -> None:
    record = Recorder(HOW, "b", [f"p{i}" for i in range(40)])
    chance = np.full(40, 0.6)
    perfect = record.beyond_chance("m", "base", "", np.ones(40), chance)
    assert (perfect.value, perfect.high) == (pytest.approx(1), pytest.approx(1))
    assert perfect.low < 0.9
    valid = np.array([1.0] * 24 + [0.0] * 16)
    assert record.beyond_chance("m", "base", "", valid, chance).value == pytest.approx(0)
    none = record.beyond_chance("m", "base", "", np.zeros(40), chance)
    assert none.value == pytest.approx(-1.5)
    assert none.low == pytest.approx(none.value)
    assert none.value < none.high < 0


def test_a_share_is_bootstrapped_over_problems_not_items() -> None:
    values = np.array([1.0, 0.0] * 10)
    apart = Recorder(HOW, "", [f"p{i}" for i in range(20)]).share("m", "base", "", values)
    together = Recorder(HOW, "", [f"p{i % 2}" for i in range(20)]).share("m", "base", "", values)
    assert together.n == 2
    assert together.high - together.low > apart.high - apart.low


@pytest.mark.parametrize("wrong", [0, 1, 9, 10])
def test_where_fewer_than_ten_problems_differ_bounds_reach_to_wilsons(wrong: int) -> None:
    values = np.array([0.0] * wrong + [1.0] * (60 - wrong))
    record = Recorder(HOW, "", [f"p{i}" for i in range(60)])
    bounds = wilson(60 - wrong, 60)
    one = record.share("m", "base", "", values)
    chance = np.full(60, 0.5)
    level = record.beyond_chance("m", "base", "", values, chance)
    if wrong < 10:
        assert one.low <= bounds.low + 1e-9
        assert one.high >= bounds.high - 1e-9
    else:
        assert one.low > bounds.low + 0.005
    assert level.low == pytest.approx(2 * one.low - 1)
    assert level.high == pytest.approx(2 * one.high - 1)


def test_a_difference_that_nearly_all_problems_have_is_not_sure_of_all() -> None:
    record = Recorder(HOW, "", [f"p{i}" for i in range(200)])
    ones, zeros = np.ones(200), np.zeros(200)
    for one, other, side in ((ones, zeros, 1), (zeros, ones, -1), (ones, ones, 0)):
        found = record.difference("m", "rl-base", "", one, other)
        assert found.value == side
        assert 0.01 < found.high - found.low < 0.08
        assert found.low <= side <= found.high


def test_content_loss_takes_off_what_is_harder_everywhere() -> None:
    text = "<think> so ash . back to birch ."
    spans = (TokenSpan("backtracking", 17, 32, 5, 9, "search"),)
    words = text.split()
    ends = [len(" ".join(words[: i + 1])) for i in range(len(words))]
    offsets = [(end - len(word), end) for word, end in zip(words, ends, strict=True)]
    one = Trace(**{**vars(written("p1", "rl")), "text": text, "spans": spans})
    traces = [one, Trace(**{**vars(one), "problem_id": "p2"})]
    rl = np.zeros(1 + len(words))
    base = rl.copy()
    base[3] = 0.5  # ash, outside
    base[7] = 2.0  # birch, inside
    [gap] = content_loss(
        search_task(),
        traces,
        [offsets] * 2,
        {"base": [base] * 2, "rl": [rl] * 2},
        ["backtracking"],
        HOW,
    )
    assert gap.value == pytest.approx(1.5)


def test_weight_changes_count_what_survives_bfloat16_and_the_rank_of_the_update() -> None:
    before = {"layers.0.w": torch.ones(4, 4), "layers.1.w": torch.ones(4, 4), "b": torch.ones(4)}
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["layers.0.w"] += torch.eye(4)
    after["layers.1.w"] += 1e-4  # lost in bfloat16
    after["b"][0] = 2.0
    found = {change.module: change for change in weight_changes(before, after)}
    assert found["layers.w"].changed == pytest.approx(4 / 32)
    assert found["b"].changed == 0.25
    assert found["all"].changed == pytest.approx(5 / 36)
    # Full rank in one layer, rank one in the other.
    assert found["layers.w"].effective_rank == pytest.approx((1 + 0.25) / 2, abs=1e-3)
    with pytest.raises(ValueError, match="same parameters"):
        weight_changes(before, {"b": torch.ones(4)})


def test_annotated_rates_count_spans_and_taken_opportunities_by_problem() -> None:
    taken = TokenOpportunity("backtracking", 0, 2, taken=True)
    left = TokenOpportunity("backtracking", 0, 2, taken=False)
    span = TokenSpan("backtracking", 0, 1, 0, 1, "hand")
    traces = [
        replace(written("p1", "base", left), spans=()),
        replace(written("p1", "rl", taken, left), spans=(span,)),
        replace(written("p2", "base", taken, left), spans=(span,)),
        replace(written("p2", "rl", taken), spans=(span, span)),
    ]
    places = places_of(traces, ["backtracking"])
    entries = {"base": {"p1": 0.2, "p2": 0.4}, "rl": {"p1": 1.0, "p2": 1.0}}
    found = {
        (m.measure, m.model): m
        for m in annotated_rates(traces, places, entries, ["backtracking"], HOW)
        if m.level == 0.95
    }
    assert found[ENTER_THINKING, "base"].value == pytest.approx(0.3)
    assert found[PER_TRACE, "base"].value == pytest.approx(0.4 * 1 / 2)
    assert found[PER_TRACE, "rl"].value == 1.5
    assert found[ANNOTATED_PER_TRACE, "base"].value == 0.5
    assert found[ANNOTATED_PER_TRACE, "rl"].value == 1.5
    assert found[ANNOTATED_PER_TRACE, "rl/base"].value == 3
    assert found[ANNOTATED_PER_OPPORTUNITY, "base"].value == pytest.approx(1 / 3)
    assert found[ANNOTATED_PER_OPPORTUNITY, "rl"].value == pytest.approx(2 / 3)
    assert found[ANNOTATED_PER_OPPORTUNITY, "rl"].items == 3
    assert found[OCCURS, "base"].value == 0.5
