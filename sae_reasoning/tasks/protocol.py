"""A task: what the general rooms must know of a kind of text, as data.

Some capabilities are optional. Where one is missing, so are the measures that need it, and the
verdict says why; no stage refuses a pair because of its text. Models, files and endpoints come in
as callables, so that a task can be tried on text alone.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sae_reasoning.records import Annotation, SentenceEnd, Trace
from sae_reasoning.tasks.annotations import Labelled, Unlabelled, nothing
from sae_reasoning.tasks.problems import Problem

Listen = Callable[[str], frozenset[str] | None]
"""Takes a response piece by piece and gives the behaviours that could start after the piece; None
where no sentence ends with it, so that it has to be given again with what follows."""


@dataclass(frozen=True)
class ResponseFormat:
    """How one model's responses are laid out; base and RL model may differ.

    Attributes:
        thinking_prefix: What opens the chain of thought within a response; "" where nothing does,
            or where the chat template opens it.
        thinking_suffix: What closes it; "" where nothing does.
        answer_prefix: What stands before the answer.
        enters_by_choice: Whether the model chooses to think, by writing `thinking_prefix`. Only
            then has it a probability of entering thinking.
    """

    thinking_prefix: str = ""
    thinking_suffix: str = ""
    answer_prefix: str = ""
    enters_by_choice: bool = False

    @property
    def is_opened_by_prompt(self) -> bool:
        """Whether a response begins within the chain of thought, which the prompt has opened."""
        return bool(self.thinking_suffix) and not self.thinking_prefix

    def split(self, response: str) -> tuple[str, str]:
        """The chain of thought with what opens it, and what follows its end."""
        if not self.thinking_suffix or self.thinking_suffix not in response:
            return response, ""
        thought, _, answer = response.partition(self.thinking_suffix)
        return thought, answer


@dataclass(frozen=True)
class Start:
    """A place in a response at which a behaviour may start, or is started for a model.

    Attributes:
        problem: What is answered.
        writer: Who wrote the response up to here.
        behaviour: What may start.
        trace_id: The response.
        response_ids: Its tokens up to onset-1, as they were sampled; the prompt is each reader's
            own. Forcing a start appends ids to them.
        text: The response up to here.
        taken: Whether the writer started it.
    """

    problem: Problem
    writer: str
    behaviour: str
    trace_id: str
    response_ids: tuple[int, ...]
    text: str
    taken: bool

    @property
    def key(self) -> str:
        """Names the place: the same whatever other places are chosen."""
        return f"{self.trace_id}/{self.behaviour}/{len(self.response_ids)}"


@dataclass(frozen=True)
class Execution:
    """A behaviour that was started for a model, and what the model made of it.

    Attributes:
        start: Where.
        opening: Words that were written for the model; "" where it began in its own.
        continuation: What it wrote.
    """

    start: Start
    opening: str
    continuation: str


@dataclass(frozen=True)
class Judgement:
    """What a judge says of an execution.

    Attributes:
        is_formed: Whether it has the form of the behaviour, rightly filled or not.
        is_valid: Whether it does what the behaviour is for; None where the judge can't tell.
    """

    is_formed: bool
    is_valid: bool | None


class Checked(NamedTuple):
    """A statement that a program checked.

    Attributes:
        start: Its first character.
        is_true: Whether it holds.
        is_repaired: Whether it doesn't, and the text says it rightly later.
    """

    start: int
    is_true: bool
    is_repaired: bool


@runtime_checkable
class Annotator(Protocol):
    """Labels behaviours in responses, whole or while they are written, by one rule.

    Attributes:
        name: Of the annotator; it stands with every label.
    """

    name: str

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """Spans and opportunities of a whole response, without a grade; none at a cut."""
        ...

    def annotate_all(
        self, responses: Sequence[Unlabelled], advance: Callable[[], None] = nothing
    ) -> Labelled:
        """The same of many responses, which some annotators read side by side.

        Args:
            responses: In any order.
            advance: Called after each.
        """
        ...

    def costs(self, responses: Sequence[Unlabelled]) -> Mapping[str, str]:
        """What labelling some responses takes, in words, by name; empty where it's no matter."""
        ...

    def listen(self, problem: Problem) -> Listen | None:
        """A streaming annotator of one response; None where only whole texts can be annotated."""
        ...


@runtime_checkable
class Grader(Protocol):
    """Grades responses by program."""

    def grade(
        self, problem: Problem, response: str, *, truncated: bool, opened: bool = False
    ) -> bool | None:
        """Right or wrong; None where nothing can tell.

        Args:
            problem: What was asked.
            response: The response.
            truncated: Whether it was cut.
            opened: Whether the prompt has opened the chain of thought.
        """
        ...


@dataclass(frozen=True)
class Opening:
    """First words of a behaviour, found in annotated text.

    Attributes:
        behaviour: What begins so.
        text: The words.
        precision: Share of the sentences that begin so which are spans of the behaviour.
        coverage: Share of the spans that begin so.
        coverage_base: Of the spans that the base wrote.
        coverage_rl: Of those that the RL model wrote.
        num_sentences: Sentences that `precision` rests on; none of them was selected by.
        num_spans: Spans that `coverage` rests on; likewise.
    """

    behaviour: str
    text: str
    precision: float
    coverage: float
    coverage_base: float
    coverage_rl: float
    num_sentences: int
    num_spans: int


@runtime_checkable
class Openings(Protocol):
    """How behaviours begin."""

    @property
    def is_closed(self) -> bool:
        """Whether no behaviour can begin otherwise, so that its openings' probabilities sum to its.

        No opening is the beginning of another, closed or not.
        """
        ...

    @property
    def mined(self) -> Sequence[Opening]:
        """Of openings that were found in text, what each is worth; else empty."""
        ...

    def of(self, behaviour: str) -> tuple[str, ...]:
        """First words of a behaviour, the same list for every model."""
        ...

    def usual(self, behaviour: str) -> tuple[str, ...]:
        """Those of them that models start from, to be written for a model."""
        ...


@runtime_checkable
class ExecutionJudge(Protocol):
    """Says whether a behaviour that was started was carried out.

    Attributes:
        name: Of the judge; it stands in the verdict.
    """

    name: str

    def judge(self, executions: Sequence[Execution]) -> list[Judgement]:
        """Of behaviours that were started; where no opening was written, as `judge_free` does."""
        ...

    def judge_free(self, starts: Sequence[Start], texts: Sequence[str]) -> list[Judgement]:
        """Of texts whose writer was free: whether they are the behaviour, and valid."""
        ...


@runtime_checkable
class ExecutionNull(Protocol):
    """What execution accuracy is worth without the ability."""

    def chance(self, starts: Sequence[Start], tries: int, seed: int) -> Float[np.ndarray, " start"]:
        """Probability that the best of `tries` randomly filled continuations is valid; unbiased."""
        ...

    def heuristics(self, starts: Sequence[Start]) -> Mapping[str, Float[np.ndarray, " start"]]:
        """Validity of rules that don't read what the behaviour must read, by name; may be empty.

        Args:
            starts: Of one behaviour.
        """
        ...


@dataclass(frozen=True)
class Attempt:
    """A response to the problem of a lesson.

    Attributes:
        text: The response.
        correct: Its grade; None where it has none.
        truncated: Whether it was cut.
    """

    text: str
    correct: bool | None = None
    truncated: bool = False


@runtime_checkable
class Tutor(Protocol):
    """Writes lessons on one problem from attempts at it.

    Attributes:
        kinds: Of lessons: the real one first, then its controls.
        need_attempts: Kinds that are made from attempts, whose cost includes them.
    """

    kinds: tuple[str, ...]
    need_attempts: frozenset[str]

    def choose(
        self,
        problems: Sequence[Problem],
        attempts: Callable[[Problem], Sequence[Attempt]],
        seed: int,
    ) -> Problem | None:
        """The problem of the lessons; None where none of them has what lessons need.

        Args:
            problems: To choose from, in the order in which they are looked at.
            attempts: At a problem; sampled when they are asked for.
            seed: Of what is drawn.
        """
        ...

    def lesson(
        self, problem: Problem, attempts: Sequence[Attempt], kind: str, rng: random.Random
    ) -> str:
        """One example response.

        Args:
            problem: The problem.
            attempts: At it.
            kind: One of `kinds`.
            rng: Draws the attempts, and words.
        """
        ...


OpeningMiner = Callable[[Sequence[Trace], Sequence[str]], Openings]
"""Takes annotated traces of both writers, and behaviours; their openings."""


@dataclass(frozen=True)
class Instructions:
    """What a prompt may ask of a model.

    Attributes:
        think: Asks for a chain of thought; "" where models read no instructions.
        tools: By seed, the behaviours and when each is called for, or how each begins.
        add: Takes a prompt and an instruction; the prompt with it.
    """

    think: str
    tools: Callable[[int], str]
    add: Callable[[str, str], str]


Paraphraser = Callable[[str, str, np.random.Generator], str | None]
"""Takes a behaviour and the words of a span; other words for it, or None."""


@dataclass(frozen=True)
class Task:
    """What can be measured on a kind of text.

    Attributes:
        name: `search` or `text`.
        behaviours: All there can be; None where any may be annotated.
        formats: Of each model of the pair, how its responses are laid out.
        annotator: Labels behaviours.
        grader: Grades responses.
        sentence_end: Where the first sentence of a text ends, while it is written.
        sentences: First character and one past the last of each sentence of a whole text.
        openings: How behaviours begin, where that is known.
        miner: Finds openings in annotated traces, where they aren't known beforehand.
        judge: Of executions, where there is one.
        null: What execution accuracy is worth without the ability.
        check: Statements of a text that a program can tell true from false, where there is one.
        content: Characters of the words of a text that carry its content.
        problem_baselines: By name, the probability that a random procedure answers a problem.
        tutor: Writes lessons.
        paraphraser: Puts a span in other words.
        instructions: What prompts may ask for.
        opportunities_by_rule: Whether a behaviour is called for wherever the annotator sees an
            opportunity for it; else any sentence may start any behaviour.
    """

    name: str
    behaviours: frozenset[str] | None
    formats: Mapping[str, ResponseFormat]
    annotator: Annotator
    grader: Grader
    sentence_end: SentenceEnd
    sentences: Callable[[str], list[tuple[int, int]]]
    openings: Openings | None = None
    miner: OpeningMiner | None = None
    judge: ExecutionJudge | None = None
    null: ExecutionNull | None = None
    check: Callable[[str], list[Checked]] | None = None
    content: Callable[[str], list[tuple[int, int]]] | None = None
    problem_baselines: Mapping[str, Callable[[Problem], float]] = field(default_factory=dict)
    tutor: Tutor | None = None
    paraphraser: Paraphraser | None = None
    instructions: Instructions | None = None
    opportunities_by_rule: bool = False

    def with_openings(self, traces: Sequence[Trace], behaviours: Sequence[str]) -> "Task":
        """This task with openings, found in traces where they aren't known and some are found.

        Args:
            traces: Of both writers, annotated; openings come from the select split.
            behaviours: Whose openings.
        """
        if self.openings or not self.miner:
            return self
        found = self.miner(traces, behaviours)
        return replace(self, openings=found) if found.mined else self

    def annotate(
        self, problem: Problem, response: str, *, truncated: bool, model: str
    ) -> Annotation:
        """Behaviours, opportunities and grade of a response.

        Args:
            problem: What was asked.
            response: The response.
            truncated: Whether it was cut.
            model: Who wrote it, `base` or `rl`.
        """
        found = self.annotator.annotate(problem, response, truncated=truncated)
        return replace(
            found, correct=self.grade(problem, response, truncated=truncated, model=model)
        )

    def annotate_all(
        self, responses: Sequence[Unlabelled], *, model: str
    ) -> list[Annotation | None]:
        """The same of many responses of one model; None where the annotator could not label one."""
        found = self.annotator.annotate_all(responses).annotations
        return [
            annotation
            and replace(
                annotation,
                correct=self.grade(one.problem, one.text, truncated=one.truncated, model=model),
            )
            for one, annotation in zip(responses, found, strict=True)
        ]

    def grade(self, problem: Problem, response: str, *, truncated: bool, model: str) -> bool | None:
        """Right or wrong; None where nothing can tell. Arguments are those of `annotate`."""
        opened = self.formats[model].is_opened_by_prompt
        return self.grader.grade(problem, response, truncated=truncated, opened=opened)

    def missing(self, *capabilities: str) -> tuple[str, ...]:
        """Those of some optional capabilities that this task lacks."""
        return tuple(name for name in capabilities if not getattr(self, name))
