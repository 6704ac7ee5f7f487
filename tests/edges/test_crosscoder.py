"""Crosscoders: one code for both readers of the same tokens, in sae-lens's files."""

from pathlib import Path

import pytest
import torch

from sae_reasoning.config import ConfigError, SaeConfig, TrainConfig
from sae_reasoning.edges.artifacts import BrokenArtifact
from sae_reasoning.edges.crosscoder_checkpoint import (
    Crosscoder,
    Half,
    concatenate,
    crosscoder_of,
    load_crosscoder,
    scales_of,
)
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish, load_dictionary
from sae_reasoning.edges.sae_training import train_sae

D_MODEL, D_SAE = 12, 24


def _residuals(num: int, seed: int) -> torch.Tensor:
    """Both readers on the same tokens: shared directions, RL four times as loud."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.relu(torch.randn(num, 6, generator=generator))
    shared = torch.randn(6, D_MODEL, generator=torch.Generator().manual_seed(0))
    own = torch.randn(2, num, D_MODEL, generator=generator) * 0.05
    return torch.stack([codes @ shared, 4 * codes @ shared]) + own


def _trained() -> Crosscoder:
    x = _residuals(512, 1)
    scales = scales_of(x)
    config = TrainConfig(sae=SaeConfig(architecture="batchtopk", d_sae=D_SAE, k=4), steps=300)
    metadata = {"readers": ["base", "rl"], "reader_scales": list(scales), "layer": 1}
    joint = train_sae(
        config,
        (concatenate(_residuals(256, seed), scales) for seed in range(10**6)),
        d_in=2 * D_MODEL,
        seed=0,
        metadata=metadata,
    )
    return crosscoder_of(joint, ("base", "rl"), scales)


@pytest.fixture(scope="module")
def crosscoder() -> Crosscoder:
    return _trained()


def test_one_code_reconstructs_both_readers_however_loud(crosscoder: Crosscoder) -> None:
    x = _residuals(400, 7)
    found = crosscoder.decode_sparse(crosscoder.encode_sparse(x))
    for reader in (0, 1):
        centred = x[reader] - x[reader].mean(0)
        fvu = (found[reader] - x[reader]).square().sum() / centred.square().sum()
        assert fvu < 0.2
    alive = crosscoder.encode_sparse(x).latents.unique()
    shares = crosscoder.norm_shares[alive]
    assert shares.median().sub(0.5).abs() < 0.1  # Loudness is scaled away; the concepts are shared.


def test_reconstruct_takes_a_reader_s_own_residuals_and_the_others(crosscoder: Crosscoder) -> None:
    x = _residuals(20, 3)
    both = crosscoder.decode_sparse(crosscoder.encode_sparse(x))
    assert torch.allclose(crosscoder.reconstruct("base", x[0], x[1]), both[0])
    assert torch.allclose(crosscoder.reconstruct("rl", x[1], x[0]), both[1])


def test_a_crosscoder_reads_back_the_same_and_sae_lens_reads_it_too(
    crosscoder: Crosscoder, tmp_path: Path
) -> None:
    from sae_lens import SAE

    crosscoder.save(tmp_path / "crosscoder" / "layer_1")
    again = load_crosscoder(tmp_path / "crosscoder" / "layer_1")
    x = _residuals(50, 5)
    one, two = crosscoder.encode_sparse(x), again.encode_sparse(x)
    assert torch.equal(one.latents, two.latents)
    assert torch.allclose(one.values, two.values)
    assert torch.allclose(crosscoder.decoders, again.decoders)
    assert again.readers == ("base", "rl")
    assert again.scales == pytest.approx(crosscoder.scales)
    theirs = SAE.load_from_disk(tmp_path / "crosscoder" / "layer_1")
    decoded = theirs.decode(theirs.encode(torch.cat([x[0], x[1]], -1)))
    ours = crosscoder.decode_sparse(crosscoder.encode_sparse(x))
    assert torch.allclose(decoded, torch.cat([ours[0], ours[1]], -1), atol=1e-3)


def test_a_crosscoder_is_no_dictionary_of_one_reader_and_the_reverse(
    crosscoder: Crosscoder, tmp_path: Path
) -> None:
    crosscoder.save(tmp_path / "crosscoder")
    with pytest.raises(ConfigError, match="one code for both readers"):
        load_dictionary(tmp_path / "crosscoder")
    sae = build_training_sae(SaeConfig(d_sae=16, k=2), d_in=24, seed=0, steps=1)
    finish(sae, 1.0).save(tmp_path / "sae")
    with pytest.raises(BrokenArtifact, match="is no crosscoder"):
        load_crosscoder(tmp_path / "sae")


def test_either_half_has_the_code_of_both_and_its_own_decoder(crosscoder: Crosscoder) -> None:
    x = _residuals(50, 3)
    joint = crosscoder.encode_sparse(x)
    code = torch.zeros(50, D_SAE).scatter(1, joint.latents, joint.values)
    for place, reader in enumerate(crosscoder.readers):
        half, own, other = Half(crosscoder, reader), x[place], x[1 - place]
        torch.testing.assert_close(half.encode(own, other), code)
        torch.testing.assert_close(
            half.b_dec + code @ half.W_dec, crosscoder.decode_sparse(joint)[place]
        )
        sparse = half.encode_sparse(own, other)
        again = torch.zeros(50, D_SAE).scatter(1, sparse.latents, sparse.values)
        torch.testing.assert_close(again, code)
