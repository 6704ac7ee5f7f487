"""Contrast, report and calibrate, on two stages of a short training that babble."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from projects import Project

from sae_reasoning.compose import compose
from sae_reasoning.config import ConfigError, PairConfig
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs import contrast as job
from sae_reasoning.report.verdict import VERDICTS
from sae_reasoning.steering.vectors import ONSET_PREDICTORS
from sae_reasoning.tasks.search import grammar


@pytest.fixture
def project(made_project: Project, tmp_path: Path) -> Project:
    return made_project.copy(tmp_path, "traces", "train", "rank")


def run(project: Project, *options: str) -> str:
    out = io.StringIO()
    cfg = compose([*project.options, f"runs={project.folder}/runs", *options])
    job.contrast(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    return out.getvalue()


def killed_at(step: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until a step of the contrast begins, by the name of its function."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, step, killed)
        with pytest.raises(KeyboardInterrupt):
            run(project)


def test_every_measure_carries_n_and_an_interval(made_project: Project) -> None:
    table = read_table(made_project.results / "contrast" / "contrast.parquet")
    assert {
        "enter_thinking",
        "onset_probability/per_trace",
        "onset_probability/per_opportunity",
        "pass@k",
        "weights/changed_share",
    } <= set(table.measure)
    estimated = table[~table.measure.str.startswith("weights")]
    assert (estimated.n > 0).all()
    known = estimated.dropna(subset=["value", "low", "high"])
    assert len(known) > 0.7 * len(estimated)
    assert (known.low <= known.high).all()
    assert set(table.behaviour) - {""} <= set(grammar.BEHAVIOURS)


def test_onset_probabilities_are_probabilities_and_the_trained_model_enters_thinking(
    made_project: Project,
) -> None:
    table = read_table(made_project.results / "contrast" / "contrast.parquet")
    mass = table[
        table.measure.isin(["enter_thinking", "onset_probability/per_opportunity"])
        & table.model.isin(["base", "rl"])
    ].value.dropna()
    assert ((mass >= 0) & (mass <= 1)).all()
    entry = table[(table.measure == "enter_thinking") & (table.model == "rl")].value.item()
    assert entry > 0.5  # It was trained on nothing but thinking.


def test_the_verdict_names_every_behaviour_with_its_evidence(made_project: Project) -> None:
    found = json.loads((made_project.results / "report" / "verdict.json").read_text())
    assert [one["behaviour"] for one in found["verdicts"]] == list(grammar.BEHAVIOURS)
    for one in found["verdicts"]:
        assert one["verdict"] in VERDICTS
        assert one["reason"]
        for figure in one["evidence"]:
            assert {"measure", "value", "low", "high", "n", "margin", "passed"} == set(figure)
    assert found["margins"]["rate_ratio"] == 1.25


@pytest.mark.e2e
def test_a_killed_contrast_goes_on_and_ends_the_same(
    project: Project, made_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at("pass_samples", project, monkeypatch)
    parts = next(project.results.glob("contrast.partial-*")) / "parts"
    rollouts = read_traces(parts / "report_rl.parquet")
    assert all(rollout.text.startswith(grammar.THINK) for rollout in rollouts)
    assert {rollout.split for rollout in rollouts} == {"report"}
    said = run(project)
    assert "answers report problems" not in said
    one, other = (
        read_table(p.results / "contrast" / "contrast.parquet") for p in (made_project, project)
    )
    assert one.equals(other)
    assert "up to date" in run(project)


def test_every_problems_samples_are_counted(made_project: Project) -> None:
    check_samples(made_project)
    said = (made_project.folder / "output.txt").read_text()
    assert "pass@k, report split" in said and "is significantly below" in said


@pytest.mark.e2e
def test_a_contrast_killed_after_its_samples_has_every_problems(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at("corruption", project, monkeypatch)
    said = run(project)
    check_samples(project)
    assert "pass@k, report split" in said and "is significantly below" in said


def check_samples(project: Project) -> None:
    """Of each problem there are four rows, and pass@1 is the mean of their odds."""
    samples = read_table(project.results / "contrast" / "pass.parquet")
    walks = {"random walk", "random walk, open places"}
    assert set(samples.model) == {"base", "rl"} | walks
    assert samples.groupby("problem_id").size().eq(4).all()
    models = samples[~samples.model.isin(walks)]
    assert (models.samples > 0).all() and (models.right <= models.samples).all()
    assert (models.tokens > 0).all()
    assert samples[samples.model.isin(walks)].odds.between(0, 1).all()
    table = read_table(project.results / "contrast" / "contrast.parquet")
    once = table[(table.measure == "pass@k") & (table.condition == "1")].set_index("model").value
    for model, odds in samples.groupby("model").odds.mean().items():
        assert once[model] == pytest.approx(odds)


def test_onset_predictors_of_the_shortlist_can_be_vectors(project: Project) -> None:
    run(project, "contrast.vectors=[onset-predictors]")
    chosen = json.loads((project.results / "contrast" / "steering_vectors.json").read_text())
    assert {one["kind"] for one in chosen} <= {ONSET_PREDICTORS}
    shutil.rmtree(project.results / "rank")
    with pytest.raises(ValueError, match="run `make rank` first"):
        run(project, "contrast.vectors=[onset-predictors]", "contrast.seed=1")


def test_behaviours_that_the_task_does_not_mark_are_refused_before_anything_is_made(
    project: Project,
) -> None:
    with pytest.raises(ConfigError, match=r"contrast\.behaviours=\['backtrack'\].*choose of"):
        run(project, "contrast.behaviours=[backtrack]")


@pytest.fixture
def calibrating(talking_pair: PairConfig, tmp_path: Path) -> Project:
    """A project that calibrates on one pair, whose models stand in for its organisms."""
    folder = tmp_path / "organisms" / "seed_1"
    shutil.copytree(talking_pair.base.path, folder / "search_base_llama")
    shutil.copytree(talking_pair.rl.path, folder / "search_rl_llama")
    truths = [
        {"behaviour": grammar.BACKTRACKING, "truth": "deployed", "reason": "0.1 → 0.9"},
        {"behaviour": grammar.UNCERTAINTY, "truth": "unclear", "reason": ""},
    ]
    (folder / "search_rl_llama" / "truth.json").write_text(json.dumps(truths))
    return Project(
        tmp_path,
        (
            f"organism.others={folder.parent}",
            "calibrate.seeds=[1]",
            "calibrate.families=[llama]",
            "calibrate.pairs=[deployed]",
            "calibrate.output=calibration.json",
            "tracker=none",
            "device=cpu",
            "threads=1",
            "experiment=tiny",
        ),
    )


def test_a_pair_that_is_not_there_is_named_with_what_makes_it(calibrating: Project) -> None:
    other = replace(calibrating, options=(*calibrating.options, "calibrate.pairs=[created]"))
    missing = other.run("calibrate")
    assert missing.code == 2
    made_by = "`make organisms SEEDS=1 FAMILY=llama ARGS=organism.only=[search_sft_lacking_llama]`"
    assert made_by in missing.output


@pytest.mark.e2e
def test_the_verdict_is_calibrated_on_pairs_that_are_there(
    calibrating: Project, tmp_path: Path
) -> None:
    outcome = calibrating.run("calibrate")
    assert outcome.code == 0, outcome.output
    found = json.loads((tmp_path / "calibration.json").read_text())
    calibrated = found["calibration"]
    assert calibrated["unclear"] == 1
    (cell,) = [cell for cell in calibrated["cells"] if cell["truth"] == "deployed"]
    given = cell["verdict"] != "inconclusive"
    assert calibrated["right"]["all"]["pairs"] == given
    pair = "organism_deployed_llama_seed1"
    command = found["judged"][pair]["command"]
    assert f"pair.name={pair}" in command and "contrast.report_problems=" in command
    (contrast,) = (tmp_path / "runs").glob(f"*/{pair}/contrast")
    made = Manifest.read(contrast)
    assert made and found["judged"][pair]["revision"] == made.git_revision
    assert sum(calibrated["confusion"]["deployed"].values()) == 1
    assert {cell["measured"] for cell in calibrated["cells"]} == {"0.1 → 0.9", ""}
    shutil.copytree(tmp_path / "organisms" / "seed_1", tmp_path / "organisms" / "seed_2")
    later = replace(calibrating, options=(*calibrating.options, "calibrate.seeds=[2]"))
    outcome = later.run("calibrate")
    assert outcome.code == 0, outcome.output
    later_found = json.loads((tmp_path / "calibration.json").read_text())
    grown = later_found["calibration"]
    assert later_found["judged"].keys() == {pair, pair.replace("seed1", "seed2")}
    assert grown["cells"][: len(calibrated["cells"])] == calibrated["cells"]
    assert sum(grown["confusion"]["deployed"].values()) == 2
    refused = later.run("calibrate", "report.able=0.5")
    assert refused.code == 2
    assert "under other options (margins differs)" in refused.output
