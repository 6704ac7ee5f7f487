"""What goes up to W&B: offline runs, read back by its own reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from offline_runs import artifacts, records_of

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, read_json
from sae_reasoning.edges.uploads import may_show_texts, upload, without_places
from sae_reasoning.edges.workspace import layout, save

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
    text = Path(pages[0]["local_path"]).read_text()
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
    assert files("traces") == {"traces.parquet"}
    assert "generations.parquet" in files("ablate")
    assert any("safetensors" in name for name in files("train"))
    assert files("cache") == set()


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
