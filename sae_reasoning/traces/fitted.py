"""How well a classifier that was fitted on labelled traces labels others, on record.

Its agreement is Cohen's κ by sentence against the labels, each sentence classified by a fit on
other problems only. The floor under which it is refused was set before any agreement was measured:
0.2, below which Landis and Koch (1977) call agreement no more than slight; cue words reach 0.13 to
0.25.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sae_reasoning.records import Span, TokenSpan
from sae_reasoning.tasks.text.labels import (
    NONE,
    SentenceInContext,
    in_context,
    sentence_labels,
)
from sae_reasoning.traces.agreement import ALL, agree_on

CLASSIFIER = "fitted.parquet"
"""Beside the traces: the classifier."""
RECORD = "fitted.json"
"""Beside it: how well it labels."""
FOLDS = 5


class LabelledText(NamedTuple):
    """A response that somebody labelled.

    Attributes:
        problem_id: What it answers; responses to one problem are held out together.
        text: The response.
        spans: Its behaviours.
    """

    problem_id: str
    text: str
    spans: Sequence[Span | TokenSpan]


@dataclass(frozen=True)
class LabelledSentences:
    """The sentences of labelled responses, one entry each.

    Attributes:
        sentences: With what stands before.
        labels: Their behaviours, or NONE.
        problems: What their responses answer.
    """

    sentences: list[SentenceInContext]
    labels: list[str]
    problems: list[str]

    @property
    def num_problems(self) -> int:
        """Different problems."""
        return len(set(self.problems))


def labelled_sentences(
    texts: Sequence[LabelledText], behaviours: Sequence[str]
) -> LabelledSentences:
    """The sentences of labelled responses; labels that aren't tracked count as none."""
    found = LabelledSentences([], [], [])
    for text in texts:
        own = in_context(text.text)
        spans = [span for span in text.spans if span.behaviour in behaviours]
        found.sentences.extend(own)
        found.labels.extend(sentence_labels(text.text, spans))
        found.problems.extend([text.problem_id] * len(own))
    return found


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ with its interval over problems.

    Attributes:
        behaviour: Against all else, or all of them.
        kappa: Cohen's κ.
        low: Lower bound of the 95 % interval.
        high: Upper bound.
        labelled: Sentences that bear it.
        classified: Sentences that are classified so.
        both: Sentences that are both.
    """

    behaviour: str
    kappa: float
    low: float
    high: float
    labelled: int
    classified: int
    both: int

    def __str__(self) -> str:
        return f"{self.kappa:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class FitRecord:
    """What a classifier was fitted on, and how well it labels what it wasn't fitted on.

    Attributes:
        fitted_on: File, or what else.
        problems: Problems in it.
        sentences: Sentences in it.
        folds: Parts that were held out in turn.
        overall: Agreement over all behaviours, NONE included.
        by_behaviour: Of each behaviour against all else.
    """

    fitted_on: str
    problems: int
    sentences: int
    folds: int
    overall: Agreement
    by_behaviour: tuple[Agreement, ...]

    def as_json(self, min_kappa: float) -> dict[str, Any]:
        """The record as it is kept.

        Args:
            min_kappa: The floor that it was held against.
        """
        return asdict(self) | {"min_kappa": min_kappa}

    def weak(self, min_kappa: float) -> list[Agreement]:
        """Behaviours that the classifier tells less well than the floor asks of all."""
        return [one for one in self.by_behaviour if not one.kappa >= min_kappa]


def record_of(
    fitted_on: str,
    labelled: LabelledSentences,
    held_out: Sequence[str],
    behaviours: Sequence[str],
    folds: int,
) -> FitRecord:
    """The record of a classifier.

    Args:
        fitted_on: File, or what else.
        labelled: What it was fitted on.
        held_out: What fits on other problems call each sentence.
        behaviours: Labels.
        folds: Parts that were held out in turn.
    """
    kappas, _ = agree_on(zip(labelled.problems, labelled.labels, held_out, strict=True), behaviours)
    rows = [
        Agreement(
            str(row.behaviour), row.kappa, row.low, row.high, row.by_first, row.by_second,
            row.by_both,
        )
        for row in kappas.itertuples()
    ]  # fmt: skip
    return FitRecord(
        fitted_on,
        labelled.num_problems,
        len(labelled.sentences),
        folds,
        next(row for row in rows if row.behaviour == ALL),
        tuple(row for row in rows if row.behaviour != ALL),
    )


def missing_labels(labelled: LabelledSentences, behaviours: Sequence[str]) -> list[str]:
    """Behaviours that no sentence bears."""
    return [behaviour for behaviour in behaviours if behaviour not in set(labelled.labels) - {NONE}]
