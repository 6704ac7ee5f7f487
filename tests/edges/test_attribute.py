"""Onset gradients against finite differences of the model itself."""

import pytest
import torch

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.attribute import onset_gradients
from sae_reasoning.edges.lm.load import decoder_blocks, load


@pytest.fixture(scope="module")
def lm(tiny_pair: PairConfig):
    return load(tiny_pair.rl, "cpu")


PREFIXES = [[1, 20, 30, 7], [1, 9], [1, 40, 41, 42, 43, 44, 45]]
WANTED = [[5], [6, 7, 8], [50, 5]]


def _log_probability(lm, row: int, layer: int, change: torch.Tensor) -> float:
    def edit(_block, _args, output):
        resid = output[0] if isinstance(output, tuple) else output
        resid = resid.clone()
        resid[0, -1] += change
        return (resid, *output[1:]) if isinstance(output, tuple) else resid

    handle = decoder_blocks(lm.model)[layer].register_forward_hook(edit)
    try:
        with torch.no_grad():
            logits = lm.model(torch.tensor([PREFIXES[row]])).logits[0, -1].double()
    finally:
        handle.remove()
    return float(logits[WANTED[row]].logsumexp(0) - logits.logsumexp(0))


def test_gradients_predict_what_a_small_change_of_the_residual_does(lm) -> None:
    seen = []
    for found in onset_gradients(lm, PREFIXES, WANTED, [0, 1], token_budget=10):
        for place, row in enumerate(found.rows):
            seen.append(row)
            before = _log_probability(lm, row, 0, torch.zeros(32))
            assert found.log_probability[place].item() == pytest.approx(before, abs=1e-5)
            for layer in (0, 1):
                gradient = found.gradients[layer][place]
                step = 1e-2 * gradient / gradient.norm()
                up = _log_probability(lm, row, layer, step)
                down = _log_probability(lm, row, layer, -step)
                expected = float(gradient.norm()) * 2e-2
                assert up - down == pytest.approx(expected, rel=0.02, abs=1e-6)
    assert sorted(seen) == [0, 1, 2]


def test_residuals_are_those_of_the_last_token(lm) -> None:
    from sae_reasoning.edges.lm.read import read_residuals

    (read,) = read_residuals(lm, PREFIXES, [0, 1], 1000)
    (found,) = onset_gradients(lm, PREFIXES, WANTED, [0, 1], 1000)
    for layer in (0, 1):
        for place, row in enumerate(found.rows):
            expected = read.residuals[layer][read.rows.index(row), len(PREFIXES[row]) - 1]
            assert torch.allclose(found.residuals[layer][place], expected, atol=1e-5)
