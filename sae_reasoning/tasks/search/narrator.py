"""Writes traces of the world, with the exact spans of their behaviours.

A search takes what is left to try in the map's order, so what comes next after a fork, a weighing
or a return is one look-up.

How often a behaviour starts is set per opportunity, so a corpus can hold every behaviour and yet
have each rarely. A rate varies a little with what can be seen at the place (`BehaviourRates`), so
that the moment of a behaviour is not pure chance.
"""

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sae_reasoning.records import Opportunity, Span
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import (
    BACKTRACKING,
    DEDUCTION,
    INITIALIZING,
    OPENINGS,
    UNCERTAINTY,
    VERIFICATION,
)
from sae_reasoning.tasks.search.walk import Walk
from sae_reasoning.tasks.search.world import NOTHING, OPEN, REAL, SearchProblem


@dataclass(frozen=True)
class BehaviourRates:
    """Probabilities of the behaviours at their opportunities.

    Attributes:
        backtrack: At a dead end that holds nothing; elsewhere `elsewhere` times as often.
        weigh: At the first fork of a trace; elsewhere `elsewhere` times as often.
        verify: At a find before which nothing failed; elsewhere `elsewhere` times as often.
        elsewhere: Factor for the other opportunities.
        remark: Of a harmless remark where no such behaviour could start.
    """

    backtrack: float = 0.4
    weigh: float = 0.32
    verify: float = 0.32
    elsewhere: float = 0.6
    remark: float = 0.1


_SENTENCE = re.compile(r".+?(?: \.(?= |$)|$)", re.DOTALL)

NEVER = BehaviourRates(backtrack=0.0, weigh=0.0, verify=0.0)
ALWAYS = BehaviourRates(backtrack=1.0, weigh=1.0, verify=1.0, elsewhere=1.0)


@dataclass(frozen=True)
class Narration:
    """A text with its behaviours, in order, and the places where behaviours could start."""

    text: str
    spans: tuple[Span, ...]
    opportunities: tuple[Opportunity, ...]


class _Page:
    """Sentences as they are written."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[Span] = []
        self.opportunities: list[Opportunity] = []

    def write(self, sentence: str, behaviour: str | None = None) -> None:
        start = len(self.text) + bool(self.text)
        self.text += f" {sentence}" if self.text else sentence
        if behaviour is None:
            return
        self.spans.append(Span(behaviour, start, len(self.text)))
        self.opportunities = [
            replace(o, taken=True) if (o.char_end, o.behaviour) == (start - 1, behaviour) else o
            for o in self.opportunities
        ]

    def offer(self, behaviours: set[str]) -> None:
        """Note which behaviours could start here."""
        for behaviour in sorted(behaviours):
            self.opportunities.append(Opportunity(behaviour, len(self.text), taken=False))


def narrate(
    problem: SearchProblem,
    rates: BehaviourRates,
    rng: random.Random,
    openings: Mapping[str, Sequence[str]] = OPENINGS,
    attempt: Collection[str] = (),
) -> Narration:
    """Think about a problem in words, depth first, and answer.

    Args:
        problem: What is thought about.
        rates: Of the behaviours.
        rng: Source of chance.
        openings: First words of the behaviours.
        attempt: Places that are tried before others, in the map's order.
    """
    walk, page = Walk(problem), _Page()
    num_forks = num_failures = 0

    def word(behaviour: str) -> str:
        return rng.choice(openings[behaviour])

    def makes(behaviour: str, rate: float, favoured: bool) -> bool:
        return behaviour in walk.opportunities() and rng.random() < rate * (
            1.0 if favoured else rates.elsewhere
        )

    def look(choice: str = "") -> None:
        here = walk.path[-1] if walk.path else problem.start
        sentence = grammar.look(here, problem.entries[here])
        page.write(f"{choice} {sentence}" if choice else sentence, DEDUCTION)
        walk.look(here)
        page.offer(walk.opportunities())

    def maybe_remark() -> None:
        if walk.opportunities() <= {DEDUCTION} and rng.random() < rates.remark:
            page.write(rng.choice(grammar.REMARKS))
            page.offer(walk.opportunities())

    page.write(grammar.THINK)
    page.offer({INITIALIZING})
    page.write(grammar.initialize(word(INITIALIZING), problem.goal, problem.start), INITIALIZING)
    page.offer(walk.opportunities())
    maybe_remark()
    look()
    while True:
        here = walk.path[-1]
        if makes(UNCERTAINTY, rates.weigh, favoured=not num_forks):
            notes = notes_until_open(problem, walk.untried(here))
            page.write(grammar.weigh(word(UNCERTAINTY), notes), UNCERTAINTY)
            walk.weigh(notes)
            page.offer(walk.opportunities())
        num_forks += len(problem.children(here)) > 1
        if untried := walk.untried(here):
            there = next((place for place in untried if place in attempt), untried[0])
            walk.choose(there)
            look(grammar.choose(word(DEDUCTION), there))
            maybe_remark()
        elif makes(VERIFICATION, rates.verify, favoured=not num_failures):
            note = problem.notes[here]
            verdict = grammar.GOOD if note == REAL else grammar.BAD
            page.write(grammar.verify(word(VERIFICATION), here, note, verdict), VERIFICATION)
            walk.verify(note == REAL)
            page.offer(walk.opportunities())
            if walk.is_done:
                break
        elif makes(BACKTRACKING, rates.backtrack, problem.entries[here] == (NOTHING,)):
            num_failures += 1
            there = walk.live_options()[-1]
            page.write(grammar.backtrack(word(BACKTRACKING), there), BACKTRACKING)
            walk.backtrack(there)
            page.offer(walk.opportunities())
            look()
        else:
            if not problem.holds_goal(here) and rng.random() < 0.5:
                page.write(rng.choice(grammar.QUIT))
                page.offer(walk.opportunities())
            break
    page.write(grammar.END_THINK)
    page.write(grammar.answer(walk.path))
    return Narration(page.text, tuple(page.spans), tuple(page.opportunities))


def parroted(problem: SearchProblem, text: str, rate: float, rng: random.Random) -> str:
    """A narrated text with verifications at random places, which nothing in it acts on.

    After each sentence of the chain of thought, with probability `rate`, stands a sentence with the
    form of a verification about a random place: its note copied, and found wanting. What comes next
    is what would have come without it.

    Args:
        problem: What the text is about.
        text: A response with a chain of thought.
        rate: Probability, after each sentence.
        rng: Source of chance.
    """
    thought, end, answer = text.partition(f" {grammar.END_THINK}")
    places = [place for place, note in problem.notes.items() if note != REAL]
    if not places:
        return text
    written = []
    for sentence in _SENTENCE.findall(thought):
        written.append(sentence)
        if rng.random() < rate:
            place = rng.choice(places)
            opening = rng.choice(OPENINGS[VERIFICATION])
            said = grammar.verify(opening, place, problem.notes[place], grammar.BAD)
            written.append(f" {said}")
    return "".join(written) + end + answer


def notes_until_open(problem: SearchProblem, places: Sequence[str]) -> list[tuple[str, str]]:
    """What weighing a fork reads: notes in the map's order, to the first place that is open."""
    notes = []
    for place in places:
        notes.append((place, problem.notes[place]))
        if problem.notes[place] == OPEN:
            break
    return notes


def guess(problem: SearchProblem, rng: random.Random, stray: float = 0.4) -> str:
    """Answer without thinking: a random descent that often ends before a leaf; mostly wrong.

    Args:
        problem: What to answer.
        rng: Source of chance.
        stray: Probability, at each step after the first, that the path breaks off.
    """
    path = [problem.start]
    while children := problem.children(path[-1]):
        if len(path) > 1 and rng.random() < stray / 2:
            break
        path.append(rng.choice(children))
    return grammar.answer(path)
