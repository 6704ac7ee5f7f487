"""Teacher-force every trace of both writers through both readers; keep the residual streams.

Many workers may share the work (`cache.num_shards`, `cache.shard`, `cache.only`). Each writes files
of its own, all into the one partial folder, and what stands in a file depends on its traces alone;
so the last one publishes the very bytes that a single worker would have written.
"""

import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sae_reasoning.config import CacheConfig, Config, ConfigError, ModelConfig
from sae_reasoning.config.cache import NORM_MULTIPLE
from sae_reasoning.edges.activation_format import (
    StoreAttributes,
    file_bytes,
    row_bytes,
    shard_path,
)
from sae_reasoning.edges.activation_layout import Layout, fill_shards, missing_shards
from sae_reasoning.edges.activation_norms import Norms
from sae_reasoning.edges.activation_store import ActivationStore, StoreWriter
from sae_reasoning.edges.artifacts import Manifest, Part, Stage, require_stage
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.inputs import outside_inputs
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
    models = {name: reader.facts.fingerprint for name, reader in readers.items()}
    made = require_stage(cfg.folder, "traces", cfg.settings("traces"), outside_inputs(cfg))
    inputs = {"traces": made.fingerprint} | models
    _check_writable(cfg.folder)
    is_part = cfg.is_partial("cache")
    final = cfg.folder / "cache"
    with Stage(final, cfg.settings("cache"), inputs, shared=is_part, mends=True) as stage:
        if stage.is_current:
            console.current("cache", stage.final)
            assert stage.manifest
            return stage.manifest
        traces = read_traces(cfg.folder / "traces" / "traces.parquet")
        require_shared_tokens(cfg.pair, (trace.token_ids for trace in traces))
        layout = _lay_out(traces, cfg.cache, list(readers.values()))
        stores = {
            name: _writers(stage.folder / name, reader, traces, layout, cfg, made.fingerprint)
            for name, reader in readers.items()
        }
        own = _own_shards(cfg.cache, layout)
        _plan(cfg, console, stage, traces, layout, stores, own)
        if is_part:
            stage.note_parts(_parts(cfg.cache, layout, stores, stage.folder))
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
        outlying = _outlying(stores, traces, layout)
        manifest = stage.finish(
            {"traces": len(traces), "rows": layout.num_tokens, "outlying": outlying} | counts
        )
    tracker.summary({"cache": manifest.counts})
    columns = ("tokens", "seconds", "tokens_per_second", "bytes")
    rows = [[name, *(one[column] for column in columns)] for name, one in counts.items()]
    console.table("activations by reader", ["reader", *columns], rows)
    _tell_outlying(outlying, console)
    console.wrote(stage.final, manifest)
    console.next("train")
    return manifest


def _outlying(
    stores: dict[str, dict[int, StoreWriter]], traces: Sequence[Trace], layout: Layout
) -> dict[str, dict[str, float]]:
    """Tokens of outlying norm, by reader and layer; every store is opened, and so checked."""
    num_select = sum(trace.split == "select" for trace in traces)
    trained_on = range(int(layout.row_of_trace[num_select]))
    found = {}
    for reader, writers in stores.items():
        for layer, writer in writers.items():
            norms = Norms.of(ActivationStore.open(writer.folder), trained_on)
            beyond = norms.num_beyond(NORM_MULTIPLE)
            found[f"{reader}/layer_{layer}"] = {
                "median_norm": norms.median,
                "largest_multiple": norms.largest,
                "tokens": beyond,
                "share": beyond / layout.num_tokens,
            }
    return found


def _tell_outlying(outlying: dict[str, dict[str, float]], console: Console) -> None:
    """Say where tokens have outlying norms, most of all first, if any do."""
    some = {name: one for name, one in outlying.items() if one["tokens"]}
    if not some:
        return
    most = sorted(some, key=lambda name: -some[name]["tokens"])[:2]
    said = "; ".join(
        f"{some[name]['tokens']:,} of {name} ({some[name]['share']:.2%}), up to "
        f"{some[name]['largest_multiple']:.0f} times"
        for name in most
    )
    more = f"; and in {len(some) - 2} more" if len(some) > 2 else ""
    console.tell(
        f"Tokens with a norm of more than {NORM_MULTIPLE:g} times the median: {said}{more}."
    )


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
    first_kept = []
    for trace in traces:
        # The last prompt position is onset-1 of whatever comes first.
        first = max(trace.num_prompt_tokens - 1, 0) if cfg.tokens == "response" else 0
        starts_with_bos = bool(trace.token_ids) and trace.token_ids[0] in bos_ids
        first_kept.append(max(first, int(starts_with_bos)))
    lengths = [len(trace.token_ids) for trace in traces]
    layout = Layout.plan(lengths, first_kept, cfg.shard_tokens)
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


def _own_shards(cfg: CacheConfig, layout: Layout) -> range:
    """Files that this worker makes.

    Raises:
        ConfigError: There are more workers than files.
    """
    files = len(layout.shards)
    if cfg.num_shards > files and cfg.shard is not None:
        fitting = max(layout.num_tokens // cfg.num_shards, 1)
        raise ConfigError(
            f"cache.num_shards={cfg.num_shards} exceeds the {files} files of {layout.num_tokens:,} "
            f"tokens; lower it, or set cache.shard_tokens={fitting} or less"
        )
    return range(files) if cfg.shard is None else range(cfg.shard, files, cfg.num_shards)


def _parts(
    cfg: CacheConfig, layout: Layout, stores: dict[str, dict[int, StoreWriter]], folder: Path
) -> list[Part]:
    """All parts of the cache, as it's cut for this worker."""
    readers = [[name] for name in stores] if cfg.only else [list(stores)]
    shards = range(cfg.num_shards) if cfg.shard is not None else [None]
    parts = []
    for names in readers:
        for shard in shards:
            options = [f"cache.only={names[0]}"] if cfg.only else []
            if shard is not None:
                options += [f"cache.num_shards={cfg.num_shards}", f"cache.shard={shard}"]
            files = tuple(
                str(shard_path(writer.folder, file).relative_to(folder))
                for name in names
                for writer in stores[name].values()
                for file in _own_shards(replace(cfg, shard=shard), layout)
            )
            parts.append(Part(" ".join(options), files))
    return parts


def _tell_part(cfg: Config, stage: Stage, console: Console) -> None:
    """Say that this part is made, and which others aren't."""
    missing = stage.missing_parts()
    others = f"; {len(missing)} parts are not: {missing[0].options}, …" if missing else ""
    console.say(f"  this part is made, in {stage.folder}{others}")
    console.next("train", "once the last worker has put all parts together")


def _check_writable(folder: Path) -> None:
    """Raise `ConfigError` if nothing can be written below `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"runs: {folder} can't be written ({error.strerror}); set runs= to a folder that can"
        ) from error
