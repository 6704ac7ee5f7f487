"""What a direction of the residual stream says through a model's own output layer."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.lm.load import LanguageModel

_FINAL_NORMS = ("norm", "final_layer_norm", "ln_f")


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
        ConfigError: The model keeps its final norm where this project doesn't know.
    """
    norm = _final_norm(lm)
    head = lm.model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    silent = head(norm(torch.zeros_like(_row(lm, directions[:1]))))
    for direction in directions:
        logits = (head(norm(_row(lm, direction[None]))) - silent)[0].float().cpu()
        yield logits - logits.mean()


def _row(lm: LanguageModel, direction: Float[Tensor, "1 d_model"]) -> Tensor:
    return direction.to(lm.device, lm.model.dtype)


def _final_norm(lm: LanguageModel) -> nn.Module:
    body = lm.model.base_model
    for name in _FINAL_NORMS:
        found = getattr(body, name, None)
        if isinstance(found, nn.Module):
            return found
    raise ConfigError(
        f"{lm.facts.name} keeps its final norm under none of {', '.join(_FINAL_NORMS)}; use a "
        "Llama-, Qwen-, Gemma-, GPT-NeoX- or GPT-2-like model"
    )
