"""Equalities of arithmetic: which are read, which are false, and what nothing is said of."""

import pytest

from sae_reasoning.tasks.text.arithmetic import checked_equalities, equalities


def truths(text: str) -> list[bool]:
    return [one.is_true for one in equalities(text)]


@pytest.mark.parametrize(
    "text",
    [
        "So 3 + 4 = 7.",
        "12 / 4 = 3",
        "3 × 4 = 12",
        "3 x 4 = 12",
        "3x4=12",
        r"$3 \times 4 = 12$",
        r"\[\frac{12}{4} + 1 = 4\]",
        r"\dfrac{1}{2} = 0.5",
        "three plus four is seven",
        "Twelve divided by four equals three.",
        "1,200 + 300 = 1,500",
        "1{,}200 + 300 = 1500",
        "10 / 3 ≈ 3.33",
        "10 / 3 = 3.33",
        "2 / 3 = 0.667",
        "1672 / 10 ≈ 170",
        "20% of 50 = 10",
        "3.5% of 200 is 7",
        "12/48 = 25%",
        "12/48 * 100 = 25%",
        "3 apples + 4 apples = 7 apples",
        "She pays $3 + $4 = $7 in all.",
        "3 cm * 4 cm = 12 cm^2",
        "2(3 + 4) = 14",
        "2^10 = 1024",
        "-3 + 5 = 2",
        "- 3 + 5 = 8",
        "1. 3 + 5 = 8",
        "2) 3 + 5 = 8",
        "(which is 3 + 5 = 8)",
        "x = 3 + 4 = 7",
        "5 − 8 = −3",
        "The total is **3 + 4 = 7**.",
        "3 + 4 = **7**",
        "30° + 60° = 90°",
        "7 = 3 + 4",
        "So 3 + 4 = 7! Good.",
        r"So \(3 + 4\) is 7.",
    ],
)
def test_a_true_equality_is_read_as_true(text: str) -> None:
    assert truths(text) == [True]


@pytest.mark.parametrize(
    "text",
    [
        "So 3 + 4 = 8.",
        "12 / 4 = 4",
        "3 × 4 = 13",
        r"\frac{12}{4} + 1 = 5",
        "three plus four is eight",
        "1,200 + 300 = 1,600",
        "10 / 3 ≈ 4.5",
        "10 / 3 = 3.43",
        "3.5% of 200 is 70",
        "3 apples + 4 apples = 8 apples",
        "x = 3 + 4 = 8",
        "5 - 8 = 3",
        "2(3 + 4) = 10",
    ],
)
def test_a_false_equality_is_read_as_false(text: str) -> None:
    assert truths(text) == [False]


@pytest.mark.parametrize(
    "text",
    [
        "Read pages 3-5 = the middle.",
        "3-5 = 2",
        "On 2020-01-02 = 5",
        "12/25/2020 = 3 days",
        "At 3:30 = 4",
        "2x = 14",
        "n + 3 = 8",
        "n - 3 = 8",
        "f(3) + 4 = 9",
        r"\sqrt{16} + 1 = 5",
        "log 100 + 1 = 3",
        "3 + 4 = 7x",
        "3 + 4 = 7 + n",
        "4! = 24",
        "17 / 5 = 3 remainder 2",
        "3 * 4 = 12 million",
        "50 + 10% = 55",
        r"1\frac{1}{2} + 1 = 3",
        "a = 12",
        "12 = 12",
        "3 and 4 = 7",
        "1 / 0 = 5",
        "3 + 4 is 7 more than 0",
        "x == 3 + 4",
        "3 + 4 >= 5",
        "2^100000 = 5",
        "version 1.2.3 = 5",
        r"\(61 \div 2 = 30\) remainder 1",
        "4! - (2 * 3) = 18",
        "12 * 11 = 12! / 10!",
        "The number of squares of size 2x2 is 9.",
        "So 4^5 = 1,048,576? No.",
        "Nothing to see here.",
        "",
    ],
)
def test_nothing_is_said_of_what_cannot_be_read_for_certain(text: str) -> None:
    assert truths(text) == []


def test_a_chain_is_several_equalities() -> None:
    assert truths("2 + 3 = 5 = 10 / 2 = 4") == [True, True, False]
    assert truths("3 + 4 = 7, 7 * 2 = 15; so 15 - 1 = 14") == [True, False, True]


def test_an_equality_has_its_place() -> None:
    text = "So, in all, 3 × 4 = 12 apples."
    (one,) = equalities(text)
    assert text[one.start : one.end] == "3 × 4 = 12"
    assert (one.left, one.right) == ("3*4", "12")


def test_a_false_equality_is_repaired_where_its_left_side_gets_its_right_value() -> None:
    text = "3 × 4 = 13. 5 + 5 = 11. Wait, 3*4 = 12, so 12 + 1 = 13."
    found = [(text[one.start :][:5], *one[1:]) for one in checked_equalities(text)]
    assert found == [
        ("3 × 4", False, True),
        ("5 + 5", False, False),
        ("3*4 =", True, False),
        ("12 + ", True, False),
    ]
