"""Onset gradients against finite differences of the model itself."""

import pytest
import torch

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.attribute import mean_slope, onset_gradients
from sae_reasoning.edges.lm.load import decoder_blocks, load


@pytest.fixture(scope="module")
def lm(tiny_pair: PairConfig):
    return load(tiny_pair.rl, "cpu")


PREFIXES = [[1, 20, 30, 7], [1, 9], [1, 40, 41, 42, 43, 44, 45]]
WANTED = [[(5,)], [(6,), (7,), (8,)], [(50,), (5,)]]
OPENINGS = [[(5, 6)], [(6,), (7, 9, 11), (8, 9)], [(50,), (5,)]]


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
    return float(logits[[first for (first,) in WANTED[row]]].logsumexp(0) - logits.logsumexp(0))


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


def test_gradients_under_a_vector_are_those_of_the_vectored_model(lm) -> None:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(3))
    for found in onset_gradients(lm, PREFIXES, WANTED, [1], 10, vectors={1: vector}):
        for place, row in enumerate(found.rows):
            expected = _log_probability(lm, row, 1, vector)
            assert found.log_probability[place].item() == pytest.approx(expected, abs=1e-5)
            gradient = found.gradients[1][place]
            step = 1e-2 * gradient / gradient.norm()
            up, down = (_log_probability(lm, row, 1, vector + s) for s in (step, -step))
            assert up - down == pytest.approx(float(gradient.norm()) * 2e-2, rel=0.02, abs=1e-6)


def test_the_mean_slope_weighs_every_prefix_alike(lm) -> None:
    vector = torch.zeros(32)
    found = list(onset_gradients(lm, PREFIXES, [[(5,)]] * 3, [1], 10))
    each = torch.cat([one.gradients[1] for one in found])
    assert len(found) > 1
    torch.testing.assert_close(mean_slope(lm, PREFIXES, [(5,)], 1, 10, vector), each.mean(0))


@pytest.mark.parametrize("family", ["tiny_pair", "tiny_neox_pair"])
def test_openings_of_several_tokens_are_summed_as_if_each_were_read_alone(
    family: str, request: pytest.FixtureRequest
) -> None:
    lm = load(request.getfixturevalue(family).rl, "cpu")
    for found in onset_gradients(lm, PREFIXES, OPENINGS, [0, 1], 30):
        for place, row in enumerate(found.rows):
            embedded, end = [], len(PREFIXES[row]) - 1
            held: list[torch.Tensor] = []

            def hold(_block, _args, output, end=end, held=held):
                resid = output[0] if isinstance(output, tuple) else output
                resid = resid.detach().requires_grad_()
                held.append(resid)
                return (resid, *output[1:]) if isinstance(output, tuple) else resid

            handle = decoder_blocks(lm.model)[1].register_forward_hook(hold)
            for opening in OPENINGS[row]:
                ids = torch.tensor([[*PREFIXES[row], *opening]])
                logs = lm.model(ids).logits[0].log_softmax(-1)
                embedded.append(sum(logs[end + i, token] for i, token in enumerate(opening)))
            handle.remove()
            total = torch.stack(embedded).logsumexp(0)
            slope = sum(g[0, end] for g in torch.autograd.grad(total, held))
            torch.testing.assert_close(found.log_probability[place], total.detach())
            torch.testing.assert_close(found.gradients[1][place], slope, rtol=1e-3, atol=1e-6)
