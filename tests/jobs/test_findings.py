"""Tables of findings are written from what the stages wrote; what can't be written stays."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from projects import Project

from sae_reasoning.report.findings import TABLES, Block, blocks, fill, measured

PAGE = """# A claim

<!-- findings: {table} {run} -->
as it was
<!-- end of findings -->

What it doesn't show.
"""


@pytest.fixture
def project(made_project: Project, made_hybrid: Project, tmp_path: Path) -> Project:
    project = made_project.copy(tmp_path, "rank", "ablate", "contrast", "report")
    return replace(made_hybrid.copy(tmp_path, "hybrid"), options=project.options)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_written_from_the_files_of_a_run(project: Project, table: str) -> None:
    page = project.folder / "page.md"
    page.write_text(PAGE.format(table=table, run="tiny/talking"))
    outcome = project.run("findings", "findings.pages=[page.md]")
    assert outcome.code == 0, outcome.output
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) > 2
    assert all("`tiny/talking`" in row for row in rows[2:])
    assert "as it was" not in text
    assert re.search(r"Written by `make findings` from runs of revision \w{7}", text)
    assert text.startswith("# A claim\n\n<!-- findings: ")
    assert text.endswith("<!-- end of findings -->\n\nWhat it doesn't show.\n")
    assert (project.folder / "verdicts.svg").exists() == (table == "verdicts")
    before = page.stat().st_mtime_ns
    assert project.run("findings", "findings.pages=[page.md]").code == 0
    assert page.stat().st_mtime_ns == before


def test_a_table_whose_run_is_missing_stays_and_names_the_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(table="edits", run="seed1/mine"))
    outcome = Project(tmp_path, ()).run("findings", "findings.pages=[page.md]")
    assert outcome.code == 0, outcome.output
    assert 'make ablate ARGS="pair=mine experiment=seed1"' in outcome.output
    assert "as it was" in page.read_text()


@pytest.mark.parametrize(("table", "run"), [("verdict", "tiny/talking"), ("edits", "")])
def test_a_block_of_an_unknown_table_or_no_run_is_refused(
    tmp_path: Path, table: str, run: str
) -> None:
    (tmp_path / "page.md").write_text(PAGE.format(table=table, run=run))
    outcome = Project(tmp_path, ()).run("findings", "findings.pages=[page.md]")
    assert outcome.code == 2
    assert "choose of summary, verdicts, edits" in outcome.output


def test_only_the_blocks_that_are_written_change() -> None:
    first, second = Block("edits", ("a/b",)), Block("hybrid", ("a/b", "a/c"))
    page = PAGE.format(table="edits", run="a/b") + PAGE.format(table="hybrid", run="a/b a/c")
    assert blocks(page) == [first, second]
    filled = fill(page, {second: "| new |"})
    assert filled.count("as it was") == 1
    assert filled.index("as it was") < filled.index("| new |")
    assert blocks(filled) == [first, second]


def test_a_figure_is_found_by_all_its_keys() -> None:
    row = {"behaviour": "b", "measure": "m", "model": "rl", "condition": "c", "level": 0.95}
    contrast = pd.DataFrame([row | {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}])
    assert measured(contrast, "b", "m", "rl", "c").interval == "0.50 [0.25, 0.75]"
    assert measured(contrast, "b", "m", "base", "c").n == 0
