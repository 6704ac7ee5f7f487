"""Annotators of natural text: by cue words, by a fitted classifier, by a language model.

All give spans of whole sentences or quotes, and every sentence start as an opportunity of every
behaviour. What the first two say of a sentence hangs on it and on what stands before it, so a text
that is still being written is labelled as the whole text will be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from sae_reasoning.config import ConfigError
from sae_reasoning.records import Annotation, Span
from sae_reasoning.tasks.annotations import Labelled, OneByOne, Placement, Unlabelled, nothing
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Listen
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.labels import SentenceInContext, in_context
from sae_reasoning.tasks.text.llm_labels import (
    Judged,
    UnreadableAnswerError,
    answer_schema,
    estimate_tokens,
    instructions,
    read_answer,
    wrap,
)
from sae_reasoning.tasks.text.sentences import SentenceListener, sentence_opportunities, sentences

Classify = Callable[[Sequence[SentenceInContext]], Sequence[str]]
"""Takes sentences; a behaviour, or NONE, for each."""


@runtime_checkable
class Asked(Protocol):
    """A language model that answers in JSON."""

    def ask(
        self, system: str, texts: Sequence[str], schema: Mapping[str, Any], seed: int
    ) -> Iterator[tuple[int, str]]:
        """Answers as they come, each with the place of its text.

        Args:
            system: Instructions.
            texts: What they are about.
            schema: JSON schema of an answer.
            seed: Of the model's sampling; another one asks anew.
        """
        ...

    def knows(self, system: str, text: str, schema: Mapping[str, Any]) -> bool:
        """Whether the answer about a text is kept, so that nobody is asked."""
        ...


def listen_to_sentences(behaviours: Sequence[str]) -> Listen:
    """A streaming annotator of one response: where a sentence may start, any behaviour could.

    Some full stops turn out to be decimal points, which nobody can know before what follows; they
    are taken for ends, while `annotate` leaves them out.
    """
    every, listener = frozenset(behaviours), SentenceListener()
    return lambda piece: every if listener.may_start_after(piece) else None


class CueAnnotator(OneByOne):
    """Labels each sentence by the cue words in it.

    Args:
        cues: Words of each behaviour; looked at when first used, as traces may bring their labels.
        behaviours: To label.
    """

    name = "cues"

    def __init__(self, cues: Mapping[str, Sequence[str]], behaviours: Sequence[str]) -> None:
        self._cues, self._behaviours = cues, tuple(behaviours)

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(self._cues, self._behaviours)

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """A span for each sentence with a cue.

        Raises:
            ConfigError: A behaviour has no cue words.
        """
        spans = self._lexicon.spans(response)
        return Annotation(spans, sentence_opportunities(response, spans, self._behaviours), None)

    def listen(self, problem: Problem) -> Listen:
        """A streaming annotator of one response."""
        return listen_to_sentences(self._behaviours)


class FittedAnnotator(OneByOne):
    """Labels sentences by a classifier that was fitted on labelled text.

    Successive sentences of one behaviour are one span, as people and models label them.

    Args:
        classify: The classifier.
        behaviours: To label; what else the classifier knows is left out.
    """

    name = "fitted"

    def __init__(self, classify: Classify, behaviours: Sequence[str]) -> None:
        self._classify, self._behaviours = classify, tuple(behaviours)

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """A span for each run of sentences of one behaviour."""
        return self._annotation(response, self._classify(in_context(response)))

    def annotate_all(
        self, responses: Sequence[Unlabelled], advance: Callable[[], None] = nothing
    ) -> Labelled:
        """Behaviours of each response, whose sentences are classified together."""
        cut = [in_context(one.text) for one in responses]
        labels = iter(self._classify([sentence for every in cut for sentence in every]))
        found: list[Annotation | None] = []
        for one, every in zip(responses, cut, strict=True):
            found.append(self._annotation(one.text, [next(labels) for _ in every]))
            advance()
        return Labelled(found)

    def _annotation(self, text: str, labels: Sequence[str]) -> Annotation:
        spans = []
        each = zip(labels, sentences(text), strict=True)
        for label, run in groupby(each, key=lambda one: one[0]):
            places = [place for _, place in run]
            if label in self._behaviours:
                spans.append(Span(label, places[0][0], places[-1][1]))
        found = tuple(spans)
        return Annotation(found, sentence_opportunities(text, found, self._behaviours), None)

    def listen(self, problem: Problem) -> Listen:
        """A streaming annotator of one response."""
        return listen_to_sentences(self._behaviours)


class LlmAnnotator:
    """Labels whole responses by asking a language model, several at once.

    Args:
        model: Its name.
        asked: It.
        behaviours: To label.
        meanings: What each of them is.
        attempts: Times that a response is asked about while answers can't be read.
        max_failures: Largest share of responses that may stay without a label.
    """

    def __init__(
        self,
        model: str,
        asked: Asked,
        behaviours: Sequence[str],
        meanings: Mapping[str, str],
        *,
        attempts: int,
        max_failures: float,
    ) -> None:
        self.name = f"llm:{model}"
        self._model, self._asked, self._behaviours = model, asked, tuple(behaviours)
        self._attempts, self._max_failures = attempts, max_failures
        self._system = instructions(behaviours, meanings)
        self._schema = answer_schema(behaviours)

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        """Behaviours of one response.

        Raises:
            ConfigError: The endpoint refuses, or no answer can be read.
        """
        (found,) = self.annotate_all([Unlabelled(problem, response, truncated)]).annotations
        assert found is not None or self._max_failures >= 1
        return found or Annotation((), (), None)

    def annotate_all(
        self, responses: Sequence[Unlabelled], advance: Callable[[], None] = nothing
    ) -> Labelled:
        """Behaviours of each response; an answer that can't be read is asked for again.

        Raises:
            ConfigError: The endpoint refuses, or too many answers can't be read.
        """
        judged: dict[int, Judged] = {}
        reasons: dict[int, str] = {}
        pending = list(range(len(responses)))
        for attempt in range(self._attempts):
            texts = [wrap(responses[index].text) for index in pending]
            for at, answer in self._asked.ask(self._system, texts, self._schema, attempt):
                index = pending[at]
                try:
                    judged[index] = read_answer(answer, responses[index].text, self._behaviours)
                    reasons.pop(index, None)
                    advance()
                except UnreadableAnswerError as error:
                    reasons[index] = str(error)
            pending = [index for index in pending if index in reasons]
            if not pending:
                break
        self._check(responses, reasons)
        placement = Placement()
        found: list[Annotation | None] = []
        for index, one in enumerate(responses):
            spans = judged[index].spans if index in judged else ()
            opportunities = sentence_opportunities(one.text, spans, self._behaviours)
            found.append(Annotation(spans, opportunities, None) if index in judged else None)
            if index in judged:
                placement.add(judged[index].placement)
        return Labelled(found, reasons, placement)

    def _check(self, responses: Sequence[Unlabelled], reasons: Mapping[int, str]) -> None:
        if len(reasons) > self._max_failures * len(responses):
            index, reason = next(iter(reasons.items()))
            raise ConfigError(
                f"traces.annotator_model={self._model} gave no readable answer on {len(reasons)} "
                f"of {len(responses)} traces (the first, to problem "
                f"{responses[index].problem.problem_id}: {reason}), more than "
                f"traces.annotator_failures={self._max_failures}; choose a model that follows "
                "instructions, or raise it"
            )

    def costs(self, responses: Sequence[Unlabelled]) -> Mapping[str, str]:
        """What asking takes, in words; each different text is asked about once."""
        texts = sorted({one.text for one in responses})
        new = [t for t in texts if not self._asked.knows(self._system, wrap(t), self._schema)]
        sent, answered = estimate_tokens(new, self._system)
        return {
            "model": self._model,
            "requests": f"{len(new):,} (the rest is answered on disk)",
            "tokens": f"about {sent:,} sent and {answered:,} answered",
        }

    def listen(self, problem: Problem) -> Listen:
        """A streaming annotator of one response."""
        return listen_to_sentences(self._behaviours)
