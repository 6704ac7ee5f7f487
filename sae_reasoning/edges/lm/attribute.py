"""Gradients of the log-probability that a move starts, at the position that predicts it."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_reasoning.edges.lm.load import LanguageModel, decoder_blocks
from sae_reasoning.edges.lm.read import check_layers, pack


@dataclass(frozen=True)
class OnsetGradients:
    """Residuals at the last position of some prefixes, and the gradients there.

    Attributes:
        rows: Which prefixes, as indices.
        residuals: By layer.
        gradients: Of log P(next token is among the wanted) with respect to the residual, by layer.
        log_probability: That log-probability.
    """

    rows: list[int]
    residuals: dict[int, Float[Tensor, "row d_model"]]
    gradients: dict[int, Float[Tensor, "row d_model"]]
    log_probability: Float[Tensor, " row"]


def onset_gradients(
    lm: LanguageModel,
    prefixes: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    layers: Sequence[int],
    token_budget: int,
) -> Iterator[OnsetGradients]:
    """Differentiate log P(next token in `wanted`) at the end of each prefix.

    The blocks up to the shallowest layer run without gradients.

    Args:
        lm: Reader.
        prefixes: Token ids up to onset-1.
        wanted: Of each prefix, the tokens that would start the move; at least one.
        layers: Decoder blocks whose output is differentiated by.
        token_budget: Tokens of one pass, padding included.

    Raises:
        ConfigError: A layer that the reader doesn't have.
    """
    check_layers(layers, lm.facts.num_layers, lm.facts.name)
    for rows in pack([len(prefix) for prefix in prefixes], token_budget):
        yield _differentiate(lm, rows, prefixes, wanted, sorted(layers))


@torch.enable_grad()
def _differentiate(
    lm: LanguageModel,
    rows: list[int],
    prefixes: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    layers: list[int],
) -> OnsetGradients:
    last = torch.tensor([len(prefixes[row]) - 1 for row in rows], device=lm.device)
    token_ids = torch.full((len(rows), int(last.max()) + 1), lm.tokenizer.pad_token_id or 0)
    for place, row in enumerate(rows):
        token_ids[place, : len(prefixes[row])] = torch.tensor(prefixes[row])
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
                    resid = resid.detach().requires_grad_()
                held[layer] = resid
                return (resid, *output[1:]) if isinstance(output, tuple) else resid

            stack.callback(blocks[layer].register_forward_hook(hold).remove)
        logits = _logits_at(lm, token_ids.to(lm.device), last)
    is_wanted = torch.zeros(logits.shape, dtype=torch.bool)
    for place, row in enumerate(rows):
        is_wanted[place, list(wanted[row])] = True
    starting = logits.masked_fill(~is_wanted.to(lm.device), -torch.inf).logsumexp(1)
    log_probability = starting - logits.logsumexp(1)
    gradients = torch.autograd.grad(log_probability.sum(), [held[layer] for layer in layers])
    here = torch.arange(len(rows), device=lm.device)
    return OnsetGradients(
        rows,
        {layer: held[layer].detach()[here, last].float() for layer in layers},
        {
            layer: gradient[here, last].float()
            for layer, gradient in zip(layers, gradients, strict=True)
        },
        log_probability.detach(),
    )


def _logits_at(lm: LanguageModel, token_ids: Tensor, last: Tensor) -> Tensor:
    """Logits at each row's last token; where the model can, the head is spared elsewhere."""
    here = torch.arange(len(last), device=lm.device)
    if "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        kept, place = last.unique(return_inverse=True)
        output = lm.model(input_ids=token_ids, use_cache=False, logits_to_keep=kept)
        return output.logits[here, place].float()
    return lm.model(input_ids=token_ids, use_cache=False).logits[here, last].float()
