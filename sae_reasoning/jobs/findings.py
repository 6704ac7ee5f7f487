"""Write the tables of the pages of findings, and the picture of the verdicts, from runs' files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.files import publish
from sae_reasoning.edges.schema import read_artifact
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.report.findings import TABLES, Block, Files, blocks, fill
from sae_reasoning.report.verdict_picture import verdict_picture

_PICTURED = "verdicts"
"""The table that a picture is drawn of, beside its page."""


def findings(cfg: Config, *, tracker: Tracker, console: Console) -> None:
    """Fill the blocks of every page whose runs are there; other blocks stay as they are."""
    pages = _pages(cfg.findings.pages)
    console.plan("findings", {"pages": len(pages), "runs": cfg.runs})
    for page in pages:
        text, written = page.read_text(encoding="utf-8"), {}
        for block in dict.fromkeys(blocks(text)):
            _require_known(block, page)
            if missing := _missing(cfg, block):
                console.say(f"  {page}: {block.table} stays as it was; {missing}")
                continue
            runs = {run: _files(Path(cfg.runs) / run, block.table) for run in block.runs}
            written[block] = f"{TABLES[block.table].write(runs)}\n\n{_source(cfg, block)}"
            if block.table == _PICTURED:
                _publish(page.parent / f"{_PICTURED}.svg", verdict_picture(runs), console)
        if (filled := fill(text, written)) != text:
            _publish(page, filled, console)


def _pages(named: Sequence[str]) -> list[Path]:
    """The Markdown files named, and those of the folders named.

    Raises:
        ConfigError: There is no such file or folder.
    """
    found = []
    for name in named:
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"findings.pages names {name}, which isn't there; name a page")
        found += sorted(path.glob("*.md")) if path.is_dir() else [path]
    return found


def _require_known(block: Block, page: Path) -> None:
    if block.table not in TABLES or not block.runs:
        raise ConfigError(
            f"{page} asks for the table {block.table} of {' '.join(block.runs) or 'no run'}; "
            f"choose of {', '.join(TABLES)}, and name a run as <experiment>/<pair>"
        )


def _missing(cfg: Config, block: Block) -> str:
    """What isn't there of the runs, with the command that makes it, or ""."""
    for run in block.runs:
        experiment, _, pair = run.partition("/")
        for file in TABLES[block.table].files:
            stage = file.partition("/")[0]
            if not (Path(cfg.runs) / run / file).exists():
                options = f"pair={pair}" + (
                    "" if experiment == "default" else f" experiment={experiment}"
                )
                return f'{Path(cfg.runs) / run / file} is missing: make {stage} ARGS="{options}"'
    return ""


def _files(folder: Path, table: str) -> Files:
    def content(path: Path) -> Any:
        return read_artifact(path) if path.suffix == ".json" else read_table(path)

    return {name: content(folder / name) for name in TABLES[table].files}


def _source(cfg: Config, block: Block) -> str:
    """What a table was written from, and at which revision that was made."""
    stages = dict.fromkeys(file.partition("/")[0] for file in TABLES[block.table].files)
    made = [Manifest.read(Path(cfg.runs) / run / stage) for run in block.runs for stage in stages]
    revisions = [(one.git_revision if one else None) or "unknown" for one in made]
    known = ", ".join(dict.fromkeys(revision[:7] for revision in revisions))
    return (
        f"*Written by `make findings` from runs of revision {known}; "
        "intervals are 95 %, over problems of the report split.*"
    )


def _publish(path: Path, text: str, console: Console) -> None:
    with publish(path) as partial:
        partial.write_text(text, encoding="utf-8")
    console.say(f"  wrote {path}")
