"""Answers found in responses, and what can be said of them without algebra."""

from fractions import Fraction

import pytest

from sae_reasoning.traces.answers import as_number, find_answer, is_plainly_equal, reaches


@pytest.mark.parametrize(
    ("text", "numeric", "answer"),
    [
        (r"So \boxed{3}, no: \boxed{\frac{1}{2}}. Of 7.", True, r"\frac{1}{2}"),
        ("6 apples\n#### 1,200", True, "1,200"),
        ("It is 3. <answer>5</answer> I am 90 % sure.", True, "5"),
        ("First 12, then 4.5 kg.", True, "4.5"),
        ("That leaves -7 of them.", True, "-7"),
        ("It costs $1,250.", True, "1,250"),
        ("Reasons.\nyes", False, "yes"),
        ("No number at all.", True, None),
        ("", False, None),
        (r"unclosed \boxed{3", True, "3"),
    ],
)
def test_the_answer_is_what_stands_in_the_clearest_place(
    text: str, numeric: bool, answer: str | None
) -> None:
    assert find_answer(text, numeric=numeric, truncated=False) == answer


def test_a_number_in_passing_is_no_answer_of_a_response_that_was_cut() -> None:
    assert find_answer("first 12, then", numeric=True, truncated=True) is None
    assert find_answer("#### 12\nand", numeric=True, truncated=True) == "12"


def test_what_stands_in_thoughts_is_not_given_as_an_answer() -> None:
    text = r"<think> maybe \boxed{3} </think> It is \boxed{4}."
    assert find_answer(text, numeric=True, truncated=False) == "4"
    assert find_answer(r"<think> \boxed{3} </think> none", numeric=True, truncated=False) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,200", Fraction(1200)),
        ("$18.00", Fraction(18)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        ("3/4", Fraction(3, 4)),
        (r"12\text{ cm}", Fraction(12)),
        ("5.", Fraction(5)),
        ("x", None),
        ("1/0", None),
    ],
)
def test_units_and_commas_do_not_hide_a_number(text: str, number: Fraction | None) -> None:
    assert as_number(text) == number


def test_plain_comparison_says_nothing_of_expressions_that_look_different() -> None:
    assert is_plainly_equal("0.5", "1/2") is True
    assert is_plainly_equal("2", "3") is False
    assert is_plainly_equal("Paris", "paris.") is True
    assert is_plainly_equal(r"\text{Paris}", "Paris") is True
    assert is_plainly_equal("x+1", "1+x") is None


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        (r"(3 + 4) \times 2 = 14", True),
        ("2*(4+3)", True),
        (r"$\left(3+4\right)\cdot 2$", True),
        (r"\frac{(3+4)}{2}", False),
        ("7*2", False),  # not its numbers
        ("3+4+2", False),
        ("14", False),
        ("4/(3-3)", False),
        (r"\dfrac{(3+4)}{2}", False),
        ("[3 + 4] x 2", True),
        ("With 3, 4 and 2: (3 + 4) * 2 = 14.", True),
        ("The numbers don't give 14", None),
        ("9**9**9", None),
        ("__import__('os')", None),
        ("three plus four", None),
    ],
)
def test_a_countdown_uses_each_number_once(expression: str, found: bool | None) -> None:
    assert reaches(expression, [2, 3, 4], 14) is found
