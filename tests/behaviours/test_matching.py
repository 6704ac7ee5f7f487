"""Latents with known matches, and dictionaries that have nothing in common."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import ortho_group, spearmanr

from sae_reasoning.behaviours import matching
from sae_reasoning.behaviours.matching import (
    Null,
    Series,
    correlations,
    decoder_cosines,
    interval,
    mirrored_directions,
    pair_up,
    problem_sums,
    shared_by_kind,
    shifted_text,
)
from sae_reasoning.behaviours.streams import Active, MaximaStream
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.traces.align import align_words

LATENTS = 30


def units(start: np.ndarray, stop: np.ndarray) -> Intervals:
    nothing = np.zeros(len(start), int)
    return Intervals(start, stop, nothing, nothing.astype(bool), nothing, nothing)


def series(
    dense: np.ndarray, *, by_rank: bool = False, min_fires: int = 1, words: Intervals | None = None
) -> Series:
    """Of dense activations [token, latent], each token a unit where there are no words."""
    here = np.arange(len(dense))
    stream = MaximaStream(words or units(here, here + 1), dense.shape[1])
    latents = np.tile(np.arange(dense.shape[1]), (len(dense), 1))
    stream.add(Active.of(0, dense.astype(np.float32), latents))
    return Series.of(stream.result(), min_fires=min_fires, by_rank=by_rank)


def sparse(rng: np.random.Generator, num_units: int = 400) -> np.ndarray:
    """Activations [unit, latent] of which one in ten isn't 0; no two latents fire alike."""
    active = rng.random((num_units, LATENTS)) < 0.1
    return np.where(active, rng.gamma(2.0, size=active.shape), 0.0).astype(np.float32)


def drifting(
    rng: np.random.Generator, num_problems: int, traces_each: int, length: int
) -> np.ndarray:
    """Sparse latents with a memory of some ten units, leaning by problem and by trace."""
    num_traces = num_problems * traces_each
    noise = rng.normal(size=(num_traces, length + 50, LATENTS))
    slow = lfilter([1.0], [1.0, -0.9], noise, axis=1)[:, 50:] * (1 - 0.81) ** 0.5
    problem = np.repeat(rng.normal(size=(num_problems, LATENTS)), traces_each, axis=0)
    trace = rng.normal(size=(num_traces, LATENTS))
    dense = (slow + 0.5 * problem[:, None] + 0.3 * trace[:, None]).reshape(-1, LATENTS)
    return np.maximum(dense - 1.2, 0.0)


@pytest.mark.parametrize("block", [7, 1 << 22])
def test_correlations_are_numpys_and_scipys_however_they_are_blocked(block, monkeypatch) -> None:
    monkeypatch.setattr(matching, "_MAX_CELLS", block * LATENTS)
    rng = np.random.default_rng(0)
    own, other = np.round(sparse(rng), 1), np.round(sparse(rng), 1)  # Rounded: ties.
    plain = correlations(series(own), series(other))
    np.testing.assert_allclose(plain, np.corrcoef(own.T, other.T)[:LATENTS, LATENTS:], atol=1e-9)
    ranked = correlations(series(own, by_rank=True), series(other, by_rank=True))
    expected = spearmanr(own, other).statistic[:LATENTS, LATENTS:]
    np.testing.assert_allclose(ranked, expected, atol=1e-9)


def test_a_permuted_copy_is_matched_exactly_by_every_measure() -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(LATENTS)
    own, directions = sparse(rng), rng.normal(size=(LATENTS, 16))
    for similarity in (
        decoder_cosines(directions, 3 * directions[order]),
        correlations(series(own), series(own[:, order])),
        # Spearman doesn't mind another scale, however bent.
        correlations(series(own, by_rank=True), series(own[:, order] ** 3, by_rank=True)),
    ):
        found = pair_up(similarity)
        assert (order[found.best] == np.arange(LATENTS)).all()
        assert (found.assigned == found.best).all()
        assert found.is_mutual.all()
        np.testing.assert_allclose(found.value, 1, atol=1e-6)


def test_a_family_that_cuts_words_otherwise_is_matched_by_words() -> None:
    rng = np.random.default_rng(2)
    words = ["go", "to", "moss", "quarry", "again"]
    chosen = rng.integers(len(words), size=600)
    text = " ".join(words[number] for number in chosen)
    by_word, by_piece = [], []
    for number, start in zip(
        chosen, np.cumsum([0, *(len(words[n]) + 1 for n in chosen[:-1])]), strict=True
    ):
        end = start + len(words[number])
        by_word.append((start, end))
        cut = start + len(words[number]) // 2
        by_piece += [(start, cut), (cut, end)]
    own = sparse(rng, len(chosen))
    order = rng.permutation(LATENTS)
    pieces = np.zeros((len(by_piece), LATENTS))
    second = rng.integers(2, size=own.shape)  # The piece that says so is now one, now the other.
    for piece in (0, 1):
        pieces[piece::2] = np.where(second == piece, np.sqrt(own), 0.1 * np.sqrt(own))
    places = [np.array(align_words(text, offsets)) for offsets in (by_word, by_piece)]
    assert [len(place) for place in places] == [600, 600]
    ours = series(own, by_rank=True, words=units(*places[0].T))
    theirs = series(pieces[:, order], by_rank=True, words=units(*places[1].T))
    found = pair_up(correlations(ours, theirs))
    assert (order[found.best] == np.arange(LATENTS)).all()
    np.testing.assert_allclose(found.value, 1, atol=1e-9)


def test_latents_that_hardly_fire_or_never_change_take_no_part() -> None:
    dense = np.zeros((50, 4))
    dense[:3, 0] = 1.0
    dense[:9, 1] = np.arange(1, 10)
    dense[:, 2] = 2.0  # Always the same.
    kept = series(dense, min_fires=4)
    assert kept.latent.tolist() == [1]
    assert kept.fires.tolist() == [9]


def test_one_to_one_leaves_out_whom_the_other_dictionary_has_no_partner_for() -> None:
    similarity = np.array([[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]])
    found = pair_up(similarity)
    assert found.best.tolist() == [0, 0, 0]
    assert found.is_mutual.tolist() == [True, False, False]
    assert found.assigned.tolist() == [0, 1, -1]  # 0.9 + 0.3 is the most.
    assert np.isnan(found.assigned_value[2])


def test_what_words_alone_share_is_the_mean_over_shuffles_within_words() -> None:
    rng = np.random.default_rng(3)
    kind = rng.integers(4, size=300)
    own, other = sparse(rng, 300) + 0.5 * (kind == 1)[:, None], sparse(rng, 300) + kind[:, None]
    ours = series(own)
    drawn = []
    for _ in range(400):
        order = np.arange(300)
        for word in range(4):
            here = np.flatnonzero(kind == word)
            order[here] = rng.permutation(here)
        drawn.append(correlations(ours, series(other[order])))
    found = shared_by_kind(ours, series(other), kind)
    np.testing.assert_allclose(found, np.mean(drawn, 0), atol=0.02)
    only_words = np.eye(LATENTS)[kind]
    np.testing.assert_allclose(
        shared_by_kind(series(only_words), series(only_words), kind).diagonal(), 1
    )


def test_sums_of_problems_make_the_correlation_and_its_interval() -> None:
    rng = np.random.default_rng(4)
    own = sparse(rng)
    other = own + sparse(rng)
    problem = np.repeat(np.arange(20), 20)
    pairs = np.array([[3, 3], [5, 5], [3, 5]])
    sums = problem_sums(series(own), series(other), pairs, problem)
    similarity = correlations(series(own), series(other))
    for (one, two), of_pair in zip(pairs, sums, strict=True):
        found = interval(of_pair, 500, 0)
        assert found.value == pytest.approx(similarity[one, two])
        assert found.n == 20
        assert found.low < found.value < found.high
        assert 0.05 < found.high - found.low < 0.5


def test_p_holds_each_latent_against_all_draws_in_units_of_its_own_null() -> None:
    rng = np.random.default_rng(5)
    bests = rng.normal(size=(50, 4)) * [1, 1, 10, 10]
    value = np.array([0.0, 9.0, 9.0, 0.0])
    drawn = []
    for draw in range(50):
        others = np.delete(bests, draw, axis=0)
        drawn.append((bests[draw] - others.mean(0)) / others.std(0, ddof=1))
    own = (value - bests.mean(0)) / bests.std(0, ddof=1)
    expected = (1 + (np.array(drawn) >= own[:, None, None]).sum((1, 2))) / 201
    null = Null(bests)
    np.testing.assert_allclose(null.p_values(value), expected)
    assert expected[1] == 1 / 201
    assert expected[2] > 0.1
    # Of 50 draws and one more, one in 51 is the largest.
    np.testing.assert_allclose(null.quantile(50 / 51), bests.max(0))


@pytest.mark.slow
@pytest.mark.parametrize("by_rank", [False, True])
def test_unrelated_dictionaries_pass_the_null_as_often_as_it_says(by_rank: bool) -> None:
    problems, traces, length, repeats = 20, 3, 60, 40
    trace = np.repeat(np.arange(problems * traces), length)
    over, over_shuffled, p, found = [], [], [], 0
    for repeat in range(repeats):
        rng = np.random.default_rng((6, repeat))
        own, other = (
            series(drifting(rng, problems, traces, length), by_rank=by_rank, min_fires=20)
            for _ in range(2)
        )
        value = pair_up(correlations(own, other)).value
        null = Null(shifted_text(own, other, trace, num_draws=60, seed=repeat))
        over.append(value > null.quantile(0.95))
        p.append(null.p_values(value))
        found += p[-1].min() < 0.05 / len(p[-1])
        # Every unit a trace of its own, in any order: what is forbidden.
        order = rng.permutation(len(trace))
        shuffled = series(np.asarray(other.values.toarray())[order], by_rank=by_rank)
        single = shifted_text(own, shuffled, trace, num_draws=20, seed=repeat)
        over_shuffled.append(value > np.quantile(single, 0.95, axis=0))
    assert 0.03 <= np.mean(np.concatenate(over)) <= 0.08
    assert 0.03 <= np.mean(np.concatenate(p) < 0.05) <= 0.08
    assert found / repeats <= 0.15
    assert np.mean(np.concatenate(over_shuffled)) > 0.3


def test_unrelated_directions_with_common_main_axes_pass_the_null_as_often_as_it_says() -> None:
    scale = 0.8 ** np.arange(24)
    over, over_rotated = [], []
    for repeat in range(60):
        rng = np.random.default_rng((7, repeat))
        axes = ortho_group.rvs(24, random_state=rng)
        own, other = (rng.normal(size=(100, 24)) * scale @ axes for _ in range(2))
        value = pair_up(decoder_cosines(own, other)).value
        null = Null(mirrored_directions(own, other, num_draws=60, seed=repeat))
        over.append(value > null.quantile(0.95))
        rotated = [
            decoder_cosines(own, other @ ortho_group.rvs(24, random_state=rng)).max(1)
            for _ in range(20)
        ]
        over_rotated.append(value > np.quantile(rotated, 0.95, axis=0))
    assert 0.03 <= np.mean(np.concatenate(over)) <= 0.07
    assert np.mean(np.concatenate(over_rotated)) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("by_rank", [False, True])
def test_intervals_of_planted_pairs_cover_as_often_as_they_say(by_rank: bool) -> None:
    problems, length = 40, 60
    problem = np.repeat(np.arange(problems), 2 * length)
    pairs = np.stack([np.arange(LATENTS)] * 2, axis=1)
    found = []
    for repeat in range(40):
        rng = np.random.default_rng((8, repeat))
        own, noise = (drifting(rng, problems, 2, length) for _ in range(2))
        sides = series(own, by_rank=by_rank), series(own + noise, by_rank=by_rank)
        found += [
            interval(of_pair, 200, repeat) for of_pair in problem_sums(*sides, pairs, problem)
        ]
    truth = np.mean([one.value for one in found])
    assert 0.5 < truth < 0.8
    assert 0.9 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97
