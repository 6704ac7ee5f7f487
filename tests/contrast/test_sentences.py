"""Behaviours as they are carried out after a start, and the sentences that stand in for them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from sae_reasoning.contrast.sentences import (
    CarriedOut,
    Quote,
    Sentence,
    are_made,
    carried_out,
    displaced,
    foreign,
    holds_answer,
    opening_of,
    own_words,
    quotes,
    whole_openings,
)
from sae_reasoning.records import REPORT, SELECT, Annotation, TokenSpan, Trace
from sae_reasoning.tasks.annotations import Labelled, Unlabelled, nothing
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Opening, ResponseFormat, Start
from sae_reasoning.tasks.search.task import SearchGrader
from sae_reasoning.tasks.text.annotators import CueAnnotator
from sae_reasoning.tasks.text.openings import MinedOpenings
from sae_reasoning.tasks.text.sentences import FirstSentence
from sae_reasoning.tasks.text.task import text_task

BEHAVIOUR = "backtracking"
TASK = text_task(
    CueAnnotator({BEHAVIOUR: ["wait", "hold on"]}, [BEHAVIOUR]),
    {"base": ResponseFormat(), "rl": ResponseFormat()},
    SearchGrader(),
)
RULE = CarriedOut(FirstSentence(), frozenset("wait that is wrong so hold on again".split()))


def at(problem: str, text: str = "It is 7. ") -> Start:
    return Start(Problem(problem, REPORT, "?"), "rl", BEHAVIOUR, f"{problem}/rl/0", (), text, True)


def said(start: Start, text: str) -> Sentence:
    return Sentence((1,), start.text + text, text)


def written(problem: str, text: str, sample: int = 0, writer: str = "rl") -> Trace:
    found = TASK.annotator.annotate(Problem(problem, REPORT, "?"), text, truncated=False)
    spans = tuple(
        TokenSpan(one.behaviour, one.char_start, one.char_end, 0, 1, "cues") for one in found.spans
    )
    return Trace(
        trace_id=f"{problem}/{writer}/{sample}",
        problem_id=problem,
        split=REPORT,
        writer=writer,
        model=writer,
        prompt="?",
        text=text,
        token_ids=(0,),
        num_prompt_tokens=0,
        correct=True,
        truncated=False,
        spans=spans,
        opportunities=(),
    )


def mined(text: str) -> Opening:
    return Opening(BEHAVIOUR, text, 1.0, 0.5, 0.5, 0.5, 9, 9)


def test_a_behaviour_is_carried_out_once_a_sentence_says_something() -> None:
    def until(text: str, *, is_last: bool = False) -> str | None:
        end = RULE.find(text, is_last=is_last)
        return None if end is None else text[:end]

    assert until("Wait, 12 is wrong. So 3. ") == "Wait, 12 is wrong."
    assert until("Wait. That is wrong. It is 12. And 3. ") == "Wait. That is wrong. It is 12."
    assert until("Wait. ") is None
    assert until("Wait. Hold on. Again, wait. So 3. ") == "Wait. Hold on. Again, wait."
    assert until("Wait. It is 12.", is_last=True) == "Wait. It is 12."
    assert until("Wait. It is 12") is None
    # What has a digit is content, however common.
    assert replace(RULE, common=frozenset(["12"])).content("12 wait") == {"12", "wait"}


def test_words_that_many_sentences_of_a_behaviour_have_are_no_content() -> None:
    names = [f"place{chr(97 + n)}" for n in range(20)]
    traces = [written(f"p{n}", f"Go on. Wait, back to {name}.") for n, name in enumerate(names)]
    traces = [replace(one, split=SELECT) for one in traces]
    # What the report split says decides nothing.
    report = [written(f"r{n}", "Go on. Wait, on to the river again.") for n in range(20)]
    rule = carried_out(TASK, [*traces, *report], [BEHAVIOUR])
    assert rule.common == {"wait", "back", "to"}
    assert rule.content("Wait, back to placea and on.") == {"placea", "and", "on"}
    # However rare an opening is.
    task = replace(TASK, openings=MinedOpenings((mined("Hmm, hold"),)))
    rare = carried_out(task, traces, [BEHAVIOUR])
    assert rare.common == {"wait", "back", "to", "hmm", "hold"}
    said = "Hmm. That sum is wrong."
    assert rare.find(said, is_last=True) == len(said)
    others = [replace(one, writer="base") for one in traces]
    assert carried_out(TASK, others, [BEHAVIOUR]).common == frozenset()


def test_a_behaviour_is_made_where_it_begins_the_sentence_after_the_start() -> None:
    start = at("p0", "Wait, it is 7. ")
    other = replace(start, behaviour="verification")
    texts = ["But wait, it is 8.", "It is 8.", "It is 8. Wait, it is 9."]
    sentences = [said(start, text) for text in texts]
    assert are_made(TASK, [start] * 3, sentences) == [True, False, False]
    assert are_made(TASK, [other], [said(other, texts[0])]) == [False]


def test_a_model_that_makes_a_behaviour_too_seldom_has_no_words_of_its_own() -> None:
    tries = [[said(at("p0"), word) for word in ("a", "b")] for _ in range(2)]
    made = [[False, True], [False, False]]
    assert own_words(tries, made, 0.25) == [[tries[0][1]], []]
    assert own_words(tries, made, 0.3) == [[], []]
    # What nobody could label is neither the behaviour nor anything else.
    assert own_words(tries, [[None, True], [False, None]], 0.5) == [[tries[0][1]], []]
    assert own_words(tries, [[None, None]] * 2, 0.0) == [[], []]


def test_a_displaced_sentence_is_of_the_same_problem_another_place_and_other_content() -> None:
    start = at("p0", "It is 7, and so on now. ")
    same = written("p0", "It is 7, and so on now. Wait, that is 21 again.", 0)
    elsewhere = written("p0", "Hm. Wait, that is 21. Wait, that is 34.", 1)
    another = written("p1", "Wait, that is 55.", 0)
    found = quotes(RULE, [same, elsewhere, another], [BEHAVIOUR])
    assert Quote(BEHAVIOUR, "p0", "It is 7, and so on now.", "Wait, that is 21 again.") in found
    assert len(found) == 4
    assert displaced(start, found, RULE, ["Wait, that is 21 again."], 2, 0) == ["Wait, that is 34."]
    assert displaced(start, found, RULE, ["34 and 21"], 2, 0) == []
    assert foreign(start, found, 2, 0) == ["Wait, that is 55."]
    assert foreign(replace(start, behaviour="other"), found, 2, 0) == []
    # What is found out further along is handed to no start, nor is the answer.
    assert displaced(at("p0", "Hm. "), found, RULE, ["5"], 2, 0) == []
    assert displaced(at("p0", "So. "), found, RULE, ["5"], 2, 0) == ["Wait, that is 21."]
    for reference, left in (("34", []), ("3", ["Wait, that is 34."])):
        asked = replace(start, problem=replace(start.problem, reference=reference, grader="math"))
        assert displaced(asked, found, RULE, ["Wait, that is 21 again."], 2, 0) == left
    # A sentence that says nothing displaces nothing.
    empty = quotes(RULE, [written("p0", "Hm. Wait.", 2)], [BEHAVIOUR])
    assert displaced(start, empty, RULE, ["21"], 2, 0) == []


@pytest.mark.parametrize(
    ("said", "reference", "grader", "held"),
    [
        ("Check: 25*2 + 3 = 53, right.", "25", "math", True),
        ("Check: 25*2 + 3 = 53, right.", "2", "math", True),
        ("So it is 12.5 or 1,250 here.", "12", "math", False),
        ("So it is 12.5 or 1,250 here.", "250", "math", False),
        ("So it is 12.5 or 1,250 here.", "12.5", "math", True),
        ("It is 12.", "12", "math", True),
        ("Then \\frac{1}{2} is left.", "\\frac{1}{2}", "math", True),
        ("The Elm wins", "elm", "gym:words", True),
        ("The helm wins", "elm", "gym:words", False),
        ("9 + 3 = 12", "12", "countdown", False),
        ("Anything", "", "", False),
    ],
)
def test_a_sentence_holds_the_right_answer_where_it_stands_there_whole(
    said: str, reference: str, grader: str, held: bool
) -> None:
    kinds = {
        "gym:words": json.dumps({"answer": reference, "question": "?"}),
        "countdown": json.dumps({"numbers": [9, 3], "target": 12}),
    }
    problem = Problem("p0", REPORT, "?", kinds.get(grader, reference), grader)
    assert holds_answer(said, problem) == held


class Unable(CueAnnotator):
    """Can't label what has a certain word."""

    def annotate_all(
        self, responses: Sequence[Unlabelled], advance: Callable[[], None] = nothing
    ) -> Labelled:
        found = super().annotate_all(responses, advance)
        labels: list[Annotation | None] = [
            None if "unreadable" in one.text else label
            for one, label in zip(responses, found.annotations, strict=True)
        ]
        return replace(found, annotations=labels)


def test_a_sentence_without_a_label_is_not_taken_for_something_else() -> None:
    start = at("p0", "Go. ")
    task = replace(TASK, annotator=Unable({BEHAVIOUR: ["wait"]}, [BEHAVIOUR]))
    sentences = [said(start, text) for text in ("Wait, unreadable.", "Wait, 8.", "So 8.")]
    assert are_made(task, [start] * 3, sentences) == [None, True, False]


def test_an_opening_is_a_known_one_or_the_first_words() -> None:
    known = ("stuck here , back up to", "stuck here")
    assert opening_of(known, "Stuck here , back up to ash .") == "Stuck here , back up to"
    assert opening_of(known, "no way on .") == "no way"


def test_openings_that_are_written_have_what_nearly_always_follows_them() -> None:
    task = replace(TASK, openings=MinedOpenings((mined("Hold on"), mined("Wait,"))))
    names = ("ash", "birch", "cedar", "dale", "elm", "fern")

    def texts(*said: str) -> list[Trace]:
        return [
            replace(written(f"p{n}", f"Go. {one}.", n), split="select")
            for n, one in enumerate(said)
        ]

    rl = texts(*(f"Hold on, back to {name} now" for name in names), *(f"Wait, {n}" for n in names))
    assert whole_openings(task, rl, [BEHAVIOUR]) == {BEHAVIOUR: ("Hold on, back to", "Wait,")}
    # Each writer's own way of going on counts, and the report split doesn't.
    base = [replace(one, writer="base") for one in texts(*(f"Hold on, I see {n} x" for n in names))]
    assert whole_openings(task, [*rl, *base], [BEHAVIOUR])[BEHAVIOUR][0] == "Hold on,"
    report = [replace(one, split=REPORT) for one in base]
    assert whole_openings(task, [*rl, *report], [BEHAVIOUR])[BEHAVIOUR][0] == "Hold on, back to"
    few = base[:4]
    assert whole_openings(task, [*rl, *few], [BEHAVIOUR])[BEHAVIOUR][0] == "Hold on, back to"
