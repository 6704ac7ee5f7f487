"""Where sentences end: while a text is written, and afterwards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.steering.positions import OPPORTUNITIES, Positions, Timing
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.text.annotators import CueAnnotator
from sae_reasoning.tasks.text.sentences import (
    possible_starts,
    sentence_opportunities,
    sentence_starts,
    sentences,
)

MOVE = "backtracking"
CUES = {MOVE: ["wait"], "verification": ["check"]}
ANNOTATOR, PROBLEM = CueAnnotator(CUES, list(CUES)), Problem("p00000", "report", "?")
FRAGMENTS = st.sampled_from(
    [
        *("so it is", "Wait", "x", "= 42", "3.14", "e.g.", "i.e.", "U.S.", "Dr.", "etc.", "n!"),
        *("5!", "...", "…", "?!", '."', ".)", ".”", ".**", "`.`", "$x = 3.$", r"\[ x. \]"),
        *(r"\(a.\)", r"\left.", "1.", "2)", "- ", "a.", "x.append(1)", "www.ash.org", "a != b"),
        *("```py\nx.y = 1.\n```", "<think>", "</think>", "是的。", "“好！”", "é", "\t", " ", "  "),
        *(".", "?", "!", "\n", "\n\n", "\r\n", ":\n", " \n \n", ".\n\n", "naïve 😀."),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join) | st.text(
    st.sampled_from(list('ab1 .?!\n")*$\\>')), max_size=25
)


def heard(pieces: list[str]) -> list[int]:
    """Characters before each position at which a row that writes these pieces is edited."""
    timing = Timing(
        [Positions(OPPORTUNITIES, MOVE)],
        torch.zeros(1, 3, dtype=torch.int64),
        {0: ANNOTATOR.listen(PROBLEM)},
        lambda token_ids: "".join(pieces[token] for token in token_ids),
    )
    row = torch.tensor([0])
    follow = timing.following(lambda logits, rows, step: torch.tensor([step]))
    found, position = [0] if timing(row).item() else [], 0
    for step, piece in enumerate(pieces):
        follow(torch.zeros(1, len(pieces)), row, step)
        position += len(piece)
        if timing(row).item():
            found.append(position)
    return found


def cut(text: str, at: set[int]) -> list[str]:
    ends = sorted({place for place in at if 0 < place < len(text)} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


@given(TEXTS, st.sets(st.integers(1, 200)))
def test_what_is_heard_of_any_tokens_is_what_is_read_in_the_whole_text(text, at):
    pieces = cut(text, at)
    ends, position = [0], 0
    for piece in pieces:
        position += len(piece)
        ends.append(position)
    assert heard(pieces) == [place for place in possible_starts(text) if place in ends]


@given(TEXTS)
def test_every_opportunity_of_a_whole_text_is_heard_character_by_character(text):
    found = heard(list(text))
    assert found == possible_starts(text)
    offered = {o.char_end for o in sentence_opportunities(text, (), [MOVE])}
    assert offered <= set(found)
    assert offered == set(sentence_starts(text))
    # Whatever else was heard is before white space, or ended nothing by what followed.
    for place in set(found) - offered:
        rest = text[place:]
        assert not rest or rest[0].isspace() or not text[place - 1].isspace()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("(It holds.) So be it.", ["(It holds.)", "So be it."]),
        ("It is 3.14 in all. Wait.", ["It is 3.14 in all.", "Wait."]),
        ("So x = 42. Wait.", ["So x = 42.", "Wait."]),
        ("Primes, e.g. 7, are odd. So?", ["Primes, e.g. 7, are odd.", "So?"]),
        (r"Thus $x = 3.$ Now \(y.\) Then", [r"Thus $x = 3.$", r"Now \(y.\)", "Then"]),
        (r"\left. f \right|_0 is 5! by rule.", [r"\left. f \right|_0 is 5! by rule."]),
        ("Steps:\n1. Add.\n2. Wait, no.", ["Steps:", "1. Add.", "2. Wait, no."]),
        ("```\nx.append(1.)\n```\nDone.", ["```", "x.append(1.)", "```", "Done."]),
        ("One.\n\n \nTwo?! Three… Four", ["One.", "Two?!", "Three…", "Four"]),
        ("<think>\nOkay. </think>So.", ["<think>", "Okay.", "</think>", "So."]),
        ("好。是的！", ["好。", "是的！"]),
    ],
)
def test_sentences_of_texts_as_models_write_them(text, sentences):
    starts = sentence_starts(text)
    ends = [*starts[1:], len(text)]
    assert [text[a:b].strip() for a, b in zip(starts, ends, strict=True)] == sentences


def test_a_number_may_have_ended_a_sentence_as_far_as_anybody_knows():
    """So a decimal whose point is a token by itself is heard, and no opportunity afterwards."""
    assert heard(["It", " is", " 3", ".", "14"]) == [0, 8]
    assert sentence_starts("It is 3.14") == [0]
    assert heard(["It", " is", " 3", ".", " So"]) == [0, 8]
    assert sentence_starts("It is 3. So") == [0, 9]


@pytest.mark.parametrize("text", ["", " ", "\n \n"])
def test_a_text_that_says_nothing_has_no_sentence(text):
    assert sentences(text) == []


WRITTEN = [
    "Okay, 3.5 kg at $2.40 each. That's $8.40, i.e. about 8.4 dollars! Wait, is it? Let me check.",
    'He said "stop." Then (after all.) he left. “Wait,” she said… Check!',
    "Steps:\n1. Add 2 and 3.\n2. Check the sum: 5.\n- wait, 2 + 3 = 5\n\n* Done.",
    r"So \(x = \frac{1}{2}.\) Wait: $$y = 3.$$ Then \[ z \left. w \right| \] and n! is 120.",
    "<think>\nFirst:\n```py\nx.append(1.)\n# wait. check.\n```\n\nWait... no.\n</think>\n\n**42.**",
    "See Dr. Lee, Fig. 2, e.g. U.S. data, vs. www.ash.org. 是的。等等！ Check 1,000.50 vs. 1.",
]


@given(st.sampled_from(WRITTEN) | TEXTS, st.sets(st.integers(1, 200)))
def test_the_streaming_annotator_names_every_opportunity_that_the_whole_text_has(text, at):
    """It names more only where what follows shows that no sentence had ended, or is white space."""
    listen, pending, position, named = ANNOTATOR.listen(PROBLEM), "", 0, set[int]()
    pieces = cut(text, at)
    for piece in pieces:
        pending, position = pending + piece, position + len(piece)
        if (could := listen(pending)) is not None:
            assert could == frozenset(CUES)
            named.add(position)
            pending = ""
    found = ANNOTATOR.annotate(PROBLEM, text, truncated=False)
    ends, position = set(), 0
    for piece in pieces:
        position += len(piece)
        ends.add(position)
    whole = {one.char_end for one in found.opportunities}
    assert whole & ends - {0} <= named
    for place in named - whole:
        follows = text[place : place + 1]
        assert not follows.strip() or not text[place - 1].isspace()
