"""A TopK autoencoder whose forward and backward touch only the k winners of each token.

Dense autograd spends five of its six matrix products on latents that are zero. Here:

1. one dense product gives the pre-activations; the k largest of each token win, measured as
   sae-lens measures them, in units of the decoder's norm;
2. decoding sums k decoder rows a token (`embedding_bag`);
3. backward, the gradient of a winner is the dot product of its decoder row with the token's
   gradient (the bag's own backward);
4. winners sorted by latent, both weight gradients are bags again, over tokens instead of latents;
5. every other gradient is a sum: the input needs none, and what reaches the decoder's bias through
   the encoder is `encoder @ grad(encoder_bias)`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


class TopK(NamedTuple):
    """The winners of each token, in no order."""

    values: Float[Tensor, "batch k"]
    latents: Int[Tensor, "batch k"]


class Autoencoded(NamedTuple):
    """What a forward pass gives: the reconstruction (differentiable) and the winners behind it."""

    reconstruction: Float[Tensor, "batch d_in"]
    values: Float[Tensor, "batch k"]
    latents: Int[Tensor, "batch k"]


def top_k(pre: Float[Tensor, "batch d_sae"], k: int) -> TopK:
    """The k largest of each row.

    On a CPU `torch.topk` is most of a training step, so the columns are first cut into groups: the
    k largest lie in the k groups with the largest maxima, and only those are searched. Exact, but
    for which of two equal values is taken.
    """
    num_rows, d_sae = pre.shape
    group = 1 << int((d_sae / k) ** 0.5).bit_length() - 1
    if pre.is_cuda or group < 4 or d_sae % group:
        return TopK(*pre.topk(k, dim=-1, sorted=False))
    num_groups = d_sae // group
    # Strided groups, so that the maxima are taken over whole contiguous rows.
    best = pre.view(num_rows, group, num_groups).amax(1).topk(k, dim=-1, sorted=False).indices
    members = torch.arange(group, device=pre.device) * num_groups
    latents = (best.unsqueeze(1) + members.view(1, group, 1)).view(num_rows, group * k)
    values, chosen = pre.gather(1, latents).topk(k, dim=-1, sorted=False)
    return TopK(values, latents.gather(1, chosen))


def autoencode(
    x: Float[Tensor, "batch d_in"],
    encoder: Float[Tensor, "d_in d_sae"],
    encoder_bias: Float[Tensor, " d_sae"],
    decoder: Float[Tensor, "d_sae d_in"],
    decoder_bias: Float[Tensor, " d_in"],
    k: int,
) -> Autoencoded:
    """Reconstruct `x` from its k winners; gradients flow to the parameters, not to `x`.

    The same function as sae-lens's TopK with `rescale_acts_by_decoder_norm`; `values` are in the
    encoder's units, before that rescaling.
    """
    return Autoencoded(*_Autoencode.apply(x, encoder, encoder_bias, decoder, decoder_bias, k))


class _Autoencode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        encoder: Tensor,
        encoder_bias: Tensor,
        decoder: Tensor,
        decoder_bias: Tensor,
        k: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        centred = x - decoder_bias
        norms = decoder.norm(dim=1)
        scaled, latents = top_k(torch.addmm(encoder_bias * norms, centred, encoder * norms), k)
        values = scaled.relu_().div_(norms[latents])
        with torch.enable_grad():
            weights = values.detach().requires_grad_()
            bag = embedding_bag(latents, decoder.detach(), per_sample_weights=weights, mode="sum")
        ctx.bag, ctx.bag_weights = bag, weights
        ctx.save_for_backward(centred, encoder, values, latents)
        ctx.mark_non_differentiable(values, latents)
        return bag.detach() + decoder_bias, values, latents

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        centred, encoder, values, latents = ctx.saved_tensors
        d_sae, k = encoder.shape[1], values.shape[1]
        grad = grad.contiguous()
        (grad_values,) = torch.autograd.grad(ctx.bag, ctx.bag_weights, grad)
        grad_pre = grad_values * (values > 0)

        flat = latents.flatten()
        # Few bits sort fast.
        short = torch.int16 if d_sae < 2**15 else torch.int32
        order = flat.to(short).sort(stable=True).indices
        tokens = order // k
        counts = torch.bincount(flat, minlength=d_sae)
        starts = counts.cumsum(0) - counts

        def sum_over_tokens(weights: Tensor, rows: Tensor) -> Tensor:
            sorted_weights = weights.flatten()[order]
            return embedding_bag(
                tokens, rows, starts, per_sample_weights=sorted_weights, mode="sum"
            )

        grad_encoder = sum_over_tokens(grad_pre, centred).T.contiguous()
        grad_decoder = sum_over_tokens(values, grad)
        grad_encoder_bias = sum_over_tokens(grad_pre, torch.ones_like(grad[:, :1])).flatten()
        grad_decoder_bias = grad.sum(0) - encoder @ grad_encoder_bias
        return None, grad_encoder, grad_encoder_bias, grad_decoder, grad_decoder_bias, None
