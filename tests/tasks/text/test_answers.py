"""Answers found in responses, and what can be said of them without algebra."""

import time
from fractions import Fraction

import pytest

from sae_reasoning.tasks.text.answers import find_answer, is_plainly_equal, reaches, worked_answer
from sae_reasoning.tasks.text.numbers import read_number


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
        ("3,5", None),
        ("12:30", None),
        ("2_3", None),
        ("2x", None),
        ("not 28", None),
        ("9^9^9", None),
        ("2 1/2", Fraction(5, 2)),
        ("10\u202f000", Fraction(10_000)),
        ("\u22125", Fraction(-5)),
        ("2**3", Fraction(8)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("one hundred and five", Fraction(105)),
    ],
)
def test_units_and_commas_do_not_hide_a_number(text: str, number: Fraction | None) -> None:
    read = read_number(text)
    assert (read and read.value) == number


def test_a_heading_is_no_answer() -> None:
    text = "#### Solution\nAdding gives 28.\n\nSo the total is 28."
    assert find_answer(text, numeric=True, truncated=False) == "28"
    assert find_answer("#### Final Answer\n42", numeric=True, truncated=False) == "42"
    text = "#### 2. Add both\nSo the total is 7."
    assert find_answer(text, numeric=True, truncated=False) == "7"
    assert find_answer("#### Solution\n3 and 4", numeric=True, truncated=True) is None


def test_a_number_at_the_very_cut_may_go_on() -> None:
    assert find_answer("so\n#### 12", numeric=True, truncated=True) is None
    assert find_answer("so\n#### 12", numeric=True, truncated=False) == "12"


def test_a_thought_that_the_prompt_opens_ends_with_its_mark_only() -> None:
    cut = r"Perhaps \boxed{28}, but I have to check that."
    for truncated in (True, False):
        assert find_answer(cut, numeric=True, truncated=truncated, opened=True) is None
    assert find_answer(cut, numeric=True, truncated=True) == "28"
    text = rf"{cut}</think> It's \boxed{{7}}."
    assert find_answer(text, numeric=True, truncated=False, opened=True) == "7"


def test_a_worked_solution_ends_in_its_answer() -> None:
    assert worked_answer("3 + 4 = <<3+4=7>>7\n#### 7") == "7"
    assert worked_answer(r"It is \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert worked_answer("no more than words") == ""


@pytest.mark.parametrize(
    "number", ["1e5000000", "1e999999999", "-1e999999999999999999999", "1" * 100_000, "9^9^9^9"]
)
def test_huge_numbers_are_held_against_others_at_once(number: str) -> None:
    assert is_plainly_equal("7", number) is not True
    assert is_plainly_equal("7", rf"\boxed{{{number}}}") is not True
    assert is_plainly_equal("1e999999999", "1e999999999") is True
    assert is_plainly_equal("1e999999999", "1e999999998") is False
    assert is_plainly_equal("1e1000000005", "1e999999999 million") is True


@pytest.mark.parametrize(
    "text",
    [
        "1" * 30_000,
        "12 + 3 = 15 and " * 2_000,
        r"\boxed{" * 4_000,
        "<answer>" * 4_000,
        "*a **b " * 3_000,
        "the answer is sure 5% " * 2_000,
        "it is 5 sure " * 2_000 + "5% sure 5%",
        "$2x = 42$ " * 3_000,
        "The total is 5. Check: 5 = 5. " * 1_000,
        "~~4 " * 5_000,
        "<del>4" * 5_000,
        "\n- 4" * 5_000,
        "1k " * 5_000,
        "hmm" * 10_000,
        "5 hundred " * 3_000,
        r"\boxed{5}" + "." * 20_000,
        r"\boxed{5}" + " Wait, no, " * 2_000,
        r"\boxed{5}" + "\n" * 20_000,
    ],
)
def test_long_texts_take_no_longer_than_their_length(text: str) -> None:
    began = time.process_time()
    find_answer(text, numeric=True, truncated=False)
    find_answer(text, numeric=False, truncated=False)
    assert time.process_time() - began < 2


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


@pytest.mark.parametrize("piece", [" ", "so 1 ", "one hundred ", "\n", "$", "step 1: "])
def test_a_text_that_repeats_itself_for_ever_is_looked_through_in_no_time(piece: str) -> None:
    began = time.process_time()
    for numeric in (True, False):
        find_answer(piece * 4000, numeric=numeric, truncated=False)
    assert time.process_time() - began < 9  # About a second, unless it's more than quadratic.
