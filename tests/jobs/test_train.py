import io
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_reasoning.config import VERSIONS, Config, ConfigError, SaeConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import MissingInput
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.crosscoder_checkpoint import load_crosscoder
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish, load_dictionary
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.traces import traces
from sae_reasoning.jobs.train import train


class DyingTracker(NullTracker):
    """Kills its process, without warning, at the first point of a curve past `at`."""

    def __init__(self, prefix: str, at: int) -> None:
        self._prefix, self._at = prefix, at

    def log(self, metrics, step=None) -> None:
        if step >= self._at and any(name.startswith(self._prefix) for name in metrics):
            os.kill(os.getpid(), signal.SIGKILL)


def run(cfg: Config) -> str:
    """Train; what was printed."""
    stream = io.StringIO()
    train(cfg, tracker=NullTracker(), console=Console(stream, verbose=True))
    return stream.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Room for the traces and activations that all tests of this file share."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def cfg(tiny_config: Config, made: Path) -> Config:
    """The tiny experiment with its traces and cache done."""
    runs, tiny_config.runs = tiny_config.runs, str(made)
    for job in (traces, cache):
        job(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    shutil.copytree(made, runs)
    tiny_config.runs = runs
    return tiny_config


def test_train_makes_one_sae_a_layer_with_curve_and_quality_of_both_readers(cfg: Config) -> None:
    printed = run(cfg)
    for layer in cfg.layers:
        folder = cfg.folder / "train" / "pooled" / f"layer_{layer}"
        assert {path.name for path in folder.iterdir()} == {
            "cfg.json",
            "sae_weights.safetensors",
            "curve.parquet",
            "quality.json",
        }
        dictionary = load_dictionary(folder)
        assert (dictionary.layer, dictionary.d_sae) == (layer, 64)
        assert list(read_table(folder / "curve.parquet")["step"]) == list(range(1, 21))
        quality = json.loads((folder / "quality.json").read_text())
        assert quality["fingerprint"] == dictionary.fingerprint
        for reader in ("base", "rl"):
            figures = quality["readers"][reader]
            assert 0 < figures["fvu"] < 1.5
            assert 0 < figures["l0"] <= 4
            assert figures["passes"] == (not figures["failed"])
            assert "l0" not in figures["failed"]
            assert np.isfinite(figures["ce_recovered"])
            assert figures["ce"]["num_tokens"] > 0
    assert "next: make rank" in printed
    assert "is up to date" in run(cfg)


def test_quality_is_measured_on_tokens_of_the_report_split(cfg: Config) -> None:
    run(cfg)
    table = read_traces(cfg.folder / "traces" / "traces.parquet")
    reported = [i for i, trace in enumerate(table) if trace.split == "report"]
    store = ActivationStore.open(cfg.folder / "cache" / "rl" / "layer_1")
    x = store.read(np.flatnonzero(np.isin(store.trace_index, reported)))
    folder = cfg.folder / "train" / "pooled" / "layer_1"
    dictionary = load_dictionary(folder)
    error = x - dictionary.decode(dictionary.encode(x))
    fvu = (error.square().sum() / (x - x.mean(0)).square().sum()).item()
    figures = json.loads((folder / "quality.json").read_text())["readers"]["rl"]
    assert figures["num_tokens"] == len(x)
    assert figures["fvu"] == pytest.approx(fvu, rel=1e-4)


def test_killed_training_keeps_finished_saes_and_resumes_to_the_same_bytes(
    cfg: Config, tmp_path: Path
) -> None:
    shutil.copytree(cfg.runs, tmp_path / "whole")
    killed_runs, cfg.runs = cfg.runs, str(tmp_path / "whole")
    run(cfg)
    whole = cfg.folder
    cfg.runs = killed_runs

    child = os.fork()
    if child == 0:
        try:
            tracker = DyingTracker("layer_1/", at=15)
            train(cfg, tracker=tracker, console=Console(io.StringIO()))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert not (cfg.folder / "train").exists()
    (partial,) = cfg.folder.glob("train.partial-*")
    first = partial / "pooled" / "layer_0" / "sae_weights.safetensors"
    written = first.stat().st_mtime_ns
    assert (partial / "pooled" / "layer_1" / "checkpoint.safetensors").exists()

    run(cfg)
    for name in ("sae_weights.safetensors", "cfg.json"):
        for layer in cfg.layers:
            part = Path("train", "pooled", f"layer_{layer}", name)
            assert (cfg.folder / part).read_bytes() == (whole / part).read_bytes()
    first = cfg.folder / "train" / "pooled" / "layer_0" / "sae_weights.safetensors"
    assert first.stat().st_mtime_ns == written
    curves = [
        read_table(folder / "train" / "pooled" / "layer_1" / "curve.parquet")
        for folder in (cfg.folder, whole)
    ]
    assert curves[0].equals(curves[1])


def test_other_bars_cost_no_training_and_another_version_of_it_does(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains = "pooled layer 0: 20 steps"
    assert trains in run(cfg)
    cfg.train.gate_fvu = 0.5
    assert trains not in run(cfg)
    monkeypatch.setitem(VERSIONS, "train", 1000)
    assert trains in run(cfg)


def test_readers_decide_whose_activations_are_learned(cfg: Config) -> None:
    weights = {}
    for readers in ("base", "rl"):
        cfg.train.readers = readers
        run(cfg)
        folder = cfg.folder / "train" / readers / "layer_0"
        weights[readers] = load_dictionary(folder).W_dec
        assert set(json.loads((folder / "quality.json").read_text())["readers"]) == {"base", "rl"}
    assert not torch.equal(weights["base"], weights["rl"])


def test_a_sae_over_the_l0_bar_is_warned_of(cfg: Config) -> None:
    cfg.train.sae.k = 12
    printed = run(cfg)
    assert "fails the transfer gate: l0 12 is over train.gate_l0=0.125 of d_model=32" in printed
    assert "lower train.sae.k" in printed
    assert ("next: make rank" in printed) == (not cfg.rank.gate)
    cfg.rank.gate = not cfg.rank.gate
    cfg.train.seed += 1
    assert ("next: make rank" in run(cfg)) == (not cfg.rank.gate)


def test_cache_of_another_model_is_refused_by_fingerprint(cfg: Config) -> None:
    cfg.pair.rl = cfg.pair.base
    with pytest.raises(MissingInput, match=r"from another rl than there is now; run `make traces`"):
        run(cfg)


def test_a_shard_cut_short_is_refused_and_what_was_made_stands(cfg: Config) -> None:
    run(cfg)
    shard = cfg.folder / "cache" / "base" / "layer_0" / "shard_00000.h5"
    shard.write_bytes(shard.read_bytes()[:-500])
    cfg.train.steps = 21
    with pytest.raises(MissingInput, match=r"shard_00000\.h5 has .* bytes, not.*`make cache`"):
        run(cfg)
    assert (cfg.folder / "train" / "manifest.json").exists()


def test_a_missing_cache_names_the_target_that_makes_it(cfg: Config) -> None:
    shutil.rmtree(cfg.folder / "cache")
    with pytest.raises(MissingInput, match="run `make cache` first"):
        run(cfg)


def test_a_layer_that_was_not_cached_is_refused(cfg: Config) -> None:
    cfg.layers = [0, 2]
    with pytest.raises(MissingInput, match=r"layers=\[0, 1\], now \[0, 2\].*run `make cache`"):
        run(cfg)
    cfg.layers = [0, 9]
    with pytest.raises(ConfigError, match=r"layers=\[0, 9\] out of range"):
        run(cfg)


def test_a_diverging_training_says_so(cfg: Config) -> None:
    cfg.train.lr = 1e30
    with pytest.raises(ConfigError, match=r"lower train\.lr"):
        run(cfg)
    assert not (cfg.folder / "train").exists()


def test_a_crosscoder_is_trained_by_the_same_job_and_its_latents_are_scaled(cfg: Config) -> None:
    cfg.train.readers, cfg.train.sae.architecture = "crosscoder", "batchtopk"
    cfg.train.scaling_problems, cfg.train.scaling_bootstrap = 2, 20
    printed = run(cfg)
    assert "what latent scaling makes of them" in printed
    for layer in cfg.layers:
        folder = cfg.folder / "train" / "crosscoder" / f"layer_{layer}"
        crosscoder = load_crosscoder(folder)
        assert crosscoder.readers == ("base", "rl")
        assert crosscoder.decoders.shape == (2, cfg.train.sae.d_sae, 32)
        scaling = read_table(folder / "scaling.parquet")
        assert len(scaling) == cfg.train.sae.d_sae
        assert set(scaling.status) <= {
            "shared",
            "unclear",
            "undefined",
            "base-specific",
            "rl-specific",
        }
        quality = json.loads((folder / "quality.json").read_text())
        assert set(quality["readers"]) == {"base", "rl"}


def test_saes_brought_along_are_measured_and_one_of_another_width_is_refused(
    cfg: Config, tmp_path: Path
) -> None:
    run(cfg)
    brought = tmp_path / "brought"
    shutil.copytree(cfg.folder / "train" / "pooled", brought)
    cfg.train.readers = "released"
    cfg.train.released = str(brought / "layer_{layer}")
    run(cfg)
    for layer in cfg.layers:
        folder = cfg.folder / "train" / "released" / f"layer_{layer}"
        quality = json.loads((folder / "quality.json").read_text())
        assert quality["readers"]["rl"]["fvu"] > 0
    sae = build_training_sae(SaeConfig(d_sae=16, k=2), d_in=24, seed=0, steps=1)
    for layer in cfg.layers:
        shutil.rmtree(brought / f"layer_{layer}")
        finish(sae, 1.0).save(brought / f"layer_{layer}")
    with pytest.raises(ConfigError, match="width 24, the models' have 32; bring an SAE"):
        run(cfg)
