"""The report of a project with all stages, and of one with none but what the verdict needs."""

import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
from projects import Project

from sae_reasoning.edges.artifacts import Manifest, read_json
from sae_reasoning.edges.tables import read_table


def words(page: Path) -> str:
    """Text of a page, as a person reads it."""
    body = page.read_text(encoding="utf-8").split("<main", 1)[1].split(">", 1)[1]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def latent_files(project: Project) -> list[Path]:
    return sorted((project.results / "report" / "latents").glob("*.js"))


def evidence_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("showLatent(") and text.endswith(");\n")
    return json.loads(text.removeprefix("showLatent(").removesuffix(");\n"))


def test_the_overview_says_first_what_became_of_each_move_and_how_sure_it_is(
    made_project: Project,
):
    report = made_project.results / "report"
    text = words(report / "index.html")
    opening = " ".join(text.split()[:80]).lower()
    for one in read_json(report / "verdict.json")["verdicts"]:
        assert one["behaviour"] in opening
        assert one["verdict"] in opening
        assert one["reason"].lower() in text.lower()
    assert text.count("Certainty:") == len(read_json(report / "verdict.json")["verdicts"])
    before_cards = text.partition("Certainty:")[0]
    assert "How often such verdicts are right isn't known yet" in before_cards  # None here.


def test_every_figure_has_its_rows_beside_it(made_project: Project):
    report = made_project.results / "report"
    linked = set(re.findall(r'href="(rows/[^"]+)"', (report / "index.html").read_text()))
    assert {"rows/onset_probability.csv", "rows/execution.csv", "rows/attacks.csv"} <= linked
    assert all((report / name).is_file() for name in linked)
    attacks = pd.read_csv(report / "rows" / "attacks.csv")
    assert len(attacks) == len(read_table(made_project.results / "rank" / "attacks.parquet"))
    listed = pd.read_csv(report / "rows" / "latents.csv")
    shortlist = read_json(made_project.results / "rank" / "shortlist.json")
    lists = [*shortlist["span_detectors"].values(), *shortlist["onset_predictors"].values()]
    assert len(listed) == sum(map(len, lists))


def test_a_latents_examples_are_its_activations_on_report_traces(made_project: Project):
    traces = {
        row.trace_id: row
        for row in read_table(made_project.results / "traces" / "traces.parquet").itertuples()
    }
    seen = 0
    for path in latent_files(made_project):
        one = evidence_of(path)
        assert set(one["histogram"]["active"]) == {"base", "rl"}
        assert len(one["output"]["top"]) == len(one["output"]["bottom"]) == 10
        assert all(-1 <= n["cosine"] <= 1 for n in one["neighbours"])
        for example in one["examples"]:
            trace = traces[example["trace"]]
            assert trace.split == "report"
            assert str(example["chosen"]) in example["values"]["rl"]
            assert all(0 <= mark["first"] < mark["last"] for mark in example["marks"])
            if not any(example["is_cut"]):
                said = "".join(example["tokens"][1:])
                assert trace.text in said
            seen += 1
    assert seen > 20


def test_without_latents_the_overview_stands_and_names_what_makes_the_rest(
    made_project: Project, tmp_path: Path
):
    project = made_project.copy(tmp_path, "traces", "contrast")
    outcome = project.run("report")
    assert outcome.code == 0, outcome.output
    heading = outcome.output.partition("== report\n")[2].partition("\n\n")[0]
    assert re.search(r"verdicts +on .*\n +made from +contrast, traces\n +without +cache, ", heading)
    report = project.results / "report"
    assert not (report / "latents.html").exists()
    page = (report / "index.html").read_text("utf-8")
    for target in ("hybrid", "rank", "train"):
        assert f"<code>make {target}</code>" in page
    manifest = Manifest.read(report)
    assert manifest and set(manifest.inputs) >= {"traces", "contrast"}
    assert "rank" not in manifest.inputs
    outcome = project.run("report", "traces.temperature=0.9")
    assert outcome.code == 0, outcome.output
    assert (
        Manifest.read(report).inputs.keys() == {"contrast", "calibration"} & manifest.inputs.keys()
    )
    outcome = project.run("report", "contrast.seed=5")
    assert outcome.code == 2
    assert "make contrast" in outcome.output


def test_reviewers_calls_are_folded_in_and_those_of_other_shortlists_refused(
    made_project: Project, tmp_path: Path
):
    project = made_project.copy(tmp_path, "rank", "contrast", "report")
    rank = Manifest.read(project.results / "rank")
    assert rank
    listed = pd.read_csv(project.results / "report" / "rows" / "latents.csv").iloc[0]
    row = {"layer": int(listed.layer), "latent": int(listed.latent), "behaviour": listed.behaviour}
    for name, call, made_on in (("a", "real", rank), ("b", "real", rank), ("c", "real", None)):
        export = {"schema_version": 2, "reviewer": name, "reviews": [row | {"label": call}]}
        export["rank"] = made_on.fingerprint if made_on else "another"
        (tmp_path / f"{name}.json").write_text(json.dumps(export))
    outcome = project.run("report", "report.reviews=[a.json,b.json]")
    assert outcome.code == 0, outcome.output
    report = project.results / "report"
    assert "Reviewers' labels" in words(report / "index.html")
    assert len(pd.read_csv(report / "rows" / "reviews.csv")) == 2
    assert "a: real; b: real" in (report / "latents.html").read_text()
    assert "reviews" not in read_json(report / "verdict.json")["margins"]
    outcome = project.run("report", "report.reviews=[c.json]")
    assert outcome.code == 2
    assert "report.reviews=c.json reviews other shortlists" in outcome.output
    outcome = project.run("report", "report.reviews=[none.json]")
    assert outcome.code == 2
    assert "report.reviews=none.json can't be read" in outcome.output
