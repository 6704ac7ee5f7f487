"""Reads behaviours out of free text of the world, by rule.

On narrated text the spans and opportunities are exactly the narrator's. On a model's own text a
behaviour that begins with a known opening counts even if its body is malformed: it then reaches to
the end of its sentence, or to the cut.

A `Listener` says the same while the text is being written, sentence by sentence.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import (
    ALL_OPENINGS,
    BACKTRACKING,
    DEDUCTION,
    INITIALIZING,
    UNCERTAINTY,
    VERIFICATION,
)
from sae_reasoning.tasks.search.narrator import Narration, notes_until_open
from sae_reasoning.tasks.search.walk import Walk
from sae_reasoning.tasks.search.world import REAL, SearchProblem, entry

_BODIES = {
    INITIALIZING: r"(?P<goal>\w+) from (?P<start>\w+) \.",
    UNCERTAINTY: r"(?P<notes>\w+# \w+(?: \w+# \w+)*) \.",
    BACKTRACKING: r"(?P<place>\w+) \.",
    VERIFICATION: rf"(?P<place>\w+)# (?P<note>\w+) , (?P<verdict>{grammar.GOOD}|{grammar.BAD}) \.",
}
_LOOK = rf"{grammar.LOOK} (?P<look>\w+): (?P<items>\w+(?: \w+)*) \."
_BARE_LOOK = _LOOK.replace("<look>", "<bare>").replace("<items>", "<bare_items>")
_LOOK_START = re.compile(rf"{grammar.LOOK} \w+:")
_SENTENCE = re.compile(r".*?[.?](?= |$)|.+", re.DOTALL)


def _openings(behaviour: str) -> str:
    return "(?:" + "|".join(re.escape(opening) for opening in ALL_OPENINGS[behaviour]) + ")"


_OPENING = {behaviour: re.compile(_openings(behaviour) + r"(?= |$)") for behaviour in _BODIES}
_WHOLE = {
    behaviour: re.compile(f"{_openings(behaviour)} {body}(?= |$)")
    for behaviour, body in _BODIES.items()
}
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


@dataclass(frozen=True)
class Reading:
    """What a response says.

    Attributes:
        narration: Its behaviours, and where behaviours could have started.
        is_right: Of each behaviour, whether it does what it is for, by the map.
    """

    narration: Narration
    is_right: tuple[bool, ...]


def parse(problem: SearchProblem, text: str, truncated: bool = False) -> Narration:
    """The behaviours of a response to `problem`, and where behaviours could have started.

    Args:
        problem: What the response answers.
        text: The response, without prompt and special tokens.
        truncated: Whether the response was cut. What its writer would have done at the cut isn't
            known, so no opportunity there counts as declined.
    """
    return read(problem, text, truncated).narration


def read(problem: SearchProblem, text: str, truncated: bool = False) -> Reading:
    """The same, with a judgement of each behaviour."""
    reading = _read(Walk(problem), text)
    if not truncated:
        return reading
    narration = reading.narration
    seen = tuple(o for o in narration.opportunities if o.char_end < len(text))
    return replace(reading, narration=replace(narration, opportunities=seen))


def replay(problem: SearchProblem, text: str) -> Walk:
    """Where a response, or the beginning of one, stands when it ends."""
    walk = Walk(problem)
    _read(walk, text)
    return walk


def match_behaviour(behaviour: str, text: str) -> re.Match[str] | None:
    """A whole behaviour at the start of `text`, with its slots by name; None if it is malformed."""
    return (_STEP if behaviour == DEDUCTION else _WHOLE[behaviour]).match(text)


def paired_notes(words: str) -> list[tuple[str, str]]:
    """`ash# open birch# shut` as pairs of place and note."""
    parts = words.split()
    return [(p.removesuffix("#"), note) for p, note in zip(parts[::2], parts[1::2], strict=True)]


class Listener:
    """Follows a response while it is written, and says after each sentence what could start there.

    What it says agrees with what `parse` says of the whole text afterwards, but for one behaviour:
    after a choice `deduction` is never said, since whether the choice's look belongs to it shows
    only later.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._walk = Walk(problem)
        self._has_begun = self._is_over = self._awaits_look = False

    def starts_after(self, piece: str) -> frozenset[str] | None:
        """Behaviours that could start after a piece.

        Args:
            piece: The text since the last piece that was whole.

        Returns:
            None where the piece isn't whole yet: no sentence ends with it. It then is to be given
            again, from its beginning, when more of it is there.
        """
        piece = piece.strip()
        if self._is_over:
            return frozenset()
        if not self._has_begun:
            self._has_begun = piece == grammar.THINK
            self._is_over = not grammar.THINK.startswith(piece)
            if self._is_over:
                return frozenset()
            return frozenset({INITIALIZING}) if self._has_begun else None
        if not piece.endswith((".", "?")) or piece in _ASKING:
            return None
        position = 0
        while position < len(piece) and not self._is_over:
            start = position + (piece[position] == " ")
            if piece.startswith(grammar.END_THINK, start):
                self._is_over = True
            else:
                sentence = _read_sentence(self._walk, piece, start)
                position, self._awaits_look = sentence.end, sentence.awaits_look
        if self._is_over or self._walk.is_done or self._awaits_look:
            return frozenset()
        return frozenset(self._walk.opportunities())


_ASKING = frozenset(
    opening for own in ALL_OPENINGS.values() for opening in own if opening.endswith("?")
)
"""Openings that look like sentences; their bodies follow."""


@dataclass(frozen=True)
class _Sentence:
    """A behaviour, or a sentence without one.

    Attributes:
        behaviour: Its name, or None.
        end: Where it ends.
        is_right: Whether the behaviour is right.
        awaits_look: Whether it's a choice whose look, if it follows, belongs to it.
    """

    behaviour: str | None
    end: int
    is_right: bool = False
    awaits_look: bool = False


def _read_sentence(walk: Walk, text: str, position: int) -> _Sentence:
    """What starts at `position`; the walk moves on."""
    if step := _STEP.match(text, position):
        is_right = _is_right_step(walk, step)
        if step["choice"]:
            walk.choose(step["choice"])
        if place := step["look"] or step["bare"]:
            walk.look(place)
        return _Sentence(DEDUCTION, step.end(), is_right, awaits_look=not place)
    for behaviour, opening in _OPENING.items():
        if opening.match(text, position):
            whole = _WHOLE[behaviour].match(text, position)
            if not whole:
                return _Sentence(behaviour, _sentence_end(text, position, opening))
            is_right = is_right_behaviour(walk, behaviour, whole)
            _MOVE_ON[behaviour](walk, whole)
            return _Sentence(behaviour, whole.end(), is_right)
    for behaviour, garbled in _GARBLED.items():
        found = garbled.match(text, position)
        if found and (behaviour != BACKTRACKING or found["place"] in walk.path[:-1]):
            is_right = is_right_behaviour(walk, behaviour, found)
            _MOVE_ON[behaviour](walk, found)
            return _Sentence(behaviour, found.end(), is_right)
    implied = DEDUCTION if _LOOK_START.match(text, position) else None
    return _Sentence(implied, _SENTENCE.match(text, position).end())  # type: ignore[union-attr]


def is_right_behaviour(walk: Walk, behaviour: str, found: re.Match[str]) -> bool:
    """Whether a behaviour does what it is for, by the map; deduction aside.

    Args:
        walk: Where the trace stands before the behaviour.
        behaviour: Its name.
        found: Its slots by name.
    """
    problem = walk.problem
    here = walk.path[-1] if walk.path else problem.start
    if behaviour == INITIALIZING:
        return (found["goal"], found["start"]) == (problem.goal, problem.start)
    if behaviour == BACKTRACKING:
        return found["place"] in walk.live_options()
    if behaviour == UNCERTAINTY:
        untried = walk.untried(here)
        noted = all(place in problem.notes for place in untried)  # Else there's no fork to weigh.
        return noted and paired_notes(found["notes"]) == notes_until_open(problem, untried)
    verdict = (found["verdict"] == grammar.GOOD) == (problem.notes.get(here) == REAL)
    return verdict and found["place"] == here and found["note"] == problem.notes.get(here)


def _is_right_step(walk: Walk, step: re.Match[str]) -> bool:
    """Whether a choice is open, and a look copies the entry of the place stood on."""
    here = walk.path[-1] if walk.path else walk.problem.start
    if step["choice"]:
        if step["choice"] not in walk.untried(here):
            return False
        here = step["choice"]
    place, items = step["look"] or step["bare"], step["items"] or step["bare_items"]
    if place is None:
        return True
    known = walk.problem.entries.get(here)
    return place == here and known is not None and f"{place}: {items}" == entry(here, known)


def _read(walk: Walk, text: str) -> Reading:
    spans: list[Span] = []
    is_right: list[bool] = []
    opportunities: list[Opportunity] = []

    def offer(end: int, behaviours: set[str]) -> None:
        opportunities.extend(
            Opportunity(behaviour, end, taken=False) for behaviour in sorted(behaviours)
        )

    if not text.startswith(grammar.THINK):
        return Reading(Narration(text, (), ()), ())
    position = len(grammar.THINK)
    offer(position, {INITIALIZING})
    while position < len(text):
        start = position + (text[position] == " ")
        if text.startswith(grammar.END_THINK, start) or start == len(text):
            break
        sentence = _read_sentence(walk, text, start)
        if sentence.behaviour:
            spans.append(Span(sentence.behaviour, start, sentence.end))
            is_right.append(sentence.is_right)
            opportunities = [
                replace(o, taken=True)
                if (o.char_end, o.behaviour) == (position, sentence.behaviour)
                else o
                for o in opportunities
            ]
        offer(sentence.end, set() if walk.is_done else walk.opportunities())
        position = sentence.end
    return Reading(Narration(text, tuple(spans), tuple(opportunities)), tuple(is_right))


def _sentence_end(text: str, position: int, opening: re.Pattern[str]) -> int:
    """Where a malformed behaviour ends: with the sentence that follows its opening."""
    after = opening.match(text, position).end()  # type: ignore[union-attr]
    rest = _SENTENCE.match(text, after)
    return rest.end() if rest else after


_MOVE_ON: dict[str, Callable[[Walk, re.Match[str]], None]] = {
    INITIALIZING: lambda walk, whole: None,
    UNCERTAINTY: lambda walk, whole: walk.weigh(paired_notes(whole["notes"])),
    BACKTRACKING: lambda walk, whole: walk.backtrack(whole["place"]),
    VERIFICATION: lambda walk, whole: walk.verify(whole["verdict"] == grammar.GOOD),
}
