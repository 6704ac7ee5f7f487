"""Problems of other worlds: longer paths, new names."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sae_reasoning.config import Config, ConfigError, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.export import export
from sae_reasoning.jobs.traces import traces
from sae_reasoning.opening import open_task
from sae_reasoning.records import Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search.world import NEW_PLACES, PLACES, parse_prompt


def test_names_that_a_tokenizer_does_not_know_are_refused(tiny_config: Config) -> None:
    tiny_config.task.places = "new"
    with pytest.raises(ConfigError, match=r"pair\.base\.path=.* doesn't know every word.*known"):
        traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))


def test_pieces_spell_new_names_on_longer_paths(
    tiny_config: Config, tiny_neox_pair: PairConfig
) -> None:
    tiny_config.pair = tiny_neox_pair
    tiny_config.task.places = "new"
    tiny_config.task.min_edges, tiny_config.task.max_edges = 6, 8
    traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    made = read_traces(tiny_config.folder / "traces" / "traces.parquet")
    for trace in made:
        problem = parse_prompt(trace.prompt)
        assert set(problem.entries) <= set(NEW_PLACES)
        assert not set(problem.entries) & set(PLACES)
        assert len(problem.entries) >= 7


def _bring(tiny_config: Config, path: Path, *writers: str) -> None:
    """A file of span lines in the tiny pair's words."""
    text = "<think> wait , dead end , back to ash . so birch ."
    rows = [
        {
            "problem_id": f"q{number}",
            "writer": writer,
            "prompt": "find birch",
            "text": text,
            "label": [[text.index("wait"), text.index(" so"), "backtracking"]],
        }
        for number in range(4)
        for writer in writers
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    tiny_config.traces.source = str(path)
    tiny_config.behaviours = ["backtracking"]


def test_one_writers_traces_are_imported_and_cached(tiny_config: Config, tmp_path: Path) -> None:
    _bring(tiny_config, tmp_path / "t.jsonl", "rl")
    out = io.StringIO()
    manifest = traces(tiny_config, tracker=NullTracker(), console=Console(out, verbose=True))
    assert manifest.counts["traces"] == 4
    assert "warning: all traces are rl's: cache and train read them" in out.getvalue()
    assert (
        cache(tiny_config, tracker=NullTracker(), console=Console(out, verbose=True)).counts[
            "traces"
        ]
        == 4
    )


def _imported(config: Config) -> tuple[list[Trace], str]:
    out = io.StringIO()
    traces(config, tracker=NullTracker(), console=Console(out, verbose=True))
    return read_traces(config.folder / "traces" / "traces.parquet"), out.getvalue()


def test_an_import_has_a_heading_and_text_that_the_tokenizer_does_not_know_is_told(
    tiny_config: Config, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    _bring(tiny_config, path, "base", "rl")
    said = _imported(tiny_config)[1]
    assert said.startswith(
        f"\n== traces\n  source      {path}\n  rows        8\n  behaviours  back"
    )
    assert "doesn't know" not in said
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["writer"] == "rl":  # Four of its words there are no tokens for.
            row["text"] = "wait , so Therefore the sum <pad> is thirty-four indeed ."
            row["label"] = [[0, 6, "backtracking"]]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made, said = _imported(tiny_config)
    (text,) = {trace.token_ids[trace.num_prompt_tokens :] for trace in made if trace.writer == "rl"}
    assert text.count(0) == 5  # With the filler that is written out.
    assert (
        f"warning: traces.source={path}: the tokenizer of {tiny_config.pair.base.named} doesn't "
        f"know {4 / len(text):.0%} of rl's tokens and reads them as <pad>; name a pair" in said
    )


def test_a_null_id_joins_no_other_problem_and_takes_no_prompt_of_one(
    tiny_config: Config, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    _bring(tiny_config, path, "base", "rl")
    rows = [json.loads(line) | {"problem_id": None} for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["prompt"] = f"find birch {number}" if row["writer"] == "base" else None
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made, said = _imported(tiny_config)
    assert len({trace.problem_id for trace in made}) == 8
    assert {trace.prompt for trace in made if trace.writer == "rl"} == {""}
    assert "warning: base and rl share 0 of their 4 and 4 problems" in said


def test_whole_numbers_of_two_files_are_one_problem(tiny_config: Config, tmp_path: Path) -> None:
    path, base = tmp_path / "t.jsonl", tmp_path / "base.jsonl"
    for file, writer, kind in ((base, "base", int), (path, "rl", float)):
        _bring(tiny_config, file, writer)
        rows = map(json.loads, file.read_text().splitlines())
        rows = [row | {"problem_id": kind(n), "writer": None} for n, row in enumerate(rows)]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tiny_config.traces.base_source = str(base)
    made, said = _imported(tiny_config)
    assert "warning" not in said
    splits = {w: {t.problem_id: t.split for t in made if t.writer == w} for w in ("base", "rl")}
    assert splits["base"] == splits["rl"]
    assert set(splits["base"]) == {"0", "1", "2", "3"}


def test_a_span_that_the_tokenizer_drops_names_its_row(tiny_config: Config, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_config.pair.base.path, tmp_path / "dropping")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "~"}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for model in (tiny_config.pair.base, tiny_config.pair.rl):
        model.tokenizer = str(folder)
    path = tmp_path / "t.jsonl"
    _bring(tiny_config, path, "rl")
    row = {"writer": "rl", "prompt": "find birch", "text": "so birch . ~~ wait ."}
    with path.open("a") as file:
        file.write(json.dumps(row | {"label": [[11, 13, "backtracking"]]}))
    reason = r"the tokenizer has no token for any character of span backtracking \[11, 13\)"
    with pytest.raises(ConfigError, match=rf"t\.jsonl, line 5: {reason}; leave it out"):
        _imported(tiny_config)
    tiny_config.traces.annotator = "cues"
    tiny_config.traces.cues = {"backtracking": ["~~"]}
    path.write_text(json.dumps(row | {"text": "so birch .\n~~\nwait ."}))
    with pytest.raises(ConfigError, match=rf"annotator=cues: in trace q00000/rl/00000 {reason}"):
        _imported(tiny_config)


def test_an_export_and_the_table_itself_are_imported_as_the_same_traces(
    tiny_config: Config, tmp_path: Path
) -> None:
    console = Console(io.StringIO())
    tiny_config.traces.max_new_tokens = 48
    traces(tiny_config, tracker=NullTracker(), console=console)
    made = read_traces(tiny_config.folder / "traces" / "traces.parquet")
    export(tiny_config, tracker=NullTracker(), console=console)
    for number, path in enumerate(("export/spans.jsonl", "traces/traces.parquet")):
        again = replace(tiny_config, experiment=f"again{number}")
        again.traces = replace(tiny_config.traces, source=str(tiny_config.folder / path))
        again.traces.annotator = "cues"  # Random models make no behaviour, so none is imported.
        again.traces.cues = {behaviour: ["wait"] for behaviour in again.behaviours}
        traces(again, tracker=NullTracker(), console=console)
        back = read_traces(again.folder / "traces" / "traces.parquet")
        assert [(t.problem_id, t.split, t.writer, t.text) for t in back] == [
            (t.problem_id, t.split, t.writer, t.text) for t in made
        ]
        cut = [t.token_ids[: t.num_prompt_tokens] for t in made]
        assert [t.token_ids[: t.num_prompt_tokens] for t in back] == cut


def test_a_behaviour_that_the_grammar_does_not_label_is_refused(tiny_config: Config) -> None:
    tiny_config.behaviours = ["backtraking"]
    with pytest.raises(ConfigError, match=r"names backtraking, which .* choose of backtracking"):
        traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))


def test_the_search_world_can_be_read_as_natural_text(tiny_config: Config) -> None:
    """Cue words mark it, any sentence may start any behaviour, and the map still grades it."""
    tiny_config.task.kind = "text"
    tiny_config.traces.cues = {behaviour: ["find"] for behaviour in tiny_config.behaviours}
    tiny_config.traces.num_problems = 2
    traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    made = read_traces(tiny_config.folder / "traces" / "traces.parquet")
    assert all(trace.correct is not None for trace in made)
    assert {span.annotator for trace in made for span in trace.spans} <= {"cues"}
    for trace in made:
        places = {one.char_end for one in trace.opportunities}
        assert len(trace.opportunities) == len(places) * len(tiny_config.behaviours)


def test_the_search_world_as_natural_text_may_keep_its_own_labels(tiny_config: Config) -> None:
    """So that what labels by words cost is told from what else natural text lacks."""
    tiny_config.task.kind, tiny_config.traces.annotator = "text", "grammar"
    tiny_config.traces.num_problems = 2
    traces(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    made = read_traces(tiny_config.folder / "traces" / "traces.parquet")
    task = open_task(tiny_config, made)
    assert (task.name, task.annotator.name, task.judge) == ("text", "search", None)
    for trace in made:
        problem = Problem(trace.problem_id, trace.split, trace.prompt)
        found = task.annotate(problem, trace.text, truncated=trace.truncated, model=trace.writer)
        assert [o.char_end for o in found.opportunities] == [
            o.char_end for o in trace.opportunities
        ]


def test_later_text_of_the_search_world_gets_the_annotator_of_its_traces(
    tiny_config: Config,
) -> None:
    assert open_task(tiny_config).annotator.name == "search"
    tiny_config.traces.annotator = "cues"
    assert open_task(tiny_config).annotator.name == "cues"
    tiny_config.traces.annotator, tiny_config.traces.annotator_model = "llm", "m"
    assert open_task(tiny_config).annotator.name == "llm:m"
