"""Tables of matches whose figures can be counted by hand."""

import numpy as np
import pandas as pd
import pytest
from shortlists import onset_predictor, span_detector

from sae_reasoning.behaviours.matches import (
    COSINE,
    MATCHES,
    WORDS,
    Listed,
    Side,
    add_q,
    by_directions,
    findings,
    summarise,
)
from sae_reasoning.behaviours.matching import Series
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Intervals
from sae_reasoning.records import RankedDictionary, Shortlist
from sae_reasoning.stats import benjamini_hochberg

MOVE = "backtracking"


def matches(**columns: list) -> pd.DataFrame:
    """Matches by words of layer 1 with layer 1; latent i's match is i unless said."""
    size = len(next(iter(columns.values())))
    plain = {
        "layer": 1,
        "latent": np.arange(size),
        "other_layer": 1,
        "other_latent": np.arange(size),
        "by": WORDS,
        "value": 0.5,
        "n": 300,
        "null_95": 0.1,
        "same_word": 0.4,
        "p": 0.001,
        "q": 0.001,
        "is_mutual": True,
        "assigned_value": 0.5,
    }
    return pd.DataFrame(plain | columns)


def listed(*latents: int, layer: int = 1) -> Listed:
    return Listed({MOVE: [(layer, latent) for latent in latents]}, {})


def test_span_detectors_are_followed_to_their_matches_and_compared_with_chance() -> None:
    # Six of eight have a match; of those, three lead to the other's list {6, 7}.
    table = matches(
        other_latent=[6, 7, 2, 3, 6, 5, 6, 7],
        q=[0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.9, 0.9],
        value=[0.9, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    )
    (row,) = findings(table, listed(0, 1, 2, 6), listed(6, 7), [MOVE], 0.7).to_dict("records")
    assert row["span_detectors"] == 4
    assert row["with match"] == 3
    assert row["strong"] == 1
    assert row["median"] == 0.6
    assert row["on the other's list"] == 2
    assert row["of latents"] == 6
    assert row["by chance"] == pytest.approx(3 * 3 / 6)
    # Of 20 ways to draw three of six: two hits 9 ways, three 1 way.
    assert row["p"] == pytest.approx(10 / 20)


def test_a_latents_match_is_the_most_similar_of_all_layers() -> None:
    near, far = matches(value=[0.5, 0.5]), matches(value=[0.4, 0.8]).assign(other_layer=2)
    table = pd.concat([near, far], ignore_index=True)
    (row,) = findings(table, listed(0, 1), listed(1, layer=2), [MOVE], 0.7).to_dict("records")
    assert row["on the other's list"] == 1
    assert row["of latents"] == 2


def test_shares_are_counted_by_kind_and_layers() -> None:
    table = pd.concat(
        [
            matches(value=[0.9, 0.2, 0.05, 0.7], q=[0.01, 0.04, 0.9, 0.01]),
            matches(value=[0.3]).assign(by=COSINE, same_word=np.nan),
        ]
    )
    found = summarise(table, 0.7).set_index("by")
    assert found.loc[WORDS, ["latents", "n"]].tolist() == [4, 300]
    assert found.loc[WORDS, ["found", "over_null_95", "strong"]].tolist() == [0.75, 0.75, 0.5]
    assert found.loc[WORDS, "strong_same_word"] == 0
    assert np.isnan(found.loc[COSINE, "median_same_word"])


def test_q_is_over_all_layers_of_a_kind() -> None:
    one, two = matches(p=[0.01, 0.2]), matches(p=[0.03, 0.5]).assign(other_layer=2)
    other = matches(p=[0.04]).assign(by=COSINE)
    found = add_q(pd.concat([one, two, other], ignore_index=True))
    expected = benjamini_hochberg(np.array([0.01, 0.2, 0.03, 0.5]))
    np.testing.assert_allclose(found.q[:4], expected)
    assert found.q[4] == 0.04


def test_lists_of_another_dictionary_are_not_taken_for_this_ones() -> None:
    own, stray = span_detector(1, 7), span_detector(2, 8)
    shortlist = Shortlist(
        span_detectors={MOVE: [own, stray], "verification": [own]},
        onset_predictors={MOVE: [onset_predictor(1, 7)]},
        dictionaries={
            "pooled/layer_1": RankedDictionary("train/pooled/layer_1", "one"),
            "pooled/layer_2": RankedDictionary("train/pooled/layer_2", "two"),
        },
    )
    found = Listed.of(shortlist, {1: "one", 2: "retrained"})
    assert found.span_detectors[MOVE] == [(1, 7)]
    named = f"detects {MOVE}, detects verification, predicts {MOVE}"
    assert found.names(1, np.array([6, 7])) == ["", named]
    assert found.names(2, np.array([8])) == [""]


def test_latents_keep_the_numbers_of_their_dictionary() -> None:
    nothing = np.zeros(9, int)
    units = Intervals(nothing, nothing, nothing, nothing.astype(bool), nothing, nothing)
    unit = np.repeat(np.arange(4), 2)
    latent = np.tile([3, 5], 4)  # Of six latents, two fire.
    activations = SparseMaxima(units, 6, unit, latent, np.arange(1, 9, dtype=np.float32))
    series = Series.of(activations, min_fires=2, by_rank=False)
    own = Side(1, series, np.eye(3)[:2], ["", "detects x"])
    other = Side(2, series, np.eye(3)[[1, 0]], ["detects y", ""])
    found = by_directions(own, other, num_draws=20, seed=0)
    assert list(found.columns) == MATCHES
    assert found.latent.tolist() == [3, 5]
    assert found.other_latent.tolist() == [5, 3]
    assert found.assigned_latent.tolist() == [5, 3]
    assert found.other_behaviours.tolist() == ["", "detects y"]
    assert found.n.tolist() == [3, 3]
