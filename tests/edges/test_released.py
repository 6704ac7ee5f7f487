"""SAEs of sae-lens's registry: names are checked against the installed one, nothing is fetched."""

from pathlib import Path

import huggingface_hub
import pytest
import torch

from sae_reasoning.compose import compose
from sae_reasoning.config import ConfigError, SaeConfig, TrainConfig
from sae_reasoning.edges.sae_checkpoint import Dictionary, build_training_sae, finish
from sae_reasoning.edges.sae_release import check_registered, load_registered


@pytest.mark.parametrize(
    ("release", "sae_id", "layers"),
    [
        ("llama_scope_lxr_8x", "l{}r_8x", 32),
        ("llama_scope_lxr_32x", "l{}r_32x", 32),
        ("llama_scope_r1_distill", "l{}r_800m_slimpajama", 32),
        ("gemma-scope-2-270m-pt-res-all", "layer_{}_width_16k_l0_small", 18),
        ("qwen-scope-3-1.7b-base-w32k-l50", "layer{}", 28),
        ("qwen-scope-3-8b-base-w64k-l50", "layer{}", 36),
    ],
)
def test_releases_that_the_readme_names_have_an_sae_of_every_layer(release, sae_id, layers):
    for layer in range(layers):
        check_registered(release, sae_id.format(layer))


def test_a_misspelt_release_or_sae_is_told_what_there_is():
    with pytest.raises(ConfigError, match=r"release=llama_scop_lxr_8x isn't .* llama_scope_lxr_8x"):
        check_registered("llama_scop_lxr_8x", "l3r_8x")
    with pytest.raises(ConfigError, match=r"id=l99r_8x is none of the 32 SAEs .*there is l\d+r_8x"):
        check_registered("llama_scope_lxr_8x", "l99r_8x")


def hub_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dictionary:
    """A hub's local copy that holds one SAE as its maker uploaded it."""
    commit = "0" * 40
    repository = folder / "models--somebody--saes"
    sae = build_training_sae(
        SaeConfig(d_sae=48, k=4),
        d_in=16,
        seed=0,
        steps=1,
        metadata={"hook_name": "blocks.2.hook_resid_post"},
    )
    made = finish(sae, 0.5)
    made.save(repository / "snapshots" / commit / "layer_2")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return made


def test_an_sae_of_a_release_is_the_one_that_was_uploaded(tmp_path, monkeypatch):
    made = hub_with(tmp_path, monkeypatch)
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    found = load_registered("somebody/saes", "layer_2", 2, 16)
    torch.testing.assert_close(found.encode(x), made.encode(x))
    assert found.layer == 2
    with pytest.raises(ConfigError, match=r"reads blocks\.2\.hook_resid_post, layers asks"):
        load_registered("somebody/saes", "layer_2", 1, 16)
    with pytest.raises(ConfigError, match=r"width 16, the models' have 24"):
        load_registered("somebody/saes", "layer_2", 2, 24)


def test_an_sae_that_cannot_be_fetched_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"release=llama_scope_lxr_8x .*can't be fetched") as one:
        load_registered("llama_scope_lxr_8x", "l3r_8x", 3, 4096)
    assert "\n" not in str(one.value)


def test_naming_a_release_is_enough_to_train_nothing():
    cfg = compose(["sae.release=llama_scope_lxr_8x", "sae.id=l{layer}r_8x", "layers=[8,15]"])
    assert (cfg.train.readers, cfg.train.sae.id) == ("released", "l{layer}r_8x")
    assert compose().settings("train")["train"]["sae"]["release"] == ""
    assert cfg.settings("train")["train"]["sae"]["release"] == "llama_scope_lxr_8x"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["sae.release=llama_scope_lxr_8x"], "set both, or neither"),
        (["sae.release=a/b", "sae.id=l3", "layers=[3,4]"], r"put {layer} into it"),
        (["sae.release=a/b", "sae.id=l3", "layers=[3]", "train.released=x"], "set one of them"),
        (["sae.release=a/b", "sae.id=l3", "layers=[3]", "train.readers=rl"], "doesn't go with"),
    ],
)
def test_half_of_a_name_is_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        compose(options)


def test_released_readers_need_saes():
    with pytest.raises(ConfigError, match=r"train\.sae\.release and train\.sae\.id"):
        TrainConfig(readers="released")
