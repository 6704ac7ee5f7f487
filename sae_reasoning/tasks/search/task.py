"""The search world as a task: everything is known by rule and judged by program."""

import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from sae_reasoning.records import MODELS, Annotation
from sae_reasoning.tasks.annotations import OneByOne
from sae_reasoning.tasks.marks import MarkEnd
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import (
    Execution,
    Instructions,
    Judgement,
    Listen,
    Opening,
    ResponseFormat,
    Start,
    Task,
)
from sae_reasoning.tasks.search.baselines import RANDOM_WALKS, SearchNull, forced_at
from sae_reasoning.tasks.search.forced import is_valid
from sae_reasoning.tasks.search.grammar import (
    ALL_OPENINGS,
    ANSWER,
    BACKTRACKING,
    BEHAVIOURS,
    CONTENT,
    END_THINK,
    OPENINGS,
    REWORDED,
    THINK,
    UNCERTAINTY,
    VERIFICATION,
    answered_path,
)
from sae_reasoning.tasks.search.parser import Listener, match_behaviour, read
from sae_reasoning.tasks.search.tutor import SearchTutor
from sae_reasoning.tasks.search.world import SearchProblem, parse_prompt

FORMAT = ResponseFormat(THINK, END_THINK, ANSWER, enters_by_choice=True)


@lru_cache(maxsize=4096)
def _posed(prompt: str) -> SearchProblem:
    return parse_prompt(prompt)


class SearchAnnotator(OneByOne):
    """Reads behaviours out of text by the world's grammar."""

    name = "search"

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """Spans, opportunities, and of each span whether it was carried out rightly."""
        reading = read(_posed(problem.prompt), response, truncated)
        narration = reading.narration
        return Annotation(narration.spans, narration.opportunities, None, reading.is_right)

    def listen(self, problem: Problem) -> Listen:
        """A streaming annotator of one response."""
        return Listener(_posed(problem.prompt)).starts_after


class SearchGrader:
    """Grades the path that a response answers with, by the map."""

    def grade(
        self, problem: Problem, response: str, *, truncated: bool, opened: bool = False
    ) -> bool:
        """Whether the last path that is stated is right."""
        return _posed(problem.prompt).grade(answered_path(response))


class SearchOpenings:
    """The grammar's openings; with what follows them they are all ways to start a behaviour."""

    is_closed = True
    mined: tuple[Opening, ...] = ()

    def of(self, behaviour: str) -> tuple[str, ...]:
        """Every opening."""
        return ALL_OPENINGS[behaviour]

    def usual(self, behaviour: str) -> tuple[str, ...]:
        """The openings that organisms are trained on, rewordings left out."""
        return OPENINGS[behaviour]


class SearchJudge:
    """Holds what was written against the map."""

    name = "program"

    def judge(self, executions: Sequence[Execution]) -> list[Judgement]:
        """Of behaviours that were started; where no opening was written, as `judge_free` does."""
        return [_judged(one.start, one.opening, one.continuation) for one in executions]

    def judge_free(self, starts: Sequence[Start], texts: Sequence[str]) -> list[Judgement]:
        """Of texts whose writer was free: whether they are the behaviour, and valid."""
        return [_judged(start, "", text) for start, text in zip(starts, texts, strict=True)]


def _judged(start: Start, opening: str, text: str) -> Judgement:
    text = text.lstrip()
    if opening:
        found = match_behaviour(start.behaviour, f"{opening} {text}")
        return Judgement(found is not None, is_valid(forced_at(start, opening), text))
    for own in ALL_OPENINGS[start.behaviour]:
        if text.startswith(f"{own} "):
            return Judgement(True, is_valid(forced_at(start, own), text[len(own) + 1 :]))
    return Judgement(False, False)


def sentences(text: str) -> list[tuple[int, int]]:
    """First character of each sentence and one past its last; what opens thinking is none."""
    found, start, position = [], None, 0
    for word in text.split(" "):
        if word and word != THINK:
            start = position if start is None else start
            if word == ".":
                found.append((start, position + 1))
                start = None
        position += len(word) + 1
    if start is not None:
        found.append((start, len(text.rstrip())))
    return found


def content_words(text: str) -> list[tuple[int, int]]:
    """Characters of the words that fill slots: names, notes, finds and verdicts."""
    found, position = [], 0
    for word in text.split(" "):
        if word in CONTENT:
            found.append((position, position + len(word)))
        position += len(word) + 1
    return found


def reword(behaviour: str, words: str, rng: np.random.Generator) -> str | None:
    """A span of the search world with another opening, from another first word.

    The other opening is one that no organism's reinforcement was started from, in words that every
    base has met; the span's slots stay.
    """
    said = [opening for opening in ALL_OPENINGS.get(behaviour, ()) if words.startswith(opening)]
    if not said:
        return None
    opening = max(said, key=len)
    others = [o for o in REWORDED[behaviour] if o.split()[0] != opening.split()[0]]
    if not others:
        return None
    return f"{others[int(rng.integers(len(others)))]}{words[len(opening) :]}"


_SHOWN = (UNCERTAINTY, VERIFICATION, BACKTRACKING)


def _tools(seed: int) -> str:
    """One opening of each behaviour that pays, as remarks before the map."""
    rng = random.Random(f"words/{seed}")
    return " ".join(f"{rng.choice(OPENINGS[behaviour])} ." for behaviour in _SHOWN)


INSTRUCTIONS = Instructions("", _tools, lambda prompt, words: f"{words} {prompt}")
"""Organisms read no instructions: they meet openings of behaviours where remarks stand."""


def search_task() -> Task:
    """What can be measured in the search world: everything."""
    return Task(
        name="search",
        behaviours=frozenset(BEHAVIOURS),
        formats=dict.fromkeys(MODELS, FORMAT),
        annotator=SearchAnnotator(),
        grader=SearchGrader(),
        sentence_end=MarkEnd("."),
        sentences=sentences,
        openings=SearchOpenings(),
        judge=SearchJudge(),
        null=SearchNull(),
        content=content_words,
        problem_baselines=RANDOM_WALKS,
        tutor=SearchTutor(),
        paraphraser=reword,
        instructions=INSTRUCTIONS,
        opportunities_by_rule=True,
    )
