"""Execution accuracy: a behaviour is started for the model, and a program judges the rest.

This is the primary "how" measure: a base that executes a behaviour rightly once it is started had
the behaviour, and what it lacked was the moment. Beside it stand two levels that need no such
ability: what a continuation of the right shape earns whose slots are filled at random, and what the
best of a few heuristics earns (most notes say `open`, most finds are `real`, mostly the nearest
fork is meant).
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from sae_reasoning.stats import Estimate, wilson
from sae_reasoning.tasks.search.grammar import (
    BACKTRACKING,
    BAD,
    BEHAVIOURS,
    DEDUCTION,
    GOOD,
    INITIALIZING,
    LOOK,
    OPENINGS,
    UNCERTAINTY,
    VERIFICATION,
)
from sae_reasoning.tasks.search.parser import is_right_behaviour, match_behaviour, replay
from sae_reasoning.tasks.search.walk import Standing
from sae_reasoning.tasks.search.world import (
    FAKE,
    OPEN,
    REAL,
    SHUT,
    SearchProblem,
    entry,
    parse_prompt,
)

Continue = Callable[[Sequence[str], Sequence[str], Sequence[int]], list[str]]
"""Takes prompts, beginnings of responses and keys of noise; gives what the model writes next."""


@dataclass(frozen=True)
class ForcedStart:
    """A prefix at an opportunity, with the opening of the behaviour written in."""

    prompt: str
    before: str
    opening: str
    behaviour: str


@dataclass(frozen=True)
class Validity:
    """How often a behaviour, once started, was executed rightly.

    Attributes:
        behaviour: Its label.
        valid: Executed rightly.
        chance: Expected of random continuations of the right shape.
        heuristic: Earned by the best heuristic.
        n: Forced starts.
    """

    behaviour: str
    valid: int
    chance: float
    heuristic: float
    n: int

    @property
    def estimate(self) -> Estimate:
        """The share that was valid, with Wilson's interval."""
        return wilson(self.valid, self.n)


@lru_cache(maxsize=4096)
def _standing(prompt: str, before: str) -> tuple[SearchProblem, Standing]:
    """The problem and where the beginning of a response stands."""
    read = parse_prompt(prompt)
    problem = replace(
        read, entries=MappingProxyType(read.entries), notes=MappingProxyType(read.notes)
    )
    return problem, Standing(replay(problem, before))


def is_valid(start: ForcedStart, continuation: str) -> bool:
    """Whether the behaviour does what it is for, by the map."""
    problem, walk = _standing(start.prompt, start.before)
    found = match_behaviour(start.behaviour, f"{start.opening} {continuation}")
    if not found:
        return False
    if start.behaviour != DEDUCTION:
        return is_right_behaviour(walk, start.behaviour, found)
    here = walk.path[-1] if walk.path else problem.start
    if start.opening == LOOK:
        items = problem.entries.get(here)  # None where the trace strayed off the map
        return items is not None and continuation.startswith(f"{entry(here, items)} .")
    return found["choice"] in walk.untried(here)


def random_continuation(start: ForcedStart, rng: random.Random) -> str:
    """The behaviour with its slots filled at random, from the map and the path."""
    problem, walk = _standing(start.prompt, start.before)
    here = walk.path[-1] if walk.path else problem.start

    if start.behaviour == INITIALIZING:
        return f"{problem.goal} from {rng.choice(list(problem.entries))} ."
    if start.behaviour == BACKTRACKING:
        return f"{rng.choice(walk.path[:-1] or walk.path)} ."
    if start.behaviour == UNCERTAINTY:
        notes = []
        for place in walk.untried(here):
            notes.append(f"{place}# {rng.choice((OPEN, SHUT))}")
            if notes[-1].endswith(OPEN):
                break
        return f"{' '.join(notes)} ."
    if start.behaviour == VERIFICATION:
        note = rng.choice((REAL, FAKE))
        return f"{here}# {note} , {GOOD if note == REAL else BAD} ."
    place = rng.choice(list(problem.entries))
    return f"{entry(place, problem.entries[place])} ." if start.opening == LOOK else f"{place} ."


def fixed_rules(start: ForcedStart) -> dict[str, str]:
    """Continuations by rules that read no note and don't keep in mind what was tried, by name."""
    problem, walk = _standing(start.prompt, start.before)
    here = walk.path[-1] if walk.path else problem.start
    children = problem.children(here)
    if start.behaviour == UNCERTAINTY:
        return {"the first is open": f"{(*children, here)[0]}# {OPEN} ."}
    if start.behaviour == VERIFICATION:
        return {
            "good": f"{here}# {REAL} , {GOOD} .",
            "bad": f"{here}# {FAKE} , {BAD} .",
        }
    if start.behaviour == BACKTRACKING:
        forks = [place for place in walk.path[:-1] if len(problem.children(place)) > 1]
        return {
            "the nearest fork": f"{[problem.start, *forks][-1]} .",
            "the start": f"{problem.start} .",
        }
    if start.behaviour == DEDUCTION and start.opening != LOOK:
        return {
            "the first way": f"{(*children, here)[0]} .",
            "the last way": f"{(here, *children)[-1]} .",
        }
    return {}


def forced_starts(
    traces: Sequence[tuple[str, str]],
    opportunities: Sequence[Sequence[tuple[str, int]]],
    rng: random.Random,
    per_behaviour: int,
    openings: Mapping[str, Sequence[str]] = OPENINGS,
) -> list[ForcedStart]:
    """Starts at opportunities of traces, at most one of a behaviour from a trace.

    Args:
        traces: Prompt and response of each trace.
        opportunities: Of each trace: behaviour, and one past the last character before it.
        rng: Picks traces, opportunities and wordings.
        per_behaviour: Starts a behaviour at most.
        openings: Of each behaviour, to be drawn from.
    """
    starts = []
    for behaviour in BEHAVIOURS:
        having = [i for i, own in enumerate(opportunities) if any(m == behaviour for m, _ in own)]
        for index in rng.sample(having, min(per_behaviour, len(having))):
            prompt, text = traces[index]
            end = rng.choice([end for m, end in opportunities[index] if m == behaviour])
            before = text[:end]
            # One draw whatever the number of openings, so that models of other words start where
            # this one does.
            opening = openings[behaviour][int(rng.random() * len(openings[behaviour]))]
            if behaviour == DEDUCTION and not replay(parse_prompt(prompt), before).has_looked:
                opening = LOOK
            starts.append(ForcedStart(prompt, before, opening, behaviour))
    return starts


def measure_validity(
    starts: Sequence[ForcedStart], continue_: Continue, seed: int
) -> list[Validity]:
    """Validity of each behaviour that has starts."""
    if not starts:
        return []
    texts = continue_(
        [start.prompt for start in starts],
        [f"{start.before} {start.opening}" for start in starts],
        range(len(starts)),
    )
    rng = random.Random(f"chance/{seed}")
    results = []
    for behaviour in BEHAVIOURS:
        own = [(s, text) for s, text in zip(starts, texts, strict=True) if s.behaviour == behaviour]
        if own:
            by_lot = [is_valid(start, random_continuation(start, rng)) for start, _ in own * 5]
            by_rule = Counter(
                rule
                for start, _ in own
                for rule, continuation in fixed_rules(start).items()
                if is_valid(start, continuation)
            )
            results.append(
                Validity(
                    behaviour=behaviour,
                    valid=sum(is_valid(start, text) for start, text in own),
                    chance=sum(by_lot) / len(by_lot),
                    heuristic=max(by_rule.values(), default=0) / len(own),
                    n=len(own),
                )
            )
    return results
