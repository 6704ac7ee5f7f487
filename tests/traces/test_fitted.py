"""How well a fitted classifier labels, on record and on real labels."""

import json
from pathlib import Path

import pytest
from labelled import BEHAVIOURS, labelled_texts

from sae_reasoning.compose import compose
from sae_reasoning.edges.sentence_classifier import classify_held_out
from sae_reasoning.records import Span
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.labels import NONE, sentence_labels
from sae_reasoning.traces.fitted import (
    LabelledText,
    labelled_sentences,
    missing_labels,
    record_of,
)
from sae_reasoning.traces.imported import parse_imported

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def test_sentences_bear_the_labels_that_are_tracked_and_their_problem() -> None:
    text = "Wait, no. So it is 4. Let me check."
    spans = [Span("backtracking", 0, 9), Span("verification", 22, 35)]
    found = labelled_sentences([LabelledText("q1", text, spans)], ["backtracking"])
    assert found.labels == ["backtracking", NONE, NONE] and found.problems == ["q1"] * 3
    assert [one.before for one in found.sentences] == ["", "Wait, no.", "Wait, no. So it is 4."]
    assert missing_labels(found, BEHAVIOURS) == ["verification"]


def test_a_record_has_the_kappa_that_its_sentences_give() -> None:
    """Three of four sentences alike; by chance it would be (1·1 + 1·0 + 2·3) / 16."""
    texts = [LabelledText("q1", "Wait, no. So it is 4. Let me check. Hm.", ())]
    found = labelled_sentences(texts, BEHAVIOURS)
    labels = ["backtracking", NONE, "verification", NONE]
    found = found.__class__(found.sentences, labels, ["q1", "q1", "q2", "q2"])
    record = record_of("f", found, ["backtracking", NONE, NONE, NONE], BEHAVIOURS, 2)
    assert record.overall.kappa == pytest.approx((0.75 - 0.4375) / (1 - 0.4375))
    assert (record.problems, record.sentences, record.folds) == (2, 4, 2)
    verification = record.by_behaviour[1]
    assert (verification.labelled, verification.classified, verification.both) == (1, 0, 0)
    assert [one.behaviour for one in record.weak(0.5)] == ["verification"]
    assert record.as_json(0.5)["min_kappa"] == 0.5


def test_the_record_of_learnable_labels_is_high_and_of_shuffled_ones_is_none() -> None:
    found = labelled_sentences(labelled_texts(24), BEHAVIOURS)
    held_out = classify_held_out(found.sentences, found.labels, found.problems, 5)
    assert record_of("f", found, held_out, BEHAVIOURS, 5).overall.kappa > 0.9
    turned = [*held_out[77:], *held_out[:77]]
    assert abs(record_of("f", found, turned, BEHAVIOURS, 5).overall.kappa) < 0.2


@pytest.mark.slow
def test_real_labels_are_told_better_than_by_cue_words() -> None:
    """What data/findings/labels.md says of one of its two files."""
    path = SHARED / "annotated_qwen2.5-1.5b-instruct.json"
    if not path.exists():
        pytest.skip(f"needs ../shared/data/{path.name}, which isn't part of the project")
    cfg = compose(["behaviours=venhoff_moves", "behaviours=[deduction,adding-knowledge]"])
    rows = [(f"record {n}", row) for n, row in enumerate(json.loads(path.read_text("utf-8")))]
    traces, _ = parse_imported(rows, "f", cfg.behaviours, writer="rl")
    texts = [LabelledText(t.problem_id, t.text, t.annotation.spans) for t in traces]
    found = labelled_sentences(texts, cfg.behaviours)
    held_out = classify_held_out(found.sentences, found.labels, found.problems, 5)
    lexicon = Lexicon(cfg.traces.cues, cfg.behaviours)
    by_cues = [
        label for text in texts for label in sentence_labels(text.text, lexicon.spans(text.text))
    ]
    fitted, cued = (
        record_of("f", found, labels, cfg.behaviours, 5).overall for labels in (held_out, by_cues)
    )
    assert fitted.low > max(0.2, cued.high)
