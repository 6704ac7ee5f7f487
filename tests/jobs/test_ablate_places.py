"""What is measured at places is the same however few places or latents are held at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from behaviours.examples import made_up_trace

from sae_reasoning.config import Config, PairConfig, SaeConfig
from sae_reasoning.edges.activation_format import RowIndex, StoreAttributes
from sae_reasoning.edges.activation_store import ActivationStore, StoreWriter
from sae_reasoning.edges.crosscoder_checkpoint import Half, crosscoder_of, load_crosscoder
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.jobs.ablate.chosen import Choice
from sae_reasoning.jobs.ablate.joint import choose_joint, open_stores
from sae_reasoning.records import TokenOpportunity, Trace
from sae_reasoning.stats import auroc
from sae_reasoning.steering import places
from sae_reasoning.steering.places import (
    CachedLayer,
    Places,
    measure_places,
    opportunities_of,
    sizes_overall,
)

D_MODEL, D_SAE, LAYER = 8, 24, 1
MOVES = ["backtracking", "verification"]


def made_up_traces() -> list[Trace]:
    rng = np.random.default_rng(0)
    traces = []
    for number in range(12):
        opportunities = tuple(
            TokenOpportunity(MOVES[int(rng.integers(2))], 0, token, bool(rng.integers(2)))
            for token in range(4, 38, 2)
        )
        traces.append(replace(made_up_trace(number, spans=[]), opportunities=opportunities))
    return traces


def write_store(folder: Path, reader: str, traces: list[Trace], seed: int) -> None:
    sizes = [len(trace.token_ids) for trace in traces]
    attributes = StoreAttributes(
        reader, "", reader, "t", "r", LAYER, "float32", D_MODEL, len(traces), sum(sizes), 1
    )
    position = np.concatenate([np.arange(size) for size in sizes]).astype(np.int32)
    trace = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    rows = torch.randn(sum(sizes), D_MODEL, generator=torch.Generator().manual_seed(seed))
    writer = StoreWriter(folder, attributes, [one.trace_id for one in traces])
    writer.write(0, rows, RowIndex(position, trace, position))


@pytest.fixture
def cfg(tiny_pair: PairConfig, tmp_path: Path) -> Config:
    """A project with the residuals of both readers and a crosscoder of them."""
    cfg = Config(pair=tiny_pair, runs=str(tmp_path), behaviours=MOVES, layers=[LAYER])
    cfg.device, cfg.train.readers, cfg.ablate.shortlist = "cpu", "crosscoder", "separators"
    for seed, reader in enumerate(("base", "rl")):
        folder = cfg.folder / "cache" / reader / f"layer_{LAYER}"
        write_store(folder, reader, made_up_traces(), seed)
    scales = {"readers": ["base", "rl"], "reader_scales": [1.0, 1.0]}
    sae = build_training_sae(
        SaeConfig(d_sae=D_SAE, k=5), d_in=2 * D_MODEL, seed=0, steps=1, metadata=scales
    )
    crosscoder_of(finish(sae, 1.0), ("base", "rl"), (1.0, 1.0)).save(
        cfg.folder / "train" / "crosscoder" / f"layer_{LAYER}"
    )
    return cfg


@pytest.fixture
def most_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each reading of a store."""
    sizes: list[int] = []
    read = ActivationStore.read

    def note(store: ActivationStore, rows: np.ndarray) -> torch.Tensor:
        sizes.append(len(rows))
        return read(store, rows)

    monkeypatch.setattr(ActivationStore, "read", note)
    return sizes


def hold_at_most(monkeypatch: pytest.MonkeyPatch, codes: int) -> None:
    monkeypatch.setattr(places, "MAX_CODES", codes)


def measured(cfg: Config, choice: Choice) -> Places:
    """Places of the base."""
    half = choice.dictionaries["base"][LAYER]
    overall = sizes_overall(choice.table, "base", half)
    layers = {LAYER: CachedLayer(half, open_stores(cfg, LAYER, "base"), overall)}
    return measure_places(MOVES, opportunities_of(made_up_traces()), layers)


def test_separators_of_few_latents_and_places_at_a_time_are_those_of_all(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, most_read: list[int]
) -> None:
    traces = made_up_traces()
    whole = choose_joint(cfg, traces)
    assert max(most_read) == 12 * 17
    most_read.clear()
    hold_at_most(monkeypatch, 7 * D_SAE)
    parts = choose_joint(cfg, traces)
    assert max(most_read) == 7
    assert parts.ranked == whole.ranked
    pd.testing.assert_frame_equal(parts.table, whole.table)


def test_separators_are_those_of_the_dense_codes(cfg: Config) -> None:
    traces = made_up_traces()
    found = choose_joint(cfg, traces).ranked["rl"]["verification"]
    half = Half(load_crosscoder(cfg.folder / "train" / "crosscoder" / f"layer_{LAYER}"), "rl")
    at = [
        (40 * t + o.token, o.taken)
        for t, trace in enumerate(traces)
        for o in trace.opportunities
        if o.behaviour == "verification"
    ]
    index, taken = (np.array(column) for column in zip(*at, strict=True))
    rl, base = (
        ActivationStore.open(cfg.folder / "cache" / reader / f"layer_{LAYER}").read(index)
        for reader in ("rl", "base")
    )
    scores = auroc(half.encode(rl, base).double().numpy(), taken.astype(bool))
    best = sorted(range(D_SAE), key=lambda j: -scores[j])
    assert [one.latent for one in found] == [j for j in best if scores[j] > 0.5]


def test_sizes_and_directions_of_few_places_at_a_time_are_those_of_all(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, most_read: list[int]
) -> None:
    choice = choose_joint(cfg, made_up_traces())
    whole = measured(cfg, choice)
    most_read.clear()
    hold_at_most(monkeypatch, 7 * D_SAE)
    parts = measured(cfg, choice)
    assert max(most_read) == 7 * D_SAE // D_MODEL
    for behaviour in MOVES:
        for found, expected in zip(
            (*parts.sizes[behaviour].values(),), (*whole.sizes[behaviour].values(),), strict=True
        ):
            np.testing.assert_allclose(found.firing_rate, expected.firing_rate)
            np.testing.assert_allclose(found.mean_active, expected.mean_active)
        torch.testing.assert_close(parts.vectors[behaviour], whole.vectors[behaviour])
        torch.testing.assert_close(parts.untaken[behaviour], whole.untaken[behaviour])
