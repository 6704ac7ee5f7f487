"""Lessons on one problem, and words that are told."""

import random

import pytest
import torch

from sae_reasoning.elicitation.lessons import (
    CRITIQUES,
    DIRECT,
    SHUFFLED,
    lesson,
    problem_of_lesson,
)
from sae_reasoning.elicitation.moves import moves_made
from sae_reasoning.elicitation.told import Telling, at_opportunities
from sae_reasoning.organisms.cells import JUDGED
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.world import TRAINED, parse_prompt, sample_problem
from sae_reasoning.traces.annotate import annotator_for

PROMPTS = [
    sample_problem(random.Random(number), TRAINED, grammar.REMARKS).prompt() for number in range(40)
]
PROMPT = problem_of_lesson(PROMPTS, 0)
JUDGE = annotator_for("search")


def drawn(kind: str, attempts: list[str], seed: int = 0) -> str:
    prompt, text = lesson(PROMPT, attempts, kind)(random.Random(seed), 0.0)
    assert prompt == PROMPT
    return text


def test_the_problem_of_the_lessons_needs_every_judged_move() -> None:
    spans = narrate(parse_prompt(PROMPT), ALWAYS, random.Random(0)).spans
    assert set(JUDGED) <= {span.behaviour for span in spans}


@pytest.mark.parametrize("kind", [CRITIQUES, DIRECT])
def test_lessons_end_in_the_right_answer(kind: str) -> None:
    assert JUDGE
    text = drawn(kind, ["answer : nowhere ."])
    assert JUDGE(PROMPT, text, False).correct
    assert text.startswith(grammar.THINK) == (kind == CRITIQUES)


def test_shuffled_critiques_say_the_same_sentences_in_another_order() -> None:
    own, shuffled = drawn(CRITIQUES, []), drawn(SHUFFLED, [])
    assert own != shuffled
    assert sorted(own.split()) == sorted(shuffled.split())
    assert own.split(grammar.END_THINK)[1] == shuffled.split(grammar.END_THINK)[1]


def test_a_critique_tries_what_the_attempt_tried() -> None:
    problem = parse_prompt(PROMPT)
    fork = problem.start
    while len(problem.children(fork)) < 2:
        (fork,) = problem.children(fork)
    for child in problem.children(fork):
        text = narrate(problem, ALWAYS, random.Random(0), attempt=[child]).text
        said = text.split(f"at {fork} :")[-1] if f"at {fork} :" in text else text
        tried = [place for place in said.split() if place in problem.children(fork)]
        assert child in tried


def test_moves_of_a_full_trace_are_made_in_their_place_and_rightly() -> None:
    assert JUDGE
    text = narrate(parse_prompt(PROMPT), ALWAYS, random.Random(0)).text
    found = moves_made(PROMPT, text, JUDGE(PROMPT, text, False), JUDGED)
    assert all(made.spans == made.right > 0 for made in found.values())
    elsewhere = f"{grammar.THINK} {grammar.OPENINGS[JUDGED[0]][0]} . {grammar.END_THINK}"
    found = moves_made(PROMPT, elsewhere, JUDGE(PROMPT, elsewhere, False), JUDGED)
    assert all(made.right == 0 for made in found.values())


def test_told_words_are_written_and_all_else_is_the_samplers() -> None:
    words = ["a", ".", "told", "me"]

    def sampled(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return torch.tensor([step % 2] * len(rows))

    telling = Telling(
        sampled,
        [grammar.THINK, "answer :"],
        lambda row, text: "told me",
        decode=lambda ids: " ".join(words[i] for i in ids),
        encode=lambda text: [words.index(word) for word in text.split()],
        ends=(".",),
    )
    said = [telling(torch.zeros(2, 4), torch.arange(2), step).tolist() for step in range(8)]
    thinking, answering = (" ".join(words[step[row]] for step in said) for row in range(2))
    assert thinking == "told me a . a . told me"  # It gets a sentence of its own between.
    assert answering == "a . a . a . a ."  # Only thoughts are told anything.
    assert telling.num_written == [4, 0]


def test_nothing_is_told_where_no_rule_holds() -> None:
    propose = at_opportunities([PROMPT], 0)
    assert propose(0, grammar.THINK) is None
    text = narrate(parse_prompt(PROMPT), ALWAYS, random.Random(0)).text
    assert JUDGE
    spots = {o.char_end for o in JUDGE(PROMPT, text, False).opportunities}
    told = [propose(0, text[:spot]) for spot in sorted(spots)]
    assert any(told)
