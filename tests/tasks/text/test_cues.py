"""Moves by their words."""

import pytest

from sae_reasoning.compose import compose, group_options
from sae_reasoning.config import ConfigError
from sae_reasoning.tasks.text.cues import Lexicon


def marked(text: str, **cues: list[str]) -> list[tuple[str, str]]:
    spans = Lexicon(cues, list(cues)).spans(text)
    return [(span.behaviour, text[span.char_start : span.char_end]) for span in spans]


def test_a_sentence_with_a_cue_is_a_span_and_the_first_cue_names_it() -> None:
    text = "It is 5.\nWait, maybe not. Maybe, wait! Waiting is fine."
    assert marked(text, backtracking=["wait"], uncertainty=["maybe"]) == [
        ("backtracking", "Wait, maybe not."), ("uncertainty", "Maybe, wait!"),
    ]  # fmt: skip


def test_an_anchored_cue_counts_at_the_beginning_only() -> None:
    assert marked("So it is. It is so. - So be it.", deduction=["^so"]) == [
        ("deduction", "So it is."), ("deduction", "- So be it."),
    ]  # fmt: skip


def test_cues_are_whole_words_with_any_white_space_between() -> None:
    assert marked("Hold   on. Household on.", a=["hold on"]) == [("a", "Hold   on.")]


@pytest.mark.parametrize("sign", "'’‘ʼ′´`＇")
def test_an_apostrophe_is_one_however_it_is_set(sign: str) -> None:
    for cue in ("i'm not sure", "i’m not sure"):
        text = f"So be it. I{sign}m not sure. Im not sure."
        assert marked(text, unsure=[cue]) == [("unsure", f"I{sign}m not sure.")]


@pytest.mark.parametrize("sign", "-‐‑‒–−")
def test_a_hyphen_is_one_however_it_is_set(sign: str) -> None:
    assert marked(f"Re{sign}check it. Re check it.", a=["re-check"]) == [
        ("a", f"Re{sign}check it.")
    ]


@pytest.mark.parametrize("gap", ["\xa0", "\u202f", "\u2007", "\u2060", "\u200b"])
def test_a_space_is_one_however_it_is_set(gap: str) -> None:
    assert marked(f"Hold{gap}on.", a=["hold on"])[0][0] == "a"


def test_no_cue_of_the_shipped_files_depends_on_how_its_apostrophe_is_set() -> None:
    config = compose(["behaviours=venhoff_moves"])
    lexicon = Lexicon(config.traces.cues, config.behaviours)
    for behaviour, cues in config.traces.cues.items():
        for cue in cues:
            plain = f"{cue.removeprefix('^')} it is."
            found = {span.behaviour for span in lexicon.spans(plain)}
            assert found
            assert {s.behaviour for s in lexicon.spans(plain.replace("'", "’"))} == found, behaviour


def test_a_move_without_cues_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no cues for deduction; list them under traces\.cues"):
        Lexicon({"backtracking": ["wait"]}, ["backtracking", "deduction"])


@pytest.mark.parametrize("choice", group_options()["behaviours"])
def test_every_file_of_behaviours_has_cues_and_a_meaning_for_each_move(choice: str) -> None:
    config = compose([f"behaviours={choice}"])
    Lexicon(config.traces.cues, config.behaviours)
    assert set(config.behaviours) <= set(config.traces.meanings)


def test_cues_stale_only_traces_that_were_marked_by_them() -> None:
    plain = compose().settings("traces")
    assert "cues" not in plain["traces"] and "annotator_endpoint" not in plain["traces"]
    cued = compose(["traces.annotator=cues"]).settings("traces")["traces"]
    assert cued["annotator"] == "cues" and "wait" in cued["cues"]["backtracking"]
    assert "meanings" not in cued


def test_cues_stale_imported_traces_whose_later_text_they_may_label() -> None:
    brought = compose(["traces.source=mine.jsonl", "traces.annotator=imported"])
    assert "cues" in brought.settings("traces")["traces"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["traces.annotator=gramar"], "choose one of auto, grammar"),
        (["traces.annotator=llm"], "needs an http.s. URL"),
        (["traces.annotator=imported"], "no labels come with it"),
        (["traces.annotator=grammar", "traces.source=mine.jsonl"], "isn't the organisms' world"),
        (["traces.annotator=fitted"], r"needs labelled traces .traces.fitted_on=?"),
        (
            ["traces.source=a.jsonl", "traces.second_annotator=fitted", "traces.fitted_on=a.jsonl"],
            "fitted on the labels that it would be compared with",
        ),
        (["traces.fitted_min_kappa=1"], "must be a κ below 1"),
        (["traces.annotator_failures=1"], "must be a share"),
        (["traces.jitter=-1"], "is negative"),
    ],
)
def test_annotators_that_cannot_work_are_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compose(overrides)
