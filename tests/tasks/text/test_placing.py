"""Quotes find their place."""

import pytest

from sae_reasoning.tasks.text.placing import Place, place

TEXT = "So it is 5. Wait, no. Let me check: 2 + 2 = 4. Wait, no. Yes, 4.\n\nSo it is 4."


def found(sections: list[str], text: str = TEXT, **options: float) -> list[str | None]:
    return [p and text[p.start : p.end] for p in place(sections, text, **options)]


def test_a_phrase_that_stands_twice_is_put_where_its_neighbours_leave_room() -> None:
    places = place(["So it is 5.", "Let me check: 2 + 2 = 4.", "Wait, no.", "So it is 4."], TEXT)
    second = TEXT.rindex("Wait, no.")
    assert places[2] == Place(second, second + len("Wait, no."), 0)
    first = place(["Wait, no.", "Let me check: 2 + 2 = 4."], TEXT)[0]
    assert first is not None and first.start == TEXT.index("Wait, no.")


def test_the_same_phrase_twice_has_two_places() -> None:
    one, other = place(["Wait, no.", "Wait, no."], TEXT)
    assert one is not None and other is not None
    assert one.end <= other.start


def test_white_space_does_not_count() -> None:
    assert found(["Yes , 4.  So\nit is 4."]) == ["Yes, 4.\n\nSo it is 4."]


def test_one_wrong_word_in_ten_is_found_and_every_second_is_not() -> None:
    assert found(["Let me check this: 2 + 2 = 4."]) == ["Let me check: 2 + 2 = 4."]
    (place_,) = place(["Let me check this: 2 + 2 = 4."], TEXT)
    assert place_ is not None and place_.edits == 1
    assert found(["Let us see whether 2 times 2 makes 5."]) == [None]
    assert found(["Let me check this: 2 + 2 = 4."], max_edits=0.0) == [None]


def test_an_altered_section_is_looked_for_between_its_neighbours_only() -> None:
    text = "It may be five. It is four. It may be six."
    assert found(["It is four.", "It may be fixe."], text) == ["It is four.", "It may be six."]


def test_what_stands_out_of_order_loses_to_the_longer_chain() -> None:
    text = "One two three. Four five six. Seven."
    assert found(["Seven.", "One two three.", "Four five six."], text) == [
        None, "One two three.", "Four five six.",
    ]  # fmt: skip


@pytest.mark.parametrize("section", ["", "  \n ", "absent"])
def test_nothing_has_no_place(section: str) -> None:
    assert place([section], TEXT) == [None]
    assert place(["absent"], "") == [None]


def test_characters_of_several_bytes_and_signs_are_pieces() -> None:
    text = "∑ xᵢ = 循环 10 €. Ça va?"
    assert found(["xᵢ = 循环 10 €.", "Ça va?"], text) == ["xᵢ = 循环 10 €.", "Ça va?"]
