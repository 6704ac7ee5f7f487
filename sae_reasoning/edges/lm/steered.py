"""What follows some prefixes when the residual at their end is steered, with gradients.

Prefixes are read once. Each steering vector then costs one pass over their last position and what
follows it, so trying many of them, or climbing along one, is cheap.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.generate import Reader, Reading, padded_left
from sae_reasoning.edges.lm.kv_cache import after
from sae_reasoning.edges.lm.load import LanguageModel


class SteeredContinuations:
    """Prefixes with what follows each, in one batch."""

    def __init__(
        self,
        lm: LanguageModel,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
    ) -> None:
        """Read the prefixes, all but their last token.

        Args:
            lm: Reader.
            prefixes: Token ids up to where the steering vector is added; two or more tokens each.
            continuations: What follows each; at least one token.

        Raises:
            ConfigError: The reader attends to a window only.
        """
        self._reader = Reader(lm)
        self._reader.require_full_attention()
        size = max(map(len, continuations))
        token_ids, mask = padded_left(lm, prefixes, size - 1)
        width = token_ids.shape[1]
        position = mask[:, :width].cumsum(1).sub(1).clamp_min(0)
        with torch.no_grad():
            self._reader.read(Reading(token_ids[:, :-1], mask[:, : width - 1], position[:, :-1]))
        self._wanted = torch.full((len(prefixes), size), -1, device=lm.device)
        for row, continuation in enumerate(continuations):
            self._wanted[row, : len(continuation)] = torch.tensor(continuation)
        # What stands beyond the end of a continuation is seen by nothing that counts.
        mask[:, width:] = 1
        new = torch.cat([token_ids[:, -1:], self._wanted[:, :-1].clamp_min(0)], dim=1)
        steps = torch.arange(size, device=lm.device)
        self._inputs = {
            "input_ids": new,
            "attention_mask": mask,
            "position_ids": position[:, -1:] + steps,
        }

    def log_probs(
        self, layer: int, change: Float[Tensor, "*#prefix d_model"]
    ) -> Float[Tensor, " prefix"]:
        """Mean log-probability of each continuation's tokens.

        Args:
            layer: Decoder block after which the last position of each prefix is steered.
            change: What is added there; one for all, or one a prefix.
        """
        lm = self._reader.lm

        def steer(_block: nn.Module, _args: object, output: object) -> object:
            resid = output[0] if isinstance(output, tuple) else output
            assert isinstance(resid, Tensor)
            first = resid[:, :1] + change.to(resid).reshape(-1, 1, resid.shape[-1])
            steered = torch.cat([first, resid[:, 1:]], dim=1)
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        handle = decoder_blocks(lm.model)[layer].register_forward_hook(steer)
        try:
            logits = lm.model(
                **self._inputs, past_key_values=after(self._reader.cache), use_cache=True
            ).logits.float()
        finally:
            handle.remove()
        own = logits.log_softmax(-1).gather(2, self._wanted.clamp_min(0)[..., None])[..., 0]
        is_wanted = self._wanted >= 0
        return torch.where(is_wanted, own, 0.0).sum(1) / is_wanted.sum(1)
