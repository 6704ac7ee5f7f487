"""Frozen types that the rooms hand to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

BASE, RL = MODELS = ("base", "rl")
"""The models of a pair: writers of traces and readers of them."""
SELECT, REPORT = SPLITS = ("select", "report")
"""Problems on which anything is chosen, and the others, on which it is reported."""
SPAN_DETECTORS, ONSET_PREDICTORS = SHORTLISTS = ("span_detectors", "onset_predictors")
"""Latents that are active while a behaviour lasts, and those that predict that one starts."""


class Comparison(Enum):
    """What comes of comparing an answer with the right one."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"
    """The answer says nothing that could be compared."""
    UNDECIDED = "undecided"
    """The right answer can't be read, it takes too long, or what would tell isn't installed."""


@dataclass(frozen=True)
class Span:
    """One behaviour in one text.

    Attributes:
        behaviour: Name of the behaviour.
        char_start: First character in the trace's text.
        char_end: One past the last character.
    """

    behaviour: str
    char_start: int
    char_end: int


@dataclass(frozen=True)
class Opportunity:
    """A place in a text where a behaviour could start.

    Attributes:
        behaviour: Name of the behaviour.
        char_end: One past the last character before the behaviour would start, white space included
            where tokens may hold it; the last token that ends here or earlier is onset-1, the one
            whose activation predicts the behaviour's first token.
        taken: Whether the behaviour starts here.
    """

    behaviour: str
    char_end: int
    taken: bool


@dataclass(frozen=True)
class Annotation:
    """What an annotator says of one response.

    Attributes:
        spans: Its behaviours, in order; they don't overlap.
        opportunities: Where behaviours could start.
        correct: The grade, or None where nothing can judge.
        is_right: Of each behaviour, whether it was carried out rightly; empty where nothing can
            judge.
    """

    spans: tuple[Span, ...]
    opportunities: tuple[Opportunity, ...]
    correct: bool | None
    is_right: tuple[bool, ...] = ()


@dataclass(frozen=True)
class TokenSpan:
    """A span with its tokens.

    Attributes:
        behaviour: Name of the behaviour.
        char_start: First character in the trace's text.
        char_end: One past the last character.
        token_start: Index of the first token, the onset, in the trace's `token_ids`.
        token_end: One past the last token.
        annotator: Who says so.
    """

    behaviour: str
    char_start: int
    char_end: int
    token_start: int
    token_end: int
    annotator: str


@dataclass(frozen=True)
class TokenOpportunity:
    """An opportunity with its token.

    Attributes:
        behaviour: Name of the behaviour.
        char_end: One past the last character before the behaviour would start.
        token: Index of onset-1 in the trace's `token_ids`.
        taken: Whether the behaviour starts here.
    """

    behaviour: str
    char_end: int
    token: int
    taken: bool


@dataclass(frozen=True)
class Trace:
    """One model's rollout on one problem, with its grade and behaviours.

    Attributes:
        trace_id: Unique in its table.
        problem_id: Problem it answers; the unit of resampling.
        split: `select` or `report`, by problem.
        writer: `base` or `rl`.
        model: Name of the writer.
        prompt: What was asked.
        text: What was answered, without special tokens.
        token_ids: BOS where there is one, prompt, response as it was sampled, and what ended it.
        num_prompt_tokens: Tokens before the response, BOS included.
        correct: The grade, or None.
        truncated: Whether the rollout was cut.
        spans: Its behaviours.
        opportunities: Where behaviours could start.
        answer_status: What became of its answer, where a program graded it: `found`, `unreadable`,
            `none` or `truncated`; all but the first count as wrong.
    """

    trace_id: str
    problem_id: str
    split: str
    writer: str
    model: str
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    correct: bool | None
    truncated: bool
    spans: tuple[TokenSpan, ...]
    opportunities: tuple[TokenOpportunity, ...]
    answer_status: str = ""


@dataclass(frozen=True)
class Additions:
    """What edits of the residual stream added while one response was written.

    Attributes:
        norm_sum: Summed norm; every layer counts.
        num_edited: How often something was added; every layer counts.
        positions: Where, in whichever layer: 0 is the position that predicts the first generated
            token, 1 that token's own, and so on.
    """

    norm_sum: float
    num_edited: int
    positions: tuple[int, ...]


@runtime_checkable
class SentenceEnd(Protocol):
    """Says where the first sentence of a text ends, while it is written."""

    @property
    def marks(self) -> str:
        """Characters; a text without any of them has not ended."""
        ...

    def find(self, text: str, *, is_last: bool) -> int | None:
        """One past the last character of the mark; None where it has not ended.

        Args:
            text: So far.
            is_last: Whether nothing follows.
        """
        ...


@dataclass(frozen=True)
class RankedDictionary:
    """An SAE whose latents were ranked.

    Attributes:
        folder: Where it was, below the run's folder.
        fingerprint: Of its weights.
    """

    folder: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class ShortlistEntry:
    """A shortlisted latent; figures are of the report split unless they say select.

    Attributes:
        dictionary: Name of its SAE.
        layer: Decoder block.
        latent: Index.
        reader: Whose activations.
        writer: Whose traces.
        status: What can be said of the behaviour in this writer's text.
        span_auroc: Estimate.
        span_auroc_low: Lower bound.
        span_auroc_high: Upper bound.
        select_span_auroc: What it was chosen by, among span detectors.
        q: Of the span AUROC against 0.5.
        n_pos: Spans.
        n_neg: Windows.
        firing_rate: Share of tokens, on the select split.
        mean_active: Mean activation where it fires, on the select split.
        max_active: Largest activation on the select split.
        labels: Its label by the attacks, by reader; none where it wasn't attacked.
        outperforms: Baselines that it significantly outperforms, by reader.
    """

    dictionary: str
    layer: int
    latent: int
    reader: str
    writer: str
    status: str
    span_auroc: float
    span_auroc_low: float
    span_auroc_high: float
    select_span_auroc: float
    q: float
    n_pos: int
    n_neg: int
    firing_rate: float
    mean_active: float
    max_active: float
    labels: Mapping[str, str] = field(default_factory=dict)
    outperforms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float, float]:
        """The AUROC of its list, with the bounds of its 95 % interval."""
        return self.span_auroc, self.span_auroc_low, self.span_auroc_high


@dataclass(frozen=True, kw_only=True)
class OnsetPredictorEntry(ShortlistEntry):
    """A shortlisted onset predictor.

    Attributes:
        onset_auroc: Estimate.
        onset_auroc_low: Lower bound, by problem bootstrap.
        onset_auroc_high: Upper bound.
        select_onset_auroc: On the select split.
        onset_attribution: Nats per opportunity, on the select split; what it was chosen by, if
            onset predictors are chosen so.
    """

    onset_auroc: float
    onset_auroc_low: float
    onset_auroc_high: float
    select_onset_auroc: float
    onset_attribution: float

    @property
    def interval(self) -> tuple[float, float, float]:
        """Its onset AUROC, with the bounds of its 95 % interval."""
        return self.onset_auroc, self.onset_auroc_low, self.onset_auroc_high


@dataclass(frozen=True)
class Shortlist:
    """Both lists of a run, by behaviour, the best first; `edges.shortlist` writes and reads it.

    Attributes:
        span_detectors: Chosen by span AUROC on the select split.
        onset_predictors: Chosen by attribution of the onset logit, or by onset AUROC.
        dictionaries: Whose latents they are, by name.
        wordings_held_out: First words of each behaviour that selection didn't see.
    """

    span_detectors: Mapping[str, Sequence[ShortlistEntry]]
    onset_predictors: Mapping[str, Sequence[OnsetPredictorEntry]]
    dictionaries: Mapping[str, RankedDictionary] = field(default_factory=dict)
    wordings_held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def entries_of(self, name: str) -> Mapping[str, Sequence[ShortlistEntry]]:
        """One of `SHORTLISTS`, by behaviour."""
        return {SPAN_DETECTORS: self.span_detectors, ONSET_PREDICTORS: self.onset_predictors}[name]
