"""What latents say of the next behaviour."""

import torch

from sae_reasoning.steering.readout import (
    Foresight,
    LatentReader,
    fit_divergence,
    fit_readout,
)


def test_latents_that_tell_behaviours_apart_are_weighed_so() -> None:
    generator = torch.Generator().manual_seed(0)
    behaviour = torch.arange(300) % 3
    latents = torch.nn.functional.one_hot(behaviour, 3)[:, 1:] * 2.0
    latents = latents + 0.1 * torch.rand(300, 2, generator=generator)
    readout = fit_readout(latents, behaviour, 3, seed=0)
    assert (readout(latents).argmax(-1) == behaviour).all()
    torch.testing.assert_close(readout(latents).exp().sum(-1), torch.ones(300))


def test_latents_that_say_nothing_leave_the_shares() -> None:
    behaviour = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    shares = fit_readout(torch.zeros(100, 1), behaviour, 3, seed=0)(torch.zeros(1, 1)).exp()[0]
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.01, rtol=0)


def test_a_divergence_that_is_linear_in_latents_is_foreseen() -> None:
    latents = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    weights, bias = fit_divergence(latents, latents @ torch.tensor([1.0, -2.0, 0.0]) + 0.5, 1e-6)
    torch.testing.assert_close(weights, torch.tensor([1.0, -2.0, 0.0]), atol=1e-3, rtol=0)
    assert abs(bias - 0.5) < 1e-3


def test_chosen_latents_of_several_layers_stand_side_by_side() -> None:
    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :1], torch.tensor([[2], [0]])

    reader = LatentReader({0: (encode, 4), 1: (encode, 4)}, {0: [0, 2], 1: [3, 2]})
    resid = torch.tensor([[1.5, 0.0], [2.5, 0.0]])
    found = reader({0: resid, 1: 2 * resid})
    assert found.tolist() == [[0.0, 1.5, 0.0, 3.0], [2.5, 0.0, 0.0, 0.0]]
    readout = fit_readout(found, torch.tensor([1, 0]), 2, seed=0)
    foreseen = Foresight(reader, readout, torch.ones(4), 0.5)({0: resid, 1: 2 * resid})
    assert foreseen.divergence.tolist() == [5.0, 3.0]
    assert foreseen.behaviours.argmax(-1).tolist() == [1, 0]


def test_where_models_never_part_no_divergence_is_foreseen() -> None:
    weights, bias = fit_divergence(torch.zeros(0, 5), torch.zeros(0))
    assert weights.tolist() == [0.0] * 5
    assert bias == 0.0
