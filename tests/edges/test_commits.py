"""A hub id is the commit that it stands for, so a branch that moves is another model."""

import shutil
from pathlib import Path

import pytest
from transformers.utils.hub import constants

from sae_reasoning.config import ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.lm import commits
from sae_reasoning.edges.lm.identity import identify
from sae_reasoning.edges.lm.load import describe, load

FIRST, SECOND = "1" * 40, "2" * 40


class Hub:
    """What the hub's own cache holds of one repository whose main branch can be moved."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / f"models--{name.replace('/', '--')}"

    def push(self, commit: str, content: Path) -> None:
        shutil.copytree(content, self.folder / "snapshots" / commit)
        (self.folder / "refs").mkdir(exist_ok=True)
        (self.folder / "refs" / "main").write_text(commit)
        commits._resolved.cache_clear()  # As a new run would find it.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commits._resolved.cache_clear()
    return Hub(tmp_path, "lab/tiny")


def test_a_moved_main_is_another_model(tiny_pair: PairConfig, hub: Hub) -> None:
    model, pinned = ModelConfig("lab/tiny"), ModelConfig("lab/tiny", revision=FIRST)
    hub.push(FIRST, Path(tiny_pair.base.path))
    first = describe(model)
    assert describe(pinned) == first
    hub.push(SECOND, Path(tiny_pair.rl.path))
    second = describe(model)
    assert second.fingerprint != first.fingerprint
    assert second.tokenizer_fingerprint != first.tokenizer_fingerprint
    assert describe(pinned) == first
    assert load(model, "cpu").facts == second


def test_a_run_reads_one_commit_though_main_behaviours_meanwhile(
    tiny_pair: PairConfig, hub: Hub
) -> None:
    hub.push(FIRST, Path(tiny_pair.base.path))
    model = ModelConfig("lab/tiny")
    first = describe(model)
    (hub.folder / "refs" / "main").write_text(SECOND)
    assert load(model, "cpu").facts == first


def test_a_moved_tokenizer_is_another_tokenizer(tiny_pair: PairConfig, hub: Hub) -> None:
    borrowed = ModelConfig(tiny_pair.base.path, tokenizer="lab/tiny")
    hub.push(FIRST, Path(tiny_pair.base.path))
    first = describe(borrowed)
    hub.push(SECOND, Path(tiny_pair.base.path))
    second = describe(borrowed)
    assert second.fingerprint == first.fingerprint
    assert second.tokenizer_fingerprint != first.tokenizer_fingerprint


def test_what_the_hub_cannot_say_stays_as_it_was_asked_for(hub: Hub, tmp_path: Path) -> None:
    assert commits.commit_of("lab/unknown", "config.json", "v1") == "v1"
    assert commits.commit_of("lab/unknown", "config.json", None) is None
    assert commits.commit_of(str(tmp_path), "config.json", None) is None


def test_an_id_that_nobody_can_resolve_is_refused_before_anything_is_called_stale(hub: Hub) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor known to the hub"):
        identify(ModelConfig("lab/unknown"))
    assert identify(ModelConfig("lab/unknown", revision=FIRST)).name == "lab/unknown"
