"""Endings of responses that a careful reader graded, and how often programs say the same.

`graded_endings.jsonl` was written from the kinds of endings that are met, before the grader was
mended to read them, and those that bear `first` afterwards: it's what the mended grader said when
it first met them. It was of version 3, or of version `met`, and the version before that said
`earlier`. What is still read otherwise bears a note. `before` is what the grader of version
2 said, `alone` what math-verify says of the whole response. `python
tests/tasks/text/test_graded_endings.py` asks math-verify again and writes
`data/findings/grading.md`.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sae_reasoning.edges.scoring import OutsideScorers
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.grading import GYM, RIGHT, UNREADABLE, WRONG, Grader
from sae_reasoning.tasks.text.questions import Draw, pose_rows

pytest.importorskip("math_verify")
pytest.importorskip("reasoning_gym")

ENDINGS = Path(__file__).with_name("graded_endings.jsonl")
PAGE = Path(__file__).parents[3] / "data" / "findings" / "grading.md"
GRADERS = {"before": "version 2", "alone": "math-verify alone", "now": "version 5"}


MISLEADING = {
    "42": [
        *("The answer is not 42.", "The answer isn't 42.", "It cannot be 42.", "x ≠ 42"),
        *("The answer is less than 42.", "The answer is at most 42.", "There are more than 42."),
        *(
            "x > 42",
            r"Therefore x \geq 42.",
            r"\boxed{\geq 42}",
            "x != 42",
            "The odds are 1 in 42.",
        ),
        *("2x = 42", "x^2 = 42", "The answer is $2x = 42$.", r"\boxed{3n = 42}", "-x = 42"),
        *("at least 42", "The answer is at least 42.", "a minimum of 42", "It's over 42."),
        *("42 pi", "42π", r"\boxed{42 \text{ pi}}", r"42\pi", r"\boxed{42 \pi \text{ cm}}"),
        *("~~42~~", "The answer is ~~42~~.", "<del>42</del>", "42 million", r"\boxed{42 thousand}"),
        *(r"\boxed{42}. Wait, that's wrong: the answer is 6.", r"\boxed{42}. That is wrong."),
        *("<answer>42</answer> Hmm, no, the answer is 6.", "#### 42\nOops, the answer is 6."),
        *("The total is 12. Check: 30 + 12 = 42.", "The answer is 12. Check: 54 - 42 = 12."),
        *("The total is 12, as of 42.", "I'm 42% sure it is 40", "42k"),
        *("The answer is twice 42.", "The answer is 42 squared.", "The answer is f(42)."),
        *("The answer is 42 + n.", "so n + 42", "**Answer**\n\n$42$ is incorrect."),
        *("The answer is one over 42.", "He scored 8 out of 42", r"\boxed{\text{minus } 42}"),
        *(r"\boxed{\text{half of } 42}", r"\boxed{\text{square root of } 42}", r"\boxed{log 42}"),
        *(r"\boxed{42 \text{ factorial}}", r"\boxed{\text{cannot be } 42}", r"\boxed{sqrt 42}"),
        "It's about 42, but that isn't an integer. I cannot determine the answer.",
    ],
    "3": ["a - 3", "The answer is a - 3.", "3 million", r"\boxed{3 billion}"],
    "-3": ["a - 3", "The changes:\n- 3"],
    "[1,2]": ["1 < x < 2", r"\boxed{1 \le x < 2}", r"x \le 2"],
    "5": [
        *("There are two solutions: 3 and 5.", "The roots are x = 3, x = 5."),
        *("The roots are $x = 3$ and $x = 5$.", "The answer is 5 feet 6 inches"),
        *("The answer is 5 remainder 2.", "It drops to 5 degrees below zero."),
    ],
    "C": [
        *("Option C is tempting but incorrect.", "C is wrong, so D.", "The answer is C or maybe D"),
        *("So I'd eliminate C", "Temperature: 30 C"),
    ],
    "No": ["No, wait. Yes.", "The answer is no longer clear"],
    "Yes": ["Yes and no"],
    "Paris": ["It isn't: Paris"],
    r"\leq 5": [r"\boxed{5}"],
    "x+1": ["$y = x+2$ or $y=x+1$", "The answer is not $x+1$"],
}
"""By what is right, endings that name it and don't give it as the answer."""
PLAIN = {
    "42": [
        *("n + 3 = 42", "x\n* 42", "6 x 7 = 42", "42 - a nice number"),
        *("6*7 => 42", "> 42", "The answer is <b>42</b>.", "Since x > 3, x = 42.", "f(2) = 42"),
        *("She can't buy more, so she has 42.", "It isn't hard: 42.", "Result: <b>42</b>"),
        *("The answer is 42, since 42 > 3.", r"\boxed{\text{The root is } 42}", "She has 42 more."),
        *("Options:\n- 12\n- 42", "## Answer\n- 42", "It's:\n\n- **42**", "I'm 12% sure it is 42"),
        *("~~41~~ 42", r"\boxed{42}. Wait, let me check: 40 + 2 = 42. Yes.", "x = 21, so 2x = 42."),
        *("The total is 42. Check: 42 - 12 = 30.", "There are 42. Let me verify: 50 - 42 = 8."),
        *(r"\boxed{42}. Wait, the answer is an integer, fine.", "f(2) = 42", "a + b = 42"),
        *(
            "If x is 21 then 2x = 42.",
            "The values are:\n* 3\n* 42",
            "He has 40 or so, over all: 42",
        ),
        *(r"\boxed{42}. That is wrong? No, it holds.", "The sum is 42, and I'm 95% sure."),
        "#### 42\n\nQuestion: Why wait?\nWait, he can't. The answer is 7.",
        "There are 30 red. Check: 30 + 5 = 35. There are 12 blue. In all 42.",
    ],
    "15": ["It's not 12 but 15.", "After giving away 7, 15 remain.", "By 2021, 15 were left."],
    "42000": [r"\boxed{42 \text{ thousand}}"],
    "1000": ["1k", r"\boxed{1k}", "The answer is $1k."],
    "16": ["Since x = ±4, x^2 = 16."],
    "0.9": ["I am sure that it is 0.9"],
    "-5": ["So\n-5", "x =\n- 5"],
    "[1,2]": [r"1 \le x \le 2", "$1 ≤ x ≤ 2$", r"\boxed{2 \geq x \geq 1}", "So 1 <= x <= 2."],
    r"(-\infty,2]": [r"x \le 2"],
    "B": [
        *(r"\boxed{A}. Wait, the answer is B.", r"\boxed{B}. Actually, the answer is obvious."),
        "B is correct, not A.",
        "The answer is (B), since A is wrong.",
    ],
    "No": ["No, that isn't true."],
    "Paris": ["It's Paris"],
    "x+1": ["So $x=2$, and $y = x+1$"],
}
"""By what is right, endings that give it among words like those."""


def read_endings() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ENDINGS.read_text("utf-8").split("\n") if line]


def _problem(number: int, ending: dict[str, Any]) -> Problem:
    """The ending's problem as it's posed from a row of a file, or from a reasoning-gym task."""
    if "task" in ending:
        entry = {"answer": ending["reference"], "metadata": ending["metadata"]}
        return Problem(f"p{number}", "report", "?", json.dumps(entry), f"{GYM}:{ending['task']}")
    rows = [{"question": "?", "answer": ending["reference"]}, {"question": "other", "answer": "1"}]
    posed = pose_rows([("row", row) for row in rows], "endings", Draw(2, 0.5, "", 0))
    return next(problem for problem in posed if problem.prompt == "?")


def grade(endings: Sequence[dict[str, Any]], scorers: OutsideScorers) -> list[str]:
    """What the grader says of each: right, wrong, or that it can't be told."""
    said = []
    for number, ending in enumerate(endings):
        problem = _problem(number, ending)
        outcome = Grader({problem.problem_id: problem}, scorers).outcome(
            problem.problem_id,
            ending["response"],
            ending.get("truncated", False),
            opened=ending.get("opened", False),
        )
        said.append(outcome if outcome in (RIGHT, WRONG) else UNREADABLE)
    return said


def table(endings: Sequence[dict[str, Any]], now: Sequence[str]) -> str:
    """Endings on which each grader agrees with the reader, by kind, as Markdown."""
    endings = [ending | {"now": said} for ending, said in zip(endings, now, strict=True)]
    lines = [
        f"| kind of ending | endings | {' | '.join(GRADERS.values())} |",
        "|---|---|" + "---|" * len(GRADERS),
    ]
    for kind in dict.fromkeys(ending["kind"] for ending in endings):
        own = [ending for ending in endings if ending["kind"] == kind]
        agree = [sum(e[name] == e["says"] for e in own) for name in GRADERS]
        lines.append(f"| {kind} | {len(own)} | {' | '.join(map(str, agree))} |")
    agree = [sum(e[name] == e["says"] for e in endings) for name in GRADERS]
    shares = [f"**{n} ({n / len(endings):.1%})**" for n in agree]
    lines.append(f"| **all** | **{len(endings)}** | {' | '.join(shares)} |")
    falsely = [sum(e[name] == RIGHT != e["says"] for e in endings) for name in GRADERS]
    lines.append(f"| called right and isn't | | {' | '.join(map(str, falsely))} |")
    hangs = [sum(e[name] == "hangs" for e in endings) for name in GRADERS]
    lines.append(f"| no end within 40 s | | {' | '.join(map(str, hangs))} |")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def now() -> Iterator[list[str]]:
    with OutsideScorers() as scorers:
        yield grade(read_endings(), scorers)


def test_the_grader_says_what_a_careful_reader_says(now: list[str]) -> None:
    endings = read_endings()
    sys.stdout.write(f"\n{table(endings, now)}\n")
    assert len(endings) >= 320
    other = [e for e, said in zip(endings, now, strict=True) if said != e["says"]]
    assert len(other) <= 0.02 * len(endings)
    assert [e["response"] for e in other] == [e["response"] for e in endings if "note" in e]


def test_nothing_is_called_right_that_is_not(now: list[str]) -> None:
    pairs = zip(read_endings(), now, strict=True)
    assert not [e["response"] for e, said in pairs if said == RIGHT != e["says"]]


def test_a_right_answer_is_one_that_is_given_not_one_that_is_named() -> None:
    with OutsideScorers() as scorers:
        for listed, is_right in ((MISLEADING, False), (PLAIN, True)):
            endings = [
                {"reference": reference, "response": response}
                for reference, responses in listed.items()
                for response in responses
            ]
            said = grade(endings, scorers)
            other = [
                e["response"]
                for e, one in zip(endings, said, strict=True)
                if (one == RIGHT) != is_right
            ]
            assert not other


def test_the_page_shows_the_table(now: list[str]) -> None:
    assert table(read_endings(), now) in PAGE.read_text("utf-8")


def _alone(ending: dict[str, Any]) -> str:
    """What math-verify says of the whole response."""
    import math_verify

    reference = "" if ending["reference"] is None else str(ending["reference"])
    right = math_verify.parse(f"${reference}$", parsing_timeout=3)
    given = math_verify.parse(ending["response"], parsing_timeout=3)
    if not right or not given:
        return UNREADABLE
    return RIGHT if math_verify.verify(right, given, timeout_seconds=3) else WRONG


def _write_page(endings: list[dict[str, Any]], now: list[str]) -> None:
    remarks = []
    for ending, said in zip(endings, now, strict=True):
        if said != ending["says"]:
            written = json.dumps(ending["response"], ensure_ascii=False)[1:-1]
            cells = (f"`{written}`", ending["reference"], ending["says"], said, ending["note"])
            remarks.append(f"| {' | '.join(cells)} |")
    later = [ending for ending in endings if "first" in ending and "met" not in ending]
    last = [ending for ending in endings if "met" in ending]
    unseen: dict[str, int | str] = {
        "later": len(later),
        "before": sum(e["before"] == e["says"] for e in later),
        "alone": sum(e["alone"] == e["says"] for e in later),
        "first": sum(e["first"] == e["says"] for e in later),
        "falsely": sum(e["first"] == RIGHT != e["says"] for e in later),
    }
    for name in ("first", "earlier"):
        unseen[f"last_{name}"] = sum(e[name] == e["says"] for e in last)
        unseen[f"falsely_{name}"] = sum(e[name] == RIGHT != e["says"] for e in last)
    unseen |= {
        "last": len(last),
        "last_share": f"{sum(e['first'] == e['says'] for e in last) / len(last):.1%}",
    }
    unseen["share"] = f"{sum(e['first'] == e['says'] for e in later) / len(later):.1%}"
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(
        _TEXT.format(
            total=len(endings), table=table(endings, now), remarks="\n".join(remarks), **unseen
        ),
        "utf-8",
    )


_TEXT = """# Grades by program agree with a careful reader's

Each of {total} endings of responses, written by hand, stands beside a right answer and what a
careful reader says of it: right, wrong, or unreadable (nothing definite is said, or nothing is
known to grade it by). The table counts those on which a grader says the same.

{table}

Agreement is by kind of ending, and no model's rollouts are of these kinds in these shares. Version
5 was mended on these endings, so its column is a fit. Version 3 met {later} of them after it had
been mended on the others: at first it agreed on {first} of those ({share}; version 2: {before},
math-verify: {alone}) and called {falsely} right that aren't, the better guess for new endings.
That holds of endings that give an answer. Of 145 that were then written to mislead it,
version 3 called 72 right that aren't (bounds, denials, parts of something: *at most 42*), and
version 4, mended on them, 13: a check or a remark behind the answer, and the last of several boxes.
Version 5 was mended on a list of what version 4 still misread: equations that aren't solved
(`2x = 42`), bounds, *3 million* for 3, multiples of π, what is struck out or taken back, checks,
bullets read as signs, *1k*, inequalities for intervals. {last} endings of those kinds were labelled
before it met them: at first it agreed on {last_first} ({last_share}; version 4: {last_earlier}) and
called {falsely_first} right that aren't (version 4: {falsely_earlier}). Who mended it wrote them,
knowing its rules, so that this says how well those hold, not how new kinds of endings fare.
Labels of five endings were made consistent after they were written: `2x`, `±5`, a pair and an
interval are wrong wherever a number is asked for, and `1,3` is two things wherever it stands.

What is still read otherwise:

| ending | right answer | reader | grader | why |
|---|---|---|---|---|
{remarks}

Reproduce: `python -m pytest tests/tasks/text/test_graded_endings.py -s` prints the table (15 s);
`python tests/tasks/text/test_graded_endings.py` asks math-verify (0.9.0) again and writes this
page.
Which answer is found says `sae_reasoning/tasks/text/answers.py`; what number it is, `numbers.py`.
"""


if __name__ == "__main__":
    found = [ending | {"alone": _alone(ending)} for ending in read_endings()]
    ENDINGS.write_text(
        "".join(f"{json.dumps(ending, ensure_ascii=False)}\n" for ending in found), "utf-8"
    )
    with OutsideScorers() as own:
        _write_page(found, grade(found, own))
