import pytest
import torch

from sae_reasoning.edges.sparse_topk import autoencode, top_k


@pytest.mark.parametrize(("d_sae", "k"), [(512, 16), (512, 1), (96, 4), (50, 8), (7, 7)])
def test_top_k_by_groups_finds_what_torch_finds(d_sae: int, k: int) -> None:
    pre = torch.randn(33, d_sae, generator=torch.Generator().manual_seed(0))
    found, wanted = top_k(pre, k), pre.topk(k)
    assert torch.equal(found.values.sort(descending=True).values, wanted.values)
    assert torch.equal(found.latents.sort().values, wanted.indices.sort().values)
    assert torch.equal(pre.gather(1, found.latents), found.values)


def test_sparse_backward_equals_dense_autograd_in_double_precision() -> None:
    torch.manual_seed(0)
    x, k = torch.randn(40, 6, dtype=torch.float64), 3
    shapes = {"encoder": (6, 24), "encoder_bias": (24,), "decoder": (24, 6), "decoder_bias": (6,)}
    sparse = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes.values()]
    dense = [weight.detach().clone().requires_grad_() for weight in sparse]
    encoder, encoder_bias, decoder, decoder_bias = dense

    pre = (x - decoder_bias) @ encoder + encoder_bias
    winners = (pre * decoder.norm(dim=1)).topk(k).indices
    kept = torch.zeros_like(pre).scatter(1, winners, pre.gather(1, winners)).relu()
    wanted = kept @ decoder + decoder_bias
    found = autoencode(x, *sparse, k).reconstruction
    torch.testing.assert_close(found, wanted)

    direction = torch.randn_like(x)
    (found * direction).sum().backward()
    (wanted * direction).sum().backward()
    for name, ours, theirs in zip(shapes, sparse, dense, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
