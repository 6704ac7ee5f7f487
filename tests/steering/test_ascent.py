"""Directions that start a behaviour."""

import torch

from sae_reasoning.steering.vectors import ascend, unit


def test_an_ascent_finds_what_the_first_gradient_does_not_see() -> None:
    """Of a sum of tanh, the steepest start saturates long before a change of this size."""
    gains, reaches = torch.tensor([4.0, 1.0, 1.0]), torch.tensor([1.0, 6.0, 6.0])

    def value(change: torch.Tensor) -> torch.Tensor:
        return (gains * reaches * torch.tanh(change / reaches)).sum()

    def slope(change: torch.Tensor) -> torch.Tensor:
        point = change.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(point), point)
        return gradient

    start, size = unit(slope(torch.zeros(3))), 12.0
    risen = ascend(start, size, slope)
    assert torch.isclose(risen.norm(), torch.tensor(1.0))
    assert value(risen * size) > 1.2 * value(start * size)
    assert value(unit(torch.tensor([1.0, 5.0, 5.0])) * size) < 1.02 * value(risen * size)
