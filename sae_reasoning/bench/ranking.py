"""Ranking: all point estimates of one dictionary on one reader, in a pass over its store.

* against reading the same store and encoding it, and doing nothing with the latents;
* against scikit-learn and scipy on dense latents, one latent at a time, for the same figures. They
  are asked for a few latents, whose figures must equal ours, and rated per latent: what one costs
  doesn't depend on which it is;
* against itself on ten times as many tokens, in time and in memory. The model is narrow there, so
  that encoding hides less of what ranking takes. Memory is the peak of a process that makes one
  pass, less what it held before its first row: traces and labels, which are there as a whole.
"""

import multiprocessing
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_reasoning.behaviours.scores import Labels, LatentScores, ReaderScores, label_rows
from sae_reasoning.behaviours.streams import Active, matched_strata
from sae_reasoning.behaviours.windows import Intervals, cell_index, group_index, response_rows
from sae_reasoning.bench.sizes import BEHAVIOURS, Contender, Sizes
from sae_reasoning.config import SaeConfig
from sae_reasoning.edges.activation_format import StoreAttributes
from sae_reasoning.edges.activation_layout import Layout, row_index
from sae_reasoning.edges.activation_store import ActivationStore, StoreWriter
from sae_reasoning.edges.sae_checkpoint import Dictionary, build_training_sae, finish
from sae_reasoning.records import TokenOpportunity, TokenSpan, Trace

_TRACE_TOKENS = 256
_PROMPT_TOKENS = 16
_SHARD_TOKENS = 65536
_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Material:
    """What one pass reads.

    Attributes:
        store: Activations.
        labels: Of its rows.
        dictionary: Random.
    """

    store: ActivationStore
    labels: Labels
    dictionary: Dictionary

    def encode(self, take: Callable[[Active], None] | None = None) -> None:
        """Read and encode every row; hand the active latents on, where somebody takes them."""
        first_row = 0
        for batch in self.store.batches(None, _BATCH_ROWS):
            sparse = self.dictionary.encode_sparse(batch.activations)
            if take is not None:
                take(Active.of(first_row, *sparse.numpy()))
            first_row += len(batch.activations)

    def scores(self) -> ReaderScores:
        """One pass, as `rank` makes it."""
        scores = LatentScores(self.labels, self.dictionary.d_sae)
        self.encode(scores.add)
        return scores.result()


def rankers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Our pass, the bare pass, and scikit-learn; amounts are latents, of the whole dictionary."""
    del device  # Ranking is numpy's, and its share is what is measured.
    material = _material(sizes, scratch / "ranked", sizes.ranked_tokens, sizes.d_model)
    rng = np.random.default_rng(0)
    chosen = rng.choice(sizes.d_sae, sizes.peer_latents, replace=False)
    dense = _dense(material, chosen)
    _check_alike(material.labels, material.scores(), chosen, dense)

    def rank() -> int:
        material.scores()
        return sizes.d_sae

    def encode() -> int:
        material.encode()
        return sizes.d_sae

    def peer() -> int:
        for latent in range(len(chosen)):
            for cell in material.labels.cells():
                _peer_figures(material.labels, dense[:, latent], *cell)
        return len(chosen)

    return {"rank": rank, "encode": encode, "scikit_learn": peer}


def growth(sizes: Sizes, scratch: Path) -> dict[str, list[float]]:
    """Time and memory of passes over ten times as many tokens, over those of one; turn by turn."""
    materials = [
        _material(sizes, scratch / f"grown_{times}", times * sizes.ranked_tokens, sizes.narrow)
        for times in (1, 10)
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(sizes.grown_repeats):
        for material, found in zip(materials, seconds, strict=True):
            started = time.perf_counter()
            material.scores()
            found.append(time.perf_counter() - started)
    peaks = [
        [_peak_memory(sizes, times * sizes.ranked_tokens, material.store.folder) for _ in range(2)]
        for times, material in zip((1, 10), materials, strict=True)
    ]
    return {
        name: [ten / one for one, ten in zip(*pair, strict=True)]
        for name, pair in (("time", seconds), ("memory", peaks))
    }


def _material(sizes: Sizes, folder: Path, num_tokens: int, d_model: int) -> Material:
    """A store of random activations, made where it isn't there, and what belongs to it."""
    traces = _traces(num_tokens // (_TRACE_TOKENS - _PROMPT_TOKENS + 1))
    if not folder.exists():
        _write_store(folder, traces, d_model)
    sae = build_training_sae(
        SaeConfig(d_sae=sizes.d_sae, k=sizes.k), d_in=d_model, seed=0, steps=1, device="cpu"
    )
    labels = label_rows(traces, response_rows(traces), BEHAVIOURS, 0)
    return Material(ActivationStore.open(folder), labels, finish(sae, 1.0))


def _traces(num: int) -> list[Trace]:
    """Traces of both writers and splits: behaviours of some ten tokens, one after the other."""
    rng = random.Random(0)
    traces = []
    for number in range(num):
        tokens = [rng.randrange(200) for _ in range(_TRACE_TOKENS)]
        spans, chances, at = [], [], _PROMPT_TOKENS + rng.randrange(1, 20)
        while at + 12 < _TRACE_TOKENS:
            behaviour, length = rng.choice(BEHAVIOURS), rng.randint(4, 12)
            taken = rng.random() < 0.5
            chances.append(TokenOpportunity(behaviour, 0, at - 1, taken))
            if taken:
                spans.append(TokenSpan(behaviour, 0, 1, at, at + length, "bench"))
            at += length + rng.randrange(1, 20)
        traces.append(
            Trace(
                trace_id=str(number),
                problem_id=str(number // 2),
                split="select" if number < num // 2 else "report",
                writer=("base", "rl")[number % 2],
                model="bench",
                prompt="",
                text="",
                token_ids=tuple(tokens),
                num_prompt_tokens=_PROMPT_TOKENS,
                correct=None,
                truncated=False,
                spans=tuple(spans),
                opportunities=tuple(chances),
            )
        )
    return traces


def _write_store(folder: Path, traces: list[Trace], d_model: int) -> None:
    layout = Layout.plan(
        [_TRACE_TOKENS] * len(traces), [_PROMPT_TOKENS - 1] * len(traces), _SHARD_TOKENS
    )
    writer = StoreWriter(
        folder,
        StoreAttributes(
            model="bench",
            revision="",
            model_fingerprint="bench",
            tokenizer_fingerprint="bench",
            traces_fingerprint="bench",
            layer=0,
            dtype="float16",
            d_model=d_model,
            num_traces=len(traces),
            num_tokens=layout.num_tokens,
            num_shards=len(layout.shards),
        ),
        [trace.trace_id for trace in traces],
    )
    generator = torch.Generator().manual_seed(0)
    for number, shard in enumerate(layout.shards):
        index = row_index(layout, shard, [traces[trace].token_ids for trace in shard])
        rows = writer.buffer(len(index.token_id))
        writer.write(number, rows.normal_(generator=generator), index)


# scikit-learn


def _dense(material: Material, latents: np.ndarray) -> np.ndarray:
    """A few latents on every row."""
    blocks = []
    for batch in material.store.batches(None, _BATCH_ROWS):
        blocks.append(material.dictionary.encode(batch.activations)[:, latents].numpy())
    return np.concatenate(blocks)


def _peer_figures(
    labels: Labels, values: np.ndarray, behaviour: int, writer: str, split: str
) -> dict[str, float]:
    """One latent's figures for one behaviour, writer and split."""
    from scipy.stats import pointbiserialr
    from sklearn.metrics import mutual_info_score, roc_auc_score

    def auroc(intervals: Intervals) -> float:
        here = intervals.of_cell(cell_index(behaviour, writer, split))
        bounds = zip(intervals.start[here], intervals.stop[here], strict=True)
        largest = [values[start:stop].max() for start, stop in bounds]
        return float(roc_auc_score(intervals.is_positive[here], largest))

    of_row = labels.classes.of_row
    mine = of_row >= 0
    mine[mine] = labels.classes.group[of_row[mine]] == group_index(writer, split)
    own = values[mine]
    label = (labels.classes.bits[of_row[mine]] >> behaviour & 1).astype(bool)
    return {
        "token_auroc": float(roc_auc_score(label, own)),
        "span_auroc": auroc(labels.spans),
        "onset_auroc": auroc(labels.onsets),
        "point_biserial": float(pointbiserialr(label, own).statistic),
        "mutual_information": mutual_info_score(label, own > 0) / np.log(2),
    }


def _check_alike(
    labels: Labels, ours: ReaderScores, latents: np.ndarray, dense: np.ndarray
) -> None:
    """Both sides must compute the same figures, or their speeds have nothing to say."""
    keys = ["behaviour", "writer", "split", "latent"]
    points = ours.points.set_index(keys)
    for b, writer, split in labels.cells():
        row = points.loc[(labels.behaviours[b], writer, split, latents[0])]
        theirs = _peer_figures(labels, dense[:, 0], b, writer, split)
        if matched_strata(labels.onsets, cell_index(b, writer, split))[0] is not None:
            del theirs["onset_auroc"]  # Ours is within strata there.
        found = [float(row[name]) for name in theirs]
        np.testing.assert_allclose(found, list(theirs.values()), rtol=1e-4, atol=1e-6)


# Memory


def _peak_memory(sizes: Sizes, num_tokens: int, folder: Path) -> float:
    """Bytes that one pass adds to a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_measured_pass, args=(theirs, sizes, num_tokens, folder))
    worker.start()
    theirs.close()
    peak: float = ours.recv()
    worker.join()
    return peak


def _measured_pass(pipe: Any, sizes: Sizes, num_tokens: int, folder: Path) -> None:
    torch.set_num_threads(1)
    material = _material(sizes, folder, num_tokens, sizes.narrow)
    before = _peak(anew=True)
    material.scores()
    pipe.send(_peak() - before)
    pipe.close()


def _peak(anew: bool = False) -> float:
    """The most bytes of memory that this process has held; from now on, if `anew`."""
    status = Path("/proc/self/status")
    if not status.exists():  # Elsewhere than on Linux a peak can't be forgotten.
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if anew:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    (line,) = (
        line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return 1024 * float(line.split()[1])
