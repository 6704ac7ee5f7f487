"""Teacher-force every trace of both writers through both readers; keep the residual streams.

Many workers may share the work (`cache.num_shards`, `cache.shard`, `cache.only`). Each writes files
of its own, all into the one partial folder, and what stands in a file depends on its traces alone;
so the last one publishes the very bytes that a single worker would have written.
"""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sae_reasoning.config import CacheConfig, Config, ConfigError, ModelConfig
from sae_reasoning.config.cache import NORM_MULTIPLE
from sae_reasoning.edges.activation_format import (
    StoreAttributes,
    file_bytes,
    row_bytes,
)
from sae_reasoning.edges.activation_layout import Layout, fill_shards, missing_shards
from sae_reasoning.edges.activation_norms import outlying, outlying_in_words
from sae_reasoning.edges.activation_parts import own_shards, parts_of
from sae_reasoning.edges.activation_store import ActivationStore, StoreWriter
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.files import require_writable
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.limits import require_context, require_embeddings
from sae_reasoning.edges.lm.load import ModelFacts, describe, load, load_tokenizer
from sae_reasoning.edges.lm.read import read_residuals
from sae_reasoning.edges.lm.same_tokens import require_shared_tokens
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.records import Trace


def cache(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest | None:
    """Make `cache/<reader>/layer_<L>/`: both readers' activations on all traces, or a part."""
    readers = _describe_readers(cfg)
    inputs = inputs_of("cache", cfg)
    require_writable(cfg.folder)
    is_part, final = cfg.is_partial("cache"), cfg.folder / "cache"
    with Stage(final, cfg.settings("cache"), inputs, shared=is_part, mends=True) as stage:
        if made := console.up_to_date(stage):
            return made
        traces = read_traces(cfg.folder / "traces" / "traces.parquet")
        require_shared_tokens(cfg.pair, (trace.token_ids for trace in traces))
        layout = _lay_out(traces, cfg.cache, list(readers.values()))
        stores = {
            name: _writers(stage.folder / name, reader, traces, layout, cfg, inputs["traces"])
            for name, reader in readers.items()
        }
        own = own_shards(cfg.cache, layout)
        _plan(cfg, console, stage, traces, layout, stores, own)
        if is_part:
            stage.note_parts(parts_of(cfg.cache, layout, stores, stage.folder))
        counts = {
            name: _read(reader, stores[name], traces, layout, own, cfg, console, f"{name} reads")
            for name, reader in readers.items()
            if cfg.cache.only in ("", name)
        }
        # In this order: whoever is the last to leave finds every part whole.
        if is_part and not (stage.take_over() and not stage.missing_parts()):
            _tell_part(cfg, stage, console)
            return None
        every = range(len(layout.shards))
        counts |= {  # What other workers made, so nothing is read again.
            name: _read(reader, stores[name], traces, layout, every, cfg, console, name)
            for name, reader in readers.items()
            if name not in counts
        }
        num_select = sum(trace.split == "select" for trace in traces)
        trained_on = range(int(layout.row_of_trace[num_select]))
        beyond = outlying(_opened(stores), trained_on, NORM_MULTIPLE)
        manifest = stage.finish(
            {"traces": len(traces), "rows": layout.num_tokens, "outlying": beyond} | counts
        )
    tracker.summary({"cache": manifest.counts})
    columns = ("tokens", "seconds", "tokens_per_second", "bytes")
    rows = [[name, *(one[column] for column in columns)] for name, one in counts.items()]
    console.table("activations by reader", ["reader", *columns], rows)
    if any(one["tokens"] for one in beyond.values()):
        console.tell(outlying_in_words(beyond, NORM_MULTIPLE))
    console.wrote(stage.final, manifest)
    console.next("train")
    return manifest


def _opened(stores: dict[str, dict[int, StoreWriter]]) -> dict[str, ActivationStore]:
    """Every store, which opening checks."""
    return {
        f"{reader}/layer_{layer}": ActivationStore.open(writer.folder)
        for reader, writers in stores.items()
        for layer, writer in writers.items()
    }


@dataclass(frozen=True)
class _Reader:
    """A model that reads, before its weights are loaded."""

    config: ModelConfig
    facts: ModelFacts
    bos_id: int | None


def _describe_readers(cfg: Config) -> dict[str, _Reader]:
    readers = {}
    for name, config in cfg.pair.readers.items():
        facts = describe(config)
        check_layers(cfg.layers, facts.num_layers, config.path)
        tokenizer = load_tokenizer(config)
        readers[name] = _Reader(config, facts, tokenizer.bos_token_id)
    return readers


def _lay_out(traces: Sequence[Trace], cfg: CacheConfig, readers: Sequence[_Reader]) -> Layout:
    """Rows of the kept tokens; padding never has a row, and BOS neither.

    Raises:
        ConfigError: A token that a reader doesn't have, a text longer than its context, or nothing
            is kept.
    """
    tokenizer = load_tokenizer(readers[0].config)
    texts = [(f"trace {trace.trace_id}", trace.token_ids) for trace in traces]
    for reader in readers:
        rows = reader.facts.num_embeddings or len(tokenizer)
        require_embeddings(tokenizer, rows, reader.config.named, texts)
        longest = max((len(ids) for _, ids in texts), default=0)
        require_context(reader.facts.context, reader.config.named, longest)
    bos_ids = {reader.bos_id for reader in readers}
    layout = Layout.of(traces, cfg.tokens == "response", bos_ids, cfg.shard_tokens)
    if not layout.num_tokens:
        raise ConfigError(
            f"cache.tokens={cfg.tokens} keeps none of {len(traces)} traces' tokens; set "
            "cache.tokens=all, or make longer traces (traces.max_new_tokens)"
        )
    return layout


def _writers(
    folder: Path,
    reader: _Reader,
    traces: Sequence[Trace],
    layout: Layout,
    cfg: Config,
    traces_fingerprint: str,
) -> dict[int, StoreWriter]:
    return {
        layer: StoreWriter(
            folder / f"layer_{layer}",
            StoreAttributes(
                model=reader.facts.name,
                revision=reader.config.revision or "",
                model_fingerprint=reader.facts.fingerprint,
                tokenizer_fingerprint=reader.facts.tokenizer_fingerprint,
                traces_fingerprint=traces_fingerprint,
                layer=layer,
                dtype=cfg.cache.dtype,
                d_model=reader.facts.d_model,
                num_traces=len(traces),
                num_tokens=layout.num_tokens,
                num_shards=len(layout.shards),
            ),
            [trace.trace_id for trace in traces],
        )
        for layer in cfg.layers
    }


def _plan(
    cfg: Config,
    console: Console,
    stage: Stage,
    traces: Sequence[Trace],
    layout: Layout,
    stores: dict[str, dict[int, StoreWriter]],
    own: range,
) -> None:
    """Say what will be read and written; refuse a disk that can't hold it."""
    made = {name: by for name, by in stores.items() if cfg.cache.only in ("", name)}
    writers = [writer for by_layer in made.values() for writer in by_layer.values()]
    missing = {writer: missing_shards([writer], layout, own) for writer in writers}
    needed = sum(
        file_bytes(len(layout.rows_of_shard(shard)), w.attributes.d_model, w.attributes.dtype)
        for w, shards in missing.items()
        for shard in shards
    )
    free = shutil.disk_usage(stage.folder).free
    num_read = sum(len(trace.token_ids) for trace in traces)
    there = len(writers) * len(own) - sum(map(len, missing.values()))
    files = f"{len(writers) * len(own)} as {cfg.cache.dtype}, {there} there"
    if len(own) < len(layout.shards):
        files += f" (of the {len(writers) * len(layout.shards)} of all workers)"
    console.plan(
        "cache",
        {
            "traces": f"{len(traces):,} ({num_read:,} tokens, {layout.num_tokens:,} kept)",
            "readers": f"{', '.join(made)} after layers {', '.join(map(str, cfg.layers))}",
            "shards": files,
            "disk": f"{megabytes(needed)} needed, {megabytes(free)} free",
        },
    )
    if needed > free:
        raise ConfigError(
            f"runs={cfg.runs} has {megabytes(free)} free, the cache needs {megabytes(needed)}; "
            "free disk, set runs= to another disk, or read fewer layers"
        )


def _read(
    reader: _Reader,
    writers: dict[int, StoreWriter],
    traces: Sequence[Trace],
    layout: Layout,
    own: range,
    cfg: Config,
    console: Console,
    label: str,
) -> dict[str, float]:
    """Fill one reader's stores; the model is loaded only if a shard is missing."""
    missing = missing_shards(writers.values(), layout, own)
    lengths = [len(trace.token_ids) for trace in traces]

    def tokens_of(shards: Iterable[int]) -> int:
        return sum(lengths[trace] for shard in shards for trace in layout.shards[shard])

    total, todo = tokens_of(own), tokens_of(missing)
    started = time.monotonic()
    if missing:
        lm = load(reader.config, cfg.device)
        read = partial(read_residuals, lm, layers=cfg.layers, token_budget=cfg.cache.token_budget)
        started = time.monotonic()
        with console.progress(total, "tokens", label, done=total - todo) as progress:
            sequences = [trace.token_ids for trace in traces]
            for num_tokens in fill_shards(writers, layout, sequences, read, own):
                progress.advance(num_tokens)
    seconds = time.monotonic() - started
    return {
        "tokens": sum(lengths),
        "seconds": round(seconds, 2),
        "tokens_per_second": round(todo / seconds) if missing else 0,
        "bytes": sum(
            layout.num_tokens * row_bytes(w.attributes.d_model, w.attributes.dtype)
            for w in writers.values()
        ),
    }


def _tell_part(cfg: Config, stage: Stage, console: Console) -> None:
    """Say that this part is made, and which others aren't."""
    missing = stage.missing_parts()
    others = f"; {len(missing)} parts are not: {missing[0].options}, …" if missing else ""
    console.say(f"  this part is made, in {stage.folder}{others}")
    console.next("train", "once the last worker has put all parts together")
