"""What the rank job is tried on: narrated traces, and a latent planted in a real SAE."""

import io
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from behaviours.examples import narrated_traces
from safetensors.torch import load_file, save_file
from sealed import seal

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import Stage, read_json, write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.sae_checkpoint import load_dictionary
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.records import Trace
from sae_reasoning.tasks.search.grammar import BACKTRACKING, DEDUCTION, INITIALIZING

PLANTED = 63
LAYER = 0


class Ranked(NamedTuple):
    """A finished ranking and what it printed."""

    config: Config
    printed: str


def quiet() -> dict:
    return {"tracker": NullTracker(), "console": Console(io.StringIO())}


def write_narrated(config: Config) -> None:
    """Narrated traces as if the stage had rolled them out."""
    tokenizer = load_tokenizer(config.pair.base)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    with Stage(config.folder / "traces", config.settings("traces"), {}) as stage:
        traces = [_refused(trace, n) for n, trace in enumerate(narrated_traces(encode, 40))]
        write_traces(stage.folder / "traces.parquet", traces)
        stage.finish({})


def _refused(trace: Trace, number: int) -> Trace:
    """The trace with some opportunities called untaken: this narrator takes all of them."""
    return replace(
        trace,
        opportunities=tuple(
            replace(o, taken=o.taken and (number + place) % 3 > 0)
            for place, o in enumerate(trace.opportunities)
        ),
    )


def plant(config: Config) -> None:
    """Make one direction of the cached residuals say `backtracking`, and one latent read it.

    The direction is emptied, then set to `mark` within the spans, in both readers; the rest of the
    residuals and of the SAE stays as it was.
    """
    mark, gain = 0.5, 1000.0  # The gain wins the latent a place among the k.
    direction = torch.nn.functional.normalize(
        torch.randn(32, generator=torch.manual_seed(0)), dim=0
    )
    traces = read_traces(config.folder / "traces" / "traces.parquet")
    for reader in ("base", "rl"):
        store = ActivationStore.open(config.folder / "cache" / reader / f"layer_{LAYER}")
        is_move = np.zeros(store.num_tokens, bool)
        for t, trace in enumerate(traces):
            for span in trace.spans:
                if span.behaviour == BACKTRACKING:
                    here = (store.trace_index == t) & (store.position >= span.token_start)
                    is_move |= here & (store.position < span.token_end)
        x = store.read(slice(None))
        mark = 0.05 * float(x.norm(dim=1).mean())  # Small: it hardly stirs the other latents.
        x += (torch.from_numpy(is_move) * mark - x @ direction)[:, None] * direction
        start = 0
        for path in sorted(store.folder.glob("*.h5")):
            with h5py.File(path, "r+") as file:
                stop = start + len(file["activations"])
                file["activations"][:] = x[start:stop].numpy()
                start = stop
    folder = config.folder / "train" / config.train.readers / f"layer_{LAYER}"
    tensors = load_file(folder / "sae_weights.safetensors")
    gain = 1000 / mark  # Wins the latent a place among the k.
    cut = mark / 4 - direction @ tensors["b_dec"]  # sae-lens takes b_dec off its input.
    tensors["W_enc"][:, PLANTED] = gain * direction
    tensors["b_enc"][PLANTED] = -gain * cut
    tensors["W_dec"][PLANTED] = direction
    save_file(tensors, folder / "sae_weights.safetensors")
    quality = read_json(folder / "quality.json")
    known = quality | {"fingerprint": load_dictionary(folder).fingerprint}
    write_json(folder / "quality.json", known)
    for stage in ("cache", "train"):
        seal(config.folder / stage)


def config_of(folder: Path, pair: PairConfig) -> Config:
    config = Config(
        pair=pair,
        behaviours=[INITIALIZING, DEDUCTION, BACKTRACKING, "example-testing"],
        runs=str(folder / "runs"),
    )
    config.layers, config.device, config.tracker.kind = [0, 1], "cpu", "none"
    config.train.sae.d_sae, config.train.sae.k = 64, 4
    config.train.steps, config.train.batch_size, config.train.mixing_tokens = 30, 128, 512
    config.rank.bootstrap, config.rank.random_directions = 50, 8
    config.traces.annotator = "imported"  # One behaviour is none of the grammar's.
    config.rank.gate = False  # So short a training passes none.
    config.rank.span_detectors = config.rank.onset_predictors = config.rank.candidates = 5
    config.rank.attribution_onsets, config.rank.injection_texts = 12, 5
    return config


def shorten(config: Config) -> None:
    """Rank with short lists, where it's not the lists that are looked at."""
    config.rank.span_detectors = config.rank.onset_predictors = config.rank.candidates = 2
    config.rank.injection_texts, config.rank.random_directions = 2, 4
