"""A classifier of sentences (scikit-learn): TF-IDF features, multinomial logistic regression.

Features of a sentence are the words and pairs of words in it, runs of characters at its beginning,
the words of the two sentences before it, and how far into the text it stands, in powers of two.
Whatever has no label is a class of its own. Fitting is deterministic. A fitted classifier is a
table, a row a feature with its weight for each class: nothing in it can run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import sparse

from sae_reasoning.edges.tables import read_table, write_table

_CLASS = "weight: "
_INTERCEPT = "intercept"
_FIRST, _LAST = 80, 400
"""Characters that are looked at: of a sentence its first, of what stands before it the last."""


@runtime_checkable
class InContext(Protocol):
    """A sentence and what stands before it."""

    @property
    def text(self) -> str:
        """The sentence."""
        ...

    @property
    def before(self) -> str:
        """What stands before it."""
        ...

    @property
    def number(self) -> int:
        """How many sentences stand before it."""
        ...


_PARTS: dict[str, tuple[Callable[[InContext], str], dict[str, Any]]] = {
    "words": (
        lambda one: f"^ {one.text}",
        {"ngram_range": (1, 2), "token_pattern": r"(?u)\w+|[^\w\s]"},
    ),
    "characters": (
        lambda one: f"^{one.text[:_FIRST]}",
        {"analyzer": "char_wb", "ngram_range": (2, 4)},
    ),
    "before": (
        lambda one: f"^ {one.before[-_LAST:]}",
        {"token_pattern": r"(?u)\w+|[^\w\s]"},
    ),
    "place": (
        lambda one: f"after{one.number.bit_length()}",
        {},
    ),
}
"""By name, what of a sentence is looked at, and in what pieces; ^ is its beginning."""
_MIN_TEXTS = 3
"""Sentences in which a piece must stand, to be a feature."""
_REGULARISATION, _TOLERANCE = 4.0, 1e-3


@dataclass(frozen=True)
class SentenceClassifier:
    """A fitted classifier.

    Attributes:
        vectorizers: Of each part of the features.
        classes: What sentences are called.
        weights: Of each class and feature.
        intercepts: Of each class.
    """

    vectorizers: dict[str, Any]
    classes: tuple[str, ...]
    weights: Float[np.ndarray, "class feature"]
    intercepts: Float[np.ndarray, " class"]

    def classify(self, sentences: Sequence[InContext]) -> list[str]:
        """The likeliest class of each sentence."""
        if not sentences:
            return []
        return [self.classes[index] for index in self.scores(sentences).argmax(1)]

    def scores(self, sentences: Sequence[InContext]) -> Float[np.ndarray, "sentence class"]:
        """Logits of each class."""
        found = _features(self.vectorizers, sentences) @ self.weights.T
        return np.asarray(found) + self.intercepts

    def save(self, path: Path) -> None:
        """Write a table: columns part, feature, idf, and a weight for each class."""
        named = [
            (part, feature, idf)
            for part, vectorizer in self.vectorizers.items()
            for feature, idf in zip(
                vectorizer.get_feature_names_out(), vectorizer.idf_, strict=True
            )
        ]
        frame = pd.DataFrame([*named, (_INTERCEPT, "", 0.0)], columns=["part", "feature", "idf"])
        for name, own, intercept in zip(self.classes, self.weights, self.intercepts, strict=True):
            frame[_CLASS + name] = [*own, intercept]
        write_table(path, frame)

    @classmethod
    def load(cls, path: Path) -> "SentenceClassifier":
        """What `save` wrote."""
        frame = read_table(path)
        columns = [name for name in frame.columns if name.startswith(_CLASS)]
        is_intercept = frame.part == _INTERCEPT
        features = frame[~is_intercept]
        vectorizers = {}
        for part in _PARTS:
            own = features[features.part == part]
            vectorizers[part] = _vectorizer(part, list(own.feature))
            vectorizers[part].idf_ = own.idf.to_numpy()
        return cls(
            vectorizers,
            tuple(name.removeprefix(_CLASS) for name in columns),
            features[columns].to_numpy().T,
            frame[is_intercept][columns].to_numpy()[0],
        )


def fit_sentences(sentences: Sequence[InContext], labels: Sequence[str]) -> SentenceClassifier:
    """A classifier of labelled sentences.

    Args:
        sentences: Of any texts.
        labels: What each is called; at least two different ones.
    """
    from sklearn.linear_model import LogisticRegression

    vectorizers = {part: _vectorizer(part) for part in _PARTS}
    for part, vectorizer in vectorizers.items():
        vectorizer.fit(list(map(_PARTS[part][0], sentences)))
    model = LogisticRegression(
        C=_REGULARISATION, tol=_TOLERANCE, max_iter=1000, class_weight="balanced"
    )
    model.fit(_features(vectorizers, sentences), list(labels))
    weights, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # One row then, of the second class.
        weights, intercepts = np.vstack([-weights, weights]), np.r_[-intercepts, intercepts]
    return SentenceClassifier(vectorizers, tuple(map(str, model.classes_)), weights, intercepts)


def classify_held_out(
    sentences: Sequence[InContext], labels: Sequence[str], groups: Sequence[str], folds: int
) -> list[str]:
    """What a classifier calls sentences of problems that it was not fitted on.

    Args:
        sentences: Of any texts.
        labels: What each is called.
        groups: Problem of each; all sentences of one are held out together.
        folds: Parts into which problems are divided; no more than there are problems.
    """
    from sklearn.model_selection import GroupKFold

    found = [""] * len(sentences)
    for fitted_on, held_out in GroupKFold(folds).split(sentences, labels, groups):
        own = fit_sentences([sentences[i] for i in fitted_on], [labels[i] for i in fitted_on])
        said = own.classify([sentences[i] for i in held_out])
        for index, label in zip(held_out, said, strict=True):
            found[index] = label
    return found


def _vectorizer(part: str, vocabulary: Sequence[str] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    rare = _MIN_TEXTS if part != "place" else 1
    return TfidfVectorizer(sublinear_tf=True, vocabulary=vocabulary, min_df=rare, **_PARTS[part][1])


def _features(vectorizers: dict[str, Any], sentences: Sequence[InContext]) -> sparse.csr_matrix:
    return sparse.hstack(
        [
            vectorizer.transform(list(map(_PARTS[part][0], sentences)))
            for part, vectorizer in vectorizers.items()
        ],
        format="csr",
    )
