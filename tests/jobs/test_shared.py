"""A run whose work two processes share is the run of one."""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from projects import Project

from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.tables import read_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is forked")


MAY_BE_EMPTY = ("replicas.parquet", "openings.parquet", "value.parquet")
"""Other seeds, mined openings and values: the search world's tiny run has none of these."""


def by_two(project: Project) -> Project:
    """The same project with two threads, so that processes share its work."""
    options = tuple("threads=2" if option == "threads=1" else option for option in project.options)
    return replace(project, options=options)


def check_same(one: Path, two: Path) -> None:
    """Tables are the same but for what two threads round otherwise."""
    tables = sorted(path.name for path in one.glob("*.parquet"))
    assert tables == sorted(path.name for path in two.glob("*.parquet"))
    for name in tables:
        expected, found = read_table(one / name), read_table(two / name)
        assert len(expected) or name in MAY_BE_EMPTY, name
        pd.testing.assert_frame_equal(expected, found, rtol=1e-4, atol=1e-5)


def test_traces_are_those_of_one_process(made_project: Project, tmp_path: Path) -> None:
    project = by_two(made_project.copy(tmp_path))
    outcome = project.run("traces")
    assert outcome.code == 0, outcome.output
    check_same(made_project.results / "traces", project.results / "traces")


@pytest.mark.e2e
def test_all_that_comes_after_is_that_of_one_process(made_project: Project, tmp_path: Path) -> None:
    project = by_two(made_project.copy(tmp_path, "traces", "cache", "train"))
    outcome = project.run("rank", "ablate", "contrast")
    assert outcome.code == 0, outcome.output
    for stage in ("rank", "ablate", "contrast"):
        check_same(made_project.results / stage, project.results / stage)
    shortlists = [
        read_json(one.results / "rank" / "shortlist.json") for one in (made_project, project)
    ]
    assert shortlists[0]["span_detectors"].keys() == shortlists[1]["span_detectors"].keys()
