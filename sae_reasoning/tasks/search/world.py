"""The world of the organisms: search in a small tree, told in words.

A problem is a map of places, a few notes, a start and a kind of thing to find:

    map ash: either birch or cedar , cedar: elm , elm: gold , birch: none ; notes birch# open
    cedar# open elm# real ; from ash find gold ?

`ash: either birch or cedar` says that both can be reached from ash; a leaf says what it holds. A
place beside a fork is `open` or `shut`; a leaf that holds what is sought is `real` or `fake`. The
answer is a path from the start to a real find that enters no shut place.

Three hazards make three behaviours pay, one each, so that reinforcement has three decisions to
learn:

* a wrong branch ends in a leaf without the find: only *backtracking* gets out of it;
* a branch that leads to a fake find: only *verification* (reading the leaf's note) shows it;
* a shut branch that leads to a real find: only *weighing* the fork (reading notes of the places it
  leads to, until one is open) shows it.

Each place has a token of its own for its entry (`ash:`) and its note (`ash#`), so that every step
of thinking is one look-up, while a direct answer needs a chain of look-ups deeper than the network.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

PLACES = (
    "ash birch cedar dale elm fern grove heath iris jade knoll lake moss nook oak pine quarry "
    "ridge spring thorn vale willow yew zinnia"
).split()
NEW_PLACES = (
    "alder bay cove drift elder fjord glen hazel inlet juniper kelp larch marsh nettle olive palm "
    "quay reed stream tarn upland vine weir yarrow"
).split()
"""Names that no organism was trained on; only a tokenizer of pieces can tell them apart."""
KINDS = ("gold", "salt", "herbs", "pearls")
NOTHING = "none"
EITHER = "either "
OPEN, SHUT, REAL, FAKE = "open", "shut", "real", "fake"
_LARGEST_BRANCH = 3
"""Places of a wrong branch, at most."""


@dataclass(frozen=True)
class SearchProblem:
    """One search problem, equal to what its prompt says.

    Attributes:
        remark: A harmless sentence before the map, or "".
        entries: What can be reached from each place, or what a leaf holds; in prompt order.
        notes: The note on each place that has one; in prompt order.
        start: Where the path begins.
        goal: The kind of thing to find.
    """

    remark: str
    entries: Mapping[str, tuple[str, ...]]
    notes: Mapping[str, str]
    start: str
    goal: str

    def prompt(self) -> str:
        """The problem in words, as the models read it."""
        return f"{self.facts()} ; from {self.start} find {self.goal} ?"

    def facts(self) -> str:
        """What the prompt says before its question."""
        entries = " , ".join(entry(place, items) for place, items in self.entries.items())
        notes = " ".join(f"{place}# {note}" for place, note in self.notes.items())
        remark = f"{self.remark} " if self.remark else ""
        return f"{remark}map {entries} ; notes {notes}"

    def children(self, place: str) -> tuple[str, ...]:
        """Places that can be reached from `place`; empty for a leaf or an unknown place."""
        return tuple(item for item in self.entries.get(place, ()) if item in self.entries)

    def holds_goal(self, place: str) -> bool:
        """Whether `place` is a leaf that holds the kind sought (real or fake)."""
        return self.entries.get(place) == (self.goal,)

    def is_dead_end(self, place: str) -> bool:
        """Whether `place` is a leaf without the kind sought."""
        return not self.children(place) and not self.holds_goal(place)

    def grade(self, path: Sequence[str]) -> bool:
        """Whether `path` is a right answer: from the start, along open edges, to a real find."""
        if not path or path[0] != self.start or not self.holds_goal(path[-1]):
            return False
        steps = pairwise(path)
        if any(there not in self.children(here) for here, there in steps):
            return False
        return self.notes.get(path[-1]) == REAL and all(self.notes.get(p) != SHUT for p in path)


def entry(place: str, items: Sequence[str]) -> str:
    """What a map says of a place."""
    return f"{place}: {EITHER if len(items) > 1 else ''}{' or '.join(items)}"


def parse_prompt(prompt: str) -> SearchProblem:
    """The problem that a prompt tells.

    Raises:
        ValueError: The text isn't a prompt of this world.
    """
    try:
        head, notes, question = prompt.split(" ; ")
        remark, _, entries = head.rpartition("map ")
        words = notes.split()[1:]
        _, start, _, goal, _ = question.split()
        return SearchProblem(
            remark=remark.strip(),
            entries={
                key: tuple(items.removeprefix(EITHER).split(" or "))
                for key, items in (line.split(": ") for line in entries.split(" , "))
            },
            notes={
                place.removesuffix("#"): note
                for place, note in zip(words[::2], words[1::2], strict=True)
            },
            start=start,
            goal=goal,
        )
    except ValueError as error:
        raise ValueError(f"not a prompt of the search world: {prompt[:80]!r}") from error


@dataclass(frozen=True)
class Difficulty:
    """How large problems are.

    Attributes:
        min_edges: Shortest right path, in edges.
        max_edges: Longest right path, in edges.
        fork_share: Probability that a place on the right path forks, where it may: the last step
            doesn't, nor any once too few places are left for a branch.
    """

    min_edges: int = 3
    max_edges: int = 5
    fork_share: float = 0.85

    def __post_init__(self) -> None:
        if not 1 <= self.min_edges <= self.max_edges < len(PLACES):
            raise ValueError(f"paths of {self.min_edges} to {self.max_edges} edges can't be drawn")


TRAINED = Difficulty()
"""What every organism is trained on."""

LONGER = Difficulty(min_edges=6, max_edges=8)
"""Paths longer than any base has met, for prolonged reinforcement."""


def sample_problem(
    rng: random.Random,
    difficulty: Difficulty,
    remarks: Sequence[str] = (),
    places: Sequence[str] = PLACES,
) -> SearchProblem:
    """Draw one solvable problem of `places`; half of the problems begin with one of `remarks`."""
    names = rng.sample(places, len(places))
    goal = rng.choice(KINDS)
    entries: dict[str, tuple[str, ...]] = {}
    notes: dict[str, str] = {}

    def barren() -> tuple[str, ...]:
        return (rng.choice([NOTHING, *(kind for kind in KINDS if kind != goal)]),)

    def corridor(length: int, items: tuple[str, ...]) -> tuple[str, str]:
        """`length` places in a row, the last with `items`; the first place and the last."""
        places = [names.pop(0) for _ in range(length)]
        for here, there in pairwise(places):
            entries[here] = (there,)
        entries[places[-1]] = items
        return places[0], places[-1]

    def wrong_branch() -> str:
        hazard = rng.choices(["barren", "fake", "shut"], [0.4, 0.3, 0.3])[0]
        if hazard == "barren" and rng.random() < 0.15:
            forked = [corridor(1, barren())[0] for _ in range(2)]
            notes.update(dict.fromkeys(forked, OPEN))
            first, _ = corridor(1, tuple(forked))
        elif hazard == "barren":
            first, _ = corridor(rng.choice([1, 2]), barren())
        else:
            first, leaf = corridor(2, (goal,))
            notes[leaf] = FAKE if hazard == "fake" else REAL
        notes[first] = SHUT if hazard == "shut" else OPEN
        return first

    num_edges = rng.randint(difficulty.min_edges, difficulty.max_edges)
    spine = [names.pop(0) for _ in range(num_edges + 1)]
    for depth, (here, there) in enumerate(pairwise(spine)):
        entries[here] = (there,)
        may_fork = depth < num_edges - 1 and len(names) >= _LARGEST_BRANCH
        if may_fork and rng.random() < difficulty.fork_share:
            branches = [there, wrong_branch()]
            rng.shuffle(branches)
            entries[here] = tuple(branches)
            notes[there] = OPEN
    entries[spine[-1]] = (goal,)
    notes[spine[-1]] = REAL

    def shuffled(table: dict) -> dict:
        return dict(rng.sample(list(table.items()), len(table)))

    return SearchProblem(
        remark=rng.choice(remarks) if remarks and rng.random() < 0.5 else "",
        entries=shuffled(entries),
        notes=shuffled(notes),
        start=spine[0],
        goal=goal,
    )
