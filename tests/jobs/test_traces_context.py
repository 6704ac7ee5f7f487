"""Traces and rollouts that are longer than a model can read."""

import io
import json
from pathlib import Path

import pytest

from sae_reasoning.compose import compose, group_options
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.shapes import CONTEXTS
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.plan import plan
from sae_reasoning.jobs.traces import traces

SENTENCE = "so elm . wait , is that right ? "


@pytest.fixture
def short(tiny_config: Config, tmp_path: Path) -> Config:
    """A pair whose base was made for texts of 40 tokens, and four traces, two of them longer."""
    folder = tmp_path / "short"
    folder.mkdir()
    for file in Path(tiny_config.pair.base.path).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 40
    (folder / "config.json").write_text(json.dumps(config))
    tiny_config.pair.base.path = str(folder)
    tiny_config.behaviours = ["verification"]
    rows = [
        {
            "problem_id": f"p{number}",
            "writer": writer,
            "prompt": "map ash: gold ;",
            "text": (SENTENCE * times).strip(),
            "spans": [
                {
                    "behaviour": "verification",
                    "char_start": len(SENTENCE) * place + 9,
                    "char_end": len(SENTENCE) * place + 31,
                }
                for place in range(times)
            ],
        }
        for number, (writer, times) in enumerate([("base", 2), ("rl", 3), ("rl", 6), ("base", 7)])
    ]
    source = tmp_path / "traces.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tiny_config.traces.source = str(source)
    tiny_config.traces.__post_init__()
    return tiny_config


def test_imported_traces_beyond_a_context_are_refused_with_their_number(short: Config):
    with pytest.raises(
        ConfigError,
        match=r"2 of 4 traces of traces\.source=.* longer than the 40 tokens of pair\.base\.path="
        r".*short's context .*; set traces\.cut_to_context=true",
    ):
        traces(short, tracker=NullTracker(), console=Console(io.StringIO()))


def test_imported_traces_are_cut_where_that_is_asked_for(short: Config):
    short.traces.cut_to_context = True
    out = io.StringIO()
    traces(short, tracker=NullTracker(), console=Console(out))
    assert "2 of 4 traces" in out.getvalue() and "are cut there" in " ".join(out.getvalue().split())
    tokenizer = load_tokenizer(short.pair.base)
    found = {t.problem_id: t for t in read_traces(short.folder / "traces" / "traces.parquet")}
    assert {key: trace.truncated for key, trace in found.items()} == {
        "p0": False,
        "p1": False,
        "p2": True,
        "p3": True,
    }
    for trace in found.values():
        assert len(trace.token_ids) <= 40
        response = trace.token_ids[trace.num_prompt_tokens :]
        assert tokenizer.decode(list(response)).strip() == trace.text
        assert trace.spans
        for span in trace.spans:
            words = trace.text[span.char_start : span.char_end]
            own = trace.token_ids[span.token_start : span.token_end]
            assert tokenizer.decode(list(own)).strip() == words
        assert all(one.token < len(trace.token_ids) - 1 for one in trace.opportunities)


def test_rollouts_beyond_a_readers_context_are_refused_before_a_model_is_loaded(
    short: Config, monkeypatch: pytest.MonkeyPatch
):
    short.traces.source, short.traces.max_new_tokens = "search", 30
    short.traces.__post_init__()
    with pytest.raises(
        ConfigError,
        match=r"traces\.max_new_tokens=30 after a prompt of .*pair\.base\.path=|exceeds",
    ):
        traces(short, tracker=NullTracker(), console=Console(io.StringIO()))
    assert not list(short.folder.rglob("*_00000.parquet"))


def test_the_plan_tells_contexts_and_what_exceeds_them(short: Config):
    short.traces.source, short.traces.max_new_tokens = "search", 300
    short.traces.__post_init__()
    out = io.StringIO()
    plan(short, tracker=NullTracker(), console=Console(out))
    shown = " ".join(out.getvalue().split())
    assert "40 tokens of context" in shown and "1,024 tokens of context" in shown
    assert "exceeds the 40 of pair.base.path=" in shown


@pytest.mark.slow
def test_no_pair_of_conf_asks_for_more_than_its_models_contexts_hold():
    """Prompts as long as a plan assumes, where nothing tells their length."""
    known = 0
    for choice in group_options()["pair"]:
        if choice == "local":
            continue
        cfg = compose([f"pair={choice}"])
        for model in cfg.pair.readers.values():
            if (context := CONTEXTS.get(model.path)) is not None:
                known += 1
                longest = cfg.plan.prompt_tokens + cfg.traces.max_new_tokens
                assert longest <= context, (choice, model.path)
    assert known >= 8
