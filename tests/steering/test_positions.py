"""Where a row is edited, told while it is being written."""

import torch

from sae_reasoning.records import Additions
from sae_reasoning.steering.edits import Intervention, LatentChange, RowEdits
from sae_reasoning.steering.positions import (
    ALL,
    OPPORTUNITIES,
    RANDOM_POSITIONS,
    Positions,
    Timing,
    open_after,
)

WORDS = ["<think>", "so", "ash", ".", "wait", "?"]


def text_of(token_ids: list[int]) -> str:
    return " ".join(WORDS[token] for token in token_ids)


def keys(num_rows: int) -> torch.Tensor:
    return torch.tensor([[0, row, 0] for row in range(num_rows)])


def say(*texts: str):
    """A sampler that writes each row's words, one a step."""
    tokens = torch.tensor([[WORDS.index(word) for word in text.split()] for text in texts])
    return lambda logits, rows, step: tokens[rows, step]


def marks(timing: Timing, sampler, num_rows: int, num_steps: int) -> list[list[bool]]:
    """Of each position, the prompt's last first, which rows are edited."""
    rows, logits = torch.arange(num_rows), torch.zeros(num_rows, len(WORDS))
    follow = timing.following(sampler)
    found = [timing(rows).tolist()]
    for step in range(num_steps):
        follow(logits, rows, step)
        found.append(timing(rows).tolist())
    return [list(own) for own in zip(*found, strict=True)]


def open_only_after(sentence: str):
    """A streaming annotator by which the behaviour `back` could start after one sentence."""

    def listen(piece: str) -> frozenset[str] | None:
        if not piece.endswith("."):
            return None
        return frozenset({"back"} if piece == sentence else ())

    return listen


def test_a_row_is_edited_where_its_behaviour_could_start_and_nowhere_else():
    timing = Timing(
        [Positions(OPPORTUNITIES, "back"), Positions(OPPORTUNITIES, "on"), Positions(ALL)],
        keys(3),
        {0: open_only_after("so ash ."), 1: open_only_after("so ash .")},
        text_of,
    )
    text = "wait . so ash . wait ."
    assert marks(timing, say(text, text, text), 3, 7) == [
        [False, False, False, False, False, True, False, False],
        [False] * 8,
        [True] * 8,
    ]


def test_what_is_not_a_whole_sentence_is_given_again_with_what_follows():
    pieces = []

    def listen(piece: str) -> frozenset[str] | None:
        pieces.append(piece)
        return frozenset({"back"}) if piece.endswith(".") else None

    timing = Timing([Positions(OPPORTUNITIES, "back")], keys(1), {0: listen}, text_of)
    assert marks(timing, say("so ? ash . wait ."), 1, 6)[0][4:] == [True, False, True]
    assert pieces == ["", "so ?", "so ? ash .", "wait ."]


def test_what_a_prompt_begins_is_annotated_before_the_first_token():
    timing = Timing(
        [Positions(OPPORTUNITIES, "back")],
        keys(1),
        {0: lambda piece: frozenset({"back"} if piece == "<think>" else ())},
        text_of,
        begun="<think>",
    )
    assert marks(timing, say("so ash ."), 1, 3) == [[True, False, False, False]]


def test_random_positions_have_their_share_and_are_the_same_each_time():
    def draw() -> torch.Tensor:
        timing = Timing([Positions(RANDOM_POSITIONS, "back", 0.2)] * 200, keys(200), {}, text_of)
        return torch.tensor(marks(timing, say(*["so " * 30] * 200), 200, 30))

    once = draw()
    assert abs(once.float().mean() - 0.2) < 0.02
    assert torch.equal(once, draw())
    assert len({tuple(row) for row in once.tolist()}) > 190  # Each row has its own.


def test_places_of_a_written_text_are_those_found_while_it_is_written():
    text = "wait . so ash . wait ."
    timing = Timing(
        [Positions(OPPORTUNITIES, "back")], keys(1), {0: open_only_after("so ash .")}, text_of
    )
    pieces = [f"{' ' * (n > 0)}{word}" for n, word in enumerate(text.split())]

    def listen(piece: str) -> frozenset[str] | None:
        return open_only_after("so ash .")(piece.strip())

    found = ["back" in own for own in open_after(listen, pieces)]
    assert found == marks(timing, say(text), 1, 7)[0]
    assert found.index(True) == 5 and sum(found) == 1


def test_row_edits_ask_when_and_count_only_what_they_did():
    decoder = torch.eye(4)
    now = torch.tensor([False, True, True])
    edits = RowEdits(
        [Intervention(), Intervention({0: LatentChange.clamp([2], [3.0])})],
        torch.tensor([0, 1, 1]),
        {0: (lambda x: x.topk(1, dim=1), decoder)},
        when=lambda rows: now[rows],
    )
    resid, rows = torch.zeros(3, 4), torch.arange(3)
    resid[:, 0] = 1.0
    assert edits.by_layer[0](resid, rows)[:, 2].tolist() == [0, 3, 3]
    now[1] = False
    assert edits.by_layer[0](resid, rows)[:, 2].tolist() == [0, 0, 3]
    now[:] = False
    assert edits.by_layer[0](resid, rows) is resid
    assert edits.additions({0: 3, 1: 3, 2: 3}) == {
        0: Additions(0.0, 0, ()),
        1: Additions(3.0, 1, (0,)),
        2: Additions(6.0, 2, (0, 1)),
    }
    # The last two rows ended before their second position.
    assert edits.additions({1: 1, 2: 1})[2] == Additions(3.0, 1, (0,))
