"""Hostile text in an offline W&B run, read back: shown as text, whole or cut with a mark."""

import json
import re
from dataclasses import asdict, dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from offline_runs import Records, artifacts, merged, only_run_below
from report.hostile import HOSTILE

from sae_reasoning.config import TrackerConfig
from sae_reasoning.edges.pages import plain
from sae_reasoning.edges.tracker import LATENTS, open_tracker
from sae_reasoning.pages.latents import cell
from sae_reasoning.records import TokenSpan, Trace
from sae_reasoning.report.examples import TOP, example
from sae_reasoning.texts import MAX_PIECE, shown

KINDS = list(HOSTILE)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_CELL = 30_000
"""Characters of HTML: three texts of a few tokens, and as much of each name as any page shows."""


def page_of(text: str, has_texts: bool = True) -> str:
    """The cell of a latent whose prompt, tokens, label and reviewer are all that text."""
    span = TokenSpan(text, 0, 1, 0, 2, "search")
    trace = Trace(
        "t", text, "report", "rl", "m", text, text, (1, 2, 3), 1, None, False, (span,), ()
    )
    values: dict[str, dict[int, float]] = {"base": {}, "rl": {1: 2.0}}
    shown_text = asdict(example(TOP, trace, [text] * 3, 1, 0, values))
    record = {"attacks": [], "examples": [shown_text] * 3, "histogram": {"edges": [0, 1, 2]}}
    record["output"] = {"top": [[text, 1.0]], "bottom": []}
    row = {
        "layer": 0,
        "latent": 1,
        "shortlist": "span_detectors",
        "behaviour": text,
        "reviews": text,
    }
    row |= {"auroc": 0.9, "low": None, "high": 0.95, "n": 3}
    return cell(row, plain(record), has_texts)


def words(page: str) -> str:
    """Text of a page, without its markup."""
    return unescape(re.sub(r"<[^>]+>", "", page.partition("<body>")[2]))


@dataclass(frozen=True)
class Logged:
    """What came back of one run.

    Attributes:
        records: Of the run.
        rows: Of its table of latents.
        pages: HTML of its cells, by row.
    """

    records: Records
    rows: list[list[Any]]
    pages: list[str]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """A run with a row a kind, and each kind in every name and value that a run has."""
    folder = tmp_path_factory.mktemp("hostile")
    named = {text: kind for kind, text in HOSTILE.items()}
    tracker = open_tracker(
        TrackerConfig(mode="offline"),
        stage="report",
        group="g",
        folder=folder,
        config={"notes": HOSTILE} | named,
    )
    texts = list(HOSTILE.values())
    frame = pd.DataFrame({"kind": KINDS, "text": pd.Series(texts, dtype=object)})
    tracker.table(LATENTS, frame, [page_of(text) for text in texts])
    tracker.summary(HOSTILE | named)
    tracker.log(dict.fromkeys(texts, 1.0), step=0)
    tracker.finish()
    records = only_run_below(folder)
    (table,) = [a for a in artifacts(records) if a["name"].endswith(f"-{LATENTS}")]
    entries = {e["path"]: Path(e["local_path"]) for e in table["manifest"]["contents"]}
    content = json.loads(entries[f"{LATENTS}.table.json"].read_text())
    pages = [entries[row[-1]["path"]].read_text() for row in content["data"]]
    return Logged(records, content["data"], pages)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_of_text_shows_it_without_what_acts_unseen(logged: Logged, kind):
    (row,) = [row for row in logged.rows if row[0] == kind]
    assert row[1] == shown(HOSTILE[kind], 2000)
    assert not UNSEEN.search(row[1])
    assert len(row[1]) < 2100


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_of_html_shows_hostile_text_as_text(logged: Logged, kind):
    page = logged.pages[KINDS.index(kind)]
    body = page.partition("<body>")[2]
    assert set(re.findall(r"<(/?\w+)", body)) <= set("p /p b /b bdi /bdi /body /html".split())
    assert set(re.findall(r"\s(\w+)=\"", re.sub(">[^<]*<", "><", body))) <= {
        *("class", "style", "title")
    }
    assert words(page).count(shown(HOSTILE[kind], MAX_PIECE)) >= 3 * 3  # Texts × tokens.
    assert not UNSEEN.search(page)
    assert len(page) < LONGEST_CELL


def test_a_cell_that_was_cut_says_by_how_much(logged: Logged):
    page = logged.pages[KINDS.index("megabyte")]
    assert "… (999,920 more characters)" in words(page)
    assert "… (998,000 more characters)" in logged.rows[KINDS.index("megabyte")][1]


@pytest.mark.parametrize("kind", KINDS)
def test_names_config_and_summary_of_a_run_are_fit_to_be_looked_at_too(logged: Logged, kind):
    name, value = shown(HOSTILE[kind]), shown(HOSTILE[kind], 2000)
    summary = merged(logged.records, "summary")
    assert (summary[name], summary[kind]) in ((kind, value), (1.0, value))
    (run,) = [record["run"] for record in logged.records if record["type"] == "run"]
    config = run["config"]["update"]
    assert config[name.rstrip("-")] == kind  # W&B drops hyphens at the end of a key.
    assert config["notes"][kind] == value
    items = [r["history"]["item"] for r in logged.records if r["type"] == "history"]
    assert any(item.get(name) == 1.0 for item in items)


def test_a_cell_without_texts_has_its_figures_only():
    page = page_of("secret", has_texts=False)
    assert "AUROC 0.900 [–, 0.950]" in page
    assert words(page).count("secret") == 2  # The names of the behaviour and of who reviewed it.
