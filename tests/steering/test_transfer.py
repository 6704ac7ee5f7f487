"""The matrix of one pair's latents in another, on tables small enough to check by hand."""

import numpy as np
import pandas as pd
import pytest
from steering.transferred import KINDS, MATCHED_LATENTS, effects_of

from sae_reasoning.steering.transfer import CELLS, cells, join, matrix


def cells_of(found: pd.DataFrame) -> pd.DataFrame:
    return cells(found, MATCHED_LATENTS, source="one", target="two")


def test_a_cell_holds_the_effect_its_null_and_the_targets_own():
    table = cells_of(effects_of())
    assert list(table.columns) == CELLS
    across, own = (table[table.source == source].iloc[0] for source in ("one", "two"))
    assert (across.without, across.value) == (45 / 48, 6 / 48)
    assert across.difference == pytest.approx(-39 / 48)
    assert across.n == 4 * 48
    # Draws of the null: 44 of 48, and twice 43.
    assert across.permuted == pytest.approx(-5 / 3 / 48)
    assert across.beyond_permuted == pytest.approx(across.difference - across.permuted)
    assert (across.permuted_draws, across.permuted_largest) == (3, pytest.approx(-2 / 48))
    assert across.own == own.difference == pytest.approx(-43 / 48)
    assert across.beyond_own == pytest.approx(4 / 48)
    # The two that were edited, not the third; one is among the target's own.
    assert across.likeness == pytest.approx(0.7)
    assert (across.num_shared, across.set_size) == (1, 2)
    assert (across.validity, across.others_valid) == (1, 1)
    assert across.coherent
    assert across.carries_over
    assert pd.isna(own.carries_over)
    assert own.latents == "1:5 1:9"


def test_what_other_latents_matches_do_as_well_does_not_carry_over():
    like_it = effects_of(permuted_match=KINDS["edit"])
    assert not cells_of(like_it).carries_over[0]


def test_a_drop_by_a_clamp_does_not_carry_over():
    assert not cells_of(effects_of("base", "clamp")).carries_over[0]


def test_damage_to_the_other_moves_does_not_carry_over():
    cell = cells_of(effects_of(others=5)).iloc[0]
    assert cell.others_valid == pytest.approx(0.5)
    assert not cell.coherent
    assert not cell.carries_over


def test_a_targets_own_latents_stand_in_the_matrix_once():
    found = effects_of()
    parts = [
        cells(found, MATCHED_LATENTS, source=source, target=target)
        for source, target in (("one", "two"), ("three", "two"), ("two", "one"))
    ]
    table = join(parts)
    pairs = list(zip(table.source, table.target, strict=True))
    assert len(pairs) == len(set(pairs)) == 5
    people = matrix(table).set_index("found in")
    assert people.loc["one", "in two"] == "-0.81* (-0.03)"
    assert people.loc["two", "in two"] == "-0.90 (own)"
    assert people.loc["three", "in one"] == "-"
    assert not np.any(people.columns.duplicated())
