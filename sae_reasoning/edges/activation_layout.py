"""From traces to shards: which token stands in which row, and the filling of the shards.

Rows are in trace order, then position order. Reading is packed by length, which is another order;
so traces are read a shard at a time, and the reordering stays within one shard's buffer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae_reasoning.edges.activation_format import RowIndex
from sae_reasoning.edges.activation_store import StoreWriter
from sae_reasoning.edges.lm.read import ReadBatch
from sae_reasoning.edges.lock import Lock
from sae_reasoning.records import Trace


@dataclass(frozen=True)
class Layout:
    """Which tokens are kept and where each stands; the same for every reader and layer.

    Attributes:
        first_kept: First kept position of each trace; all later ones are kept too.
        row_of_trace: Row of each trace's first kept token; one more, for the end.
        shards: Traces of each shard.
    """

    first_kept: Int64[np.ndarray, " trace"]
    row_of_trace: Int64[np.ndarray, " trace_and_end"]
    shards: tuple[range, ...]

    @classmethod
    def plan(cls, lengths: Sequence[int], first_kept: Sequence[int], shard_tokens: int) -> "Layout":
        """Lay out traces of `lengths` tokens in shards of up to `shard_tokens` rows.

        A trace is never split, so a longer one makes a longer shard.
        """
        first = np.minimum(np.asarray(first_kept, np.int64), np.asarray(lengths, np.int64))
        rows = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64) - first)])
        shards, start = [], 0
        while start < len(first):
            fitting = int(np.searchsorted(rows, rows[start] + shard_tokens, side="right")) - 1
            stop = max(fitting, start + 1)
            shards.append(range(start, stop))
            start = stop
        return cls(first, rows, tuple(shards))

    @classmethod
    def of(
        cls, traces: Sequence[Trace], responses_only: bool, bos_ids: Set[int | None], most: int
    ) -> "Layout":
        """Lay out traces; padding never has a row, and BOS neither.

        Args:
            traces: In order.
            responses_only: Whether prompts are left out, but for their last position: it comes
                right before whatever begins a response.
            bos_ids: What may begin a text.
            most: Rows of a shard, at most.
        """
        first_kept = []
        for trace in traces:
            first = max(trace.num_prompt_tokens - 1, 0) if responses_only else 0
            starts_with_bos = bool(trace.token_ids) and trace.token_ids[0] in bos_ids
            first_kept.append(max(first, int(starts_with_bos)))
        return cls.plan([len(trace.token_ids) for trace in traces], first_kept, most)

    @property
    def num_tokens(self) -> int:
        """Rows in all."""
        return int(self.row_of_trace[-1])

    def rows_of_shard(self, shard: int) -> range:
        """Rows of one shard."""
        traces = self.shards[shard]
        return range(int(self.row_of_trace[traces.start]), int(self.row_of_trace[traces.stop]))


def fill_shards(
    writers: Mapping[int, StoreWriter],
    layout: Layout,
    sequences: Sequence[Sequence[int]],
    read: Callable[[Sequence[Sequence[int]]], Iterable[ReadBatch]],
    shards: range | None = None,
) -> Iterator[int]:
    """Read and write the shards that are missing; all layers come from one forward pass.

    A shard's traces are read in whatever order `read` likes and scattered into a buffer of the
    shard's size, already in the dtype of the disk; it is written while the next shard is read. What
    stands in it depends on its own traces alone, so it doesn't matter who makes which. A shard that
    another process is making is waited for.

    Args:
        writers: By layer.
        layout: Of the rows.
        sequences: Token ids of every trace.
        read: Yields the residuals of the sequences it is given.
        shards: Which ones to make; none for all.

    Yields:
        Tokens read since the last.
    """
    missing = missing_shards(writers.values(), layout, shards)
    first_writer = next(iter(writers.values()))
    most = max((len(layout.rows_of_shard(shard)) for shard in missing), default=0)
    # Used in turn, as touching new memory costs as much as writing it: one fills, one is written.
    rooms = cycle(
        [{layer: writer.buffer(most) for layer, writer in writers.items()} for _ in missing[:2]]
    )
    with ExitStack() as locks, ThreadPoolExecutor(max_workers=1) as pool:
        pending: Future[None] | None = None
        for shard in missing:
            lock = first_writer.lock(shard)
            lock.take()
            locks.callback(lock.free)
            traces, rows = layout.shards[shard], layout.rows_of_shard(shard)
            group = [sequences[trace] for trace in traces]
            if not missing_shards(writers.values(), layout, range(shard, shard + 1)):
                lock.free()
                yield sum(map(len, group))
                continue
            buffers = {layer: room[: len(rows)] for layer, room in next(rooms).items()}
            for batch in read(group):
                source, target = _scatter(layout, [traces[row] for row in batch.rows], batch)
                for layer, buffer in buffers.items():
                    resid = batch.residuals[layer].flatten(0, 1)
                    kept = resid.index_select(0, source.to(resid.device)).to(buffer.dtype)
                    buffer.index_copy_(0, target - rows.start, kept.cpu())
                yield sum(len(group[row]) for row in batch.rows)
            index = row_index(layout, traces, group)
            if pending:
                pending.result()
            pending = pool.submit(_write_layers, writers, shard, buffers, index, lock)
        if pending:
            pending.result()


def _write_layers(
    writers: Mapping[int, StoreWriter],
    shard: int,
    buffers: Mapping[int, Float[Tensor, "row d_model"]],
    index: RowIndex,
    lock: Lock,
) -> None:
    """Publish a shard of every layer, then let go of it."""
    for layer, writer in writers.items():
        writer.write(shard, buffers[layer], index)
    lock.free()


def missing_shards(
    writers: Iterable[StoreWriter], layout: Layout, shards: range | None = None
) -> list[int]:
    """Shards, of some or of all, that some store hasn't got yet."""
    stores = tuple(writers)
    return [
        shard
        for shard in (range(len(layout.shards)) if shards is None else shards)
        if not all(writer.has(shard) for writer in stores)
    ]


def _scatter(layout: Layout, traces: Sequence[int], batch: ReadBatch) -> tuple[Tensor, Tensor]:
    """Where a batch's kept tokens stand in it, flat, and the rows they go to."""
    width = next(iter(batch.residuals.values())).shape[1]
    source, target = [], []
    for place, trace in enumerate(traces):
        rows = torch.arange(int(layout.row_of_trace[trace]), int(layout.row_of_trace[trace + 1]))
        first = place * width + int(layout.first_kept[trace])
        source.append(torch.arange(first, first + len(rows)))
        target.append(rows)
    return torch.cat(source), torch.cat(target)


def row_index(layout: Layout, traces: range, group: Sequence[Sequence[int]]) -> RowIndex:
    """What stands in the rows of one shard: `group` holds the token ids of its `traces`."""
    first = [int(layout.first_kept[trace]) for trace in traces]
    ends = [len(sequence) for sequence in group]
    return RowIndex(
        token_id=np.concatenate(
            [np.asarray(s[start:], np.int32) for s, start in zip(group, first, strict=True)]
        ),
        trace_index=np.repeat(np.asarray(traces, np.int32), np.subtract(ends, first)),
        position=np.concatenate(
            [np.arange(start, end, dtype=np.int32) for start, end in zip(first, ends, strict=True)]
        ),
    )
