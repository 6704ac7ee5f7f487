"""Gradients of the log-probability that a behaviour starts, at the position that predicts it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.branch import Branch, BranchingText, lay_out
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.logits import head_inputs, log_probs_of
from sae_reasoning.edges.lm.read import pack


@dataclass(frozen=True)
class OnsetGradients:
    """Residuals at the last position of some prefixes, and the gradients there.

    Attributes:
        rows: Which prefixes, as indices.
        residuals: By layer.
        gradients: Of the log-probability with respect to the residual, by layer.
        log_probability: Log P(what comes next is one of the wanted).
    """

    rows: list[int]
    residuals: dict[int, Float[Tensor, "row d_model"]]
    gradients: dict[int, Float[Tensor, "row d_model"]]
    log_probability: Float[Tensor, " row"]


def onset_gradients(
    lm: LanguageModel,
    prefixes: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[Sequence[int]]],
    layers: Sequence[int],
    token_budget: int,
    vectors: Mapping[int, Float[Tensor, " d_model"]] | None = None,
) -> Iterator[OnsetGradients]:
    """Differentiate log P(what comes next is one of `wanted`) at the end of each prefix.

    The blocks up to the shallowest layer run without gradients.

    Args:
        lm: Reader.
        prefixes: Token ids up to onset-1.
        wanted: Of each prefix, what would start the behaviour, each one or more tokens; at least
            one.
        layers: Decoder blocks whose output is differentiated by.
        token_budget: Tokens of one pass, padding included.
        vectors: By layer, what is added to the residual at the end of every prefix beforehand.

    Raises:
        ConfigError: A layer that the reader doesn't have.
    """
    check_layers(layers, lm.facts.num_layers, lm.facts.name)
    texts = [
        BranchingText(tuple(prefix), tuple(Branch(len(prefix) - 1, tuple(o)) for o in openings))
        for prefix, openings in zip(prefixes, wanted, strict=True)
    ]
    for rows in pack([text.num_tokens for text in texts], token_budget):
        yield _differentiate(lm, rows, [texts[row] for row in rows], sorted(layers), vectors or {})


def mean_slope(
    lm: LanguageModel,
    prefixes: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    layer: int,
    token_budget: int,
    vector: Float[Tensor, " d_model"],
) -> Float[Tensor, " d_model"]:
    """Mean over prefixes of the gradient at one layer, with a vector added to the residual."""
    total = torch.zeros(lm.facts.d_model)
    each = [wanted] * len(prefixes)
    for found in onset_gradients(lm, prefixes, each, [layer], token_budget, {layer: vector}):
        total += found.gradients[layer].sum(0).cpu()
    return total / len(prefixes)


@torch.enable_grad()
def _differentiate(
    lm: LanguageModel,
    rows: list[int],
    texts: Sequence[BranchingText],
    layers: list[int],
    vectors: Mapping[int, Float[Tensor, " d_model"]],
) -> OnsetGradients:
    batch = lay_out(lm, texts)
    here = torch.arange(len(texts), device=lm.device)
    last = torch.tensor([len(text.token_ids) - 1 for text in texts], device=lm.device)
    held: dict[int, Tensor] = {}
    blocks = decoder_blocks(lm.model)
    with ExitStack() as stack:
        for layer in layers:

            def hold(
                _block: nn.Module, _args: object, output: object, layer: int = layer
            ) -> object:
                resid = output[0] if isinstance(output, tuple) else output
                assert isinstance(resid, Tensor)
                if layer == layers[0]:
                    resid = resid.detach()
                if layer in vectors:
                    resid = resid.clone()
                    resid[here, last] += vectors[layer].to(resid)
                if layer == layers[0]:
                    resid.requires_grad_()
                held[layer] = resid
                return (resid, *output[1:]) if isinstance(output, tuple) else resid

            stack.callback(blocks[layer].register_forward_hook(hold).remove)
        read = head_inputs(lm, batch.inputs, batch.rows, batch.places)
    own = log_probs_of(lm, read, batch.tokens)
    counts = torch.tensor([len(text.branches) for text in texts])
    of_branch = batch.sums(own, int(counts.sum()))
    log_probability = torch.stack([part.logsumexp(0) for part in of_branch.split(counts.tolist())])
    gradients = torch.autograd.grad(log_probability.sum(), [held[layer] for layer in layers])
    return OnsetGradients(
        rows,
        {layer: held[layer].detach()[here, last].float() for layer in layers},
        {
            layer: gradient[here, last].float()
            for layer, gradient in zip(layers, gradients, strict=True)
        },
        log_probability.detach(),
    )
