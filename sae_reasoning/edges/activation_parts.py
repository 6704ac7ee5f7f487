"""Which files of the cache a worker makes, where several share them (`cache.shard`, `.only`)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sae_reasoning.config import CacheConfig, ConfigError
from sae_reasoning.edges.activation_format import shard_path
from sae_reasoning.edges.activation_layout import Layout
from sae_reasoning.edges.activation_store import StoreWriter
from sae_reasoning.edges.artifacts import Part


def own_shards(cfg: CacheConfig, layout: Layout) -> range:
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


def parts_of(
    cfg: CacheConfig, layout: Layout, stores: Mapping[str, Mapping[int, StoreWriter]], folder: Path
) -> list[Part]:
    """All parts of the cache, as it's cut for this worker.

    Args:
        cfg: How it's cut.
        layout: Of the rows.
        stores: By reader and layer.
        folder: Of the stage.
    """
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
                for file in own_shards(replace(cfg, shard=shard), layout)
            )
            parts.append(Part(" ".join(options), files))
    return parts
