"""What options name to be read is compared by content: an edited file makes what read it stale."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, MissingInput, require_stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of, outside_inputs
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.export import export
from sae_reasoning.jobs.traces import traces


def quiet() -> dict[str, Any]:
    return {"tracker": NullTracker(), "console": Console(io.StringIO())}


def write(path: Path, writer: str, word: str) -> str:
    rows = [
        {
            "problem_id": f"q{number}",
            "writer": writer,
            "prompt": "map ash",
            "text": f"so {word} . wait , back .",
            "spans": [{"behaviour": "backtracking", "char_start": 0, "char_end": 2}],
        }
        for number in range(4)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    os.utime(path, ns=(0, 0))  # Times say nothing.
    return str(path)


@pytest.fixture
def cfg(tiny_config: Config, tmp_path: Path) -> Config:
    """Annotated traces of both writers, imported."""
    tiny_config.behaviours = ["backtracking"]
    tiny_config.traces.source = write(tmp_path / "rl.jsonl", "rl", "birch")
    tiny_config.traces.base_source = write(tmp_path / "base.jsonl", "base", "birch")
    traces(tiny_config, **quiet())
    return tiny_config


@pytest.mark.parametrize(("name", "option"), [("rl", "source"), ("base", "base_source")])
def test_an_edited_source_makes_traces_anew_and_what_rests_on_them(
    cfg: Config, tmp_path: Path, name: str, option: str
) -> None:
    export(cfg, **quiet())
    write(tmp_path / f"{name}.jsonl", name, "cedar")
    with pytest.raises(MissingInput, match=rf"another traces.{option} .* run `make traces`"):
        export(cfg, **quiet())
    traces(cfg, **quiet())
    export(cfg, **quiet())
    assert "cedar" in (cfg.folder / "export" / "spans.jsonl").read_text(encoding="utf-8")


def test_another_tokenizer_is_noticed_by_what_rests_on_the_traces(cfg: Config) -> None:
    now = outside_inputs(cfg)
    made = require_stage(cfg.folder, "traces", cfg.settings("traces"), now)
    named = {"base", "rl", "base_tokenizer", "rl_tokenizer", "traces.source", "traces.base_source"}
    assert made.inputs == inputs_of("traces", cfg) == {name: now[name] for name in named}
    for name in made.inputs:
        with pytest.raises(MissingInput, match=f"another {name} "):
            require_stage(cfg.folder, "traces", cfg.settings("traces"), now | {name: "other"})


def test_every_file_that_an_option_names_is_read_by_content(cfg: Config, tmp_path: Path) -> None:
    cfg.train.readers, cfg.train.released = "released", str(tmp_path / "saes_{layer}")
    cfg.ablate.reviews = [str(tmp_path / "calls.json")]
    cfg.report.reviews = [str(tmp_path / "calls.json")]
    absent = outside_inputs(cfg)
    for layer in cfg.layers:
        (tmp_path / f"saes_{layer}").mkdir()
        (tmp_path / f"saes_{layer}" / "cfg.json").write_text("{}", encoding="utf-8")
    (tmp_path / "calls.json").write_text("[1]", encoding="utf-8")
    before = outside_inputs(cfg)
    named = {f"train.released of layer {layer}" for layer in cfg.layers}
    named |= {f"{stage}.reviews {tmp_path}/calls.json" for stage in ("ablate", "report")}
    assert before.keys() - absent.keys() == named
    (tmp_path / "saes_1" / "cfg.json").write_text("[]", encoding="utf-8")
    (tmp_path / "calls.json").write_text("[2]", encoding="utf-8")
    now = outside_inputs(cfg)
    changed = {name for name in now if now[name] != before[name]}
    assert changed == named - {"train.released of layer 0"}


def test_what_was_made_stands_where_its_source_has_gone(cfg: Config, tmp_path: Path) -> None:
    (tmp_path / "rl.jsonl").unlink()
    export(cfg, **quiet())
    assert Manifest.read(cfg.folder / "export")
