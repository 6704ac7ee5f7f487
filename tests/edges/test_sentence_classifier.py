"""A classifier of sentences: what it learns, that it is kept whole, and what it isn't shown."""

import random
from pathlib import Path

import numpy as np
import pytest
from labelled import BEHAVIOURS, labelled_texts

from sae_reasoning.edges.sentence_classifier import (
    SentenceClassifier,
    classify_held_out,
    fit_sentences,
)
from sae_reasoning.edges.tables import read_table
from sae_reasoning.tasks.text.labels import NONE, SentenceInContext
from sae_reasoning.traces.fitted import labelled_sentences


@pytest.fixture(scope="module")
def labelled():
    return labelled_sentences(labelled_texts(30), BEHAVIOURS)


@pytest.fixture(scope="module")
def fitted(labelled) -> SentenceClassifier:
    return fit_sentences(labelled.sentences, labelled.labels)


def test_sentences_of_other_problems_are_classified_by_what_is_said_in_them(labelled, fitted):
    others = labelled_sentences(labelled_texts(20, seed=1), BEHAVIOURS)
    said = fitted.classify(others.sentences)
    right = np.mean([one == other for one, other in zip(said, others.labels, strict=True)])
    assert right > 0.95 and set(said) == {NONE, *BEHAVIOURS}


def test_a_classifier_that_is_read_back_gives_the_same_scores(labelled, fitted, tmp_path: Path):
    fitted.save(tmp_path / "fitted.parquet")
    back = SentenceClassifier.load(tmp_path / "fitted.parquet")
    assert back.classes == fitted.classes
    assert np.array_equal(back.scores(labelled.sentences), fitted.scores(labelled.sentences))
    table = read_table(tmp_path / "fitted.parquet")
    wait = table[(table.part == "words") & (table.feature == "wait")]
    assert wait["weight: backtracking"].item() > wait["weight: verification"].item()


def test_what_stands_before_a_sentence_counts_too():
    """The same words are called by the sentence before them."""
    befores = {"Is it right?": "verification", "Hmm, a dead end.": "backtracking"}
    sentences = [
        SentenceInContext(f"So it is {n}.", before, 1) for n in range(20) for before in befores
    ]
    labels = [befores[one.before] for one in sentences]
    classifier = fit_sentences(sentences, labels)
    assert classifier.classify(sentences) == labels


def test_no_problem_is_classified_by_a_fit_on_itself():
    """Labels that hang on a problem's own words alone can't be told of other problems."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=6)) for _ in range(40)]
    label_of = {word: rng.choice(BEHAVIOURS) for word in words}
    problems = [word for word in words for _ in range(4)]
    sentences = [SentenceInContext(f"{word} {word}", "", 0) for word in problems]
    labels = [label_of[word] for word in problems]
    assert fit_sentences(sentences, labels).classify(sentences) == labels
    said = classify_held_out(sentences, labels, problems, 5)
    right = np.mean([one == other for one, other in zip(said, labels, strict=True)])
    assert right < 0.7
    by_problem = {
        problem: {one for one, own in zip(said, problems, strict=True) if own == problem}
        for problem in problems
    }
    assert all(len(found) == 1 for found in by_problem.values())


def test_nothing_is_said_of_no_sentence(fitted):
    assert fitted.classify([]) == []
