"""Each stage's version: there is one, its fingerprint has it, and it changes with the tables."""

from dataclasses import fields

import pytest
from projects import STAGES as MADE
from projects import Project
from recorded import hold_to_record, read_record

from sae_reasoning import config as config_module
from sae_reasoning.compose import ROOT, compose
from sae_reasoning.config import PARTIAL, VERSIONS
from sae_reasoning.flow import STAGES

JOBS = ROOT / "sae_reasoning" / "jobs"
IN_NO_FINGERPRINT = PARTIAL | {
    "cache.num_shards",
    "traces.annotator_endpoint",
    "traces.annotator_concurrency",
}

MAKE_MODELS = {"organisms", "real_pair"}
"""Stages whose folders hold models, and no table."""

ENDPOINT = ["traces.annotator_endpoint=http://localhost", "traces.annotator_model=any"]
ANNOTATED = [
    ["traces.annotator=llm", "traces.second_annotator=cues", *ENDPOINT],
    ["traces.annotator=fitted", "traces.fitted_on=labelled.jsonl"],
]
"""So that every option of annotators counts in one of them."""


def test_every_stage_that_makes_a_folder_has_a_version() -> None:
    sources = {name: [JOBS / f"{name}.py", *sorted((JOBS / name).rglob("*.py"))] for name in STAGES}
    makes = {
        name
        for name, files in sources.items()
        if any("stage.finish(" in one.read_text("utf-8") for one in files if one.exists())
    }
    assert makes == VERSIONS.keys()
    assert all(version > 0 for version in VERSIONS.values())


@pytest.mark.parametrize("stage", sorted(VERSIONS.keys() - MAKE_MODELS))
def test_every_option_of_a_stage_and_its_version_are_in_its_fingerprint(stage: str) -> None:
    found = set()
    for annotated in ANNOTATED:
        config = compose(annotated)
        settings = config.settings(stage)
        assert settings["version"] == VERSIONS[stage]
        found |= settings[stage].keys()
    options = {f.name for f in fields(getattr(config, stage))}
    assert found == {o for o in options if f"{stage}.{o}" not in IN_NO_FINGERPRINT}


def test_how_models_are_read_is_in_the_fingerprint_of_what_reads_them() -> None:
    plain, stages = compose(), VERSIONS.keys() - MAKE_MODELS
    for option in ("dtype=bfloat16", "attention=eager", "chat_template=true"):
        other = compose([f"pair.rl.{option}"])
        changed = {name for name in stages if other.settings(name) != plain.settings(name)}
        assert changed == {*"traces cache rank match ablate hybrid contrast elicit".split()}


def test_traces_of_natural_text_hang_on_the_rules_that_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, words = compose(), compose(["traces.source=mine.jsonl"])
    before = world.settings("traces"), words.settings("traces")
    monkeypatch.setitem(config_module._RULES, "grading", 1000)
    assert world.settings("traces") == before[0]
    assert words.settings("traces") != before[1]


@pytest.mark.parametrize("stage", MADE)
def test_tables_of_a_stage_are_the_recorded_ones(made_project: Project, stage: str) -> None:
    hold_to_record(made_project.results / stage)


def test_every_stage_with_tables_is_recorded() -> None:
    known = read_record()
    assert {name: one["version"] for name, one in known.items()} == {
        name: version for name, version in VERSIONS.items() if name not in {*MAKE_MODELS, "export"}
    }
