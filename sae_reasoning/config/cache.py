"""Options of the activations on disk, and of the work shared among many workers."""

from dataclasses import dataclass

from sae_reasoning.config.checks import one_of, positive, require

NORM_MULTIPLE = 10.0
"""Multiples of the median norm beyond which tokens are counted as outlying, and not trained on."""


@dataclass
class CacheConfig:
    """Activations of both readers on all traces.

    Attributes:
        dtype: On disk: float16, bfloat16 or float32.
        tokens: `response` keeps the last prompt position and what follows; `all` keeps every
            position but BOS.
        token_budget: Tokens, padding included, of one forward pass; small ones stay in a CPU's
            cache, a GPU wants ten times as many.
        shard_tokens: Rows of one HDF5 file.
        num_shards: Workers that the corpus is split among, by files: the first takes file 0 and
            every `num_shards`-th after it. What is written doesn't depend on it.
        shard: Which worker this one is, 0 the first: it makes its files only, and the last worker
            puts the whole together; none makes all that is missing.
        only: Which reader's activations are made, `base` or `rl`, likewise; empty for both.
    """

    dtype: str = "float16"
    tokens: str = "response"
    token_budget: int = 2048
    shard_tokens: int = 65536
    num_shards: int = 1
    shard: int | None = None
    only: str = ""

    def __post_init__(self) -> None:
        one_of("cache.dtype", self.dtype, ("float16", "bfloat16", "float32"))
        one_of("cache.tokens", self.tokens, ("response", "all"))
        one_of("cache.only", self.only, ("", "base", "rl"))
        positive(self, "cache", "token_budget", "shard_tokens", "num_shards")
        require(
            self.shard is None or 0 <= self.shard < self.num_shards,
            f"cache.shard={self.shard} is none of cache.num_shards={self.num_shards}; count them "
            f"from 0 to {self.num_shards - 1}",
        )
