"""Bad input is one line that names option, value and remedy, and harms nothing already made."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import Project
from safetensors.torch import load_file, save_file
from sealed import seal

from sae_reasoning.compose import compose
from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.flow import STAGES, inputs_of, options_of_run, unmade_inputs
from sae_reasoning.help import stage_help

ROOT = Path(__file__).parents[1]


def python_m(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command in a fresh interpreter."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sae_reasoning", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def snapshot(folder: Path, stage: str = "*") -> dict[Path, bytes]:
    """Everything that has been made of a stage, or of all."""
    return {p: p.read_bytes() for p in folder.glob(f"runs/*/*/{stage}/**/*") if p.is_file()}


@pytest.fixture
def untouched(tmp_path: Path):
    """Checks that the refused command left every finished stage as it was."""
    before: dict[Path, bytes] = {}

    def remember(project: Project) -> Project:
        before.update(snapshot(project.folder))
        return project

    yield remember
    after = snapshot(tmp_path)
    assert {path: after.get(path) for path in before} == before


def test_help_comes_at_once_and_names_every_stage():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python_m("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0
    for stage in ("traces", "cache", "train", "rank", "ablate", "organism", "bench"):
        assert f"  {stage}" in done.stdout
    assert "train.sae" in done.stdout
    assert "report -m 'pair=glob(organism_*)'" in done.stdout
    # CPU time, about 0.2; with PyTorch imported it would be more than 1.5.
    assert seconds < 1


def test_help_of_a_stage_tells_what_its_options_mean_and_what_they_would_be():
    done = python_m("ablate", "train", "--help", "ablate.singles=3", "train.sae.k=8")
    assert done.returncode == 0
    assert "ablate: edit the shortlist in both models" in done.stdout
    assert re.search(r"  ablate\.singles=3 +This many of a behaviour's best latents", done.stdout)
    assert re.search(r"  ablate\.temperature=1 +Of sampling\n", done.stdout)  # inherited
    assert re.search(r"  train\.sae\.k=8 +Latents active a token", done.stdout)
    assert "contrast." not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert python_m("train", "--help", "train.sae.k=999").stderr.count("lower k") == 1


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_of_every_stage_is_explained(stage: str):
    shown = stage_help([stage])
    for line in shown.splitlines():
        if re.match(r"  [a-z_]+\.", line):
            meaning = line[44:] or shown.split(f"{line}\n")[1][:44]
            assert meaning.strip(), line


def test_errors_in_the_config_come_before_anything_heavy():
    program = (
        "import sys; from sae_reasoning.__main__ import main\n"
        "try: main(['train', 'train.sae.k=999'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr == "error: train.sae.k=999 exceeds train.sae.d_sae=512; lower k\n"
    assert done.stdout == "2 False\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "train.sae.q=3"], "no option"),
        (["train", "train.sae.k=99"], "lower k"),
        (["cache", "experiment=../../elsewhere"], "leaves runs=runs"),
        (["fly"], "fly is no stage; choose of plan, traces, export, cache"),
        (["trian"], "trian is no stage; did you mean train?"),
        (["organism"], "did you mean organisms?"),
        (["layers=[1]"], "no stage is named"),
    ],
)
def test_a_bad_command_line_is_refused(
    made_project: Project, tmp_path: Path, arguments: list[str], says: str
):
    project = Project(tmp_path, () if "stage" in says else made_project.options)
    assert says in Project(tmp_path, ()).run(*project.options, *arguments).error
    assert not (tmp_path / "runs").exists()


def test_a_layer_that_the_model_does_not_have(made_project: Project, tmp_path, untouched):
    project = untouched(made_project.copy(tmp_path, "traces", "cache"))
    assert "layers=" in project.run("cache", "layers=[0,7]").error


def test_a_layer_that_is_not_there_is_refused_before_any_stage_runs(
    made_project: Project, tmp_path
):
    error = Project(tmp_path, made_project.options).run("traces", "cache", "layers=[0,7]").error
    assert re.search(r"layers=\[0, 7\] out of range: pair.base.path=.* has 3 blocks, 0..2", error)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("gms8k", "did you mean gsm8k? Or name JSON"),
        ("gym", "did you mean gym:<task>?"),
        ("mine.jsonl", "mine.jsonl is no file; name JSON"),
        ("gsm8k:/no/such/folder", "/no/such/folder is no folder"),
    ],
)
def test_a_misspelt_source_of_traces_waits_for_nothing(source: str, says: str):
    program = (
        "import sys; from sae_reasoning.__main__ import main\n"
        f"try: main(['traces', 'pair=hub', 'traces.source={source}'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert says in done.stderr
    assert done.stdout == "2 False\n"


def test_every_stage_reads_what_it_is_said_to_need(made_project: Project):
    config = compose(list(made_project.options))
    for stage in ("cache", "train", "rank", "ablate", "contrast", "report"):
        manifest = Manifest.read(made_project.results / stage)
        assert manifest is not None
        read = set(STAGES) & set(manifest.inputs)
        optional = {"rank", "ablate", "train", "cache"} if stage == "report" else set()
        needed = set(inputs_of(stage, config))
        assert read - optional <= needed
        assert all(name in read or name in needs_of(needed, config) for name in needed)


def needs_of(stages: set[str], config: Config) -> set[str]:
    return {name for stage in stages for name in inputs_of(stage, config)}


def test_a_missing_model_folder(made_project: Project, tmp_path, untouched):
    project = untouched(made_project.copy(tmp_path, "traces"))
    error = replaced(project, "pair.base.path", "/nowhere/at/all").run("cache").error
    assert "/nowhere/at/all" in error


def replaced(project: Project, option: str, value: object) -> Project:
    """The project with another value of one option."""
    kept = tuple(o for o in project.options if not o.startswith(f"{option}="))
    return Project(project.folder, (*kept, f"{option}={value}"))


def copy_of_model(made_project: Project, which: str, folder: Path) -> Path:
    (option,) = [o for o in made_project.options if o.startswith(f"pair.{which}.path=")]
    return Path(shutil.copytree(option.split("=", 1)[1], folder / f"another_{which}"))


def test_a_tokenizer_without_offsets(made_project: Project, tmp_path, untouched):
    model = copy_of_model(made_project, "base", tmp_path)
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    project = untouched(made_project.copy(tmp_path, "traces"))
    error = replaced(project, "pair.base.path", model).run("traces").error
    assert str(model) in error
    assert "offsets" in error


def test_weights_cut_short(made_project: Project, tmp_path, untouched):
    model = copy_of_model(made_project, "base", tmp_path)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    project = untouched(made_project.copy(tmp_path, "traces"))
    assert str(model) in replaced(project, "pair.base.path", model).run("traces").error


def imported(**changes: object) -> list[dict[str, object]]:
    """Four good traces, the last with changes."""
    span = {"behaviour": "backtracking", "char_start": 0, "char_end": 4}
    rows: list[dict[str, object]] = [
        {
            "problem_id": f"p{number}",
            "writer": writer,
            "prompt": "okay",
            "text": "wait . so",
            "spans": [span],
        }
        for number in range(2)
        for writer in ("base", "rl")
    ]
    rows[-1] |= changes
    return rows


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "empty"),
        (
            imported(spans=[{"behaviour": "backtracking", "char_start": 3, "char_end": 99}]),
            "outside its text",
        ),
        (imported(writer="nobody"), "writer"),
        (imported(text=None), "line 4"),
    ],
)
def test_traces_that_are_empty_or_malformed(
    made_project: Project, tmp_path, untouched, rows: list[dict[str, object]], says: str
):
    source = tmp_path / "annotated.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project = untouched(made_project.copy(tmp_path, "traces"))
    error = project.run("traces", f"traces.source={source}").error
    assert f"traces.source={source}" in error
    assert says in error


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("ablate", "traces cache train rank"),
        ("report", "traces contrast"),
        ("contrast", "traces"),
    ],
)
def test_all_stages_that_are_missing_on_the_way_are_named(
    made_project: Project, tmp_path, stage: str, missing: str
):
    error = Project(tmp_path, made_project.options).run(stage).error
    assert f"run `make {missing}` first, with the same options" in error
    assert not (tmp_path / "runs").exists()


def test_what_comes_next_is_told_the_options_of_the_run_and_no_part_of_a_stage():
    given = ["experiment=k${train.sae.k}", "rank.only=base/1", "train.sae.k=8", "cache.shard=0"]
    found = options_of_run(given, compose([*given, "cache.num_shards=2"]))
    assert found == ["experiment=k8", "train.sae.k=8"]


def test_what_only_made_stages_have_read_need_not_be_there(made_project: Project, tmp_path):
    project = made_project.copy(tmp_path, "traces", "train", "rank")
    config = compose([*project.options, f"runs={tmp_path / 'runs'}"])
    assert unmade_inputs("hybrid", config) == []
    assert unmade_inputs("ablate", config) == ["cache"]


def test_refused_traces_leave_no_empty_folders(made_project: Project, tmp_path):
    source = tmp_path / "annotated.jsonl"
    span = {"behaviour": "backtracking", "char_start": 3, "char_end": 99}
    source.write_text("".join(json.dumps(row) + "\n" for row in imported(spans=[span])))
    project = Project(tmp_path, made_project.options)
    assert "outside its text" in project.run("traces", f"traces.source={source}").error
    assert "backtraking" in project.run("traces", "behaviours=[backtraking]").error
    assert not (tmp_path / "runs").exists()


def test_traces_that_do_not_exist(made_project: Project, tmp_path):
    project = Project(tmp_path, made_project.options)
    assert "traces.source=none.jsonl" in project.run("traces", "traces.source=none.jsonl").error


def test_a_shard_cut_short(made_project: Project, tmp_path):
    project = made_project.copy(tmp_path, "traces", "cache")
    shard = project.results / "cache" / "base" / "layer_0" / "shard_00001.h5"
    shard.write_bytes(shard.read_bytes()[:3000])
    assert str(shard.relative_to(tmp_path)) in project.run("train").error


def test_a_shard_of_another_model(made_project: Project, tmp_path):
    project = made_project.copy(tmp_path, "traces", "cache")
    shard = project.results / "cache" / "base" / "layer_0" / "shard_00001.h5"
    shutil.copy(project.results / "cache" / "rl" / "layer_0" / "shard_00001.h5", shard)
    error = project.run("train").error
    assert "shard_00001.h5 has been changed" in error and "make cache" in error
    seal(project.results / "cache")
    error = project.run("train").error
    assert "shard_00001.h5" in error and "model" in error


def test_a_cache_that_was_harmed_is_made_again_by_cache(made_project: Project, tmp_path):
    project = made_project.copy(tmp_path, "traces", "cache")
    shard = project.results / "cache" / "base" / "layer_0" / "shard_00001.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:3000])
    assert project.run("cache").code == 0
    assert shard.stat().st_size == len(whole)


def test_a_model_that_predicts_nan(made_project: Project, tmp_path):
    model = copy_of_model(made_project, "base", tmp_path)
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    project = made_project.copy(tmp_path, "traces", "cache")
    cache = snapshot(tmp_path, "cache")
    error = replaced(project, "pair.base.path", model).run("cache").error
    assert "another_base predicts NaN" in error
    assert "mend its weights" in error
    assert snapshot(tmp_path, "cache") == cache


def test_a_shortlist_of_another_dictionary(made_project: Project, tmp_path):
    project = made_project.copy(tmp_path, "traces", "cache", "train", "rank")
    assert project.run("train", "train.seed=7").code == 0
    error = project.run("ablate", "train.seed=7").error
    assert "rank was made from another train" in error
    assert "make rank" in error


def test_a_full_disk_costs_nothing_that_was_made(made_project: Project, tmp_path, untouched):
    project = untouched(made_project.copy(tmp_path, "traces", "cache"))
    assert project.run("cache", "cache.dtype=float32", max_file_bytes=20_000).error
    assert project.run("cache").output.count("up to date") == 2


def test_a_place_where_nothing_can_be_written(made_project: Project, tmp_path):
    (tmp_path / "file").write_text("no folder")
    project = Project(tmp_path, made_project.options)
    assert "runs=file/runs" in project.run("traces", "runs=file/runs").error


def test_an_interrupted_command_says_so(made_project: Project, monkeypatch, capsys):
    from sae_reasoning import __main__ as command

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_run", interrupted)
    assert command.main(["traces"]) == 130
    assert "goes on from here" in capsys.readouterr().err
