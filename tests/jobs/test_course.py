"""The course of a training, whose checkpoints are here its first and its last model again."""

import shutil
from pathlib import Path

import pytest
from matplotlib.image import imread
from projects import Project
from recorded import hold_to_record

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.plots import COURSE_COLOURS
from sae_reasoning.edges.tables import read_table


@pytest.fixture
def project(made_project: Project, talking_pair: PairConfig, tmp_path: Path) -> Project:
    project = made_project.copy(tmp_path, "traces", "contrast")
    for step, model in ((9, talking_pair.base), (20, talking_pair.rl)):
        shutil.copytree(model.path, tmp_path / "kept" / f"step_{step:04d}")
    return project


def test_every_model_is_followed_and_the_same_weights_give_the_same_figures(
    project: Project,
) -> None:
    options = [f"course.checkpoints={project.folder}/kept/step_*", "course.last_step=30"]
    outcome = project.run("course", *options)
    assert outcome.code == 0, outcome.output
    table = read_table(project.results / "course" / "course.parquet")
    followed = table[table.step.notna()]
    assert sorted(set(followed.step)) == [0, 9, 20, 30]
    for behaviour, measure in set(zip(followed.behaviour, followed.measure, strict=True)):
        own = followed[(followed.behaviour == behaviour) & (followed.measure == measure)]
        value = own.set_index("model").value
        assert value["step_9"] == pytest.approx(value["base"], nan_ok=True)
        assert value["step_20"] == pytest.approx(value["rl"], nan_ok=True)
    contrast = read_table(project.results / "contrast" / "contrast.parquet")
    shared = contrast[
        contrast.measure.isin(["enter_thinking", "onset_probability/per_opportunity"])
        | ((contrast.measure == "execution_accuracy") & (contrast.condition == "own opening"))
    ]
    shared = shared[shared.model.isin(["base", "rl"])].set_index(["behaviour", "measure", "model"])
    same = followed.set_index(["behaviour", "measure", "model"]).value
    assert len(shared) > 4
    for key, value in shared.value.items():
        assert same[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key
    hold_to_record(project.results / "course")
    drawn = (imread(project.results / "course" / "course.png")[..., :3] * 255).round().astype(int)
    for colour in COURSE_COLOURS:  # Entering, starting and executing have a curve each.
        rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (drawn == rgb).all(-1).sum() > 200, colour
    assert "is up to date" in project.run("course", *options).output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "course.checkpoints is empty"),
        (["course.checkpoints={root}/none/*"], "matches no folder"),
        (["course.checkpoints={root}/kept/step_*"], "course.last_step=0 must be"),
        (["course.checkpoints={root}/*", "course.last_step=30"], "tells no step"),
    ],
)
def test_what_cannot_be_ordered_is_refused(
    project: Project, options: list[str], message: str
) -> None:
    outcome = project.run("course", *(option.format(root=project.folder) for option in options))
    assert outcome.code == 2
    assert message in outcome.output
