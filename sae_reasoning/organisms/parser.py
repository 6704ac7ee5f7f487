"""Reads moves out of free text of the world, by rule.

On narrated text the spans and opportunities are exactly the narrator's. On a model's own text a
move that begins with a known opening counts even if its body is malformed: it then reaches to the
end of its sentence, or to the cut.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from sae_reasoning.organisms import grammar
from sae_reasoning.organisms.grammar import (
    ALL_OPENINGS,
    BACKTRACKING,
    DEDUCTION,
    INITIALIZING,
    UNCERTAINTY,
    VERIFICATION,
)
from sae_reasoning.organisms.narrator import Narration
from sae_reasoning.organisms.walk import Walk
from sae_reasoning.organisms.world import Problem
from sae_reasoning.records import Opportunity, Span

_BODIES = {
    INITIALIZING: r"(?P<goal>\w+) from (?P<start>\w+) \.",
    UNCERTAINTY: r"(?P<notes>\w+# \w+(?: \w+# \w+)*) \.",
    BACKTRACKING: r"(?P<place>\w+) \.",
    VERIFICATION: rf"(?P<place>\w+)# (?P<note>\w+) , (?P<verdict>{grammar.GOOD}|{grammar.BAD}) \.",
}
_LOOK = rf"{grammar.LOOK} (?P<look>\w+): \w+(?: \w+)* \."
_BARE_LOOK = _LOOK.replace("<look>", "<bare>")
_LOOK_START = re.compile(rf"{grammar.LOOK} \w+:")
_SENTENCE = re.compile(r".*?[.?](?= |$)|.+", re.DOTALL)


def _openings(move: str) -> str:
    return "(?:" + "|".join(re.escape(opening) for opening in ALL_OPENINGS[move]) + ")"


_OPENING = {move: re.compile(_openings(move) + r"(?= |$)") for move in _BODIES}
_WHOLE = {move: re.compile(f"{_openings(move)} {body}(?= |$)") for move, body in _BODIES.items()}
_WORDS = r"(?:[\w,]+ )"
_GARBLED = {
    UNCERTAINTY: re.compile(rf"{_WORDS}+?{_BODIES[UNCERTAINTY]}(?= |$)"),
    VERIFICATION: re.compile(rf"{_WORDS}+?{_BODIES[VERIFICATION]}(?= |$)"),
    BACKTRACKING: re.compile(rf"{_WORDS}*?to {_BODIES[BACKTRACKING]}(?= |$)"),
}
"""Known by their bodies; a return also by its place, which must have been passed."""
_STEP = re.compile(
    rf"(?:{_openings(DEDUCTION)} (?P<choice>\w+) \.(?: {_LOOK})?|{_BARE_LOOK})(?= |$)"
)


def parse(problem: Problem, text: str, truncated: bool = False) -> Narration:
    """The moves of a response to `problem`, and where moves could have started.

    Args:
        problem: What the response answers.
        text: The response, without prompt and special tokens.
        truncated: Whether the response was cut. What its writer would have done at the cut isn't
            known, so no opportunity there counts as declined.
    """
    narration = _read(Walk(problem), text)
    if not truncated:
        return narration
    seen = tuple(o for o in narration.opportunities if o.char_end < len(text))
    return replace(narration, opportunities=seen)


def replay(problem: Problem, text: str) -> Walk:
    """Where a response, or the beginning of one, stands when it ends."""
    walk = Walk(problem)
    _read(walk, text)
    return walk


def match_move(move: str, text: str) -> re.Match[str] | None:
    """A whole move at the start of `text`, with its slots by name; None if it is malformed."""
    return (_STEP if move == DEDUCTION else _WHOLE[move]).match(text)


def paired_notes(words: str) -> list[tuple[str, str]]:
    """`ash# open birch# shut` as pairs of place and note."""
    parts = words.split()
    return [(p.removesuffix("#"), note) for p, note in zip(parts[::2], parts[1::2], strict=True)]


def _read(walk: Walk, text: str) -> Narration:
    spans: list[Span] = []
    opportunities: list[Opportunity] = []

    def offer(end: int, moves: set[str]) -> None:
        opportunities.extend(Opportunity(move, end, taken=False) for move in sorted(moves))

    def read(position: int) -> tuple[str | None, int]:
        """The move that starts at `position`, if any, and where its sentence ends."""
        if step := _STEP.match(text, position):
            if step["choice"]:
                walk.choose(step["choice"])
            if place := step["look"] or step["bare"]:
                walk.look(place)
            return DEDUCTION, step.end()
        for move, opening in _OPENING.items():
            if opening.match(text, position):
                whole = _WHOLE[move].match(text, position)
                if whole:
                    _MOVE_ON[move](walk, whole)
                return move, whole.end() if whole else _sentence_end(text, position, opening)
        for move, garbled in _GARBLED.items():
            found = garbled.match(text, position)
            if found and (move != BACKTRACKING or found["place"] in walk.path[:-1]):
                _MOVE_ON[move](walk, found)
                return move, found.end()
        implied = DEDUCTION if _LOOK_START.match(text, position) else None
        return implied, _SENTENCE.match(text, position).end()  # type: ignore[union-attr]

    if not text.startswith(grammar.THINK):
        return Narration(text, (), ())
    position = len(grammar.THINK)
    offer(position, {INITIALIZING})
    while position < len(text):
        start = position + (text[position] == " ")
        if text.startswith(grammar.END_THINK, start) or start == len(text):
            break
        move, end = read(start)
        if move:
            spans.append(Span(move, start, end))
            opportunities = [
                replace(o, taken=True) if (o.char_end, o.behaviour) == (position, move) else o
                for o in opportunities
            ]
        offer(end, set() if walk.is_done else walk.opportunities())
        position = end
    return Narration(text, tuple(spans), tuple(opportunities))


def _sentence_end(text: str, position: int, opening: re.Pattern[str]) -> int:
    """Where a malformed move ends: with the sentence that follows its opening."""
    after = opening.match(text, position).end()  # type: ignore[union-attr]
    rest = _SENTENCE.match(text, after)
    return rest.end() if rest else after


_MOVE_ON: dict[str, Callable[[Walk, re.Match[str]], None]] = {
    INITIALIZING: lambda walk, whole: None,
    UNCERTAINTY: lambda walk, whole: walk.weigh(paired_notes(whole["notes"])),
    BACKTRACKING: lambda walk, whole: walk.backtrack(whole["place"]),
    VERIFICATION: lambda walk, whole: walk.verify(whole["verdict"] == grammar.GOOD),
}
