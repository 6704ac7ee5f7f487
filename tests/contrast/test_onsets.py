"""Onset probability by sampling, on planted probabilities."""

from collections import Counter

import numpy as np
import pytest

from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.contrast.onsets import (
    MINED_OPENINGS,
    OPENING_COVERAGE,
    OPENING_PRECISION,
    UNLABELLED,
    DrawnPlace,
    draw_places,
    labels_at_starts,
    mined_mass,
    opening_measures,
    sampled_rates,
    shared_evenly,
    shares_of,
)
from sae_reasoning.contrast.rates import OWN_TRACES, PER_OPPORTUNITY, rates
from sae_reasoning.contrast.starts import Place, places_of
from sae_reasoning.records import MODELS, TokenOpportunity, Trace
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.protocol import Opening
from sae_reasoning.tasks.text.annotators import CueAnnotator

BACK, CHECK = BEHAVIOURS = ("backtracking", "verification")
HOW = Resampling(num_resamples=100, seed=0)


def written(problem: int, writer: str, taken: list[str], split: str = "report") -> Trace:
    """A response in which a sentence starts after each token; `taken` says what starts."""
    return Trace(
        trace_id=f"p{problem}/{writer}/{split}",
        problem_id=f"p{problem}",
        split=split,
        writer=writer,
        model=writer,
        prompt="p",
        text="x" * len(taken),
        token_ids=(1, *range(2, len(taken) + 2)),
        num_prompt_tokens=1,
        correct=None,
        truncated=False,
        spans=(),
        opportunities=tuple(
            TokenOpportunity(name, token, token, taken=name == started)
            for token, started in enumerate(taken)
            for name in BEHAVIOURS
        ),
    )


class Planted:
    """Traces of both writers, and how probable each model finds it that a behaviour starts."""

    def __init__(self, num_problems: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.traces, self.chance = [], {model: {} for model in MODELS}
        for problem in range(num_problems):
            for writer in MODELS:
                size, own = int(rng.integers(5, 30)), []
                for token in range(size):
                    key = len(self.traces), token
                    # Rare on most places, likely on a few, and more so for the RL model.
                    peak = float(rng.random() < 0.1)
                    for model, most in (("base", 0.2), ("rl", 0.9)):
                        back = most * (0.02 + 0.9 * peak) * rng.random()
                        self.chance[model][key] = {BACK: back, CHECK: 0.3 * (1 - back)}
                    odds = self.chance[writer][key]
                    drawn = rng.random()
                    own.append(
                        BACK
                        if drawn < odds[BACK]
                        else CHECK
                        if drawn < odds[BACK] + odds[CHECK]
                        else ""
                    )
                self.traces.append(written(problem, writer, own))
        self.places = places_of(self.traces, BEHAVIOURS)

    def exact(self) -> dict[tuple[str, ...], Measure]:
        probabilities = {
            model: np.array(
                [self.chance[model][p.trace, p.opportunity.token][p.behaviour] for p in self.places]
            )
            for model in MODELS
        }
        return by_name(rates(self.traces, self.places, probabilities, None, BEHAVIOURS, HOW))

    def sampled(self, most: int, k: int, seed: int) -> dict[tuple[str, ...], Measure]:
        drawn = draw_places(self.traces, self.places, most, seed)
        rng = np.random.default_rng((seed, 1))
        shares = {
            model: {
                one.key: {n: rng.binomial(k, p) / k for n, p in self.chance[model][one.key].items()}
                for one in drawn
            }
            for model in MODELS
        }
        return by_name(sampled_rates(self.traces, self.places, drawn, shares, BEHAVIOURS, HOW))


def by_name(measures: list[Measure]) -> dict[tuple[str, ...], Measure]:
    return {(m.measure, m.behaviour, m.model): m for m in measures if m.level == 0.95}


def test_sampled_rates_are_unbiased_and_their_intervals_hold_the_truth() -> None:
    world = Planted(80)
    truth = world.exact()
    names = [
        (measure, behaviour, model)
        for measure in (PER_OPPORTUNITY, OWN_TRACES)
        for behaviour in BEHAVIOURS
        for model in (*MODELS, "rl-base")
    ]
    found = [world.sampled(400, 8, seed) for seed in range(40)]
    held = []
    for name in names:
        values = np.array([one[name].value for one in found])
        error = values.std() / len(values) ** 0.5
        assert abs(values.mean() - truth[name].value) < 3.5 * error, name
        held += [one[name].low <= truth[name].value <= one[name].high for one in found]
    assert np.mean(held) > 0.92


def test_places_that_were_chosen_for_their_onsets_would_be_biased_without_weights() -> None:
    world = Planted(40)
    name = (PER_OPPORTUNITY, BACK, "rl")
    truth = world.exact()[name].value
    drawn = draw_places(world.traces, world.places, 120, 0)
    naive = np.mean([world.chance["rl"][one.key][BACK] for one in drawn])
    assert naive > 1.5 * truth


def test_all_places_are_drawn_where_they_are_few_and_then_count_once() -> None:
    world = Planted(3)
    drawn = draw_places(world.traces, world.places, 10_000, 0)
    assert [one.key for one in drawn] == sorted(
        {(p.trace, p.opportunity.token) for p in world.places}
    )
    assert {one.weight for one in drawn} == {1.0}
    shares = {m: {one.key: world.chance[m][one.key] for one in drawn} for m in MODELS}
    found = by_name(sampled_rates(world.traces, world.places, drawn, shares, BEHAVIOURS, HOW))
    for name, one in world.exact().items():
        if name[0] in (PER_OPPORTUNITY, OWN_TRACES):
            assert found[name].value == pytest.approx(one.value)
            assert found[name].low == pytest.approx(one.low)


def test_a_place_without_a_label_counts_for_nothing_and_is_told() -> None:
    assert shares_of([BACK, "", None, ""]) == {BACK: pytest.approx(1 / 3)}
    assert shares_of(["", ""]) == {}
    assert shares_of([None, None]) is None
    world = Planted(20)
    drawn = draw_places(world.traces, world.places, 10_000, 0)
    half = {m: {one.key: {BACK: 0.5} for one in drawn} for m in MODELS}
    half["base"] = {one.key: {BACK: 0.5} for one in drawn[::2]}
    rates_of = sampled_rates(world.traces, world.places, drawn, half, [BACK], HOW)
    found = by_name(rates_of)
    for model in MODELS:
        assert found[PER_OPPORTUNITY, BACK, model].value == pytest.approx(0.5)
    unlabelled = next(one for one in rates_of if one.measure == UNLABELLED)
    assert unlabelled.value == pytest.approx(0.5, abs=0.01)
    assert unlabelled.items == len(drawn)


def test_every_onset_is_drawn_where_half_of_the_places_hold_them_all() -> None:
    traces = [written(0, "base", [""] * 200), written(0, "rl", [BACK, "", CHECK] * 5 + [""] * 185)]
    drawn = draw_places(traces, places_of(traces, BEHAVIOURS), 40, 0)
    assert len(drawn) == 40
    onsets = [one for one in drawn if one.trace == 1 and one.token < 15 and one.token % 3 != 1]
    assert len(onsets) == 10 and {one.weight for one in onsets} == {1.0}
    rest = Counter(one.trace for one in drawn if one not in onsets)
    assert rest == {0: 15, 1: 15}
    # The weights of what was drawn add up to what there is.
    assert sum(one.weight for one in drawn) == pytest.approx(400)


def test_places_of_the_select_split_are_left_alone() -> None:
    traces = [written(0, "rl", [BACK] * 4, split="select"), written(1, "rl", [BACK] * 4)]
    assert {one.trace for one in draw_places(traces, places_of(traces, BEHAVIOURS), 99, 0)} == {1}


def test_strata_share_evenly_and_small_ones_leave_theirs_to_others() -> None:
    sizes = {("rl", "a"): 2, ("rl", "b"): 50, ("rl", "c"): 90}
    assert shared_evenly(sizes, 62) == {("rl", "a"): 2, ("rl", "b"): 30, ("rl", "c"): 30}
    # None is left out, or what it holds would be missing from the sums.
    assert set(shared_evenly(sizes, 1).values()) == {1}


def test_a_base_that_is_never_seen_to_start_has_an_infinite_ratio_with_a_finite_bound() -> None:
    traces = [written(p, w, [BACK if w == "rl" else ""] * 3) for p in range(30) for w in MODELS]
    places = places_of(traces, [BACK])
    drawn = draw_places(traces, places, 1000, 0)
    shares = {"base": {one.key: {} for one in drawn}, "rl": {one.key: {BACK: 0.5} for one in drawn}}
    found = by_name(sampled_rates(traces, places, drawn, shares, [BACK], HOW))
    ratio = found[PER_OPPORTUNITY, BACK, "rl/base"]
    assert ratio.value == ratio.high == np.inf
    # Half, over half on at most 0.095 of the problems, of which thirty show nothing.
    assert 9 < ratio.low < 12
    assert ratio.n == 30


def test_n_counts_problems_that_were_drawn_from() -> None:
    traces = [written(p, w, [""] * 50) for p in range(30) for w in MODELS]
    places = places_of(traces, BEHAVIOURS)
    drawn = draw_places(traces, places, 10, 0)
    shares = {model: {one.key: {} for one in drawn} for model in MODELS}
    found = by_name(sampled_rates(traces, places, drawn, shares, BEHAVIOURS, HOW))
    one = found[PER_OPPORTUNITY, BACK, "rl-base"]
    assert one.n == len({traces[d.trace].problem_id for d in drawn}) < 11
    assert one.items == 20  # Ten places of both models.


def test_a_label_is_that_of_the_sentence_that_a_model_wrote() -> None:
    annotator = CueAnnotator({BACK: ["wait"], CHECK: ["check"]}, BEHAVIOURS)
    text = "Wait, no. So it is 3.\n"
    place = Place(0, TokenOpportunity(BACK, len(text), 1, taken=False))
    trace = written(0, "rl", ["", ""])
    object.__setattr__(trace, "text", f"{text}More.")
    start = DrawnPlace(0, place.opportunity.token, len(text), 1.0).start(trace)
    assert start.text == text

    added = ["Let me check it.", " Wait, it is 4.", "It is 4. Wait.", "", "Let me check it."]
    responses = [Unlabelled(start.problem, text + one, truncated=False) for one in added]
    # Of the third, the behaviour is another sentence's.
    assert labels_at_starts(annotator, [start] * 5, responses) == [CHECK, BACK, "", "", CHECK]


def test_mined_openings_are_weighted_alike_and_told_with_what_they_cover() -> None:
    world = Planted(20)
    drawn = draw_places(world.traces, world.places, 10_000, 0)
    half = {
        m: {one.key: {n: p / 2 for n, p in world.chance[m][one.key].items()} for one in drawn}
        for m in MODELS
    }
    found = by_name(mined_mass(world.traces, world.places, drawn, half, [BACK], HOW))
    exact = world.exact()[PER_OPPORTUNITY, BACK, "rl"]
    assert found[MINED_OPENINGS, BACK, "rl"].value == pytest.approx(exact.value / 2)
    mined = (
        Opening(BACK, "Wait,", 0.9, 0.45, 0.2, 0.5, 100, 200),
        Opening(BACK, "No,", 1.0, 0.05, 0.3, 0.0, 10, 200),
    )
    told = {(m.measure, m.model): m for m in opening_measures(mined)}
    assert told[OPENING_COVERAGE, "base"].value == pytest.approx(0.5)
    assert told[OPENING_COVERAGE, "rl"].value == pytest.approx(0.5)
    assert told[OPENING_PRECISION, ""].value == pytest.approx(100 / 110)
