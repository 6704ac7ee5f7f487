"""The stages end to end, on models that babble: what is written, when it's rewritten, and kills."""

import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from projects import STAGES, Project

from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.tables import read_table, read_traces

COLUMNS = {
    "traces/traces.parquet": """trace_id problem_id split writer model prompt text token_ids
        num_prompt_tokens correct truncated spans opportunities""",
    "rank/scores.parquet": """dictionary layer latent behaviour reader writer n_pos n_neg span_auroc
        span_auroc_low span_auroc_high token_auroc onset_auroc point_biserial mutual_information
        reason_score rate_in rate_out p q""",
    "ablate/generations.parquet": "",
    "ablate/effects.parquet": """model layer latents edit dose condition behaviour outcome n value
        difference low high q""",
}

INPUTS = {stage: STAGES[:number] for number, stage in enumerate(STAGES)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a finished stage but what tells time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def assert_same(left: Path, right: Path) -> None:
    """Two finished stages hold the same files; tables and shards the same values."""
    ours, theirs = contents(left), contents(right)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name.endswith(".parquet"):
            pd.testing.assert_frame_equal(read_table(left / name), read_table(right / name))
        elif name.endswith(".h5"):
            with h5py.File(left / name) as a, h5py.File(right / name) as b:
                for dataset in ("activations", "token_id", "trace_index", "position"):
                    np.testing.assert_array_equal(a[dataset], b[dataset])
        else:
            assert ours[name] == theirs[name], name


def leftovers(project: Project) -> set[str]:
    return {p.name for p in project.results.iterdir()} - set(STAGES)


def test_every_stage_writes_what_it_promises(made_project: Project):
    assert {path.name for path in made_project.results.iterdir()} == set(STAGES)
    for name, columns in COLUMNS.items():
        assert set(columns.split()) <= set(read_table(made_project.results / name).columns), name
    for reader in ("base", "rl"):
        for layer in (0, 1):
            assert list(made_project.results.glob(f"cache/{reader}/layer_{layer}/shard_00000.h5"))
    for layer in (0, 1):
        files = {p.name for p in (made_project.results / f"train/pooled/layer_{layer}").iterdir()}
        assert {"cfg.json", "sae_weights.safetensors", "quality.json"} <= files
    assert (made_project.results / "rank/shortlist.json").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_every_manifest_says_what_made_the_stage(made_project: Project, stage: str):
    manifest = Manifest.read(made_project.results / stage)
    assert manifest is not None
    assert manifest.packages["torch"]
    assert manifest.inputs
    assert manifest.counts
    assert manifest.seconds > 0
    for name in INPUTS[stage]:
        if name in manifest.inputs:
            made = Manifest.read(made_project.results / name)
            assert made is not None
            assert manifest.inputs[name] == made.fingerprint


def test_select_and_report_share_no_problem(made_project: Project):
    traces = read_traces(made_project.results / "traces" / "traces.parquet")
    splits = {
        split: {t.problem_id for t in traces if t.split == split} for split in ("select", "report")
    }
    assert all(splits.values())
    assert not splits["select"] & splits["report"]


def test_a_stage_ends_with_findings_and_the_next_command(made_project: Project):
    output = (made_project.folder / "output.txt").read_text()
    for stage, following in pairwise(STAGES):
        part = output.split(f"== {stage}")[1].split("== ")[0]
        assert f"wrote runs/tiny/talking/{stage}" in part
        assert f"next: make {following}" in part


def test_run_twice_every_stage_is_up_to_date_and_touches_nothing(
    made_project: Project, tmp_path: Path
):
    project = made_project.copy(tmp_path, *STAGES)
    before = {p: p.stat().st_mtime_ns for p in project.results.rglob("*")}
    outcome = project.run(*STAGES)
    assert outcome.code == 0, outcome.output
    assert outcome.output.count("is up to date") == len(STAGES)
    assert {p: p.stat().st_mtime_ns for p in project.results.rglob("*")} == before


def test_what_is_up_to_date_says_so_before_anything_heavy_is_imported(made_project: Project):
    program = (
        "import sys; from sae_reasoning.__main__ import main; code = main(sys.argv[1:])\n"
        "print(code, {'torch', 'transformers', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *STAGES, *made_project.options],
        capture_output=True,
        text=True,
        cwd=made_project.folder,
        check=True,
    )
    assert done.stdout.count("is up to date") == len(STAGES)
    assert done.stdout.endswith("0 set()\n")


@pytest.mark.parametrize(
    "stages",
    [
        ("traces", "cache", "train", "contrast"),
        pytest.param(STAGES, marks=pytest.mark.e2e, id="all"),
    ],
)
def test_a_changed_value_reruns_the_stage_and_what_stands_on_it(
    made_project: Project, tmp_path: Path, stages: tuple[str, ...]
):
    project = made_project.copy(tmp_path, *stages)
    outcome = project.run(*stages, "train.seed=7")
    assert outcome.code == 0, outcome.output
    current = {s for s in stages if f"{project_relative(s)} is up to date" in outcome.output}
    assert current == {"traces", "cache", "contrast"}  # the last reads no latent
    weights = "pooled/layer_0/sae_weights.safetensors"
    assert (
        contents(project.results / "train")[weights]
        != (contents(made_project.results / "train")[weights])
    )
    assert not leftovers(project)


def project_relative(stage: str) -> str:
    return f"runs/tiny/talking/{stage}"


def test_cache_makes_missing_traces_first(made_project: Project, tmp_path: Path):
    project = Project(tmp_path, made_project.options)
    outcome = project.run("cache")
    assert outcome.code == 0, outcome.output
    assert_same(project.results / "traces", made_project.results / "traces")
    assert_same(project.results / "cache", made_project.results / "cache")


def test_cache_remakes_traces_when_the_command_line_changes_them(
    made_project: Project, tmp_path: Path
):
    project = made_project.copy(tmp_path, "traces")
    outcome = project.run("cache", "traces.seed=3")
    assert outcome.code == 0, outcome.output
    manifest = Manifest.read(project.results / "traces")
    old = Manifest.read(made_project.results / "traces")
    assert manifest is not None
    assert old is not None
    assert manifest.fingerprint != old.fingerprint


@pytest.mark.parametrize(("stage", "needed"), [("train", "cache"), ("rank", "train")])
def test_a_stage_names_the_missing_input(
    made_project: Project, tmp_path: Path, stage: str, needed: str
):
    project = made_project.copy(tmp_path, *INPUTS[needed])
    assert f"make {needed}" in project.run(stage).error


_killed = partial(pytest.param, marks=pytest.mark.e2e)


@pytest.mark.parametrize(
    ("stage", "publish"),
    [
        ("train", 3),
        *(_killed("traces", 2), _killed("cache", 9), _killed("train", 7)),
        *(_killed("rank", 4), _killed("ablate", 3)),
    ],
)
def test_a_killed_stage_resumes_to_the_same_result(
    made_project: Project, tmp_path: Path, stage: str, publish: int
):
    project = made_project.copy(tmp_path, *INPUTS[stage])
    killed = project.run(stage, die_at=publish)
    assert killed.code == -9, killed.output
    assert not (project.results / stage).exists()
    resumed = project.run(stage)
    assert resumed.code == 0, resumed.output
    assert_same(project.results / stage, made_project.results / stage)
    assert not leftovers(project)


def test_a_killed_rerun_leaves_the_old_result_whole(made_project: Project, tmp_path: Path):
    project = made_project.copy(tmp_path, "traces", "cache", "train")
    killed = project.run("train", "train.seed=7", die_at=3)
    assert killed.code == -9, killed.output
    assert_same(project.results / "train", made_project.results / "train")
    assert "is up to date" in project.run("train").output
