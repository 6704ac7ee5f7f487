"""The pages: links lead somewhere, options and targets exist, cheap commands run."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command_runner import run_command
from projects import Project

from sae_reasoning.compose import ROOT, group_options, option_names
from sae_reasoning.config.renamed import REMOVED, RENAMED
from sae_reasoning.contrast.checked import MEASURES as CHECKED
from sae_reasoning.contrast.onsets import (
    MINED_OPENINGS,
    OPENING_COVERAGE,
    OPENING_PRECISION,
    UNLABELLED,
)
from sae_reasoning.contrast.rates import ANNOTATED_PER_OPPORTUNITY, ANNOTATED_PER_TRACE
from sae_reasoning.edges.tables import read_table
from sae_reasoning.flow import STAGES

README = ROOT / "README.md"
MOST_LINES, MOST_WORDS = 200, 2000
PAGES = [
    README,
    ROOT / "conf" / "README.md",
    ROOT / "sae_reasoning" / "README.md",
    *sorted((ROOT / "sae_reasoning").glob("*/README.md")),
    *sorted((ROOT / "data" / "findings").glob("*.md")),
    ROOT / "data" / "organisms" / "README.md",
    ROOT / "data" / "organisms" / "countdown.md",
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

BESIDE = {"sae", "sae.release", "sae.id", "corpus.annotated", "traces.cues", "traces.meanings"}
"""Options that `compose` takes under another name, or that hold names of their own."""

_CODE = re.compile(r"```(?P<kind>[^\n]*)\n(?P<lines>.*?)```", re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")
_OPTION = re.compile(r"(?<![\w/.$-])(?P<name>[a-z_]+(?:\.[a-z_]+)*)=")
_QUOTED = re.compile(r"`(?P<name>[a-z_]+\.[a-z_.]+)(?P<rest>[=`])")
_TARGET = re.compile(r"^([a-z-]+(?: [a-z-]+)*):.*##", re.MULTILINE)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors(page: Path) -> set[str]:
    """What a link may name of a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", text_of(page)), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def links(page: Path) -> list[str]:
    prose = re.sub(r"`[^`\n]*`", "", _CODE.sub("", text_of(page)))
    return [found["target"] for found in _LINK.finditer(prose)]


def commands(page: Path, *, cheap: bool = False) -> Iterator[str]:
    """Command lines of a page's bash blocks, continued lines joined, without comments."""
    for block in _CODE.finditer(text_of(page)):
        kind = block["kind"].split()
        if kind in ([], ["bash"], ["bash", "cheap"]) and ("cheap" in kind or not cheap):
            for line in block["lines"].replace("\\\n", " ").splitlines():
                said = re.sub(r"\s+#.*", "", line).strip()
                if said.startswith(("make ", "python -m ")):
                    yield said


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    lost = []
    for target in links(page):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert not lost


def test_readme_is_short() -> None:
    text = text_of(README)
    assert len(text.splitlines()) <= MOST_LINES
    assert len(text.split()) <= MOST_WORDS


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set(), {README}
    while new:
        reached |= new
        new = {
            (page.parent / target.partition("#")[0]).resolve()
            for page in new
            for target in links(page)
            if target.partition("#")[0].endswith(".md") and not target.startswith("https://")
        } - reached
    assert {page.resolve() for page in PAGES} <= reached
    findings = set(links(ROOT / "data" / "findings" / "README.md"))
    pages = {page.name for page in (ROOT / "data" / "findings").glob("*.md")} - {"README.md"}
    assert pages <= findings


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    options = {*option_names(), *group_options(), *BESIDE}
    parts = {option.rpartition(".")[0] for option in options}
    text = text_of(page)
    named = {found["name"] for line in commands(page) for found in _OPTION.finditer(line)}
    named |= {
        found["name"]
        for found in _QUOTED.finditer(_CODE.sub("", text))
        if found["name"].partition(".")[0] in parts or found["rest"] == "="
    }
    unknown = {
        name
        for name in named
        if name not in options
        and not name.startswith(("hydra.", "tests.", "conf."))
        and not name.endswith((".yaml", ".py", ".md", ".parquet", ".json", ".png", ".svg"))
        and name.rstrip("_.") not in parts
    }
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_target_and_stage_that_a_page_names_exists(page: Path) -> None:
    targets = {
        name for line in _TARGET.findall(text_of(ROOT / "Makefile")) for name in line.split()
    }
    for line in commands(page):
        words = shlex.split(line.replace("…", ""), comments=True)
        words = words[: words.index("&&")] if "&&" in words else words
        if words[0] == "make":
            named = {word for word in words[1:] if "=" not in word}
            assert named <= targets, line
        else:
            assert words[:3] == ["python", "-m", "sae_reasoning"] or words[2] == "pytest", line
            named = {word for word in words[3:] if re.fullmatch(r"[a-z]+", word)}
            assert words[2] == "pytest" or named <= STAGES.keys(), line
    inline = re.findall(r"`make ([a-z-]+)`", text_of(page))
    assert set(inline) <= targets


CHEAP = [
    (name, line)
    for page, name in zip(PAGES, NAMES, strict=True)
    for line in commands(page, cheap=True)
]


def test_some_commands_are_cheap() -> None:
    assert len(CHEAP) >= 4


@pytest.mark.parametrize(("page", "line"), CHEAP)
def test_cheap_commands_of_the_pages_run(page: str, line: str, tmp_path: Path) -> None:
    del page
    words = shlex.split(line)
    if words[0] == "make":
        from test_makefile import commands as made_by

        assert made_by(*words[1:])
        return
    outcome = run_command(words[3:], tmp_path)
    assert outcome.code == 0, outcome.output
    assert len(outcome.output.splitlines()) > 3


def documented_tables() -> Iterator[tuple[str, str]]:
    """Tables of the page of methods, each with what it says of its columns.

    What stands in parentheses is left out: values, suffixes of the column before, asides.
    """
    _, _, section = text_of(ROOT / "sae_reasoning" / "README.md").partition("## Tables")
    for part in section.partition("## Map")[0].split("\nIn `")[1:]:
        folder = part.partition("/")[0]
        for name, said in re.findall(r"^\| `(\w+)` \|[^|]*\|(.*)\|$", part, re.MULTILINE):
            if "as `traces" not in said:
                yield f"{folder}/{name}.parquet", re.sub(r"\([^()]*\)", "", said)


def test_every_column_that_the_page_of_methods_names_exists(made_project: Project) -> None:
    lost = {}
    for table, said in documented_tables():
        named = {n for n in re.findall(r"`(\w+)`", said.partition("Measures:")[0]) if n[0] != "_"}
        if strays := named - set(read_table(made_project.results / table)):
            lost[table] = strays
    assert not lost


def test_every_measure_that_the_page_of_methods_names_exists(made_project: Project) -> None:
    said = dict(documented_tables())["contrast/contrast.parquet"].partition("Measures:")[2]
    named = {name.rstrip("…") for name in re.findall(r"`([a-z_/]+…?)`", said)}
    found = set(read_table(made_project.results / "contrast" / "contrast.parquet").measure)
    # Of text whose openings aren't all known.
    found |= {MINED_OPENINGS, OPENING_COVERAGE, OPENING_PRECISION, UNLABELLED}
    found |= {ANNOTATED_PER_TRACE, ANNOTATED_PER_OPPORTUNITY, *CHECKED}
    assert len(named) > 8
    assert not {name for name in named if not any(measure.startswith(name) for measure in found)}


def test_every_renamed_option_is_in_the_changelog() -> None:
    changes = text_of(ROOT / "CHANGELOG.md")
    assert not {old for old, new in RENAMED.items() if old not in changes or new not in changes}
    assert not {option for option in REMOVED if option not in changes}
