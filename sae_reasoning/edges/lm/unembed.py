"""What a direction of the residual stream says through a model's own output layer."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.edges.lm.anatomy import final_norm, head
from sae_reasoning.edges.lm.load import LanguageModel


@torch.no_grad()
def output_logits(
    lm: LanguageModel, directions: Float[Tensor, "latent d_model"]
) -> Iterator[Float[Tensor, " vocabulary"]]:
    """Logits of a residual that is one direction alone, less their mean over the vocabulary.

    The final norm is taken with its gain and without its bias, and no later block is asked: the
    direct path of the logit lens.

    Args:
        lm: Whose output layer.
        directions: Decoder rows.

    Yields:
        One direction's logits.

    Raises:
        ConfigError: The model has no final norm or head that can be told from other parts.
    """
    norm, unembed = final_norm(lm.model), head(lm.model)
    device = next(unembed.parameters()).device
    norm_device = next((p.device for p in norm.parameters()), device)

    def said(rows: Float[Tensor, "1 d_model"]) -> Float[Tensor, "1 vocabulary"]:
        normed: Tensor = norm(rows.to(norm_device, lm.model.dtype))
        return unembed(normed.to(device))

    silent = said(torch.zeros_like(directions[:1]))
    for direction in directions:
        logits = (said(direction[None]) - silent)[0].float().cpu()
        yield logits - logits.mean()
