"""What a plan says before anything runs, held against what then happens."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sae_reasoning.compose import compose, group_options
from sae_reasoning.config import Config, ConfigError, ModelConfig, PlanConfig
from sae_reasoning.costs.stages import Posed, contrast_steps
from sae_reasoning.costs.texts import counted
from sae_reasoning.costs.work import CARDS, Cost
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.lm.shapes import SHAPES, size_of
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.flow import run
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.jobs.plan import plan
from sae_reasoning.records import REPORT
from sae_reasoning.rollouts.respond import Prefix
from sae_reasoning.steering.edit_plans import num_conditions
from sae_reasoning.texts import number


def planned(cfg: Config) -> tuple[dict[str, Cost], str]:
    out = io.StringIO()
    costs = plan(cfg, tracker=NullTracker(), console=Console(out))
    return {cost.stage: cost for cost in costs}, out.getvalue()


def written(cfg: Config) -> int:
    return sum(path.stat().st_size for path in (cfg.folder / "cache").rglob("*.h5"))


def test_disk_is_told_from_traces_where_they_are_there(tiny_config: Config):
    assert run(["cache"], tiny_config) == ""
    costs, shown = planned(tiny_config)
    assert "counted in traces" in shown
    made = Manifest.read(tiny_config.folder / "cache")
    assert made is not None
    assert costs["cache"].disk == sum(made.counts[reader]["bytes"] for reader in ("base", "rl"))


@pytest.mark.e2e
def test_disk_on_the_shipped_pair_is_within_a_twentieth_of_what_cache_writes(tmp_path: Path):
    """On problems of another seed than those that lengths were measured on."""
    cfg = compose(
        [
            *("tracker=none", "device=cpu", "threads=1", f"runs={tmp_path}"),
            *("traces.seed=1", "traces.num_problems=240"),
        ]
    )
    before, shown = planned(cfg)
    assert "responses as measured" in shown
    assert not any(tmp_path.iterdir())
    assert run(["cache"], cfg) == ""
    assert before["cache"].disk == pytest.approx(written(cfg), rel=0.05)
    after, shown = planned(cfg)
    assert "counted in traces" in shown
    assert after["cache"].disk == pytest.approx(written(cfg), rel=0.005)


def test_flops_of_a_forward_pass_are_those_that_torch_counts(tiny_pair):
    # Of fused attention on a CPU, torch counts nothing.
    lm = load(replace(tiny_pair.base, attention="eager"), "cpu")
    size = size_of(tiny_pair.base, PlanConfig())
    assert size.parameters == sum(p.numel() for p in lm.model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        lm.model(torch.ones(1, 50, dtype=torch.long), use_cache=False)
    # torch counts attention to the whole text, of which a causal model looks back at half.
    both_halves = 50 * size.num_layers * 2 * 50 * size.attention
    ours = 50 * size.read_flops(50, size.num_layers, head=True) + both_halves
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen2.5-0.5B", 0.494),
        ("Qwen/Qwen2.5-1.5B", 1.544),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.777),
        ("Qwen/Qwen2.5-7B", 7.616),
        ("meta-llama/Llama-3.1-8B", 8.030),
        ("allenai/Olmo-3-1025-7B", 7.298),
    ],
)
def test_the_table_of_shapes_has_the_published_parameters(model: str, billions: float):
    size = size_of(ModelConfig(path=model), PlanConfig())
    assert size.parameters / 1e9 == pytest.approx(billions, abs=0.001)


def test_a_mistyped_folder_is_told_to_be_none(tmp_path: Path):
    for path in ("/no/such/folder", str(tmp_path / "mistyped")):
        with pytest.raises(ConfigError, match=f"path={path} is no folder; name a model folder"):
            size_of(ModelConfig(path=path), PlanConfig())


def test_a_model_that_nobody_knows_needs_its_figures():
    model = ModelConfig(path="someone/unheard-of")
    with pytest.raises(ConfigError, match=r"set plan.parameters=.*plan.num_layers"):
        size_of(model, PlanConfig())
    size = size_of(model, PlanConfig(parameters=2e9, d_model=2048, num_layers=20))
    assert size.read_flops(0, 20) == pytest.approx(2 * 2e9)


@pytest.mark.slow
def test_every_pair_of_conf_can_be_planned_without_a_network():
    for choice in group_options()["pair"]:
        if choice == "local":
            continue
        cfg = compose([f"pair={choice}", "fetch.folder=/fetched"])
        for model in cfg.pair.readers.values():
            is_known = Path(model.path).is_dir() or model.path in SHAPES
            # What `make fetch` brings is known once it's there.
            assert is_known or model.path.startswith("/fetched/"), model.path


def test_edited_rollouts_count_as_cut_at_their_longest(tiny_config: Config):
    tiny_config.ablate.num_problems, tiny_config.ablate.max_new_tokens = 5, 70
    costs, _ = planned(tiny_config)
    own, behaviours = tiny_config.ablate, len(tiny_config.behaviours)
    both = {model: num_conditions(own, model, behaviours) for model in ("base", "rl")}
    rollouts = 5 * (both["base"] * own.base_samples + both["rl"] * own.samples)
    assert costs["ablate"].written == 70 * rollouts
    tiny_config.ablate.max_new_tokens = 140
    assert planned(tiny_config)[0]["ablate"].written == 140 * rollouts


def test_a_crosscoder_is_as_wide_as_both_models_and_both_read_an_edited_text(tiny_config: Config):
    one, _ = planned(tiny_config)
    tiny_config.train.readers = "crosscoder"
    joint, _ = planned(tiny_config)
    assert joint["train"].flops == 2 * one["train"].flops
    assert joint["cache"] == one["cache"]
    assert joint["ablate"].flops == pytest.approx(2 * one["ablate"].flops)
    assert "rank" in one and "rank" not in joint


def test_a_layer_that_a_model_does_not_have_is_refused(tiny_config: Config):
    tiny_config.layers = [1, 3]
    with pytest.raises(
        ConfigError, match=r"layers=\[1, 3\] out of range: .*tiny_base has 3 blocks"
    ):
        planned(tiny_config)


def test_an_unknown_card_is_refused(tiny_config: Config):
    tiny_config.plan.cards = ["B52"]
    with pytest.raises(ConfigError, match=r"names B52.*choose of A100"):
        planned(tiny_config)


def own_file(cfg: Config, tmp_path: Path, rows: list[dict[str, str]]) -> Config:
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    cfg.traces.source = str(file)
    return cfg


def test_a_source_that_is_not_there_is_refused(tiny_config: Config):
    tiny_config.traces.source = "problms.jsonl"
    assert run(["plan"], tiny_config).startswith("traces.source=problms.jsonl is no file")


def test_a_file_of_fewer_problems_is_counted(tiny_config: Config, tmp_path: Path):
    rows = [{"question": f"What is {n} + 4?", "answer": str(n + 4)} for n in range(3)]
    cfg = own_file(tiny_config, tmp_path, [*rows, rows[0]])
    cfg.traces.num_problems = 600
    _, shown = planned(cfg)
    assert f"{3 * cfg.traces.base_samples} rollouts" in shown
    assert f"{3 * cfg.traces.rl_samples} rollouts" in shown
    cfg.traces.num_problems = 2
    assert f"{2 * cfg.traces.base_samples} rollouts" in planned(cfg)[1]


def test_traces_brought_along_are_counted_and_nobody_writes_them(
    tiny_config: Config, tmp_path: Path
):
    def row(writer: str, problem: int) -> dict[str, str]:
        return {"problem_id": f"p{problem}", "writer": writer, "prompt": "a b", "text": "c d e"}

    rows = [row("base", n) for n in range(3)] + [row("rl", n) for n in range(2)]
    costs, shown = planned(own_file(tiny_config, tmp_path, rows))
    assert "3 rollouts" in shown and "2 rollouts" in shown and "counted in" in shown
    assert costs["traces"].flops == costs["traces"].read == costs["traces"].written == 0
    assert costs["cache"].read > 0


def test_layers_that_may_not_be_meant_are_told(tmp_path: Path, tiny_config: Config):
    tiny_config.pair.base.path = tiny_config.pair.rl.path = "Qwen/Qwen2.5-0.5B"
    tiny_config.layers = [1, 2]
    assert "set layers=[8,12,16]" in planned(tiny_config)[1].replace("\n", " ")
    tiny_config.layers = [12]
    assert "set layers" not in planned(tiny_config)[1]


def test_a_full_verdict_on_a_pair_of_the_hub_is_planned_without_a_network():
    """Environment variables of the tests keep everything from the hub."""
    cfg = compose(
        [
            *("pair=qwen2.5-7b_orz", "task=text", "behaviours=cognitive"),
            *("traces.source=math500", "traces.num_problems=500", "contrast.max_new_tokens=4096"),
        ]
    )
    costs, _ = planned(cfg)
    stages = ("traces", "cache", "train", "rank", "ablate", "hybrid", "elicit")
    of_contrast = (
        *("rollouts", "onset probability", "mined openings", "execution value"),
        *("steering vectors", "pass@k", "corrupted CoT", "token differences"),
    )
    assert {*costs} == {*stages, *(f"contrast: {step}" for step in of_contrast)}
    assert all(cost.read > 0 and cost.flops > 0 for cost in costs.values())
    # 40 problems, 32 rollouts of each model.
    assert costs["contrast: pass@k"].written == 40 * 32 * (700 + 1500)
    cfg.contrast.completions *= 2
    twice, _ = planned(cfg)
    assert twice["contrast: execution value"].written > costs["contrast: execution value"].written
    cfg.contrast.execution_value = "never"
    never, _ = planned(cfg)
    assert {*costs} - {*never} == {"contrast: execution value", "contrast: steering vectors"}


def test_figures_of_a_full_verdict_on_the_page_are_what_its_command_plans() -> None:
    page = Path("conf/README.md").read_text("utf-8")
    _, *options = page.split('O="')[1].split('"')[0].replace("\\", " ").split()
    small, large = (
        planned(compose([f"pair=qwen2.5-{size}_orz", *options]))[0] for size in ("1.5b", "7b")
    )
    of_contrast = [name for name in small if name.startswith("contrast: ")]
    rare = ("execution value", "steering vectors")
    rows = {name: [name] for name in small if name not in of_contrast or name.endswith(rare)}
    rows["contrast: the other six steps"] = [n for n in of_contrast if not n.endswith(rare)]
    rows["**the verdict**: traces and contrast"] = ["traces", *of_contrast]

    def told(tokens: float) -> str:
        return f"{tokens / 1e6:.1f} M" if tokens else "–"

    for row, names in rows.items():
        both = [[costs[name] for name in names] for costs in (small, large)]
        read, written = (sum(getattr(c, kind) for c in both[0]) for kind in ("read", "written"))
        disk = " (".join(f"{sum(c.disk for c in costs) / 1e9:.0f} GB" for costs in both)
        hours = [
            " (".join(number(sum(c.hours(CARDS[card], 0.3) for c in costs), 2) for costs in both)
            for card in ("A100", "H100")
        ]
        cells = [row, f"{told(read)}, {told(written)}", "" if disk[0] == "0" else f"{disk})"]
        line = " | ".join([*cells, *(f"{hour})" for hour in hours)]).replace("|  |", "| |")
        assert f"| {line} |" in page, line


@pytest.mark.e2e
def test_contrast_reads_and_writes_about_what_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens given within two fifths, at onsets within 6 % where lengths are known.

    Rollouts' lengths are those of one trace a problem, and are off by half at most. Sentences and
    their completions are never more: sentences are planned as long as contrast.behaviour_tokens,
    and are a tenth to a half of that.
    """
    cfg = compose(
        [
            *("pair=organism_created_llama", "task=text", "tracker=none", "device=cpu"),
            *("threads=1", f"runs={tmp_path}", "traces.num_problems=24", "traces.rl_samples=1"),
            *("traces.base_samples=1", "contrast.behaviours=[backtracking]"),
            *("contrast.samples=1", "contrast.value_starts=6", "contrast.value_select_starts=3"),
            *("contrast.completions=2", "contrast.pilot_samples=2", "contrast.value_openings=2"),
            *("contrast.controls=1", "contrast.doses=[1.0]", "contrast.vectors=[gradient]"),
            *("contrast.onset_places=40", "contrast.onset_samples=4", "contrast.bootstrap=20"),
            *("contrast.pass_problems=5", "contrast.pass_samples=8"),
        ]
    )
    assert run(["traces"], cfg) == ""
    costs, _ = planned(cfg)
    given: Counter[str] = Counter()
    written: Counter[str] = Counter()
    respond = Setting.respond

    def count(self: Setting, model: str, prefixes: Sequence[Prefix], stream: str, *rest, **more):
        made = respond(self, model, prefixes, stream, *rest, **more)
        # Sentences under vectors are completed in the stream of the values.
        step = "value" if stream == "steered" else stream.partition("/")[0]
        # What repeats is read once.
        given[step] += sum(map(len, {(*p.prompt_ids, *p.begun_ids) for p in prefixes}))
        written[step] += sum(len(one.token_ids) for one in made)
        return made

    monkeypatch.setattr(Setting, "respond", count)
    assert run(["contrast"], cfg) == ""
    steps = {
        "rollouts": ("rollouts",),
        "onsets": ("onset probability",),
        "value": ("execution value", "steering vectors"),
        "samples": ("pass@k",),
        "corrupted": ("corrupted CoT",),
    }
    assert {*given} == {*steps}
    for stream, names in steps.items():
        own = [costs[f"contrast: {name}"] for name in names]
        assert given[stream] == pytest.approx(sum(cost.read for cost in own), rel=0.4), stream
        least, most = (2 / 3, 3 / 2) if stream in ("rollouts", "samples") else (0.1, 1.0)
        assert least < written[stream] / sum(cost.written for cost in own) <= most, stream
    # Knowing how long rollouts became, as after a first run.
    rollouts = read_traces(cfg.folder / "contrast" / "rollouts.parquet")
    lengths = [
        (t.writer, t.problem_id, t.num_prompt_tokens, len(t.token_ids) - t.num_prompt_tokens)
        for t in rollouts
        if t.split == REPORT
    ]
    posed = Posed.of(cfg, counted(lengths, "counted in rollouts", is_written=True))
    onsets = contrast_steps(cfg, posed)["onset probability"]
    assert given["onsets"] == pytest.approx(sum(work.read for work in onsets), rel=0.06)
