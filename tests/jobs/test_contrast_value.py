"""Execution value and the verdict on text: shipped organisms, without grammar or parser."""

import io
import json
import string
from pathlib import Path

import pytest
import torch
from byte_level import byte_level_tokenizer
from tiny_models import SHAPE

from sae_reasoning.compose import compose
from sae_reasoning.config import Config, ModelConfig, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.create import new_llama, save_model
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs import contrast as job
from sae_reasoning.jobs.contrast import contrast
from sae_reasoning.jobs.contrast.completions import room_at
from sae_reasoning.jobs.report import report
from sae_reasoning.jobs.traces import traces
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start

SMALL = [
    *("pair=organism_created_llama", "task=text", "tracker=none", "device=cpu"),
    *("traces.num_problems=100", "traces.base_samples=1", "traces.rl_samples=1"),
    *("contrast.behaviours=[backtracking,verification]", "contrast.select_problems=40"),
    *("contrast.report_problems=50", "contrast.select_starts=12", "contrast.onset_places=60"),
    *(
        "contrast.onset_samples=2",
        "contrast.completions=2",
        "contrast.value_candidates=60",
        "contrast.value_starts=20",
    ),
    *("contrast.value_select_starts=6", "contrast.value_openings=2", "contrast.controls=1"),
    *("contrast.doses=[1.0]", "contrast.vectors=[gradient]", "contrast.pass_problems=2"),
    *("contrast.pass_samples=2", "contrast.corrupted_traces=4", "contrast.bootstrap=200"),
]


def at(cfg: Config, *stages: object) -> str:
    out = io.StringIO()
    for stage in stages:
        stage(cfg, tracker=NullTracker(), console=Console(out, verbose=True))  # type: ignore[operator]
    return out.getvalue()


@pytest.mark.parametrize(("used", "room"), [(0, 320), (64, 256), (193, 127), (319, 1), (320, 1)])
def test_what_may_be_written_is_decided_by_the_start_and_no_less_than_its_rollout_had_left(
    used: int, room: int
) -> None:
    problem = Problem("p0", "report", "?")
    start = Start(problem, "rl", "backtracking", "p0/rl/0", (1,) * used, "so", taken=True)
    assert room_at(start, 320) == room >= 320 - used


@pytest.mark.e2e
def test_a_base_without_a_behaviour_is_told_from_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose([*SMALL, f"runs={tmp_path}"])
    at(cfg, traces)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "steering", killed)
        with pytest.raises(KeyboardInterrupt):
            at(cfg, contrast)
    said = at(cfg, contrast, report)  # Goes on from what was valued.
    assert "not measured: execution accuracy; task=text has no judge and no null" in said
    table = read_table(cfg.folder / "contrast" / "contrast.parquet")
    known = table[table.level == 0.95].set_index(["behaviour", "measure", "model", "condition"])
    own = "own opening"
    lacks = known.loc[("backtracking", "value_skill/foreign", "base", own)]
    has = known.loc[("verification", "execution_value", "base", own)]
    assert lacks.high < 0.8
    assert has.value > known.loc[("verification", "execution_value", "rl", "foreign")].value
    for condition in (own, "RL's words", "best opening", "best of k"):
        assert ("backtracking", "execution_value", "base", condition) in known.index
    assert "steered/value_skill/foreign" in {*table.measure}
    rows = read_table(cfg.folder / "contrast" / "value.parquet")
    assert {"displaced", "foreign"} <= {*rows.condition}
    assert set(rows.completions[~rows.truncated]) == {2}
    assert rows.value[~rows.truncated].between(0, 1).all()
    # Equal sentences at a start are worth the same: they were completed once.
    spread = rows[rows.split == "report"].groupby(["start", "said"]).value
    assert (spread.max() - spread.min()).dropna().eq(0).all()
    page = (cfg.folder / "report" / "index.html").read_text()
    assert "How: execution value" in page
    found = json.loads((cfg.folder / "report" / "verdict.json").read_text())["verdicts"]
    by = {one["behaviour"]: one["verdict"] for one in found}
    assert by["backtracking"] in ("created", "inconclusive")
    assert by["verification"] != "created"


def test_what_bears_on_no_answer_is_inconclusive_and_nothing_rests_on_it(
    tiny_config: Config, tmp_path: Path
) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "<s>{{ messages[0].content }}\n"
    models = []
    for seed, name in enumerate(("base", "rl")):
        save_model(new_llama(SHAPE, tokenizer, seed), tokenizer, tmp_path / name, torch.float32)
        models.append(ModelConfig(path=str(tmp_path / name), chat_template=True))
    sums = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(2, 14)]
    source = tmp_path / "sums.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in sums))
    cfg = tiny_config
    cfg.pair = PairConfig(name="babble", base=models[0], rl=models[1])
    # Models that babble write single letters, so sentences of theirs are the behaviour.
    cfg.behaviours, cfg.traces.source = ["backtracking"], str(source)
    cfg.traces.cues = {"backtracking": list(string.ascii_letters)}
    own = cfg.contrast
    own.select_problems, own.report_problems, own.samples = 5, 6, 1
    own.pass_problems, own.pass_samples, own.max_new_tokens = 1, 1, 48
    own.corrupted_traces, own.behaviour_tokens, own.bootstrap = 2, 24, 20
    own.onset_places, own.onset_samples, own.completions, own.pilot_samples = 8, 1, 2, 1
    own.execution_value = "always"  # Neither model is ever right, so it would be left out.
    at(cfg, traces, contrast)
    table = read_table(cfg.folder / "contrast" / "contrast.parquet")
    headroom = table[table.measure == "headroom"]
    assert 2 <= headroom["items"].item() <= 6 and headroom.value.item() == 0.0
    anywhere = table[table.measure == "value_over_anywhere/foreign"]
    assert anywhere.value.item() == 0.0
    redone = table[table.measure == "redone_anywhere"].set_index("condition")
    assert {*redone.index} == {"foreign"} and redone.value.between(0, 1).all()
    # Pilots find nothing that rests on it, so nothing is valued on the report split.
    assert not table.measure.str.startswith(("execution_value", "value_over/")).any()
    rows = read_table(cfg.folder / "contrast" / "value.parquet")
    assert {*rows.split} == {"select"} and (rows.value == 0).all()
