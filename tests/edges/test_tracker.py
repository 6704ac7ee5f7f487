"""The tracker writes W&B runs that can be read back, and never stands in a result's way."""

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import wandb
from matplotlib import image
from numpy import zeros
from offline_runs import merged, only_run_below

from sae_reasoning.config import TrackerConfig
from sae_reasoning.edges.tracker import NullTracker, Tracker, open_tracker, resolve_mode

PLAIN_TEXT = "<script>alert(1)</script> & wait"


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages that this project logged."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("sae_reasoning")]


def open_offline(folder: Path) -> Tracker:
    return open_tracker(
        TrackerConfig(mode="offline"),
        stage="train",
        group="default/search_llama",
        folder=folder,
        config={"steps": 3},
    )


@pytest.fixture(scope="module")
def offline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run to which each kind of thing was logged."""
    folder = tmp_path_factory.mktemp("experiment")
    picture = folder / "effects.png"
    image.imsave(picture, zeros((2, 2)))
    tracker = open_offline(folder)
    for layer in (1, 2):
        for step in range(3):
            tracker.log({f"layer_{layer}/loss": layer / (step + 1)}, step=step)
    frame = pd.DataFrame(
        {
            "latent": [7, 8],
            "context": [PLAIN_TEXT, None],
            "p": [0.5, float("nan")],
            "stands": pd.array([True, None], dtype="boolean"),
            "killed": pd.Series([3, "left out"], dtype=object),
        }
    )
    tracker.table("latents", frame)
    tracker.figure("effects", picture)
    tracker.summary({"fvu": 0.25, "behaviour": "backtracking"})
    tracker.finish()
    return folder


@pytest.fixture(scope="module")
def records(offline_folder: Path) -> list[dict[str, Any]]:
    return only_run_below(offline_folder)


def test_a_run_belongs_to_the_group_of_its_pair_and_experiment(records):
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["run_group"] == "default/search_llama"
    assert run["job_type"] == "train"
    assert run["config"]["update"]["steps"] == 3


def test_every_layer_keeps_its_curve_from_step_zero(records):
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    for layer in (1, 2):
        curve = [(i["step"], i[f"layer_{layer}/loss"]) for i in items if f"layer_{layer}/loss" in i]
        assert curve == [(step, layer / (step + 1)) for step in range(3)]


def test_summary_reads_back(records):
    summary = merged(records, "summary")
    assert summary["fvu"] == 0.25 and summary["behaviour"] == "backtracking"


def test_a_figure_reads_back(offline_folder: Path, records):
    (picture,) = offline_folder.glob("wandb/offline-run-*/files/media/images/effects*.png")
    assert any(picture.name in json.dumps(record) for record in records)


def test_text_of_models_stays_text(offline_folder: Path):
    (table,) = offline_folder.glob("wandb/offline-run-*/files/media/table/*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["latent", "context", "p", "stands", "killed"]
    assert content["data"] == [[7, PLAIN_TEXT, 0.5, True, "3"], [8, None, None, None, "left out"]]
    assert not list(offline_folder.rglob("*.html"))


def test_the_machine_is_not_recorded(offline_folder: Path, records):
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert not run.get("host") and platform.node() not in json.dumps(run)
    names = {path.name for path in offline_folder.rglob("files/*")}
    assert not names & {"requirements.txt", "wandb-metadata.json", "diff.patch", "code"}


def test_a_stage_that_logs_nothing_leaves_no_run(tmp_path: Path):
    open_offline(tmp_path).finish()
    assert list(tmp_path.iterdir()) == []


def test_tracker_none_logs_nowhere(tmp_path: Path):
    tracker = open_tracker(TrackerConfig(kind="none"), stage="train", group="g", folder=tmp_path)
    assert isinstance(tracker, NullTracker)
    tracker.log({"loss": 1.0}, step=0)
    tracker.table("t", pd.DataFrame({"a": [1]}))
    tracker.figure("f", tmp_path / "missing.png")
    tracker.summary({"fvu": 1.0})
    tracker.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's own folder, with nothing of W&B's in it, and nothing of it in the environment."""
    for name in ("MODE", "API_KEY", "BASE_URL", "CONFIG_DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # It looks once a process.
    yield tmp_path
    wandb.teardown()


def log_in(home: Path, host: str) -> None:
    """As `wandb login` does; W&B's own client says where."""
    (home / ".netrc").write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    (home / ".netrc").chmod(0o600)
    wandb.teardown()


def test_offline_unless_somebody_is_logged_in(home: Path, capfd: pytest.CaptureFixture) -> None:
    assert resolve_mode(TrackerConfig()) == "offline"
    log_in(home, "example.org")
    assert resolve_mode(TrackerConfig()) == "offline"
    assert resolve_mode(TrackerConfig(mode="online")) == "online"
    assert capfd.readouterr() == ("", "")


def test_a_login_counts_wherever_the_client_in_use_keeps_it(home: Path) -> None:
    here = urlsplit(wandb.Settings().base_url).netloc  # Another one since some version.
    for host in (here, "api.wandb.ai"):
        log_in(home, host)
        assert resolve_mode(TrackerConfig()) == "online", host
    assert resolve_mode(TrackerConfig(mode="offline")) == "offline"


def test_a_login_at_a_server_of_ones_own_counts(home: Path) -> None:
    """`wandb login --host` keeps the address in its settings."""
    log_in(home, "example.org")
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://example.org\n")
    assert resolve_mode(TrackerConfig()) == "online"


@pytest.mark.parametrize("key", ["0" * 40, "too-short-a-key"])
def test_online_when_a_key_is_set(home: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert resolve_mode(TrackerConfig()) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode(TrackerConfig()) == "offline"


def test_a_tracker_that_fails_warns_once_and_lets_the_stage_go_on(tmp_path: Path, caplog):
    blocked = tmp_path / "folder"
    blocked.write_text("a file where W&B wants its folder")
    tracker = open_offline(blocked)
    for step in range(3):
        tracker.log({"loss": 1.0}, step=step)
    tracker.summary({"fvu": 0.5})
    tracker.finish()
    assert len(ours(caplog)) == 1 and "tracker=none" in ours(caplog)[0]


def test_an_unreachable_server_costs_a_warning_and_the_run_goes_offline(
    tmp_path: Path, monkeypatch, caplog
):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()  # W&B reads its address once a process.
    tracker = open_tracker(
        TrackerConfig(mode="online"), stage="rank", group="g", folder=tmp_path, config={}
    )
    tracker.summary({"auroc": 0.9})
    tracker.finish()
    wandb.teardown()
    assert len(ours(caplog)) == 1 and "127.0.0.1" in ours(caplog)[0]
    assert any("auroc" in json.dumps(record) for record in only_run_below(tmp_path))
