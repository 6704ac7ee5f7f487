"""Openings that are written for a model, and behaviours that a response carries out."""

import random

import torch

from sae_reasoning.elicitation.moves import moves_made
from sae_reasoning.elicitation.told import Telling, at_opportunities
from sae_reasoning.organisms.cells import JUDGED
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.tutor import SearchTutor
from sae_reasoning.tasks.search.world import TRAINED, parse_prompt, sample_problem
from sae_reasoning.traces.annotate import annotator_for

PROMPTS = [
    sample_problem(random.Random(number), TRAINED, grammar.REMARKS).prompt() for number in range(40)
]
PROMPT = SearchTutor().choose([Problem("", "", prompt) for prompt in PROMPTS], 0).prompt
JUDGE = annotator_for("search")


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
