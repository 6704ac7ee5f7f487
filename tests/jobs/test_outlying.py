"""Tokens of outlying norm, through cache, train and scoring: one word is long in the RL model."""

import io
import json
import re
import shutil
from copy import deepcopy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sae_reasoning.config import Config, ConfigError, PairConfig, RankConfig, TrainConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import Manifest
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.create import save_model
from sae_reasoning.edges.lm.load import describe, load
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.rank.data import open_data
from sae_reasoning.jobs.traces import traces
from sae_reasoning.jobs.train import train
from sae_reasoning.readings.data import Readings
from sae_reasoning.readings.passes import score_store

LONG = "cedar"
SAID = (
    "at ash . so birch . wait , back to ash . so moss .",
    "at ash . so fern . at fern . wait , back to ash . so birch .",
)


@pytest.fixture(scope="module")
def long_pair(tiny_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """The tiny pair; the RL model's residual at `LONG` is some 300 times as long as elsewhere."""
    pair, folder = deepcopy(tiny_pair), tmp_path_factory.mktemp("long") / "rl"
    lm = load(pair.rl, "cpu")
    token = lm.tokenizer.convert_tokens_to_ids(LONG)
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[token] *= 300
    save_model(lm.model, lm.tokenizer, folder, torch.float32)
    pair.rl.path = str(folder)
    return pair


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outlying") / "runs"


@pytest.fixture
def cfg(tiny_config: Config, long_pair: PairConfig, runs: Path) -> Config:
    """Traces that somebody brings along, read by the pair; made once."""
    source = runs.parent / "said.jsonl"
    rows = []
    for number in range(40):
        text = SAID[number % 2] + (f" at {LONG} ." if number % 5 == 0 else " at elm .")
        start = text.index("wait")
        label = [[start, text.index(".", start) + 1, "backtracking"]]
        rows += [
            {"problem_id": f"q{number}", "writer": writer, "text": text, "label": label}
            | {"prompt": "find birch ."}
            for writer in ("base", "rl")
        ]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tiny_config.pair, tiny_config.behaviours = deepcopy(long_pair), ["backtracking"]
    tiny_config.traces.source, tiny_config.cache.dtype = str(source), "float32"
    here, tiny_config.runs = tiny_config.runs, str(runs)
    for job in (traces, cache):
        job(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    shutil.copytree(runs, here)
    tiny_config.runs = here
    return tiny_config


def num_long(cfg: Config, split: str = "") -> int:
    table = read_traces(cfg.folder / "traces" / "traces.parquet")
    return sum(t.text.split().count(LONG) for t in table if split in ("", t.split))


def trained(cfg: Config) -> tuple[str, dict[str, dict]]:
    """What train said, and the figures of each reader at layer 1."""
    out = io.StringIO()
    train(cfg, tracker=NullTracker(), console=Console(out))
    folder = cfg.folder / "train" / cfg.train.readers / "layer_1"
    return " ".join(out.getvalue().split()), json.loads((folder / "quality.json").read_text())[
        "readers"
    ]


def test_the_cache_counts_tokens_of_outlying_norm_of_each_reader_and_layer(cfg: Config) -> None:
    shutil.rmtree(cfg.folder / "cache")
    out = io.StringIO()
    manifest = cache(cfg, tracker=NullTracker(), console=Console(out))
    assert manifest is not None
    found = manifest.counts["outlying"]
    assert set(found) == {"base/layer_0", "base/layer_1", "rl/layer_0", "rl/layer_1"}
    for layer in cfg.layers:
        assert found[f"base/layer_{layer}"]["tokens"] == 0
        own = found[f"rl/layer_{layer}"]
        assert own["tokens"] == num_long(cfg) > 0
        assert own["share"] == own["tokens"] / manifest.counts["rows"]
        store = ActivationStore.open(cfg.folder / "cache" / "rl" / f"layer_{layer}")
        norms = store.read(range(store.num_tokens)).norm(dim=1).numpy()
        np.testing.assert_allclose(store.norm, norms, rtol=1e-6)
        assert own["largest_multiple"] == pytest.approx(norms.max() / own["median_norm"])
        assert own["largest_multiple"] > 20
    (line,) = re.findall(r"Tokens with a norm of more than 10 times the median: .*", out.getvalue())
    assert "of rl/layer_" in line


@pytest.mark.parametrize("readers", ["pooled", "crosscoder"])
def test_they_are_left_out_of_training_and_of_the_gates_figures_and_counted(
    cfg: Config, readers: str
) -> None:
    cfg.train.readers = readers
    if readers == "crosscoder":
        cfg.train.sae.architecture = "batchtopk"
        cfg.train.scaling_problems = 2
    said, figures = trained(cfg)
    counts = {split: num_long(cfg, split) for split in ("select", "report")}
    assert min(counts.values()) > 0
    kept = {reader: own["num_tokens"] for reader, own in figures.items()}
    assert figures["rl"]["outlying"]["of_training"] == counts["select"]
    assert figures["rl"]["outlying"]["of_report"] == counts["report"]
    others = counts if readers == "crosscoder" else dict.fromkeys(counts, 0)
    assert figures["base"]["outlying"]["of_training"] == others["select"]
    assert kept["base"] - kept["rl"] == (counts["report"] if readers == "pooled" else 0)
    assert "Tokens left out for a norm of more than 10 times the median" in said
    cfg.train.max_norm_multiple = 0.0
    said, every = trained(cfg)
    assert "left out" not in said
    assert every["rl"]["outlying"]["of_training"] == every["rl"]["outlying"]["of_report"] == 0
    assert every["rl"]["num_tokens"] - kept["rl"] == counts["report"]
    # Few tokens make up nearly all of the variance, so that leaving them out changes everything.
    assert every["rl"]["fvu"] != pytest.approx(figures["rl"]["fvu"], rel=0.1)


def test_where_no_norm_is_outlying_the_limit_changes_nothing(
    tiny_config: Config, tmp_path: Path
) -> None:
    for job in (traces, cache):
        job(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
    made = []
    for multiple in (0.0, 10.0):
        tiny_config.train.max_norm_multiple = multiple
        train(tiny_config, tracker=NullTracker(), console=Console(io.StringIO()))
        folder = tiny_config.folder / "train" / "pooled" / "layer_1"
        figures = json.loads((folder / "quality.json").read_text())["readers"]
        for own in figures.values():
            assert own.pop("outlying")["of_training"] == 0
        made.append(((folder / "sae_weights.safetensors").read_bytes(), figures))
    assert made[0] == made[1]


def test_a_cache_without_norms_gives_the_same(cfg: Config) -> None:
    store = ActivationStore.open(cfg.folder / "cache" / "rl" / "layer_1")
    with_norms = store.norm
    for path in (cfg.folder / "cache" / "rl" / "layer_1").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["norm"]
    again = ActivationStore.open(cfg.folder / "cache" / "rl" / "layer_1")
    assert np.array_equal(again.norm, with_norms)


def scored(cfg: Config, data: Readings, folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir()
    score_store(cfg, data, "rl", 1, folder, Console(io.StringIO()))
    latents = read_table(folder / "rl_layer_1_latents.parquet")
    return {name: latents[name].to_numpy() for name in ("max_active", "firing_rate")}


def test_scoring_counts_them_unless_asked_not_to(cfg: Config, tmp_path: Path) -> None:
    train(cfg, tracker=NullTracker(), console=Console(io.StringIO()))
    inputs = {reader: describe(model).fingerprint for reader, model in cfg.pair.readers.items()}
    inputs["traces"] = Manifest.read(cfg.folder / "traces").fingerprint
    data = open_data(cfg, inputs)
    every = scored(cfg, data, tmp_path / "every")
    cfg.rank.max_norm_multiple = 10.0
    some = scored(cfg, data, tmp_path / "some")
    store, dictionary = data.stores["rl", 1], data.dictionaries[1]
    resid = store.read(range(store.num_tokens))
    is_long = resid.norm(dim=1) > 10 * float(np.median(store.norm[: data.select.stop]))
    assert int(is_long.sum()) == num_long(cfg)
    active = dictionary.encode(resid)
    assert np.nanmax(every["max_active"]) > 5 * np.nanmax(some["max_active"])
    assert np.nanmax(some["max_active"]) <= float(active[~is_long].max()) * (1 + 1e-5)
    assert (every["firing_rate"] >= some["firing_rate"]).all()
    assert (every["firing_rate"] > some["firing_rate"]).any()


def test_a_limit_that_leaves_out_half_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.max_norm_multiple=1 would leave out half"):
        TrainConfig(max_norm_multiple=1.0)
    with pytest.raises(ConfigError, match=r"rank\.max_norm_multiple=-2 would"):
        RankConfig(max_norm_multiple=-2.0)
