"""A key-value cache with room to grow.

The library's own cache concatenates every layer's keys and values at each step, which for small
models is a third to three quarters of the time of generation. This one writes into a buffer that is
extended now and then. On a CPU the whole buffer may be attended to, with what is empty behind the
mask: memory without gaps is read at twice the speed. Two more read on from a cache without growing
it: `last_again` reads the last position of some rows again, `after` reads continuations of a prefix
that stays as it is.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

_STRIDE = 32


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, views of a buffer that is longer than they are.

    Args:
        whole: Whether the whole buffer is attended to by all that comes after the first reading;
            whoever reads must give a mask then.
    """

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self._whole = whole
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values [batch, head, token, d_head]; all so far, or the whole buffer."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        done = self.get_seq_length()
        end = done + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._buffers = (
                self._grown(self.keys, key_states, done, end),
                self._grown(self.values, value_states, done, end),
            )
        keys, values = self._buffers
        keys[:, :, done:end] = key_states
        values[:, :, done:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return (keys, values) if self._whole and done else (self.keys, self.values)

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """How many keys a mask is for once so many are appended, and the first of them.

        Older versions of the library give the new tokens' positions.
        """
        done = self.get_seq_length()
        end = done + (query_length if isinstance(query_length, int) else len(query_length))
        return (_capacity(end) if self._whole and done else end), 0

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows of the batch."""
        if self._buffers is None:
            return
        done = self.get_seq_length()
        keys, values = (buffer[indices] for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :done], values[:, :, :done]

    @staticmethod
    def _grown(old: Tensor | None, new: Tensor, done: int, end: int) -> Tensor:
        batch, heads, _, width = new.shape
        # Zeros, since what a mask hides is multiplied by nothing, and must be a number.
        buffer = new.new_zeros(batch, heads, _capacity(end), width)
        if old is not None and done:
            buffer[:, :, :done] = old
        return buffer


def _capacity(num_tokens: int) -> int:
    return -(-num_tokens // _STRIDE) * _STRIDE


class _LastAgain(DynamicLayer):
    """Some rows of a layer whose last position is read again: its keys and values are replaced."""

    def __init__(self, layer: RoomyLayer, rows: Tensor) -> None:
        super().__init__()
        self._layer, self._rows = layer, rows
        self.keys, self.values, self.is_initialized = layer.keys, layer.values, True

    def get_seq_length(self) -> int:
        return self._layer.get_seq_length() - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        found = []
        for held, new in ((self._layer.keys, key_states), (self._layer.values, value_states)):
            assert held is not None
            rows = self._rows.to(held.device)
            held[rows, :, -1:] = new
            found.append(held[rows])
        return found[0], found[1]


class _After(DynamicLayer):
    """A layer's keys and values as a prefix of what is read; nothing is kept of that.

    The prefix of a single row is that of every row.
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = layer.keys, layer.values, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        found = []
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            assert held is not None
            found.append(torch.cat([held.expand(len(new), -1, -1, -1), new], dim=-2))
        return found[0], found[1]


def last_again(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """A cache in which the last position of some rows is read again, and replaced in `cache`."""
    again = DynamicCache()
    assert is_plain(cache)
    again.layers = [_LastAgain(layer, rows) for layer in cache.layers]  # type: ignore[arg-type]
    return again


def after(cache: DynamicCache) -> DynamicCache:
    """A cache from which continuations are read that leave no trace in it."""
    found = DynamicCache()
    assert is_plain(cache)
    found.layers = [_After(layer) for layer in cache.layers]  # type: ignore[arg-type]
    return found


def keep_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Keep some rows of the batch, wherever each layer's keys and values are."""
    layer: Any  # What the library types them as has neither keys nor rows.
    for layer in cache.layers:
        keys = layer.keys
        layer.batch_select_indices(rows if keys is None else rows.to(keys.device))


def is_plain(cache: DynamicCache) -> bool:
    """Whether every layer attends to all that came before."""
    return all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def takes_cache(model: nn.Module) -> bool:
    """Whether a model can be called with keys and values to read on from."""
    parameters = signature(model.forward).parameters.values()
    return any(p.name == "past_key_values" or p.kind is p.VAR_KEYWORD for p in parameters)


def roomy_cache(config: PreTrainedConfig, whole: bool = False) -> DynamicCache:
    """An empty cache for a model; sliding-window and other special layers stay as they are.

    `whole` is as for `RoomyLayer`.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer(whole) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
