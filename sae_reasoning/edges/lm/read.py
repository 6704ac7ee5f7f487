"""Teacher forcing: residual streams of given tokens, and losses with a residual replaced.

The activation at token t is the residual stream after a decoder block, having read token t; it
predicts token t+1. Sequences are packed by length under a token budget and padded on the right: a
causal model's valid positions don't depend on what follows them, so no attention mask is needed and
the fast causal attention is used.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn
from transformers import DynamicCache

from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.kv_cache import after, is_plain, roomy_cache, takes_cache
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.logits import head_inputs, log_probs_of

Transform = Callable[..., Float[Tensor, "row d_model"]]
"""What takes the place of residuals [row, d_model]; it may get another reader's as a second."""


@dataclass(frozen=True)
class ReadBatch:
    """Residual streams of a batch of sequences.

    Attributes:
        rows: Which sequences, as indices.
        residuals: By layer; at padding they mean nothing.
        is_token: Where there is a token, not padding.
    """

    rows: list[int]
    residuals: dict[int, Float[Tensor, "batch token d_model"]]
    is_token: Bool[Tensor, "batch token"]


@dataclass(frozen=True)
class SequenceLosses:
    """Next-token cross-entropy of each sequence's response.

    Attributes:
        summed: In nats, over the response's tokens.
        num_targets: Tokens of the response.
    """

    summed: Float64[np.ndarray, " sequence"]
    num_targets: Int64[np.ndarray, " sequence"]


def read_residuals(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    layers: Sequence[int],
    token_budget: int,
) -> Iterator[ReadBatch]:
    """Read sequences, the longest first; the forward pass stops after the deepest layer.

    Args:
        lm: Reader.
        sequences: Token ids, BOS included where the tokenizer adds one.
        layers: Decoder blocks whose output is wanted.
        token_budget: Tokens of one pass, padding included; a longer sequence is read alone.

    Raises:
        ConfigError: A layer that the reader doesn't have.
    """
    check_layers(layers, lm.facts.num_layers, lm.facts.name)
    for rows in pack([len(sequence) for sequence in sequences], token_budget):
        token_ids, is_token = padded_right(lm, [sequences[row] for row in rows])
        yield ReadBatch(rows, _forward_to_deepest(lm, token_ids, layers), is_token)


def read_continuations(
    lm: LanguageModel,
    prefix: Sequence[int],
    continuations: Sequence[Sequence[int]],
    layers: Sequence[int],
    token_budget: int,
) -> Iterator[ReadBatch]:
    """Read what follows one prefix, in several ways; the prefix itself is read once.

    Args:
        lm: Reader.
        prefix: Token ids that all begin with, BOS included where the tokenizer adds one.
        continuations: Token ids after it; at least one each.
        layers: As for `read_residuals`.
        token_budget: Likewise; the prefix counts in every row.

    Yields:
        Residuals of the continuations alone.

    Raises:
        ConfigError: A layer that the reader doesn't have.
    """
    cache = roomy_cache(lm.model.config)
    # Layers that forget hold no prefix to read on from, nor does a model that takes none.
    if not prefix or not is_plain(cache) or not takes_cache(lm.model.base_model):
        whole = [(*prefix, *own) for own in continuations]
        for batch in read_residuals(lm, whole, layers, token_budget):
            kept = {x: resid[:, len(prefix) :] for x, resid in batch.residuals.items()}
            yield ReadBatch(batch.rows, kept, batch.is_token[:, len(prefix) :])
        return
    check_layers(layers, lm.facts.num_layers, lm.facts.name)
    token_ids, _ = padded_right(lm, [prefix])
    _forward_to_deepest(lm, token_ids, [max(layers)], cache)
    for rows in pack([len(prefix) + len(own) for own in continuations], token_budget):
        token_ids, is_token = padded_right(lm, [continuations[row] for row in rows])
        yield ReadBatch(rows, _forward_to_deepest(lm, token_ids, layers, after(cache)), is_token)


def splice_losses(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    *,
    layer: int,
    transform: Transform | None,
    keep_from: Sequence[int],
    response_from: Sequence[int],
    token_budget: int,
    beside: LanguageModel | None = None,
) -> SequenceLosses:
    """Losses of the responses when the residual after one block is replaced.

    Args:
        lm: Reader.
        sequences: Token ids, BOS included where the tokenizer adds one.
        layer: Decoder block whose output is replaced.
        transform: Called with the residuals of all replaced positions of a batch; what it returns
            takes their place. None replaces nothing.
        keep_from: First replaced position of each sequence; all later ones are replaced too.
        response_from: First token of each response, the first whose prediction counts.
        token_budget: Tokens of one pass, padding included.
        beside: Another reader, which reads the same tokens: `transform` is called with its
            residuals after the same block as a second argument.

    Raises:
        ConfigError: A layer that a reader doesn't have.
    """
    for reader in (lm, beside) if beside else (lm,):
        check_layers([layer], reader.facts.num_layers, reader.facts.name)
    summed = np.zeros(len(sequences), np.float64)
    for rows in pack([len(sequence) for sequence in sequences], token_budget):
        token_ids, is_token = padded_right(lm, [sequences[row] for row in rows])
        is_kept = is_token & _from(keep_from, rows, is_token)
        is_target = is_token & _from(response_from, rows, is_token)
        is_target[:, 0] = False  # Nothing predicts the first token.
        others = []
        if beside is not None and transform is not None:
            others = [_forward_to_deepest(beside, token_ids, [layer])[layer][is_kept]]
        losses = _spliced_losses(lm, token_ids, is_target, layer, transform, is_kept, others)
        summed[rows] = losses.double().sum(1).cpu().numpy()
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    starts = np.maximum(np.asarray(response_from, np.int64), 1)
    return SequenceLosses(summed, np.maximum(lengths - starts, 0))


@torch.inference_mode()
def token_log_probs(
    lm: LanguageModel, sequences: Sequence[Sequence[int]], token_budget: int
) -> list[Float64[np.ndarray, " token"]]:
    """Log-probability in nats of each token given those before it; the first token's is NaN."""
    found: dict[int, np.ndarray] = {}
    for rows in pack([len(sequence) for sequence in sequences], token_budget):
        token_ids, is_token = padded_right(lm, [sequences[row] for row in rows])
        is_predicted = is_token[:, 1:]
        read = head_inputs(lm, {"input_ids": token_ids}, *is_predicted.nonzero(as_tuple=True))
        chosen = log_probs_of(lm, read, token_ids[:, 1:][is_predicted]).double().cpu()
        of_row = chosen.split([len(sequences[row]) - 1 for row in rows])
        for row, own in zip(rows, of_row, strict=True):
            found[row] = np.concatenate([[np.nan], own.numpy()])
    return [found[row] for row in range(len(sequences))]


def pack(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, the longest first, each padded within the budget.

    A batch that holds an eighth of the budget is also closed where lengths fall by a twentieth:
    a few hundred sequences packed full would be an eighth of padding.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batch: list[int] = []
    longest = 0
    for index in order:
        padded = len(batch) * longest
        is_full = padded + longest > token_budget
        is_shorter = lengths[index] < 0.95 * longest and 8 * padded >= token_budget
        if batch and (is_full or is_shorter):
            yield batch
            batch = []
        if not batch:
            longest = lengths[index]
        batch.append(index)
    if batch:
        yield batch


class _DeepestRead(Exception):  # noqa: N818
    """No error: the deepest layer's residual is there, and the forward pass ends early."""


@torch.no_grad()
def _forward_to_deepest(
    lm: LanguageModel,
    token_ids: Tensor,
    layers: Sequence[int],
    cache: DynamicCache | None = None,
) -> dict[int, Tensor]:
    residuals: dict[int, Tensor] = {}
    deepest = max(layers)
    blocks = decoder_blocks(lm.model)
    with ExitStack() as stack:
        for layer in layers:

            def keep(_block: nn.Module, _args: object, output: object, layer: int = layer) -> None:
                residuals[layer] = _residual(output).to(lm.device)
                if layer == deepest:
                    raise _DeepestRead

            stack.callback(blocks[layer].register_forward_hook(keep).remove)
        try:
            if cache is None:
                lm.model.base_model(input_ids=token_ids, use_cache=False)
            else:
                lm.model.base_model(input_ids=token_ids, past_key_values=cache, use_cache=True)
        except _DeepestRead:
            return residuals
    raise AssertionError(f"block {deepest} of {lm.facts.name} was never called")


@torch.no_grad()
def _spliced_losses(
    lm: LanguageModel,
    token_ids: Tensor,
    is_target: Tensor,
    layer: int,
    transform: Transform | None,
    is_kept: Tensor,
    others: Sequence[Tensor],
) -> Tensor:
    """Loss at each target, 0 elsewhere."""

    def splice(_block: nn.Module, _args: object, output: object) -> object:
        if transform is None:
            return output
        resid = _residual(output).clone()
        kept = is_kept.to(resid.device)
        resid[kept] = transform(resid[kept].to(lm.device), *others).to(resid)
        return (resid, *output[1:]) if isinstance(output, tuple) else resid

    handle = decoder_blocks(lm.model)[layer].register_forward_hook(splice)
    predicting = is_target[:, 1:].nonzero(as_tuple=True)
    try:
        read = head_inputs(lm, {"input_ids": token_ids}, *predicting)
    finally:
        handle.remove()
    losses = torch.zeros(token_ids.shape, device=token_ids.device)
    losses[is_target] = -log_probs_of(lm, read, token_ids[is_target])
    return losses


def _residual(output: object) -> Tensor:
    """A block's output: a tensor, or the first of a tuple (some architectures, older releases)."""
    resid = output[0] if isinstance(output, tuple) else output
    assert isinstance(resid, Tensor)
    return resid


def watched(lm: LanguageModel, layers: Sequence[int], seen: dict[int, Tensor]) -> ExitStack:
    """Hooks that note in `seen` what comes out of some blocks, for one forward pass."""
    stack = ExitStack()
    blocks = decoder_blocks(lm.model)
    for layer in layers:

        def note(_block: nn.Module, _args: object, output: object, layer: int = layer) -> None:
            seen[layer] = _residual(output).to(lm.device)

        stack.callback(blocks[layer].register_forward_hook(note).remove)
    return stack


def padded_right(
    lm: LanguageModel, sequences: Sequence[Sequence[int]]
) -> tuple[Int64[Tensor, "batch token"], Bool[Tensor, "batch token"]]:
    """Right-padded token ids and where they are tokens."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    is_token = torch.arange(int(lengths.max())) < lengths[:, None]
    token_ids = torch.full(is_token.shape, lm.tokenizer.pad_token_id or 0)
    token_ids[is_token] = torch.tensor([token for sequence in sequences for token in sequence])
    return token_ids.to(lm.device), is_token.to(lm.device)


def _from(starts: Sequence[int], rows: list[int], like: Tensor) -> Tensor:
    """Positions from each row's start on."""
    first = torch.tensor([starts[row] for row in rows], device=like.device)
    return torch.arange(like.shape[1], device=like.device) >= first[:, None]


def residuals_in_memory(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    first: Int64[np.ndarray, " sequence"],
    layers: Sequence[int],
    token_budget: int,
    on_read: Callable[[int], None] = lambda num_tokens: None,
) -> dict[int, Float[Tensor, "row d_model"]]:
    """Residuals of each sequence from its `first` token on, one after the other, by layer.

    `on_read` is told how many tokens each batch was.
    """
    sizes = [len(ids) - int(skip) for ids, skip in zip(sequences, first, strict=True)]
    ends = np.cumsum(sizes)
    held = {layer: torch.empty(int(ends[-1]), lm.facts.d_model) for layer in layers}
    for batch in read_residuals(lm, sequences, layers, token_budget):
        for place, row in enumerate(batch.rows):
            for layer in layers:
                own = batch.residuals[layer][place, first[row] : len(sequences[row])]
                held[layer][ends[row] - sizes[row] : ends[row]] = own.float().cpu()
        on_read(sum(len(sequences[row]) for row in batch.rows))
    return held
