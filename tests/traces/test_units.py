"""Offsets counted in code points, UTF-16 units and bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.traces.offsets import BYTES, CODEPOINTS, UNITS, UTF16, Ruler, misfits

TEXT = "é🤔 Wait."


@pytest.mark.parametrize(
    ("unit", "offset", "length"), [(CODEPOINTS, 3, 8), (UTF16, 4, 9), (BYTES, 7, 12)]
)
def test_wait_begins_after_the_characters_before_it(unit: str, offset: int, length: int) -> None:
    ruler = Ruler(TEXT, unit)
    assert (ruler.offset(3), ruler.codepoint(offset), ruler.length) == (offset, 3, length)


@given(st.text(), st.sampled_from(sorted(UNITS)))
def test_units_are_those_of_the_encodings_and_lead_back(text: str, unit: str) -> None:
    ruler = Ruler(text, unit)
    for place in range(len(text) + 1):
        before = text[:place]
        sizes = {
            CODEPOINTS: len(before),
            UTF16: len(before.encode("utf-16-le", "surrogatepass")) // 2,
            BYTES: len(before.encode("utf-8", "surrogatepass")),
        }
        assert ruler.offset(place) == sizes[unit]
        assert ruler.codepoint(sizes[unit]) == place


def test_half_a_character_and_what_lies_outside_are_no_places() -> None:
    with pytest.raises(ValueError, match="2 lies within a character, counted in UTF-16 units"):
        Ruler(TEXT, UTF16).codepoint(2)
    for outside in (-1, 10):
        with pytest.raises(ValueError, match=r"lies outside its text of 9 UTF-16 units"):
            Ruler(TEXT, UTF16).codepoint(outside)


def test_a_span_in_the_wrong_unit_cuts_words() -> None:
    assert misfits(TEXT, [(3, 8)], CODEPOINTS) == 0
    assert misfits(TEXT, [(4, 8)], CODEPOINTS) == 1  # "ait."
    assert misfits(TEXT, [(4, 9)], UTF16) == 0
    assert misfits(TEXT, [(4, 9)], CODEPOINTS) == float("inf")
    assert misfits(TEXT, [(2, 8)], CODEPOINTS) == 1  # " Wait."
