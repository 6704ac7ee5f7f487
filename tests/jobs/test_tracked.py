"""What goes up to W&B: offline runs, read back by its own reader."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from offline_runs import artifacts, records_of
from projects import Project

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, read_json
from sae_reasoning.edges.uploads import may_show_texts, upload, without_places
from sae_reasoning.edges.workspace import layout, save

NAME, NOTE = "Ann of Accounts", "looks fishy to me"
STAGES = ("traces", "cache", "train", "rank", "ablate", "contrast")


@pytest.fixture(scope="module")
def tracked(made_project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Records of the runs of `ablate` and `report`, by stage, and where they are."""
    project = made_project.copy(tmp_path_factory.mktemp("tracked"), *STAGES)
    outcome = project.run(
        *("ablate", "report", "ablate.seed=1", "tracker.kind=wandb", "tracker.mode=offline"),
        *("tracker.texts=always", "tracker.latents=4"),
    )
    assert outcome.code == 0, outcome.output
    runs = sorted((project.results / "wandb").glob("offline-run-*/*.wandb"))
    found: dict[str, Any] = {"project": project}
    for path in runs:
        records = records_of(path)
        (run,) = [r["run"] for r in records if r["type"] == "run"]
        found[run["job_type"]] = records
    return found


def logged(records: list[dict[str, Any]]) -> set[str]:
    """Names of what was logged; of media W&B writes the fields one by one."""
    keys = [k for r in records if r["type"] == "history" for k in r["history"]["item"]]
    return {key.rpartition(".")[0] or key for key in keys}


def test_tables_and_curves_of_the_stages_records_of(tracked):
    assert {"effects", "sets", "doses", "dose curves_table"} <= logged(tracked["ablate"])
    assert {"verdicts", "latents"} <= logged(tracked["report"])


def test_the_report_is_linked_to_what_it_was_made_from_by_content(tracked):
    made = {a["name"]: a for a in artifacts(tracked["ablate"]) if not a.get("use_after_commit")}
    used = {a["name"]: a for a in artifacts(tracked["report"]) if a.get("use_after_commit")}
    assert {a["type"] for a in used.values()} >= {"traces", "saes", "scores", "effects", "contrast"}
    name = "tiny-talking-ablate"
    assert used[name]["digest"] == made[name]["digest"]
    (report,) = [a for a in artifacts(tracked["report"]) if a["type"] == "report"]
    assert not report.get("use_after_commit")
    assert "verdict.json" in {entry["path"] for entry in report["manifest"]["contents"]}


def test_only_the_best_latents_have_a_page_and_it_is_inert(tracked):
    (table,) = [a for a in artifacts(tracked["report"]) if a["name"].endswith("-latents")]
    pages = [e for e in table["manifest"]["contents"] if e["path"].endswith(".html")]
    assert 0 < len(pages) <= 4
    text = Path(pages[0]["local_path"]).read_text(encoding="utf-8")
    assert "AUROC" in text and "<script" not in text
    assert "://" not in text


def test_no_folder_goes_up(tracked):
    project: Project = tracked["project"]
    for stage in ("ablate", "report"):
        for record in tracked[stage]:
            for entry in record.get("artifact", {}).get("manifest", {}).get("contents", ()):
                del entry["local_path"]  # Where W&B keeps its copy until it's sent.
        text = json.dumps(tracked[stage])
        assert str(project.folder) not in text
        assert str(Path.home()) not in text or str(Path.home()) == "/"
        assert not any(r["run"].get("host") for r in tracked[stage] if r["type"] == "run")


def test_texts_and_weights_go_up_only_where_asked_for(made_project: Project, tiny_config: Config):
    def files(stage: str) -> set[str]:
        folder = made_project.results / stage
        manifest = Manifest.read(folder)
        assert manifest
        return set(upload(tiny_config, folder, manifest).files)

    assert not may_show_texts(tiny_config)  # Models that nobody made here.
    assert files("traces") == set()
    assert "generations.parquet" not in files("ablate") and "effects.parquet" in files("ablate")
    assert not any("safetensors" in name for name in files("train"))
    assert not any(name.endswith(".html") for name in files("report"))
    tiny_config.tracker.texts, tiny_config.tracker.weights = "always", True
    assert files("traces") == {"accuracy.json", "problems.parquet", "traces.parquet"}
    assert "generations.parquet" in files("ablate")
    assert any("safetensors" in name for name in files("train"))
    assert files("cache") == set()


@pytest.fixture(scope="module")
def reviewed(made_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose report has a reviewer's labels in it, and went up as `auto` says."""
    project = made_project.copy(tmp_path_factory.mktemp("reviewed"), "rank", "contrast", "report")
    rank = Manifest.read(project.results / "rank")
    assert rank
    rows = pd.read_csv(project.results / "report" / "rows" / "latents.csv")
    labels = [
        {"layer": int(row.layer), "latent": int(row.latent), "behaviour": row.behaviour}
        | {"label": "real", "note": NOTE}
        for row in rows.itertuples()
    ]
    export = {"schema_version": 2, "reviewer": NAME, "rank": rank.fingerprint, "reviews": labels}
    (project.folder / "labels.json").write_text(json.dumps(export))
    outcome = project.run(
        *("report", "report.reviews=[labels.json]", "tracker.kind=wandb", "tracker.mode=offline")
    )
    assert outcome.code == 0, outcome.output
    return project


def test_reviewers_labels_go_up_as_counts_and_their_names_and_notes_dont(reviewed: Project):
    report = reviewed.results / "report"
    assert NAME in (report / "latents.html").read_text()
    assert NOTE in (report / "rows" / "reviews.csv").read_text()
    (run,) = (reviewed.results / "wandb").glob("offline-run-*/*.wandb")
    records = records_of(run)
    entries = [e for a in artifacts(records) for e in a["manifest"]["contents"]]
    sent = {entry["path"]: Path(entry["local_path"]).read_bytes() for entry in entries}
    assert {"rows/latents.csv", "latents.table.json"} <= set(sent)
    assert any(path.endswith(".html") for path in sent)
    assert b"1 real" in sent["rows/latents.csv"] and b"1 real" in sent["latents.table.json"]
    for content in (*sent.values(), json.dumps(records).encode()):
        assert NAME.encode() not in content and NOTE.encode() not in content


@pytest.mark.parametrize(("texts", "goes_up"), [("auto", False), ("always", True)])
def test_pages_with_reviewers_names_go_up_only_where_texts_are_asked_for(
    reviewed: Project, made_project: Project, tiny_config: Config, tmp_path: Path, texts, goes_up
):
    (tmp_path / "measured.json").touch()
    tiny_config.pair.base.path = tiny_config.pair.rl.path = str(tmp_path)
    tiny_config.tracker.texts = texts
    assert may_show_texts(tiny_config)  # Models of this project, so `auto` shows their texts.
    with_names = {"index.html", "latents.html", "rows/reviews.csv"}

    def files(project: Project) -> set[str]:
        folder = project.results / "report"
        manifest = Manifest.read(folder)
        assert manifest
        return set(upload(tiny_config, folder, manifest).files)

    assert (files(reviewed) & with_names) == (with_names if goes_up else set())
    assert {"rows/latents.csv", "verdict.json"} <= files(reviewed)
    assert {"index.html", "latents.html"} <= files(made_project)  # Nobody has reviewed it.


def test_of_a_path_only_its_last_part_goes_up_and_of_an_address_nothing(tmp_path: Path):
    content = {"a": "/models/base", "b": ["http://host:1/v1", "rl", 1], "c": "owner/name"}
    assert without_places(content | {"d": str(tmp_path), "e": "~/x", "f": "../y"}) == {
        "a": "base",
        "b": ["(address left out)", "rl", 1],
        "c": "owner/name",
        "d": tmp_path.name,
        "e": "x",
        "f": "y",
    }


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:8000", "localhost:8000/v1", "gpu-07.cluster.example:29500", "node7:22"),
        *("10.0.0.3:8000", "[::1]:8000/v1", "--endpoint=box:8000", "a, box:8000", "me@box:runs/x"),
        *("https://box/v1", "traces.annotator_endpoint=http://box:1"),
    ],
)
def test_an_address_is_left_out_with_or_without_a_scheme(address):
    assert without_places({"x": [address]}) == {"x": ["(address left out)"]}


@pytest.mark.parametrize(
    "text",
    [
        *("1:35", "0:7 1:35", "gym:gsm_symbolic", "gym:countdown,gsm_symbolic", "owner/name"),
        *("blocks.1.hook_resid_post", "12:30", "note: 8000 tokens", "layer=1", "a:b:c", "real"),
    ],
)
def test_what_only_looks_a_little_like_an_address_stays(text):
    assert without_places(text) == text


@pytest.mark.parametrize("piece", ["m", "a:", "1.", "a@", "/a", "~/a,"])
def test_a_text_of_a_megabyte_is_looked_through_in_no_time(piece):
    began = time.process_time()
    without_places(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 10  # Less than a second, unless it's quadratic.


def test_folders_within_a_text_lose_all_but_their_last_part_too():
    assert without_places("gsm8k:/data/secret/gsm8k") == "gsm8k:gsm8k"
    assert without_places("traces.source=/home/me/mine.jsonl") == "traces.source=mine.jsonl"
    assert without_places("a.json, ~/b/c.json") == "a.json, c.json"


# The saved workspace


def test_the_workspace_shows_what_the_stages_log(tiny_config: Config):
    spaces = pytest.importorskip("wandb_workspaces.workspaces", reason="extra [dashboard]")
    from sae_reasoning.edges.workspace import build

    made = build(tiny_config, "somebody")
    assert isinstance(made, spaces.Workspace)
    assert [section.name for section in made.sections] == [p.title for p in layout([0, 1])]
    text = json.dumps(made._to_model().model_dump(by_alias=True), default=str)
    for name in ("verdicts", "latents", "dose curves_table", "gap curve_table", "layer_1/fvu"):
        assert name in text
    assert "experiment" not in made.name and made.name.endswith("/tiny")


def test_without_a_login_the_dashboard_says_what_to_do(tiny_config: Config, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"wandb login.*wandb sync.*make dashboard"):
        save(tiny_config)


def test_a_stage_file_of_json_says_what_made_it(made_project: Project, tiny_config: Config):
    folder = made_project.results / "rank"
    manifest = Manifest.read(folder)
    assert manifest
    content = json.loads(upload(tiny_config, folder, manifest).content)
    assert content["fingerprint"] == read_json(folder / "manifest.json")["fingerprint"]
    assert set(content["inputs"]) == {"base", "rl", "traces", "cache", "train"}
