"""Where quoted sections stand in a text: in order, each at its own occurrence, fuzzily in bounds.

Whoever labels behaviours by quoting them (a person with brackets, a language model) doesn't always
quote verbatim. So:

1. Sections and text are cut into pieces (words, numbers, single signs), so that white space doesn't
   count.
2. Of all verbatim occurrences of all sections, the chain is kept that runs forward through
   sections and text and holds the most pieces; of equal ones the earliest. A phrase that occurs
   five times is thus put where its neighbours leave room for it.
3. A section with no place in the chain is looked for in the room between its placed neighbours: the
   stretch that takes the fewest insertions, deletions and replacements of pieces. It counts as
   placed if they're at most a given share of the section's pieces.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_PIECE = re.compile(r"[^\W_]+|[^\w\s]|_")

MAX_EDITS = 0.3
"""Share of a section's pieces that may be other ones, missing or too many."""


@dataclass(frozen=True)
class Place:
    """Where a section stands.

    Attributes:
        start: First character in the text.
        end: One past the last.
        edits: Pieces that differ; 0 is verbatim but for white space.
    """

    start: int
    end: int
    edits: int


@dataclass(frozen=True)
class _Run:
    """Pieces `[first, last)` of the text that stand for a section."""

    section: int
    first: int
    last: int
    edits: int = 0


def place(sections: Sequence[str], text: str, max_edits: float = MAX_EDITS) -> list[Place | None]:
    """A place for each section that has one; places are in the sections' order and don't overlap.

    Args:
        sections: Quotes, in the order in which they should stand in the text.
        text: What they were quoted from.
        max_edits: Share of a section's pieces that may differ.
    """
    spans = [match.span() for match in _PIECE.finditer(text)]
    pieces = [text[start:end] for start, end in spans]
    quoted = [_PIECE.findall(section) for section in sections]
    chain = {run.section: run for run in _best_chain(_occurrences(quoted, pieces))}
    found: list[Place | None] = []
    done = 0  # Pieces of the text behind the last placed section.
    for section, own in enumerate(quoted):
        run = chain.get(section)
        if run is None and own:
            room = min((r.first for s, r in chain.items() if s > section), default=len(pieces))
            run = _fuzzy(section, own, pieces, done, room, int(max_edits * len(own)))
        if run is None:
            found.append(None)
        else:
            done = run.last
            found.append(Place(spans[run.first][0], spans[run.last - 1][1], run.edits))
    return found


def _occurrences(quoted: Sequence[list[str]], pieces: list[str]) -> list[_Run]:
    """Every verbatim occurrence of every section."""
    starts = defaultdict(list)
    for position, piece in enumerate(pieces):
        starts[piece].append(position)
    return [
        _Run(section, first, first + len(own))
        for section, own in enumerate(quoted)
        if own
        for first in starts[own[0]]
        if pieces[first : first + len(own)] == own
    ]


def _best_chain(runs: Sequence[_Run]) -> list[_Run]:
    """The heaviest chain of runs, one a section at most, forward in sections and text.

    Weight is pieces covered. Kept beside each end in the text: the heaviest chain that ends there
    or before, in which both only grow.
    """
    ends: list[int] = []
    weights: list[int] = []
    best: list[int] = []
    before: dict[int, int | None] = {}
    start = 0
    while start < len(runs):
        stop = start
        while stop < len(runs) and runs[stop].section == runs[start].section:
            stop += 1
        new = []
        for index in range(start, stop):
            run = runs[index]
            # The heaviest chain whose text lies wholly before this run.
            at = bisect_left(ends, run.first + 1) - 1
            before[index] = best[at] if at >= 0 else None
            weight = (weights[at] if at >= 0 else 0) + run.last - run.first
            new.append((run.last, weight, index))
        for end, weight, index in new:
            _keep(ends, weights, best, end, weight, index)
        start = stop
    if not best:
        return []
    chain: list[_Run] = []
    index_: int | None = best[-1]
    while index_ is not None:
        chain.append(runs[index_])
        index_ = before[index_]
    return chain[::-1]


def _keep(
    ends: list[int], weights: list[int], best: list[int], end: int, weight: int, index: int
) -> None:
    """Enter a chain, unless one that ends no later is as heavy; drop those it beats."""
    at = bisect_left(ends, end)
    if (at < len(ends) and ends[at] == end and weights[at] >= weight) or (
        at > 0 and weights[at - 1] >= weight
    ):
        return
    stop = at
    while stop < len(ends) and weights[stop] <= weight:
        stop += 1
    ends[at:stop], weights[at:stop], best[at:stop] = [end], [weight], [index]


def _fuzzy(
    section: int, own: list[str], pieces: list[str], first: int, last: int, bound: int
) -> _Run | None:
    """The stretch of `pieces[first:last]` nearest to a section, if it's within `bound` edits.

    Edit distance whose start and end in the text are free (Sellers 1980).
    """
    room = pieces[first:last]
    # costs[j], begins[j]: of the best stretch that ends before piece j, so far.
    costs, begins = [0] * (len(room) + 1), list(range(len(room) + 1))
    for i, wanted in enumerate(own, start=1):
        new_costs, new_begins = [i], [0]
        for j, piece in enumerate(room, start=1):
            options = (
                (costs[j - 1] + (wanted != piece), begins[j - 1]),
                (costs[j] + 1, begins[j]),
                (new_costs[j - 1] + 1, new_begins[j - 1]),
            )
            cost, begin = min(options, key=lambda option: option[0])
            new_costs.append(cost)
            new_begins.append(begin)
        costs, begins = new_costs, new_begins
    end = min(range(len(costs)), key=lambda j: costs[j])
    if costs[end] > bound or begins[end] >= end:
        return None
    return _Run(section, first + begins[end], first + end, costs[end])
