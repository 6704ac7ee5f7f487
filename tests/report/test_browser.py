"""The pages in a real browser: what a reviewer does, and text that tries to be more than text."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from projects import Project
from report.hostile import HOSTILE
from report.test_cells import page_of

from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.pages import plain, write_call, write_page
from sae_reasoning.report.examples import QUARTERS
from sae_reasoning.report.reviews import read_review
from sae_reasoning.robustness.outcomes import REFUTED, ROBUST
from sae_reasoning.robustness.replication import Replica
from sae_reasoning.texts import MAX_PIECE, number, shown

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, as Debian packs it"),
]

FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()


@dataclass
class Visit:
    """A page with what went wrong on it.

    Attributes:
        page: Playwright's.
        errors: Of the console and of scripts.
        outside: Requests for anything but files and data.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a page; afterwards nothing may have failed, and nothing been asked of the network."""
    contexts, visits = [], []

    def opened(path: Path, address: str = "", **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": 1400, "height": 900} | options.pop("size", {}), **options
        )
        page = context.new_page()
        made = Visit(page)
        page.on(
            "console",
            lambda m: made.errors.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:")) else made.outside.append(r.url),
        )
        page.set_default_timeout(5000)
        page.goto(path.as_uri() + address)
        contexts.append(context)
        visits.append(made)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [made.errors for made in visits] == [[]] * len(visits)
    assert [made.outside for made in visits] == [[]] * len(visits)


@pytest.fixture(scope="module")
def report(made_project: Project) -> Path:
    return made_project.results / "report"


def rows(page: Any) -> list[list[str]]:
    """Cells of the table of latents."""
    found: list[list[str]] = page.evaluate(
        """[...document.querySelectorAll('#table tbody tr')]
        .map(row => [...row.cells].map(cell => cell.textContent))"""
    )
    return found


def width_beyond(page: Any) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


# The table of latents


def test_filters_search_and_order_choose_the_rows(visit, report):
    page = visit(report / "latents.html")
    everything = rows(page)
    behaviour, shortlist = everything[-1][2:4]
    page.select_option("#by-behaviour", behaviour)
    page.select_option("#by-shortlist", shortlist)
    few = rows(page)
    assert 0 < len(few) < len(everything)
    assert {(row[2], row[3]) for row in few} == {(behaviour, shortlist)}
    page.select_option("#by-layer", few[0][1].split("/")[0])
    assert {row[1].split("/")[0] for row in rows(page)} == {few[0][1].split("/")[0]}
    page.fill("#search", few[0][1])
    assert [row[1] for row in rows(page)] == [few[0][1]]
    page.fill("#search", "no such latent")
    assert rows(page) == []
    assert page.text_content("#count").startswith("0 of")
    page.fill("#search", "")
    for name in ("behaviour", "shortlist", "layer"):
        page.select_option(f"#by-{name}", "")
    assert rows(page) == everything
    page.click('button[data-sort="auroc"]')
    values = [float(row[4]) for row in rows(page) if row[4] != "–"]
    assert values == sorted(values, reverse=True)
    assert page.get_attribute('th:has([data-sort="auroc"])', "aria-sort") == "descending"


def test_the_keyboard_alone_opens_every_latent_in_turn(visit, report):
    page = visit(report / "latents.html")
    titles = []
    for key in ("j", "j", "ArrowDown", "k"):
        page.keyboard.press(key)
        page.wait_for_selector("#one h2")
        chosen = page.text_content('#table tr[aria-selected="true"] a')
        layer, latent = chosen.split("/")
        page.wait_for_function(
            "name => document.querySelector('#one h2')?.textContent === name",
            arg=f"Latent {latent} of layer {layer}",
        )
        titles.append(chosen)
    assert titles[3] == titles[1]
    assert titles == [rows(page)[place][1] for place in (0, 1, 2, 1)]
    page.keyboard.press("/")
    behaviour = rows(page)[-1][2]
    page.keyboard.type(behaviour)
    assert {row[2] for row in rows(page)} == {behaviour}
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('button, a, input, select, tr')")


def test_a_latents_page_shades_tokens_by_value_in_both_readers(visit, report):
    page = visit(report / "latents.html", "#0")
    page.wait_for_selector("#one .example")
    first = page.query_selector("#one .example")
    assert len(first.query_selector_all(".side")) == 2
    left, right = (
        side.query_selector(".text").text_content() for side in first.query_selector_all(".side")
    )
    assert left == right
    hit = page.query_selector("#one .side:nth-child(2) bdi.chosen")
    assert float(hit.get_attribute("data-value")) > 0
    assert hit.get_attribute("title").startswith("rl: ")
    assert "rgba" in hit.get_attribute("style")
    page.keyboard.press("v")
    assert (
        page.evaluate(
            "getComputedStyle(document.querySelector('#one bdi[data-value]'), '::after').content"
        )
        != "none"
    )
    headings = [one.text_content() for one in page.query_selector_all("#one h3")]
    assert {"Texts", "Activations", "Output tokens", "Attacks", "Nearest latents"} <= set(headings)
    assert {"Edits", "In other dictionaries"} <= set(headings)


def test_labels_are_kept_exported_and_taken_in_again(visit, report, tmp_path):
    page = visit(report / "latents.html")
    page.keyboard.press("j")
    page.wait_for_selector("#one .review")
    page.keyboard.press("1")
    assert rows(page)[0][-1] == "real"
    page.keyboard.press("j")
    page.wait_for_function(
        "() => document.querySelector('#one .review input:checked').value === ''"
    )
    page.keyboard.press("2")
    page.fill("#one .review textarea", HOSTILE["markup"])
    page.reload()
    page.wait_for_selector("#table tbody tr")
    assert [row[-1] for row in rows(page)[:2]] == ["real", "lexical"]
    page.select_option("#by-review", "lexical")
    assert rows(page)[0][-1] == "lexical"
    page.fill("#reviewer", "ann")
    with page.expect_download() as waited:
        page.click("#export")
    waited.value.save_as(tmp_path / "ann.json")
    one = read_review(read_json(tmp_path / "ann.json"))
    assert one.reviewer == "ann"
    assert sorted(one.labels.values()) == ["lexical", "real"]
    assert list(one.notes.values()) == [HOSTILE["markup"]]

    other = visit(report / "latents.html")  # Another browser, which has kept nothing.
    assert {row[-1] for row in rows(other)} == {"–"}
    other.set_input_files("#import", tmp_path / "ann.json")
    other.wait_for_function("() => document.getElementById('review-said').textContent !== ''")
    assert other.text_content("#review-said") == "2 labels imported."
    assert [row[-1] for row in rows(other)[:2]] == ["real", "lexical"]
    (tmp_path / "bad.json").write_text("{")
    other.set_input_files("#import", tmp_path / "bad.json")
    other.wait_for_function(
        "() => document.getElementById('review-said').textContent.includes('bad')"
    )
    assert other.evaluate("window.hit") is None


# How it looks


def test_the_overview_opens_its_latents_and_all_its_rows_are_there(visit, report):
    page = visit(report / "index.html")
    for link in page.query_selector_all('a[href^="rows/"]'):
        assert (report / link.get_attribute("href")).is_file()
    page.click("main >> text=Review the")
    page.wait_for_selector("#table tbody tr")


def test_dark_follows_the_system_and_the_switch_is_kept(visit, report):
    page = visit(report / "index.html", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("name", ["index.html", "latents.html#0"])
def test_a_phone_needs_no_sideways_scrolling(visit, report, name):
    file, _, place = name.partition("#")
    page = visit(report / file, f"#{place}" if place else "", size={"width": 360, "height": 740})
    if place:
        page.wait_for_selector("#one .example")
        assert not page.is_visible("#table")
        page.click("#back")
        assert page.is_visible("#table")
    assert width_beyond(page) <= 0


# Hostile text, and much of it


def listing(number: int, behaviour: str = "backtracking") -> dict[str, Any]:
    figures = {"auroc": 0.9, "low": 0.8, "high": 0.95, "n": 30, "firing_rate": 0.01}
    names = {"name": f"1_{number}", "layer": 1, "latent": number, "place": number + 1}
    where = {"shortlist": "span_detectors", "reader": "rl", "writer": "rl", "status": "tested"}
    return names | where | figures | {"behaviour": behaviour, "labels": {"base": "inconclusive"}}


def latents_page(folder: Path, listings: list[dict[str, Any]], pair: str = "pair") -> Path:
    page = {
        "title": pair,
        "rank": "r",
        "pair": pair,
        "has_latents": True,
        "num_latents": len(listings),
        "rows": plain(listings),
        "missing": "",
        "match_missing": "",
        "match_other": "",
        "ablate_missing": "",
    }
    write_page(folder / "latents.html", "latents.html", page)
    return folder / "latents.html"


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_shown_as_text(visit, tmp_path, kind):
    text, token = shown(HOSTILE[kind]), shown(HOSTILE[kind], MAX_PIECE)
    values = {"base": {}, "rl": {"0": 1.0}}
    example = {"band": "highest", "trace": text, "problem": text, "writer": "rl", "prompt": text}
    example |= {"tokens": [token, "end"], "chosen": 0, "is_cut": [False, False], "values": values}
    example |= {"marks": [{"behaviour": text, "first": 0, "last": 1}]}
    counts = {"base": [1, 0], "rl": [0, 1]}
    record: dict[str, Any] = {
        "name": "1_0",
        "layer": 1,
        "latent": 0,
        "listings": [listing(0, text)],
        "rates": [],
        "scores": [],
        "attacks": [],
        "matched": [],
        "injections": [],
        "baselines": [],
        "replicas": [],
        "examples": [example],
        "histogram": {"edges": [0, 1, 2], "counts": counts, "active": {"rl": 1}, "tokens": 9},
        "output": {"top": [[token, 1.0]], "bottom": [[token, -1.0]]},
        "neighbours": [],
    }
    path = latents_page(tmp_path, [listing(0, text)], pair=text)
    write_call(tmp_path / "latents" / "1_0.js", "showLatent", record)
    page = visit(path, "#0")
    page.wait_for_selector("#one .example")
    assert page.evaluate("window.hit") is None
    assert page.text_content("h1").startswith(text)
    assert page.query_selector("#one bdi.chosen").text_content() == token
    assert page.text_content("#one .example details bdi") == text
    assert rows(page)[0][2] == text
    assert page.query_selector_all("main img, main script[src]") == []
    assert width_beyond(page) <= 0


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_cell_for_wandb_shows_hostile_text_as_text(visit, tmp_path, kind):
    (tmp_path / "cell.html").write_text(page_of(HOSTILE[kind]), encoding="utf-8")
    page = visit(tmp_path / "cell.html")
    assert page.evaluate("window.hit") is None
    texts = [one.text_content() for one in page.query_selector_all("bdi.chosen")]
    assert texts == [shown(HOSTILE[kind], MAX_PIECE)] * 3
    assert page.query_selector_all("img, script") == []
    assert width_beyond(page) <= 0


def evidence_of(number: int) -> dict[str, Any]:
    """Of a latent with as many texts as there can be, all tokens of both readers active."""
    values = {str(i): 1.234 for i in range(65)}
    example = {"trace": f"t{number}", "problem": "p", "writer": "rl", "prompt": "ask " * 150}
    example |= {"tokens": [f" word{i}" for i in range(65)], "chosen": 40, "is_cut": [True, True]}
    example |= {"values": {"base": values, "rl": values}, "marks": []}
    bands = ["highest"] * 8 + [band for band in QUARTERS for _ in range(3)]
    counts = {"base": [9] * 24, "rl": [9] * 24}
    empty = ("rates", "scores", "attacks", "matched", "injections", "baselines", "replicas")
    return {
        **{name: [] for name in empty},
        "name": f"1_{number}",
        "layer": 1,
        "latent": number,
        "listings": [listing(number)],
        "examples": [example | {"band": band} for band in bands],
        "histogram": {"edges": list(range(25)), "counts": counts, "active": {"rl": 1}, "tokens": 9},
        "output": {"top": [["a", 1.0]] * 10, "bottom": [["b", -1.0]] * 10},
        "neighbours": [],
    }


def test_an_edit_without_controls_is_said_to_have_none(visit, tmp_path):
    effect = {"model": "rl", "behaviour": "backtracking", "edit": "ablate", "dose": 0.0, "q": 0.01}
    effect |= {"where": "opportunities", "found_by": "rl", "without": 0.8, "value": 0.2, "n": 40}
    effect |= {"difference": -0.6, "low": -0.7, "high": -0.5}
    said = [(True, True), (False, True), (None, True), (None, False), (None, None)]
    effect |= {"damaged": "length", "unknown": "accuracy"}
    sets = [
        effect | {"set_size": size, "significant": significant, "coherent": coherent}
        for size, (significant, coherent) in enumerate(said, 1)
    ]
    nothing: dict[str, list[Any]] = {name: [] for name in ("beside", "doses", "off_target")}
    path = latents_page(tmp_path, [listing(0)])
    for name, own in (("1_0", sets), ("1_1", sets[2:])):
        record = evidence_of(0) | nothing | {"name": name, "sets": own, "texts": []}
        write_call(tmp_path / "latents" / f"{name}.js", "showLatent", record)
    page = visit(path, "#0")
    page.wait_for_selector("#one .example")
    box = page.query_selector("#one details:has(summary:text('edits of sets'))")
    assert box.query_selector("summary").text_content() == (
        "All 5 edits of sets that hold it; 1 of the 2 with controls are significant"
    )
    cells = [row.query_selector("td:nth-child(4)") for row in box.query_selector_all("tbody tr")]
    assert [one.text_content() for one in cells] == [
        *("✓ yes", "no", "– no controls", "no: damage (length)", "– unknown: accuracy")
    ]
    other = visit(latents_page(tmp_path, [listing(1)]), "#0")
    other.wait_for_selector("#one .example")
    assert other.query_selector("#one details:has-text('none has controls')")


def test_a_matched_latent_is_shown_beside_chance_and_what_its_words_alone_would_give(
    visit, tmp_path
):
    similar = {"by": "words", "other_layer": 2, "other_latent": 9, "value": 0.7, "low": 0.6}
    similar |= {"high": 0.8, "n": 300, "null_95": 0.05, "same_word": 0.4}
    similar |= {"is_mutual": True, "other_behaviours": "detects verification"}
    pointing = similar | {"by": "cosine", "n": 64, "low": None, "high": None, "same_word": None}
    pointing |= {"is_mutual": False, "other_behaviours": ""}
    path = latents_page(tmp_path, [listing(0)])
    record = evidence_of(0) | {"matched": [similar, pointing]}
    write_call(tmp_path / "latents" / "1_0.js", "showLatent", record)
    page = visit(path, "#0")
    page.wait_for_selector("#one .example")
    table = page.query_selector("#one section:has(h3:text('In other dictionaries')) table")
    assert "by word or token alone" in table.text_content()
    cells = [
        [one.text_content() for one in row.query_selector_all("td")]
        for row in table.query_selector_all("tbody tr")
    ]
    assert [row[:3] for row in cells] == [
        ["2/9", "detects verification", "words: rank r"],
        ["2/9", "isn't shortlisted", "decoder rows: cosine"],
    ]
    assert [row[3:] for row in cells] == [
        ["0.700 [0.600, 0.800]", "0.400", "0.050", "300", "✓ yes"],
        ["0.700", "–", "0.050", "64", "no"],
    ]


def test_each_seed_says_what_became_of_the_latent_there(visit, tmp_path):
    seeds = [
        Replica("backtracking", "rl", "rl", 1, 0, 1, 40, 0.91, 2, 0.8, 0.05, 0.01, 0.1, ROBUST),
        Replica("backtracking", "rl", "rl", 1, 0, 2, 7, 0.3, 90, 0.6, -0.2, -0.3, -0.1, REFUTED),
    ]
    path = latents_page(tmp_path, [listing(0)])
    record = evidence_of(0) | {"replicas": [asdict(one) for one in seeds]}
    write_call(tmp_path / "latents" / "1_0.js", "showLatent", plain(record))
    page = visit(path, "#0")
    page.wait_for_selector("#one .example")
    table = page.query_selector("#one section:has(h3:text('In other dictionaries')) table")
    cells = [
        [one.text_content() for one in row.query_selector_all("td")]
        for row in table.query_selector_all("tbody tr")
    ]
    assert [row[2:6] for row in cells] == [["1", "40", "0.910", "2"], ["2", "7", "0.300", "90"]]
    assert [row[6] for row in cells] == ["0.050 [0.010, 0.100]", "−0.200 [−0.300, −0.100]"]
    assert [row[8] for row in cells] == [ROBUST, REFUTED]


def test_five_hundred_latents_open_within_two_seconds_and_thirty_megabytes(visit, tmp_path):
    path = latents_page(tmp_path, [listing(number % 500) for number in range(1500)])
    for index in range(500):
        write_call(tmp_path / "latents" / f"1_{index}.js", "showLatent", evidence_of(index))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.*"))
    page = visit(path)
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length === 1500")
    to_open = page.evaluate("performance.now()")
    page.evaluate("window.began = performance.now()")
    page.keyboard.press("j")
    page.wait_for_selector("#one .example")
    to_show = page.evaluate("performance.now() - window.began")
    told = "500 latents: %.1f MB, table after %.0f ms, a latent after %.0f ms"
    logging.info(told, size / 1e6, to_open, to_show)  # Seen with --log-cli-level=INFO.
    assert size < 30e6
    assert to_open < 2000
    assert to_show < 2000


def test_numbers_in_plots_are_those_that_python_writes(visit, report):
    page = visit(report / "index.html")
    texts = page.evaluate("[...document.querySelectorAll('svg text')].map(t => t.textContent)")
    assert number(0.0) in texts
    assert page.evaluate("document.querySelectorAll('svg[role=img]:not([aria-label])').length") == 0
