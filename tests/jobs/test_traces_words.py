"""Problems in words: from files, datasets and reasoning-gym, rolled out and graded by program."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from sae_reasoning.config import Config, ConfigError, PairConfig, TracesConfig
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.tables import read_table, read_traces, write_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.traces import traces
from sae_reasoning.opening.grades import opens_thought
from sae_reasoning.records import Trace

ROWS = [{"question": f"What is {n} and 1?", "answer": f"easy\n#### {n + 1}"} for n in range(6)]


@pytest.fixture
def words(tiny_config: Config, tiny_neox_pair: PairConfig) -> Config:
    """Byte-pair models, which can read anything, and cues of behaviours."""
    tiny_config.pair = tiny_neox_pair
    tiny_config.traces.cues = {behaviour: ["wait"] for behaviour in tiny_config.behaviours}
    tiny_config.traces.max_new_tokens = 4
    return tiny_config


def _run(config: Config) -> tuple[Manifest, str]:
    out = io.StringIO()
    config.traces.__post_init__()
    return traces(config, tracker=NullTracker(), console=Console(out, verbose=True)), out.getvalue()


def _jsonl(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "problems.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def _parquet(folder: Path, rows: list[dict[str, Any]]) -> str:
    write_table(folder / "problems", {key: [row[key] for row in rows] for key in rows[0]})
    return str(folder / "problems")


def _dataset(folder: Path, rows: list[dict[str, Any]]) -> str:
    made = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"test": made, "train": made}).save_to_disk(str(folder / "gsm8k"))
    return f"gsm8k:{folder / 'gsm8k'}"


@pytest.mark.parametrize("write", [_jsonl, _parquet, _dataset])
def test_questions_of_any_form_are_rolled_out_and_graded(
    words: Config, tmp_path: Path, write: Any
) -> None:
    words.traces.source = write(tmp_path, ROWS)
    words.traces.num_problems = 4
    manifest, out = _run(words)
    made = read_traces(words.folder / "traces" / "traces.parquet")
    assert len(made) == 4 * 2 * 2
    assert all(trace.correct is False for trace in made)  # After four tokens at most, no answer.
    assert manifest.counts["ungraded"] == 0
    assert manifest.counts["truncated"] == sum(trace.truncated for trace in made) > 8
    assert "grades by program (shares of rollouts)" in out
    posed = read_table(words.folder / "traces" / "problems.parquet")
    assert sorted(posed.split) == ["report", "report", "select", "select"]
    assert all(row.reference == str(int(row.prompt.split()[2]) + 1) for row in posed.itertuples())
    grades = read_table(words.folder / "traces" / "grades.parquet").set_index("writer")
    assert grades.loc["rl", "no answer"] == 1.0
    ends = {True: "truncated", False: "none"}
    assert all(trace.answer_status == ends[trace.truncated] for trace in made)
    assert manifest.counts["unreadable_answers"] == 0


def test_gym_problems_are_made_here(words: Config) -> None:
    words.traces.source = "gym:gsm_symbolic,countdown"
    words.traces.num_problems = 4
    words.traces.instruction = "Think."
    _run(words)
    posed = read_table(words.folder / "traces" / "problems.parquet")
    assert set(posed.grader) <= {"gym:gsm_symbolic", "gym:countdown"}
    assert all(prompt.endswith("\n\nThink.") for prompt in posed.prompt)


def test_a_question_without_an_answer_has_no_grade(words: Config, tmp_path: Path) -> None:
    words.traces.source = _jsonl(tmp_path, [{"question": q} for q in ("One?", "Two?")])
    manifest, out = _run(words)
    assert manifest.counts["ungraded"] == manifest.counts["traces"] == 8
    assert "100.0% of rollouts could not be graded, and no accuracy counts them" in out


def test_vllm_that_is_not_installed_is_named_with_its_remedy(words: Config, tmp_path: Path) -> None:
    words.traces.source = _jsonl(tmp_path, ROWS)
    words.traces.engine = "vllm"
    with pytest.raises(ConfigError, match=r"traces\.engine=vllm needs vLLM .*engine=transformers"):
        _run(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "gpt"}, "traces.engine=gpt is unknown"),
        ({"source": "gsm8k", "base_source": "x"}, "base_source=x goes with a file of traces"),
        ({"source": "gym:x", "annotator": "imported"}, "source=gym:x draws problems"),
        ({"source": "gym:x", "annotator": "grammar"}, "isn't the organisms' world"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TracesConfig(**options)


def test_a_dataset_that_cannot_be_read_says_so(words: Config, tmp_path: Path) -> None:
    words.traces.source = f"gsm8k:{tmp_path / 'none'}"
    with pytest.raises(ConfigError, match="none is no folder; name the one that save_to_disk"):
        _run(words)
    words.traces.source = _dataset(tmp_path, ROWS)
    words.traces.dataset_split = "validation"
    with pytest.raises(ConfigError, match=r"has no split validation; .* one of test, train"):
        _run(words)


def test_a_writer_whose_template_opens_a_thought_is_known(words: Config, tmp_path: Path) -> None:
    thinking = tmp_path / "thinking"
    shutil.copytree(words.pair.rl.path, thinking)
    tokenizer = load_tokenizer(words.pair.rl)
    tokenizer.chat_template = "{{ messages[0].content }} so\n<think>\n"
    tokenizer.save_pretrained(thinking)
    rl = replace(words.pair.rl, path=str(thinking), chat_template=True)
    words.pair = replace(words.pair, rl=rl)
    opens = opens_thought(words)
    for writer in ("base", "rl"):
        trace = Trace("t", "p", "select", writer, "m", "1 + 1?", "2", (1,), 1, None, True, (), ())
        assert opens(trace) is (writer == "rl")
