"""Edits of the residual stream."""

import pytest
import torch
from torch import Tensor

from sae_reasoning.steering.edits import (
    Intervention,
    LatentChange,
    Removal,
    RowEdits,
)

D_MODEL, D_SAE, K = 8, 20, 4


@pytest.fixture
def decoder() -> Tensor:
    directions = torch.randn(D_SAE, D_MODEL, generator=torch.Generator().manual_seed(0))
    return directions / directions.norm(dim=1, keepdim=True)


@pytest.fixture
def encode(decoder: Tensor):
    return lambda resid: (resid @ decoder.T).relu().topk(K, dim=1)


@pytest.fixture
def latents(encode, resid) -> Tensor:
    values, indices = encode(resid)
    return torch.zeros(len(resid), D_SAE).scatter(1, indices, values)


@pytest.fixture
def resid() -> Tensor:
    return torch.randn(12, D_MODEL, generator=torch.Generator().manual_seed(1))


def run(interventions, which, encode, decoder, resid) -> Tensor:
    edits = RowEdits(interventions, torch.tensor(which), {3: (encode, decoder)})
    return edits.by_layer[3](resid, torch.arange(len(resid)))


def edit_all(change: LatentChange, encode, decoder, resid) -> Tensor:
    return run([Intervention({3: change})], [0] * len(resid), encode, decoder, resid)


def test_ablation_removes_the_direction_and_nothing_else(encode, decoder, resid, latents):
    chosen = [int(latents.sum(0).argmax())]
    edited = edit_all(LatentChange.ablate(chosen), encode, decoder, resid)
    torch.testing.assert_close(resid - edited, latents[:, chosen] * decoder[chosen])
    # What the SAE doesn't explain is what it was.
    kept = latents.clone()
    kept[:, chosen] = 0
    torch.testing.assert_close(edited - kept @ decoder, resid - latents @ decoder)


def test_clamp_moves_latents_to_their_values_and_keeps_the_error(encode, decoder, resid, latents):
    chosen, target = [2, 5], torch.tensor([1.5, 0.25])
    edited = edit_all(LatentChange.clamp(chosen, target.tolist()), encode, decoder, resid)
    clamped = latents.clone()
    clamped[:, chosen] = target
    torch.testing.assert_close(edited - clamped @ decoder, resid - latents @ decoder)


def test_clamp_at_zero_is_ablation(encode, decoder, resid):
    clamped = edit_all(LatentChange.clamp([0, 1, 2], [0.0] * 3), encode, decoder, resid)
    ablated = edit_all(LatentChange.ablate([0, 1, 2]), encode, decoder, resid)
    assert torch.equal(clamped, ablated)
    assert not torch.equal(ablated, resid)


def test_scale_and_add_by_hand():
    resid, decoder = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])

    def encode(_: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([[3.0]]), torch.tensor([[0]])

    for change, expected in (
        (LatentChange.scale([0], 2.0), [[1.0, 5.0]]),
        (LatentChange.add([0], [-2.0]), [[1.0, 0.0]]),
    ):
        assert edit_all(change, encode, decoder, resid).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_that_change_nothing_are_bit_exact(encode, decoder, resid, latents, dtype):
    row, resid = int(latents[:, 3].argmax()), resid.to(dtype)

    def as_before(_: Tensor) -> tuple[Tensor, Tensor]:
        return latents.topk(K, dim=1)

    silent = [latent for latent in range(D_SAE) if not latents[row, latent]][:2]
    present = [latent for latent in range(D_SAE) if latents[row, latent]][:2]
    values = latents[row, present].tolist()
    for change in (
        LatentChange.ablate(silent),
        LatentChange.scale([0, 1, *present], 1.0),
        LatentChange.clamp(present, values),
        LatentChange.add([0], [0.0]),
    ):
        edited = edit_all(change, as_before, decoder, resid)
        assert torch.equal(edited[row], resid[row]), change


def test_rows_without_an_edit_are_bit_exact(encode, decoder, resid):
    edit = Intervention({3: LatentChange.clamp([1], [9.0])})
    edited = run([Intervention(), edit], [0, 1] * 6, encode, decoder, resid)
    assert torch.equal(edited[::2], resid[::2])
    assert not torch.isclose(edited[1::2], resid[1::2]).all(1).any()


def test_rows_of_a_batch_undergo_each_its_own_edit(encode, decoder, resid, latents):
    interventions = [
        Intervention({3: LatentChange.ablate([0, 7])}),
        Intervention({3: LatentChange.clamp([7, 4], [2.0, 3.0])}),
        Intervention({3: LatentChange.scale([5], 4.0)}),
    ]
    edited = run(interventions, [0, 1, 2] * 4, encode, decoder, resid)
    changes = [
        (-latents[:, [0, 7]] @ decoder[[0, 7]])[0::3],
        ((torch.tensor([2.0, 3.0]) - latents[:, [7, 4]]) @ decoder[[7, 4]])[1::3],
        (3 * latents[:, [5]] @ decoder[[5]])[2::3],
    ]
    torch.testing.assert_close(edited - resid, torch.stack(changes, dim=1).reshape(resid.shape))


def test_rows_with_different_edits_do_not_influence_each_other(encode, decoder, resid):
    interventions = [Intervention({3: LatentChange.clamp([latent], [5.0])}) for latent in range(12)]
    together = run(interventions, list(range(12)), encode, decoder, resid)
    for row in range(12):
        alone = run([interventions[row]], [0], encode, decoder, resid[row : row + 1])
        torch.testing.assert_close(together[row], alone[0])


def test_rows_may_leave_the_batch(encode, decoder, resid):
    edits = RowEdits(
        [Intervention({3: LatentChange.clamp([row], [5.0])}) for row in range(12)],
        torch.arange(12),
        {3: (encode, decoder)},
    )
    rows = torch.tensor([10, 2, 7])
    all_rows = edits.by_layer[3](resid, torch.arange(12))
    torch.testing.assert_close(edits.by_layer[3](resid[rows], rows), all_rows[rows])


def test_controls_are_as_large_as_the_edit_at_every_position(encode, decoder, resid):
    edit = {3: LatentChange.clamp([1, 2], [4.0, 6.0])}
    direction = torch.nn.functional.normalize(torch.arange(1.0, D_MODEL + 1), dim=0)
    interventions = [
        Intervention(edit),
        Intervention({3: LatentChange.clamp([8, 9], [1.0, 30.0])}, norm_of=edit),
        Intervention(norm_of=edit, along={3: direction}),
    ]
    changes = [run([i], [0] * 12, encode, decoder, resid) - resid for i in interventions]
    for control in changes[1:]:
        torch.testing.assert_close(control.norm(dim=1), changes[0].norm(dim=1))
    torch.testing.assert_close(changes[2], changes[0].norm(dim=1)[:, None] * direction)


def test_a_random_direction_stays_still_where_the_edit_does(encode, decoder, resid, latents):
    edit = {3: LatentChange.ablate([0])}
    along = {3: decoder[1]}
    control = run([Intervention(norm_of=edit, along=along)], [0] * 12, encode, decoder, resid)
    silent = latents[:, 0] == 0
    assert 0 < silent.sum() < 12
    assert torch.equal(control[silent], resid[silent])


def test_norms_count_edited_positions_up_to_the_end_of_each_row(encode, decoder, resid, latents):
    interventions = [Intervention(), Intervention({3: LatentChange.clamp([0], [50.0])})]
    edits = RowEdits(interventions, torch.tensor([0, 1, 1]), {3: (encode, decoder)})
    for step in range(3):
        edits.by_layer[3](resid[3 * step : 3 * step + 3], torch.arange(3))
    added = edits.additions({0: 3, 1: 3, 2: 1})
    size = (50 - latents[:9, 0]).reshape(3, 3)
    assert [added[row].num_edited for row in range(3)] == [0, 3, 1]
    assert [added[row].positions for row in range(3)] == [(), (0, 1, 2), (0,)]
    expected = [0.0, size[:, 1].sum().item(), size[0, 2].item()]
    assert [added[row].norm_sum for row in range(3)] == pytest.approx(expected)


def test_a_removal_leaves_nothing_of_its_span_and_all_of_the_rest(encode, decoder, resid):
    centre = torch.arange(float(D_MODEL))
    removal = Removal.span(decoder[[1, 2, 1]], centre, of_error=False)
    assert len(removal.basis) == 2  # One direction was named twice.
    edited = run([Intervention(removals={3: removal})], [0] * 12, encode, decoder, resid)
    left = (edited - centre) @ removal.basis.T
    torch.testing.assert_close(left, torch.zeros(12, 2), atol=1e-5, rtol=0)
    beside = torch.eye(D_MODEL) - removal.basis.T @ removal.basis
    torch.testing.assert_close(edited @ beside, resid @ beside)


def test_taking_a_span_from_the_error_keeps_what_other_latents_write(
    encode, decoder, resid, latents
):
    removal = Removal.span(decoder[[0, 7]], torch.zeros(D_MODEL), of_error=True)
    edit = Intervention({3: LatentChange.ablate([0, 7])}, removals={3: removal})
    edited = run([edit], [0] * 12, encode, decoder, resid)
    explained = latents @ decoder
    error = resid - explained
    kept = latents.clone()
    kept[:, [0, 7]] = 0
    expected = kept @ decoder + error - error @ removal.basis.T @ removal.basis
    torch.testing.assert_close(edited, expected)


def test_rows_with_and_without_removals_share_a_batch(encode, decoder, resid):
    spans = [
        Removal.span(decoder[chosen], torch.zeros(D_MODEL), of_error=False)
        for chosen in ([3], [4, 5])
    ]
    interventions = [
        Intervention({3: LatentChange.clamp([1], [2.0])}),
        *(Intervention(removals={3: span}) for span in spans),
    ]
    together = run(interventions, [0, 1, 2] * 4, encode, decoder, resid)
    for row in range(12):
        alone = run([interventions[row % 3]], [0], encode, decoder, resid[row : row + 1])
        torch.testing.assert_close(together[row], alone[0])


@pytest.mark.parametrize("made", [LatentChange.clamp, LatentChange.add])
def test_every_latent_needs_its_value(made):
    with pytest.raises(ValueError, match="2 latents need as many values, not 1"):
        made([1, 2], [0.5])


def test_a_code_of_two_models_is_read_from_both_at_the_rows_that_are_edited(decoder, resid):
    others = torch.randn(len(resid), D_MODEL, generator=torch.Generator().manual_seed(2))

    def encode(own: Tensor, other: Tensor):
        return ((own + other) @ decoder.T).relu().topk(K, dim=1)

    values, indices = encode(resid, others)
    latents = torch.zeros(len(resid), D_SAE).scatter(1, indices, values)
    edits = RowEdits(
        [Intervention(), Intervention({3: LatentChange.ablate([4])})],
        torch.arange(len(resid)) % 2,
        {3: (encode, decoder)},
        others=lambda layer: {3: others}[layer],
    )
    removed = resid - edits.by_layer[3](resid, torch.arange(len(resid)))
    expected = latents[:, [4]] * decoder[[4]]
    expected[::2] = 0
    assert expected.abs().sum() > 0
    torch.testing.assert_close(removed, expected)
