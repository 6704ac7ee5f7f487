"""Texts in which shortlisted latents fire, and what their directions say, read from the stages."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from sae_reasoning.config import Config
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.lm.load import LanguageModel, load, resolve_device
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.unembed import output_logits
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_ranked
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.pages.sources import Sources
from sae_reasoning.records import MODELS, RL, Shortlist, Trace
from sae_reasoning.report.directions import neighbours, output_tokens
from sae_reasoning.report.examples import choose, example, histogram, token_pieces
from sae_reasoning.report.firing import CoFiring, Firing, companions, firings
from sae_reasoning.report.latents import LatentRecord

_BATCH_ROWS = 8192
_NUM_NEIGHBOURS = 6


def evidence_of_each(
    cfg: Config, sources: Sources, found: Sequence[LatentRecord], shortlist: Shortlist
) -> Iterator[dict[str, Any]]:
    """Texts and directions of each latent, in their order, which is by layer."""
    traces = read_traces(sources.folder / "traces" / "traces.parquet")
    lm = load(cfg.pair.rl, cfg.device)
    layers = sorted({one.layer for one in found})
    dictionaries = load_ranked(sources.folder, shortlist, layers, resolve_device(cfg.device))
    is_report = np.array([trace.split == "report" for trace in traces])
    pieces = lru_cache(maxsize=None)(lambda number: _pieces(lm, traces[number]))
    for layer, own in groupby(found, key=lambda one: one.layer):
        listed, dictionary = list(own), dictionaries[layer]
        latents = sorted({one.latent for one in listed})
        folder = sources.folder / "cache"
        stores = {m: ActivationStore.open(folder / m / f"layer_{layer}") for m in MODELS}
        check_same_rows(*stores.values())
        index = stores[RL]
        is_reported = is_report[index.trace_index]
        read = {m: _firings(stores[m], dictionary, latents, is_reported) for m in MODELS}
        names = [f"{layer}_{i}" if i in latents else "" for i in range(dictionary.d_sae)]
        for one in listed:
            firing = {reader: fired[one.latent] for reader, (fired, _) in read.items()}
            (logits,) = output_logits(lm, dictionary.W_dec[[one.latent]])
            yield {
                "histogram": asdict(histogram(firing, int(is_reported.sum()))),
                "examples": _examples(one, firing, traces, index, pieces),
                "output": output_tokens(logits, lambda token: _text_of(lm, token)),
                "neighbours": neighbours(dictionary.W_dec, one.latent, _NUM_NEIGHBOURS, names),
                "companions": companions(
                    read[RL][1], latents.index(one.latent), one.latent, _NUM_NEIGHBOURS, names
                ),
            }


def _firings(
    store: ActivationStore, dictionary: Dictionary, latents: Sequence[int], is_reported: np.ndarray
) -> tuple[dict[int, Firing], CoFiring]:
    batches = (
        dictionary.encode_sparse(batch.activations.to(dictionary.device)).numpy()
        for batch in store.batches(None, _BATCH_ROWS)
    )
    return firings(batches, latents, dictionary.d_sae, is_reported)


def _examples(
    one: LatentRecord,
    firing: dict[str, Firing],
    traces: Sequence[Trace],
    index: ActivationStore,
    pieces: Any,
) -> list[dict[str, Any]]:
    """Texts around tokens on which a latent fires in the RL reader, with both readers' values."""

    def problem_of(row: int) -> str:
        return traces[int(index.trace_index[row])].problem_id

    made = []
    for band, row in choose(firing[RL], problem_of, seed=one.layer * 1_000_003 + one.latent):
        number, position = int(index.trace_index[row]), int(index.position[row])
        bounds = index.row_of_trace[number : number + 2]
        near = {}
        for reader, own in firing.items():
            a, b = np.searchsorted(own.row, bounds)
            places = index.position[own.row[a:b]].tolist()
            near[reader] = dict(zip(places, own.value[a:b].tolist(), strict=True))
        first = int(index.position[bounds[0]])
        made.append(asdict(example(band, traces[number], pieces(number), position, first, near)))
    return made


def _pieces(lm: LanguageModel, trace: Trace) -> list[str]:
    """Text of each token of a trace."""
    tokens, start, size = trace.token_ids, trace.num_prompt_tokens, len(trace.text)
    offsets = offsets_of(lm.tokenizer, tokens[start:], trace.text)
    # The token that ends a turn is no part of the text.
    stop = len(tokens) - (bool(offsets) and offsets[-1] == (size, size))
    ends = [end for _, end in offsets[: stop - start]]
    if not ends or ends[-1] < size:  # This tokenizer writes the text differently.
        return [_text_of(lm, token) for token in tokens]
    return [
        *(_text_of(lm, token) for token in tokens[:start]),
        *token_pieces(trace.text, ends),
        *(_text_of(lm, token) for token in tokens[stop:]),
    ]


def _text_of(lm: LanguageModel, token: int) -> str:
    return str(lm.tokenizer.decode([token], clean_up_tokenization_spaces=False))
