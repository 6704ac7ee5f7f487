"""The RL model's completions of what was said at starts, with their grades."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sae_reasoning.contrast.sentences import Sentence
from sae_reasoning.contrast.starts import noise_key
from sae_reasoning.contrast.valued import Completed
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import RL
from sae_reasoning.rollouts.respond import Response, prefix_of
from sae_reasoning.tasks.protocol import Start


def graded(
    setting: Setting,
    pairs: Sequence[tuple[Start, Sentence]],
    completions: int,
    stream: str = "completions",
) -> list[Completed]:
    """What the RL model's completions of sentences at their starts come to.

    All completions at a start share their noise, and equal sentences their completions. What was
    cut is not completed and has no grade: the RL model would carry the behaviour out.

    Args:
        setting: Of the contrast.
        pairs: Starts, and what was said there.
        completions: Of each.
        stream: Of the noise.
    """
    different: dict[tuple[str, tuple[int, ...]], tuple[Start, Sentence]] = {}
    for start, sentence in pairs:
        different.setdefault((start.key, sentence.ids), (start, sentence))
    open_ = {key: one for key, one in different.items() if not (one[1].ended or one[1].truncated)}
    rows = [
        (start, (*start.response_ids, *sentence.ids), number)
        for start, sentence in open_.values()
        for number in range(completions)
    ]
    made = iter(complete(setting, rows, stream))
    found = {}
    for key, (start, sentence) in different.items():
        grades: list[bool | None] = [None] * completions
        redone = [False] * completions
        if sentence.ended:
            grade = grade_of(setting, start, sentence.response, truncated=False)
            grades = [grade] * completions
        elif not sentence.truncated:
            own = [next(made) for _ in range(completions)]
            grades = [grade_of(setting, start, one.text, truncated=one.truncated) for one in own]
            redone = [_begins(setting, start.behaviour, one.added) for one in own]
        known = [np.nan if grade is None else float(grade) for grade in grades]
        found[key] = Completed(np.array(known), np.array(redone, bool))
    return [found[start.key, sentence.ids] for start, sentence in pairs]


def complete(
    setting: Setting, rows: Sequence[tuple[Start, Sequence[int], int]], stream: str
) -> list[Response]:
    """The RL model's completions of responses, given by their tokens.

    The room that they have is the start's, whatever sentence stands there (`room_at`).
    """
    setting.console.say(f"contrast: rl completes {len(rows):,} responses ({stream})")
    lm, longest = setting.models[RL], setting.own.max_new_tokens
    prefixes = [
        prefix_of(lm, start.problem.prompt, noise_key(start), sample, begun=ids)
        for start, ids, sample in rows
    ]
    read = defaultdict[str, int](int)
    for (start, _, _), prefix in zip(rows, prefixes, strict=True):
        size = len(prefix.prompt_ids) + len(prefix.begun_ids)
        read[start.key] = max(read[start.key], size)
    limited = []
    for (start, _, _), prefix in zip(rows, prefixes, strict=True):
        room = room_at(start, longest)
        if lm.facts.context is not None:
            room = max(min(room, lm.facts.context - read[start.key]), 1)
        limited.append(replace(prefix, room=room))
    return setting.respond(RL, limited, f"value/{stream}", longest)


def room_at(start: Start, longest: int) -> int:
    """Tokens that the RL model may write at a start, whatever sentence stands there.

    As many as its rollout had left.

    Args:
        start: Where.
        longest: Tokens of a rollout at most.
    """
    return max(longest - len(start.response_ids), 1)


def grade_of(setting: Setting, start: Start, text: str, *, truncated: bool) -> bool | None:
    """Whether a response of the RL model from a start on is right; None without a grade."""
    return setting.task.grade(start.problem, text, truncated=truncated, model=RL)


def _begins(setting: Setting, behaviour: str, text: str) -> bool:
    """Whether a text begins with an opening of the behaviour."""
    openings = setting.task.openings.of(behaviour) if setting.task.openings else ()
    return text.lstrip().lower().startswith(tuple(opening.lower() for opening in openings))
