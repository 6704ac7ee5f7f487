"""Many jobs of one command line: all checked before one runs, each alone, each accounted for."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from projects import Project

from sae_reasoning import config as config_module
from sae_reasoning.compose import compose, expand
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.flow import inputs_of
from sae_reasoning.multirun import multirun, plan, refuse_clashes, refuse_unmade_inputs

ROOT = Path(__file__).parents[1]
FAMILIES = ["pair=organism_created_llama", "pair=organism_created_neox"]


@pytest.mark.parametrize(
    ("override", "spelt"),
    [
        ("train.seed=1,2", ["train.seed=1", "train.seed=2"]),
        ("train.seed=range(1,4)", ["train.seed=1", "train.seed=2", "train.seed=3"]),
        ("train.lr=choice(0.1,0.2)", ["train.lr=0.1", "train.lr=0.2"]),
        ("layers=[1],[1,2]", ["layers=[1]", "layers=[1,2]"]),
        ("pair=glob(organism_created_*)", FAMILIES),
        ("pair=glob(organism_created*,exclude=*llama)", FAMILIES[1:]),
        (
            "train.sae=glob(*topk)",
            [f"train.sae={n}topk" for n in ("batch", "matryoshka_batch", "")],
        ),
        ("sae=topk,jumprelu", ["train.sae=topk", "train.sae=jumprelu"]),
        ("experiment=glob(t*)", ["experiment=tiny"]),
        ("behaviours=[backtracking],search_moves", None),
        ("train.seed=3", ["train.seed=3"]),
    ],
)
def test_values_are_spelt_out_as_hydra_does(override: str, spelt: list[str] | None):
    spelt = spelt or ["behaviours=[backtracking]", "behaviours=search_moves"]
    assert expand([override]) == [[line] for line in spelt]


def test_jobs_are_all_combinations_and_the_last_option_changes_first():
    jobs = plan(["train.seed=1,2", "experiment=tiny", "train.sae.k=3,4"])
    assert [(j.config.train.seed, j.config.train.sae.k) for j in jobs] == [
        (1, 3), (1, 4), (2, 3), (2, 4),
    ]  # fmt: skip
    assert jobs[0].label == "train.seed=1 train.sae.k=3"
    assert {job.config.train.sae.d_sae for job in jobs} == {64}


def test_a_job_is_configured_as_a_command_of_its_own():
    shared = ["experiment=tiny", "behaviours=[backtracking]"]
    jobs = plan([*shared, "pair=glob(organism_created_*)"])
    assert [job.config for job in jobs] == [compose([*shared, pair]) for pair in FAMILIES]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train.sae.k=8,999"], "lower k (in the job train.sae.k=999)"),
        (["train.seed=1,x"], "train.seed"),
        (["train.sed=1,2"], "did you mean train.seed?"),
        (["pair=hub,nowhere"], "choose one of gemma3_270m, hub"),
        (["pair=glob(nothing*)"], "matches nothing; for pair there is gemma3_270m, hub"),
        (["layers=glob(*)"], "layers=glob(*) matches nothing"),
        (["train.lr=interval(0,1)"], "list them, as train.lr=a,b"),
        (["train.sae.k=8,16"], "'experiment=k${train.sae.k}'"),
        (["layers=[1],[2]"], "'experiment=layers${layers}'"),
        (["train.seed=1,2", "threads=1,2"], "'experiment=seed${train.seed}_threads${threads}'"),
        (["experiment=tiny", "layers=[0],[1]"], "'pair.name=organism_deployed_llama_layers${"),
        (["pair.base.path=/a,/b"], "sweep experiment= or pair= instead"),
        (
            ["layers=[1],[9]", "experiment=on${layers}"],
            "choose layers below 4 (in the job layers=[9",
        ),
        (["hydra/launcher=dask"], "isn't installed; choose one of basic"),
        (["hydra/launcher=basic,joblib"], "all jobs have one launcher"),
        (["hydra.launcher.n_jobs=2"], "leave it out"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=two"], "hydra.launcher.n_jobs"),
        (["hydra.sweep.dir=elsewhere"], "set hydra/launcher="),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line_before_any_job_runs(
    tmp_path: Path, monkeypatch, arguments: list[str], says: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        multirun(["train"], arguments)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_without_a_sweep_is_refused():
    with pytest.raises(ConfigError, match="add -m, or leave it out"):
        compose(["hydra/launcher=joblib"])


def test_nothing_heavy_is_imported_before_all_jobs_are_checked():
    program = (
        "import sys; from sae_reasoning.__main__ import main\n"
        "try: main(['train', '--multirun', 'train.sae.k=8,999', 'hydra/launcher=joblib'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr.startswith("error: train.sae.k=999 exceeds train.sae.d_sae=512; lower k (in")
    assert done.stdout == "2 False\n"


@pytest.mark.parametrize(
    ("stage", "sweep"),
    [
        ("cache", ["traces.seed=1,2"]),  # which are made first
        ("train", ["layers=[1],[2]", "train.sae=topk,jumprelu"]),
        ("rank", ["experiment=tiny", "rank.seed=1,2", "layers=[0],[0,1]"]),
        ("traces", ["pair=hub", "pair.rl.revision=a,b"]),
        ("organisms", ["organism.d_model=64,128", "organism.seeds=[0],[1]"]),
        ("calibrate", ["report.able=0.4,0.5"]),
        ("calibrate", ["calibrate.seeds=[1],[2]"]),
    ],
)
def test_the_remedy_for_a_clash_mends_it(stage: str, sweep: list[str]):
    stages = ["traces", "cache"] if stage == "cache" else [stage]
    with pytest.raises(ConfigError, match="would both write") as refusal:
        refuse_clashes(stages, plan(sweep))
    remedy = re.findall(r"'([^']+)'", str(refusal.value))
    assert remedy
    # Nothing is made yet in a place of one's own, so stages before it must be named.
    also = re.findall(r"name ([a-z ]+) too, before", str(refusal.value))
    mended = [*" ".join(also).split(), *stages]
    jobs = plan([*sweep, *remedy])
    assert set(inputs_of(stage, jobs[0].config)) <= set(mended)
    refuse_clashes(mended, jobs)
    refuse_unmade_inputs(mended, jobs)


@pytest.mark.parametrize(
    ("stage", "sweep"),
    [
        ("traces", ["train.seed=1,2"]),  # both make the same; the second one finds it made
        ("report", ["pair=glob(organism_*)"]),
        ("ablate", ["ablate.split=report,select"]),
        ("organisms", ["organism=llama,neox", "organism.seeds=[0],[1]"]),
        ("organisms", ["organism.only=[search_rl_llama],[search_sft_llama]"]),
    ],
)
def test_jobs_that_write_apart_or_alike_may_run_together(stage: str, sweep: list[str]):
    jobs = plan(sweep)
    assert len(jobs) > 1
    refuse_clashes([stage], jobs)  # Raises where they clash.


@pytest.mark.parametrize(
    ("stage", "sweep", "says"),
    [
        ("ablate", ["train.seed=1,2"], "reads train, .* name traces cache train rank too"),
        ("rank", ["train.seed=1,2", "train.sae.k=4,8"], "reads train, .* traces cache train too"),
        ("contrast", ["traces.seed=1,2"], "reads traces, .* name traces too, before contrast"),
        ("report", ["contrast.seed=1,2"], "reads contrast, .* name traces contrast too"),
        ("contrast", ["contrast.vectors=[onset-predictors]", "train.seed=1,2"], "reads train, "),
    ],
)
def test_jobs_that_want_inputs_which_none_of_them_makes_are_refused(
    stage: str, sweep: list[str], says: str
):
    jobs = plan(sweep)
    refuse_clashes([stage], jobs)  # They'd write alike; it's what they read that differs.
    with pytest.raises(ConfigError, match=f"{stage} {says}.*'experiment=") as refusal:
        refuse_unmade_inputs([stage], jobs)
    names = re.findall(r"name ([a-z ]+) too", str(refusal.value))[0].split()
    remedy = re.findall(r"'([^']+)'", str(refusal.value))
    mended = plan([*sweep, *remedy])
    refuse_unmade_inputs([*names, stage], mended)
    refuse_clashes([*names, stage], mended)


@pytest.mark.parametrize(
    ("stages", "sweep"),
    [
        (["rank"], ["train.seed=1,2", "experiment=seed${train.seed}"]),  # made before, it may be
        (["ablate"], ["pair=glob(organism_*)"]),
        (["ablate"], ["contrast.seed=1,2"]),  # which it doesn't read
        (["ablate"], ["train.readers=crosscoder", "rank.seed=1,2"]),
        (["contrast"], ["train.seed=1,2"]),
    ],
)
def test_jobs_whose_inputs_can_be_there_may_run(stages: list[str], sweep: list[str]):
    jobs = plan(sweep)
    complaint = ""
    try:
        refuse_unmade_inputs(stages, jobs)
    except ConfigError as error:
        complaint = str(error)
    assert complaint == ""
    assert len(jobs) > 1


def test_jobs_that_make_parts_of_a_stage_share_its_folder(monkeypatch):
    jobs = plan(["rank.only=base/1,base/2,rl/1,rl/2"])
    assert len(jobs) == 4
    assert all(job.config.is_partial("rank") for job in jobs)
    assert not any(job.config.is_partial("ablate") for job in jobs)
    whole = Config(behaviours=["backtracking"]).settings("rank")
    assert set(jobs[0].config.settings("rank")["rank"]) == set(whole["rank"])
    assert "only" not in whole["rank"]
    refuse_clashes(["rank"], jobs)
    monkeypatch.setattr(config_module, "PARTIAL", frozenset())
    with pytest.raises(ConfigError, match="would both write"):
        refuse_clashes(["rank"], plan(["rank.only=base/1,base/2"]))


def table_of(output: str) -> list[list[str]]:
    """Rows of the last table: number, options and ending of each job."""
    lines = output.split("  jobs\n")[1].splitlines()[2:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"\s+\d+  ", line)]
    return [row[:3] for row in rows]


def without(options: Sequence[str], *names: str) -> tuple[str, ...]:
    return tuple(option for option in options if option.split("=")[0] not in names)


def test_jobs_run_in_turn_and_keep_their_results_where_a_single_run_would(
    made_project: Project, tmp_path: Path
):
    project = made_project.copy(tmp_path, "traces", "cache")
    outcome = project.run("traces", "cache", "-m", "train.seed=0,1")
    assert outcome.code == 0, outcome.output
    assert outcome.output.count("is up to date") == 4
    assert table_of(outcome.output) == [["1", "train.seed=0", "ok"], ["2", "train.seed=1", "ok"]]
    assert {path.name for path in project.results.iterdir()} == {"traces", "cache"}
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "output.txt"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"tiny"}


@pytest.mark.e2e
def test_jobs_at_the_same_time_by_joblib_do_not_share_each_others_fate(
    made_project: Project, tmp_path: Path
):
    """One job asks for a behaviour that nobody marks, one is killed, and one goes well."""
    options = without(made_project.options, "pair.name", "tracker")
    options += ("tracker.mode=offline", "pair.name=talking_${behaviours.0}")
    options += ("behaviours=[flying],[verification],[backtracking]",)
    command = [sys.executable, "-m", "sae_reasoning", "cache", "-m", *options]
    process = subprocess.Popen(
        [*command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    results = tmp_path / "runs" / "tiny"
    kill_maker(results / "talking_verification" / "traces", process)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 2, output
    assert output.splitlines()[-1].startswith("error: not all jobs went well")
    assert table_of(output) == [
        ["1", "behaviours=[flying]", "failed"],
        ["2", "behaviours=[verification]", "failed"],
        ["3", "behaviours=[backtracking]", "ok"],
    ]
    assert re.search(r"job 1 failed: .*names flying.* \(see runs/\.sweeps/.*/1\.log\)", output)
    assert "job 2 failed: killed" in output
    manifest = Manifest.read(results / "talking_backtracking" / "traces")
    assert manifest is not None
    assert manifest.config["behaviours"] == ["backtracking"]
    assert len(list((results / "talking_backtracking").glob("wandb/offline-run-*"))) == 2
    (logs,) = (tmp_path / "runs" / ".sweeps").iterdir()
    assert {path.name for path in logs.iterdir()} == {"1.log", "2.log", "3.log"}
    assert "wrote runs/tiny/talking_backtracking/cache" in (logs / "3.log").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    assert not list(tmp_path.rglob(".hydra"))


def kill_maker(stage: Path, command: subprocess.Popen[str]) -> None:
    """Kill the process that makes a stage, as soon as there is one."""
    lock = stage.with_name(f".{stage.name}.lock")
    while command.poll() is None:
        found = re.search(r'"pid": (\d+)', lock.read_text()) if lock.exists() else None
        if found:
            os.kill(int(found[1]), signal.SIGKILL)
            return
        time.sleep(0.005)
    raise AssertionError(f"nobody has made {stage}: {command.stdout and command.stdout.read()}")
