"""The bench measures what it says, at sizes of no account."""

import io
import json

import pytest

from sae_reasoning.bench.ratios import GOALS
from sae_reasoning.bench.sizes import Sizes
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.bench import bench

SIZES = Sizes(
    repeats=2,
    d_model=64,
    num_layers=3,
    layer=1,
    num_sequences=8,
    token_budget=512,
    d_sae=128,
    k=4,
    batch_size=64,
    steps=3,
    rows=16,
    new_tokens=8,
    edited_d_model=64,
    edited_d_sae=64,
    edited_latents=2,
    grid_conditions=3,
    grid_problems=4,
    ranked_tokens=20_000,
    narrow=8,
    peer_latents=2,
    large_vocabulary=2_000,
    large_d_model=56,
    large_layers=2,
    large_rows=4,
    large_tokens=2,
)


@pytest.mark.e2e
def test_bench_writes_every_ratio_with_its_goal(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    bench(tiny_config, tracker=NullTracker(), console=Console(stream), sizes=SIZES)
    written = json.loads((tmp_path / "bench.json").read_text())
    alone = {name: goal for name, goal in GOALS.items() if name != "shared_over_generate"}
    assert {name: ratio["goal"] for name, ratio in written.items()} == alone  # Of one thread.
    for name, ratio in written.items():
        assert set(ratio) == {"value", "goal", "n", "spread", "reached"}
        assert ratio["n"] == 2
        assert 0 < ratio["value"] < 1000, name
        assert name in stream.getvalue()
    assert not list((tmp_path / "runs").glob(".bench-*"))
