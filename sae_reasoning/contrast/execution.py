"""Starting a move for a model, and judging by program what it makes of it.

Starts lie at the RL model's own onsets: the places where it chose to make the move.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.measures import RL
from sae_reasoning.contrast.rates import Place
from sae_reasoning.records import Trace
from sae_reasoning.stats import pass_at
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.forced import (
    ForcedStart,
    fixed_rules,
    is_valid,
    random_continuation,
)
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS
from sae_reasoning.tasks.search.parser import match_move

_LOTS = 16


@dataclass(frozen=True)
class Begun:
    """Beginning of a response that is given to a model.

    Attributes:
        before: What stands there.
        opening: Words that are written after it.
        token_ids: Of what stands there, as it was written; None where nobody wrote it so.
    """

    before: str
    opening: str = ""
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Start:
    """A place at which a move is started for a model.

    Attributes:
        problem_id: The unit of resampling.
        split: `select` or `report`.
        behaviour: The move.
        prompt: What was asked.
        before: The thought up to the place.
        place: Index of the place among all places.
        prefix: Tokens up to onset-1.
        begun: Those of them that are of the response.
    """

    problem_id: str
    split: str
    behaviour: str
    prompt: str
    before: str
    place: int
    prefix: tuple[int, ...]
    begun: tuple[int, ...]

    def started(self, opening: str = "") -> Begun:
        """What a model is given that is to go on from here, or from an opening of the move."""
        return Begun(self.before, opening, self.begun)

    def forced(self, opening: str) -> ForcedStart:
        """With the opening words of the move written in."""
        return ForcedStart(self.prompt, self.before, opening, self.behaviour)


def rl_starts(
    thoughts: Sequence[Trace],
    places: Sequence[Place],
    behaviours: Sequence[str],
    per_move: Mapping[str, int],
    seed: int,
) -> list[Start]:
    """Places where the RL model made a move, at most `per_move[split]` a move and split, by lot.

    One a thought: a model that goes in circles makes a move again and again.
    """
    chosen = []
    for behaviour in behaviours:
        for split, most in per_move.items():
            rng = random.Random(f"starts/{seed}/{behaviour}/{split}")
            by_thought: dict[int, list[int]] = {}
            for index, place in enumerate(places):
                thought = thoughts[place.thought]
                if (place.behaviour, place.taken) == (behaviour, True) and (
                    (thought.writer, thought.split) == (RL, split)
                ):
                    by_thought.setdefault(place.thought, []).append(index)
            own = [rng.choice(indices) for indices in by_thought.values()]
            for index in sorted(rng.sample(own, min(most, len(own)))):
                thought = thoughts[places[index].thought]
                prefix = thought.token_ids[: places[index].token + 1]
                chosen.append(
                    Start(
                        problem_id=thought.problem_id,
                        split=split,
                        behaviour=behaviour,
                        prompt=thought.prompt,
                        before=thought.text[: places[index].char_end],
                        place=index,
                        prefix=prefix,
                        begun=prefix[thought.num_prompt_tokens :],
                    )
                )
    return chosen


def own_openings(
    starts: Sequence[Start],
    log_probs: Sequence[Sequence[float]] | Mapping[int, Sequence[float]],
    seed: int,
) -> list[str]:
    """An opening for each start, drawn as the model itself would draw it.

    Args:
        starts: Where.
        log_probs: Of each place, the model's log-probability of each of its move's openings.
        seed: Of the draws.
    """
    rng = np.random.default_rng((seed, 17))
    drawn = []
    for start in starts:
        logs = np.array(log_probs[start.place])
        weights = np.exp(logs - logs.max())
        openings = ALL_OPENINGS[start.behaviour]
        drawn.append(openings[rng.choice(len(openings), p=weights / weights.sum())])
    return drawn


def judge(start: Start, opening: str, continuation: str) -> bool:
    """Whether the move, begun with `opening`, was carried out rightly."""
    return is_valid(start.forced(opening), continuation)


def is_move(start: Start, opening: str, continuation: str) -> bool:
    """Whether what follows `opening` has the form of the move, rightly filled or not."""
    return match_move(start.behaviour, f"{opening} {continuation}") is not None


def judge_free(start: Start, text: str) -> tuple[bool, bool]:
    """Whether a model that was free to say anything made the move, and rightly."""
    for opening in ALL_OPENINGS[start.behaviour]:
        if text.startswith(f"{opening} "):
            return True, judge(start, opening, text[len(opening) + 1 :])
    return False, False


def chances(starts: Sequence[Start], tries: int, seed: int) -> Float[np.ndarray, " start"]:
    """Chance that the best of some continuations by lot is right, at each start; unbiased."""
    found, size = [], max(_LOTS, tries)
    for start in starts:
        rng = random.Random(f"lots/{seed}/{start.problem_id}/{start.place}")
        forced = start.forced(ALL_OPENINGS[start.behaviour][0])
        right = sum(is_valid(forced, random_continuation(forced, rng)) for _ in range(size))
        found.append(pass_at(right, size, tries))
    return np.array(found)


def best_fixed_rule(
    starts: Sequence[Start], chosen_on: Sequence[Start]
) -> Float[np.ndarray, " start"] | None:
    """Where the rule that reads nothing and is right most often on other starts is right.

    Args:
        starts: Of one move.
        chosen_on: Of the same move; where there are none, the rule is the best on `starts`.

    Returns:
        None where the move has no such rule.
    """
    tried = _by_rule(chosen_on or starts)
    if not tried:
        return None
    return np.array(_by_rule(starts)[max(tried, key=lambda rule: sum(tried[rule]))], float)


def _by_rule(starts: Sequence[Start]) -> dict[str, list[bool]]:
    """Where each fixed rule is right."""
    found: dict[str, list[bool]] = {}
    for start in starts:
        forced = start.forced(ALL_OPENINGS[start.behaviour][0])
        for rule, continuation in fixed_rules(forced).items():
            found.setdefault(rule, []).append(is_valid(forced, continuation))
    return found


def shuffled(text: str, rng: random.Random) -> str:
    """A thought with its sentences in another order; what opens it stays first."""
    sentences = _sentences(text)
    rng.shuffle(sentences)
    return " ".join([grammar.THINK, *sentences])


def _sentences(text: str) -> list[str]:
    words = text.removeprefix(grammar.THINK).split()
    sentences, start = [], 0
    for end, word in enumerate(words, 1):
        if word == "." or end == len(words):
            sentences.append(" ".join(words[start:end]))
            start = end
    return sentences


def corrupted(thought: Trace, others: Sequence[Trace], rng: random.Random) -> dict[str, str]:
    """A thought as it was, with its sentences shuffled, and another problem's in its place.

    After Stechly et al. (2504.09762): an answer that survives didn't rest on what the trace says.
    """
    own = thought.text.split(f" {grammar.END_THINK}")[0]
    foreign = [other for other in others if other.problem_id != thought.problem_id]
    return {
        "intact": own,
        "shuffled": shuffled(own, rng),
        "another problem's": rng.choice(foreign).text.split(f" {grammar.END_THINK}")[0],
    }


def content_words(start_end: tuple[int, int], text: str) -> list[tuple[int, int]]:
    """Characters of the content slots within part of a text: names, notes, finds and verdicts."""
    begin, end = start_end
    found, position = [], begin
    for word in text[begin:end].split(" "):
        if word in grammar.CONTENT:
            found.append((position, position + len(word)))
        position += len(word) + 1
    return found
