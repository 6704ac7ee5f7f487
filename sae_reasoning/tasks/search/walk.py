"""Where a trace stands in its map, and which behaviours it could make there."""

from collections.abc import Iterable

from sae_reasoning.tasks.search.grammar import BACKTRACKING, DEDUCTION, UNCERTAINTY, VERIFICATION
from sae_reasoning.tasks.search.world import SHUT, SearchProblem


class Walk:
    """State of a search, moved on by what the trace says.

    The narrator and the parser drive the same state, so an opportunity means the same in a written
    trace and in a model's own. What a text says that the map doesn't bear out moves the state as
    said; opportunities are then judged by the map.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem
        self.path: tuple[str, ...] = ()
        self._tried: frozenset[str] = frozenset()
        self._known_shut: frozenset[str] = frozenset()
        self._looked = self._weighed = self._verified = self._failed = False

    def look(self, place: str) -> None:
        """Read the entry of `place`."""
        if not self.path or self.path[-1] != place:
            self._tried |= {place}
            self._arrive((*self.path, place))
        self._looked = True

    def choose(self, place: str) -> None:
        """Step to `place`."""
        self._tried |= {place}
        self._arrive((*self.path, place))

    def weigh(self, notes: Iterable[tuple[str, str]]) -> None:
        """Read notes of the places that the fork leads to."""
        self._weighed = True
        self._known_shut |= {place for place, note in notes if note == SHUT}

    def backtrack(self, place: str) -> None:
        """Return to `place`."""
        if place in self.path:
            self._arrive(self.path[: self.path.index(place) + 1])
        else:
            self._arrive((*self.path, place))

    def verify(self, good: bool) -> None:
        """Judge the find stood on."""
        self._verified, self._failed = True, not good

    def _arrive(self, path: tuple[str, ...]) -> None:
        self.path = path
        self._looked = self._weighed = self._verified = self._failed = False

    def untried(self, place: str) -> list[str]:
        """Places that `place` leads to, neither tried nor known to be shut."""
        ruled_out = self._tried | self._known_shut
        return [child for child in self.problem.children(place) if child not in ruled_out]

    def live_options(self) -> list[str]:
        """Places passed from which something is left to try; the nearest last."""
        return [place for place in self.path[:-1] if self.untried(place)]

    @property
    def is_done(self) -> bool:
        """Whether a find was verified as good."""
        return self._verified and not self._failed

    @property
    def has_looked(self) -> bool:
        """Whether the entry of the place stood on was read."""
        return bool(self.path) and self._looked

    def opportunities(self) -> set[str]:
        """Behaviours that could start now."""
        if not self.has_looked:
            return {DEDUCTION}
        here = self.path[-1]
        untried = self.untried(here)
        candidate = self.problem.holds_goal(here)
        behaviours = set()
        if untried:
            behaviours.add(DEDUCTION)
        elif not (candidate and not self._failed) and self.live_options():
            behaviours.add(BACKTRACKING)
        if len(untried) > 1 and not self._weighed:
            behaviours.add(UNCERTAINTY)
        if candidate and not self._verified:
            behaviours.add(VERIFICATION)
        return behaviours


class Standing(Walk):
    """Where a walk stands, for many to read: what would move it on fails."""

    def __init__(self, walk: Walk) -> None:
        vars(self).update(vars(walk))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of a walk that others read too can't be set")
