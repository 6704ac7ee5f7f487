"""How behaviours are told: several wordings each, the last two of which no model is trained on.

Slots: `z` the number that is to come last, `old` the one that came last before, `eq` an equation,
`verdict` what a check says, `u` and `v` the numbers that could come last, `out` the one that the
hint excludes. Numbers that aren't meant stand before, between and behind those that are, so that no
place in a sentence gives the right one away.
"""

import re

SUBGOAL, BACKTRACKING, VERIFICATION, UNCERTAINTY = BEHAVIOURS = (
    "subgoal-setting",
    "backtracking",
    "verification",
    "uncertainty-estimation",
)

WORDINGS: dict[str, tuple[str, ...]] = {
    SUBGOAL: (
        "Suppose {z} comes last: {eq}.",
        "If {z} is last, we need {eq}.",
        "Say {z} is last, so {eq}.",
        "Let {z} end it: {eq}.",
        "With {z} last, get {eq}.",
        "To end with {z}: {eq}.",
        "Assume {z} finishes: {eq}.",
        "Put {z} at the end: {eq}.",
    ),
    BACKTRACKING: (
        "Neither {old} nor {out}, so use {z}.",
        "Back to {z}, not {old}, not {out}.",
        "Wait, not {old}, take {z}, not {out}.",
        "No luck with {old}, so try {z}.",
        "Return, drop {old}, try {z}, not {out}.",
        "Go back and use {z}, never {old} nor {out}.",
        "Undo {old} and start over with {z}.",
        "Scrap this and turn to {z}, no more {old}.",
    ),
    VERIFICATION: (
        "Check: {eq}, {verdict}.",
        "Verify: {eq}, {verdict}.",
        "To be sure, {eq}, {verdict}.",
        "Test it: {eq}, {verdict}.",
        "Once more: {eq}, {verdict}.",
        "Let me see: {eq}, {verdict}.",
        "I recompute: {eq}, {verdict}.",
        "Looking again, {eq}, {verdict}.",
    ),
    UNCERTAINTY: (
        "Maybe {u} or {v}, not {out}.",
        "Not {out}, perhaps {u} or {v}.",
        "It could be {u}, not {out}, or {v}.",
        "Unsure: {u} or {v}, never {out}.",
        "Except {out}, it might be {u} or {v}.",
        "Hard to say: {u}, never {out}, or {v}.",
        "Without {out}, it's unclear: {u} or {v}.",
        "I wonder: {u}, without {out}, or {v}.",
    ),
}
NUM_HELD_OUT = 2
"""Wordings of each behaviour that stand last and that nothing is trained on."""

GOOD = ("right", "true", "good")
BAD = ("wrong", "false", "bad")
FITS, NONE = "fits", "none"

REMARKS = (
    "Suppose it rains at {n}.",
    "If only it were {n}.",
    "Let it be.",
    "With luck, bus {n} comes.",
    "To be sure, bring tea.",
    "Back at {n}, Ann slept.",
    "Wait for bus {n}.",
    "Go back home by {n}.",
    "Return it on day {n}.",
    "No luck today.",
    "Check the mail at {n}.",
    "Let me see the sea.",
    "Test it on day {n}.",
    "Once more, the sun is out.",
    "Maybe it's cold.",
    "It could be {n} by now.",
    "Unsure about tea.",
    "Hard to say, says Ann.",
)
"""Harmless sentences with the words of behaviours; `n` is one of the problem's numbers."""


def trained(behaviour: str) -> tuple[str, ...]:
    """Wordings that models are trained on."""
    return WORDINGS[behaviour][:-NUM_HELD_OUT]


def held_out(behaviour: str) -> tuple[str, ...]:
    """Wordings that nothing is trained on."""
    return WORDINGS[behaviour][-NUM_HELD_OUT:]


def opening(wording: str) -> str:
    """What stands before a wording's first slot."""
    return wording.partition("{")[0].rstrip()


_SLOT = re.compile(r"\{\w+\}")


def _pattern(wording: str) -> str:
    pieces = [re.escape(piece.strip()) for piece in _SLOT.split(wording.rstrip("."))]
    return r"[^.]*?".join(pieces)


_PATTERNS = [
    (behaviour, re.compile("|".join(map(_pattern, own)))) for behaviour, own in WORDINGS.items()
]


def behaviour_of(sentence: str) -> str | None:
    """Behaviour whose fixed words a sentence holds, in order, with figures in the slots."""
    return next((name for name, own in _PATTERNS if own.match(sentence)), None)
