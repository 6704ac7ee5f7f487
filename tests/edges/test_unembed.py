"""What a direction says through the output layer, held against the model itself."""

import pytest
import torch

from sae_reasoning.edges.lm.load import decoder_blocks, load
from sae_reasoning.edges.lm.unembed import output_logits


@pytest.mark.parametrize("pair", ["tiny_pair", "tiny_neox_pair"])
def test_logits_are_those_of_a_model_whose_last_residual_is_that_direction(pair, request):
    lm = load(request.getfixturevalue(pair).rl, "cpu")
    directions = torch.randn(2, lm.facts.d_model, generator=torch.Generator().manual_seed(0))

    def shouts(direction: torch.Tensor) -> torch.Tensor:
        """Logits of a model into whose last residual the direction is put, loudly."""

        def hook(_module: object, _inputs: object, out: torch.Tensor) -> torch.Tensor:
            return 1e4 * direction.expand_as(out)

        handle = decoder_blocks(lm.model)[-1].register_forward_hook(hook)
        try:
            logits = lm.model(torch.tensor([[5, 6]])).logits[0, -1]
        finally:
            handle.remove()
        return logits - logits.mean()

    found = list(output_logits(lm, directions))
    assert len(found) == 2
    for direction, logits in zip(directions, found, strict=True):
        torch.testing.assert_close(logits, shouts(direction), atol=1e-3, rtol=1e-3)
