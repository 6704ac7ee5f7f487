"""How a model is read while it learns."""

import pytest
import torch
from torch import nn

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.learn import compiled_reader, plain_reader
from sae_reasoning.edges.lm.load import load

TOKEN_IDS = torch.randint(3, 40, (4, 20), generator=torch.Generator().manual_seed(0))
PLACES = torch.ones_like(TOKEN_IDS, dtype=torch.bool)
PLACES[:, -1] = False


def gradient(model: nn.Module, logits: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    losses = nn.functional.cross_entropy(logits.float(), TOKEN_IDS[:, 1:].flatten())
    losses.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.slow  # Compiles for a minute.
def test_the_compiled_reader_gives_the_models_own_gradients(tiny_pair: PairConfig) -> None:
    model = load(tiny_pair.base, "cpu").model.requires_grad_(True)
    plain = gradient(model, plain_reader(model)(TOKEN_IDS, PLACES))
    read = compiled_reader(model)
    compiled = gradient(model, read(TOKEN_IDS, PLACES))
    assert (compiled - plain).norm() < 0.01 * plain.norm()
    with torch.no_grad():
        before = read(TOKEN_IDS, PLACES)
        next(model.parameters()).mul_(0.5)
        assert not torch.equal(read(TOKEN_IDS, PLACES), before)
