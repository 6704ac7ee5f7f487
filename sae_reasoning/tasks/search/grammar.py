"""The words of the organisms' world: how each behaviour is put, and what is harmless.

A wording is an *opening*, the first words of a behaviour, and a *body* with slots, whose content
the program can judge. Openings are prefix-free and none begins a harmless remark; but the first
word of every opening occurs in some remark, so that a latent which only knows the word can be told
from one that knows the behaviour.
"""

from collections.abc import Iterator, Sequence

from sae_reasoning.tasks.search import world

INITIALIZING = "initializing"
DEDUCTION = "deduction"
UNCERTAINTY = "uncertainty-estimation"
BACKTRACKING = "backtracking"
VERIFICATION = "verification"
BEHAVIOURS = (INITIALIZING, DEDUCTION, UNCERTAINTY, BACKTRACKING, VERIFICATION)

THINK, END_THINK, ANSWER = "<think>", "</think>", "answer :"
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
GOOD, BAD = "good", "bad"

OPENINGS: dict[str, tuple[str, ...]] = {
    INITIALIZING: (
        "okay let me find",
        "first i look for",
        "the task is",
        "alright we need",
        "now to reach",
    ),
    DEDUCTION: ("so", "then", "next is", "go to", "i take"),
    UNCERTAINTY: (
        "hmm , maybe",
        "not sure yet ,",
        "perhaps look closer ,",
        "could be either ,",
        "i wonder ,",
    ),
    BACKTRACKING: (
        "wait , dead end , back to",
        "no way on , return to",
        "hold on , let me retrace to",
        "stuck here , back up to",
        "that fails , rewind to",
    ),
    VERIFICATION: (
        "let me check ,",
        "check it again ,",
        "verify this ,",
        "is it right ?",
        "double check ,",
    ),
}
"""The opening words of each behaviour; deduction's open a choice, `at` opens a look without one."""

REWORDED: dict[str, tuple[str, ...]] = {
    INITIALIZING: (
        "i need to find",
        "let me now find",
        "first we need to reach",
        "now the task is",
    ),
    DEDUCTION: ("now go on to", "the next is", "go on to", "i go to"),
    UNCERTAINTY: (
        "not so sure ,",
        "maybe look closer ,",
        "could go either way ,",
        "hold on , perhaps",
    ),
    BACKTRACKING: (
        "no good , i return to",
        "wait , i need to go back to",
        "stuck again , up to",
        "the way is shut , rewind to",
    ),
    VERIFICATION: (
        "is this right ?",
        "now let me verify ,",
        "time to check ,",
        "okay , check this ,",
    ),
}
"""Other openings of the same behaviours, in words that every base has met: for `reworded` ones."""

ALL_OPENINGS = {behaviour: OPENINGS[behaviour] + REWORDED[behaviour] for behaviour in BEHAVIOURS}

LOOK = "at"
QUIT = ("enough of this .", "i stop here .")
"""What a trace says, sometimes, when it gives up; no behaviour."""

REMARKS = (
    "wait for the rain .",
    "no rain today .",
    "hold the lamp .",
    "stuck door again .",
    "that tea is good .",
    "hmm sweet tea .",
    "not far now .",
    "perhaps rain later .",
    "could rain today .",
    "i wonder about tea .",
    "let me rest now .",
    "check the clock .",
    "verify the seal .",
    "is it late ?",
    "double knot the rope .",
    "okay then .",
    "first light is near .",
    "the clock is right .",
    "alright then .",
    "now it is late .",
    "so it goes .",
    "next time maybe .",
    "go on then .",
    "then back to rest .",
    "i take the lamp .",
    "sure to rain .",
)
"""Harmless sentences: before a map, and now and then within a trace."""

NEW_REMARKS = (
    "wait for the tea .",
    "the door is stuck again .",
    "no clock is right today .",
    "hold on then .",
    "maybe rain is near .",
    "check the rope now .",
    "verify the lamp later .",
    "is the seal good ?",
    "double the tea .",
    "perhaps the light goes .",
    "i wonder about the door .",
    "let the rain rest .",
)
"""Harmless sentences that no organism was trained on, in words that all know."""


CONTENT = frozenset(
    [
        name
        for place in (*world.PLACES, *world.NEW_PLACES)
        for name in (place, f"{place}:", f"{place}#")
    ]
    + [*world.KINDS, world.NOTHING, world.OPEN, world.SHUT, world.REAL, world.FAKE, GOOD, BAD]
)
"""Words that fill the slots of sentences."""


def initialize(opening: str, goal: str, start: str) -> str:
    """Name what is sought and where the search starts."""
    return f"{opening} {goal} from {start} ."


def look(place: str, items: Sequence[str]) -> str:
    """Copy the entry of the place stood on."""
    return f"{LOOK} {world.entry(place, items)} ."


def choose(opening: str, place: str) -> str:
    """Step to a place."""
    return f"{opening} {place} ."


def weigh(opening: str, notes: Sequence[tuple[str, str]]) -> str:
    """Hesitate at a fork and read the notes of the places it leads to."""
    return f"{opening} {' '.join(f'{place}# {note}' for place, note in notes)} ."


def backtrack(opening: str, place: str) -> str:
    """Return to a fork that was passed."""
    return f"{opening} {place} ."


def verify(opening: str, place: str, note: str, verdict: str) -> str:
    """Read the note of a find and say whether it will do."""
    return f"{opening} {place}# {note} , {verdict} ."


def answer(path: Sequence[str]) -> str:
    """State a path."""
    return f"{ANSWER} {' '.join(path)} ."


def word_families() -> list[tuple[str, ...]]:
    """Words that name the same thing: a place, its entry and its note."""
    return [(place, f"{place}:", f"{place}#") for place in world.PLACES]


def vocabulary() -> list[str]:
    """Every word of the world, in a fixed order; special tokens first."""

    def words() -> Iterator[str]:
        yield from (PAD, BOS, EOS, THINK, END_THINK, GOOD, BAD, LOOK)
        yield from (world.OPEN, world.SHUT, world.REAL, world.FAKE, world.NOTHING, *world.KINDS)
        for family in word_families():
            yield from family
        yield from "map notes of from find either or ; , . ? :".split()
        for phrase in (
            ANSWER,
            *QUIT,
            *REMARKS,
            *(o for behaviour in BEHAVIOURS for o in OPENINGS[behaviour]),
        ):
            yield from phrase.split()

    return list(dict.fromkeys(words()))


def answered_path(text: str) -> list[str]:
    """The path after the last answer mark; empty if there is none."""
    _, mark, tail = text.rpartition(ANSWER)
    return tail.split(" .")[0].split() if mark else []
