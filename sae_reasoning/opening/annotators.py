"""Annotators, opened from their options; traces and whatever is written later get the same one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.endpoint import Chat, Question
from sae_reasoning.edges.schema import write_artifact
from sae_reasoning.edges.sentence_classifier import (
    InContext,
    SentenceClassifier,
    classify_held_out,
    fit_sentences,
)
from sae_reasoning.tasks.protocol import Annotator
from sae_reasoning.tasks.search.task import SearchAnnotator, search_task
from sae_reasoning.tasks.text.annotators import CueAnnotator, FittedAnnotator, LlmAnnotator
from sae_reasoning.traces.fitted import (
    CLASSIFIER,
    FOLDS,
    RECORD,
    FitRecord,
    LabelledText,
    labelled_sentences,
    missing_labels,
    record_of,
)


def open_annotator(cfg: Config, kind: str, folder: Path) -> Annotator:
    """The annotator of an option; new text is never labelled in a file, so it gets another then.

    That is the classifier that was fitted on the file's labels, where they were enough for one,
    else cue words.

    Args:
        cfg: The experiment.
        kind: Value of `traces.annotator` or `traces.second_annotator`.
        folder: Of the stage `traces`, finished or not.

    Raises:
        ConfigError: The grammar knows no such behaviour.
    """
    if kind == "auto":
        kind = "grammar" if cfg.task_kind == "search" else "imported"
    if kind == "imported":
        kind = "fitted" if (folder / CLASSIFIER).exists() else "cues"
    if kind == "grammar":
        known = search_task().behaviours or frozenset()
        if missing := set(cfg.behaviours) - known:
            raise ConfigError(
                f"behaviours={cfg.behaviours} names {min(missing)}, which the search world's "
                f"grammar doesn't label; choose of {', '.join(sorted(known))}"
            )
        return SearchAnnotator()
    if kind == "fitted":
        return FittedAnnotator(_Classifier(folder / CLASSIFIER).classify, cfg.behaviours)
    if kind == "llm":
        return LlmAnnotator(
            cfg.traces.annotator_model,
            _Endpoint(cfg),
            cfg.behaviours,
            cfg.traces.meanings,
            attempts=cfg.traces.annotator_attempts,
            max_failures=cfg.traces.annotator_failures,
        )
    return CueAnnotator(cfg.traces.cues if cfg.traces.words_fit else {}, cfg.behaviours)


@dataclass(frozen=True)
class _Classifier:
    """A classifier on disk, read when first asked."""

    path: Path

    @cached_property
    def _read(self) -> SentenceClassifier:
        return SentenceClassifier.load(self.path)

    def classify(self, sentences: Sequence[InContext]) -> list[str]:
        return self._read.classify(sentences)


@dataclass(frozen=True)
class _Endpoint:
    """The model of `traces.annotator_endpoint`; its answers are kept from run to run."""

    cfg: Config

    @cached_property
    def _chat(self) -> Chat:
        part = self.cfg.traces
        kept = Path(self.cfg.runs) / ".answers"
        return Chat(part.annotator_endpoint, part.annotator_model, "traces.annotator", kept)

    def ask(
        self, system: str, texts: Sequence[str], schema: Mapping[str, Any], seed: int
    ) -> Iterator[tuple[int, str]]:
        questions = [Question(system, text, schema, seed) for text in texts]
        return self._chat.ask_all(questions, self.cfg.traces.annotator_concurrency)

    def knows(self, system: str, text: str, schema: Mapping[str, Any]) -> bool:
        return self._chat.known(Question(system, text, schema)) is not None


def fit_annotator(
    cfg: Config, texts: Sequence[LabelledText], fitted_on: str, folder: Path
) -> FitRecord | None:
    """Fit a classifier on labelled responses, and keep it with its record.

    Args:
        cfg: The experiment.
        texts: Responses with their labels.
        fitted_on: What to call them in the record.
        folder: Of the stage `traces`, where it is kept if it reaches `traces.fitted_min_kappa`;
            its record is kept in either case.

    Returns:
        The record; None where there are fewer problems than `traces.fitted_min_problems`, or
        nothing to tell apart.
    """
    labelled = labelled_sentences(texts, cfg.behaviours)
    fewest = max(cfg.traces.fitted_min_problems, FOLDS)
    if labelled.num_problems < fewest or len(set(labelled.labels)) < 2:
        return None
    held_out = classify_held_out(labelled.sentences, labelled.labels, labelled.problems, FOLDS)
    record = record_of(fitted_on, labelled, held_out, cfg.behaviours, FOLDS)
    write_artifact(folder / RECORD, record.as_json(cfg.traces.fitted_min_kappa))
    if record.overall.kappa >= cfg.traces.fitted_min_kappa:
        fit_sentences(labelled.sentences, labelled.labels).save(folder / CLASSIFIER)
    return record


def fit_required(
    cfg: Config, read: Callable[[], Sequence[LabelledText]], folder: Path
) -> FitRecord:
    """Fit the classifier of `traces.annotator=fitted`.

    Args:
        cfg: The experiment.
        read: Gives the labelled responses of `traces.fitted_on`.
        folder: As in `fit_annotator`.

    Raises:
        ConfigError: There are too few, a behaviour isn't among their labels, or the classifier
            agrees with them less than `traces.fitted_min_kappa`.
    """
    part = cfg.traces
    named, texts = f"traces.fitted_on={part.fitted_on}", read()
    if missing := missing_labels(labelled_sentences(texts, cfg.behaviours), cfg.behaviours):
        raise ConfigError(
            f"{named} labels no {', '.join(missing)}; label some there, or leave it out of "
            "behaviours"
        )
    record = fit_annotator(cfg, texts, part.fitted_on, folder)
    if record is None:
        raise ConfigError(
            f"{named} holds labelled responses to {len({one.problem_id for one in texts})} "
            f"problems, fewer than traces.fitted_min_problems={part.fitted_min_problems} (at least "
            f"{FOLDS}), or one label for all; label more, or set traces.annotator=cues or llm"
        )
    if not record.overall.kappa >= part.fitted_min_kappa:
        raise ConfigError(
            f"{named}: a classifier fitted on it agrees with its labels at κ={record.overall} on "
            f"problems that it was not fitted on, less than traces.fitted_min_kappa="
            f"{part.fitted_min_kappa}; label more responses, or set traces.annotator=llm"
        )
    return record
