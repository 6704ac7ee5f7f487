"""A classifier fitted on labelled traces labels rollouts, here and in later stages."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from labelled import BEHAVIOURS, as_rows, labelled_texts

from sae_reasoning.config import Config, ConfigError, PairConfig
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.traces import traces
from sae_reasoning.opening import open_task
from sae_reasoning.records import Trace
from sae_reasoning.tasks.problems import Problem


@pytest.fixture
def fitted(tiny_config: Config, tiny_neox_pair: PairConfig, tmp_path: Path) -> Config:
    """Bare texts, to be labelled by a classifier fitted on others."""
    tiny_config.pair, tiny_config.behaviours = tiny_neox_pair, list(BEHAVIOURS)
    own = tiny_config.traces
    own.annotator = "fitted"
    own.fitted_on = _write(tmp_path / "labelled.jsonl", as_rows(labelled_texts(24)))
    bare = [
        {key: value for key, value in row.items() if key != "label"}
        for writer in ("base", "rl")
        for row in as_rows(labelled_texts(6, seed=1), writer)
    ]
    own.source = _write(tmp_path / "bare.jsonl", bare)
    return tiny_config


def _write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return str(path)


def _run(cfg: Config) -> tuple[list[Trace], str]:
    out = io.StringIO()
    cfg.traces.__post_init__()
    traces(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    return read_traces(cfg.folder / "traces" / "traces.parquet"), out.getvalue()


def _spans(trace: Trace) -> list[tuple[str, int, int]]:
    return [(span.behaviour, span.char_start, span.char_end) for span in trace.spans]


def test_traces_are_labelled_and_the_agreement_stands_beside_them(fitted: Config) -> None:
    made, out = _run(fitted)
    assert len(made) == 12 and {s.annotator for t in made for s in t.spans} == {"fitted"}
    record = read_json(fitted.folder / "traces" / "fitted.json")
    assert (record["problems"], record["folds"], record["sentences"]) == (24, 5, 24 * 8)
    assert record["overall"]["kappa"] > 0.8
    assert record["overall"]["low"] <= record["overall"]["kappa"] <= record["overall"]["high"]
    assert [one["behaviour"] for one in record["by_behaviour"]] == BEHAVIOURS
    assert "fitted on" in out and "problems that it was not fitted on" in " ".join(out.split())


def test_whatever_is_written_later_is_labelled_as_the_traces_are(fitted: Config) -> None:
    made, _ = _run(fitted)
    task = open_task(fitted, made)
    assert task.annotator.name == "fitted"
    for trace in made:
        problem = Problem(trace.problem_id, trace.split, trace.prompt)
        found = task.annotate(problem, trace.text, truncated=False, model=trace.writer)
        assert [(s.behaviour, s.char_start, s.char_end) for s in found.spans] == _spans(trace)


def test_fitting_again_gives_the_same_classifier(fitted: Config) -> None:
    first = (_run(fitted), read_table(fitted.folder / "traces" / "fitted.parquet"))
    again = replace(fitted, experiment="again")
    assert _run(again)[0] == first[0][0]
    assert read_table(again.folder / "traces" / "fitted.parquet").equals(first[1])


def test_a_classifier_that_agrees_too_little_is_refused_with_its_kappa(
    fitted: Config, tmp_path: Path
) -> None:
    """Labels that say nothing of their sentences: every other response has the other's labels."""
    texts = labelled_texts(24)
    mixed = [
        one._replace(
            spans=tuple(
                replace(span, behaviour=BEHAVIOURS[(number + at) % 2])
                for at, span in enumerate(one.spans)
            )
        )
        for number, one in enumerate(texts)
    ]
    fitted.traces.fitted_on = _write(tmp_path / "mixed.jsonl", as_rows(mixed))
    fitted.traces.fitted_min_kappa = 0.9
    with pytest.raises(ConfigError, match=r"at κ=0\.\d\d \[.*\] .*less than .*min_kappa=0\.9"):
        _run(fitted)
    assert not (fitted.folder / "traces" / "traces.parquet").exists()


def test_too_few_labels_or_none_of_a_behaviour_are_refused(fitted: Config, tmp_path: Path) -> None:
    few = as_rows(labelled_texts(6))
    fitted.traces.fitted_on = _write(tmp_path / "few.jsonl", few)
    with pytest.raises(ConfigError, match=r"6 problems, fewer than traces\.fitted_min_problems=20"):
        _run(fitted)
    fitted.behaviours = [*BEHAVIOURS, "deduction"]
    with pytest.raises(ConfigError, match=r"few\.jsonl labels no deduction; label some there"):
        _run(fitted)
    fitted.traces.fitted_on = str(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"traces\.fitted_on=.*none\.jsonl is no file"):
        _run(fitted)


def test_other_labels_make_the_traces_anew(fitted: Config, tmp_path: Path) -> None:
    _, first = _run(fitted)
    _, second = _run(fitted)
    _write(tmp_path / "labelled.jsonl", as_rows(labelled_texts(24, seed=2)))
    _, third = _run(fitted)
    assert ("fitted on" in first, "fitted on" in second, "fitted on" in third) == (
        True,
        False,
        True,
    )


def test_text_written_after_imported_traces_is_labelled_by_a_fit_on_them(
    fitted: Config, tmp_path: Path
) -> None:
    fitted.traces.annotator, fitted.traces.fitted_on = "auto", ""
    rows = [row for writer in ("base", "rl") for row in as_rows(labelled_texts(24), writer)]
    fitted.traces.source = _write(tmp_path / "many.jsonl", rows)
    made, out = _run(fitted)
    assert {s.annotator for t in made for s in t.spans} == {"imported"}
    assert open_task(fitted, made).annotator.name == "fitted"
    assert "new text will be labelled by fitted" in out
    assert read_json(fitted.folder / "traces" / "fitted.json")["fitted_on"] == "the imported traces"


def test_text_written_after_few_imported_traces_is_labelled_by_cues(
    fitted: Config, tmp_path: Path
) -> None:
    fitted.traces.annotator, fitted.traces.fitted_on = "imported", ""
    rows = [row for writer in ("base", "rl") for row in as_rows(labelled_texts(4), writer)]
    fitted.traces.source = _write(tmp_path / "few.jsonl", rows)
    made, out = _run(fitted)
    task = open_task(fitted, made)
    assert task.annotator.name == "cues" and "new text will be labelled by cues (these" in out
    problem = Problem("p00000", "report", "?")
    with pytest.raises(ConfigError, match=r"no cues for backtracking, verification"):
        task.annotate(problem, "Wait.", truncated=False, model="rl")
    fitted.traces.cues = {"backtracking": ["wait"], "verification": ["check"]}
    found = open_task(fitted, made).annotate(problem, "Wait.", truncated=False, model="rl")
    assert [span.behaviour for span in found.spans] == ["backtracking"]


def test_words_of_the_search_world_are_refused_for_other_text(fitted: Config) -> None:
    fitted.traces.annotator, fitted.traces.words_for = "cues", "search"
    said = r"behaviours=search_moves has cue words .* set behaviours=venhoff_moves or cognitive"
    with pytest.raises(ConfigError, match=said):
        _run(fitted)


def test_problems_in_words_are_not_labelled_by_words_of_the_search_world(
    fitted: Config, tmp_path: Path
) -> None:
    asked = [{"question": f"What is {n} and 1?", "answer": str(n + 1)} for n in range(6)]
    fitted.traces.source = _write(tmp_path / "asked.jsonl", asked)
    fitted.traces.annotator, fitted.traces.fitted_on = "auto", ""
    fitted.traces.words_for = "search"
    with pytest.raises(ConfigError, match=r"behaviours=search_moves .*asked\.jsonl is natural"):
        _run(fitted)
