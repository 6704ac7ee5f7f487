"""Annotators of natural text: one rule while a text is written and afterwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import BEHAVIOURS, labelled_texts
from tasks.text.test_sentences import TEXTS, WRITTEN

from sae_reasoning.edges.sentence_classifier import fit_sentences
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Annotator
from sae_reasoning.tasks.text.annotators import CueAnnotator, FittedAnnotator
from sae_reasoning.tasks.text.labels import sentence_labels
from sae_reasoning.tasks.text.sentences import sentence_starts, sentences
from sae_reasoning.traces.fitted import labelled_sentences

PROBLEM = Problem("p00000", "report", "?")
LABELLED = labelled_sentences(labelled_texts(20), BEHAVIOURS)
FITTED = FittedAnnotator(fit_sentences(LABELLED.sentences, LABELLED.labels).classify, BEHAVIOURS)
CUES = CueAnnotator({"backtracking": ["wait"], "verification": ["check", "test"]}, BEHAVIOURS)
SAID = st.sampled_from(
    ["Wait, 7 leads nowhere. ", "Let me test whether 4 holds.\n", "So there are 3.5 boxes. "]
)
RESPONSES = st.lists(SAID | st.sampled_from(WRITTEN), max_size=5).map(" ".join) | TEXTS


def labels(annotator: Annotator, text: str) -> list[str]:
    found = annotator.annotate(PROBLEM, text, truncated=False)
    return sentence_labels(text, found.spans)


@pytest.mark.parametrize("annotator", [CUES, FITTED], ids=["cues", "fitted"])
@given(RESPONSES)
def test_what_is_said_of_a_sentence_does_not_hang_on_what_follows(annotator, text):
    whole = labels(annotator, text)
    for number, (_, end) in enumerate(sentences(text), start=1):
        assert labels(annotator, text[:end]) == whole[:number]


@pytest.mark.parametrize("annotator", [CUES, FITTED], ids=["cues", "fitted"])
@given(RESPONSES)
def test_every_opportunity_is_named_while_the_text_is_written(annotator, text):
    listen, pending, named = annotator.listen(PROBLEM), "", set()
    for place, character in enumerate(text, start=1):
        pending += character
        if (could := listen(pending)) is not None:
            assert could == frozenset(BEHAVIOURS)
            named.add(place)
            pending = ""
    found = annotator.annotate(PROBLEM, text, truncated=False)
    assert {one.char_end for one in found.opportunities} - {0} <= named
    taken = {(o.char_end, o.behaviour) for o in found.opportunities if o.taken}
    assert taken == {(span.char_start, span.behaviour) for span in found.spans}
    assert {place for place, _ in taken} <= set(sentence_starts(text))


def test_successive_sentences_of_one_behaviour_are_one_span_by_the_classifier():
    text = "So there are 4 boxes. Wait, 7 leads nowhere. That road ends at 8, back to where I was."
    (span,) = FITTED.annotate(PROBLEM, text, truncated=False).spans
    assert (span.behaviour, text[span.char_start :]) == ("backtracking", text[22:])


def test_many_responses_are_labelled_as_each_alone():
    texts = [one.text for one in labelled_texts(6, seed=3)] + ["", " "]
    for annotator in (CUES, FITTED):
        said = annotator.annotate_all([Unlabelled(PROBLEM, text, False) for text in texts])
        assert said.annotations == [
            annotator.annotate(PROBLEM, text, truncated=False) for text in texts
        ]
        assert not said.reasons and not annotator.costs([])


def test_labels_that_are_not_asked_for_are_left_out():
    narrow = FittedAnnotator(lambda every: ["verification"] * len(every), ["backtracking"])
    found = narrow.annotate(PROBLEM, "Let me test it.", truncated=False)
    assert not found.spans and len(found.opportunities) == 1
