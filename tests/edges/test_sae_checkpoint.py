"""sae-lens itself is the oracle: its losses, gradients, trainer, and reading of our files."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_reasoning.config import ConfigError, SaeConfig, TrainConfig
from sae_reasoning.edges.artifacts import BrokenArtifact, MissingInput
from sae_reasoning.edges.sae_checkpoint import (
    Dictionary,
    build_training_sae,
    load_dictionary,
    training_losses,
)
from sae_reasoning.edges.sae_training import train_sae

D_IN, D_SAE, K = 12, 64, 4
ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "standard")


def sae_config(architecture: str = "topk") -> SaeConfig:
    return SaeConfig(architecture=architecture, d_sae=D_SAE, k=K, l0_coefficient=0.05)


def residuals(num_tokens: int, seed: int = 0) -> Tensor:
    """Sparse sums of fixed directions around a mean, in a scale far from 1."""
    directions = torch.randn(40, D_IN, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(num_tokens, 40, generator=generator) < 0.05
    sizes = torch.rand(num_tokens, 40, generator=generator) + 0.5
    return 7 * ((sizes * active) @ directions) + 20


def batches(size: int = 128):
    seed = 0
    while True:
        seed += 1
        yield residuals(size, seed)


def trained(architecture: str = "topk", steps: int = 40) -> Dictionary:
    config = TrainConfig(sae=sae_config(architecture), steps=steps, lr=3e-3)
    return train_sae(config, batches(), d_in=D_IN, seed=0, metadata={"layer": 3})


@pytest.mark.parametrize("num_dead", [0, 3, 50])
def test_sparse_step_has_the_losses_and_gradients_of_sae_lens(num_dead: int) -> None:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    ours = build_training_sae(sae_config(), d_in=D_IN, seed=1, steps=10)
    theirs = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    with torch.no_grad():  # Decoder norms apart from each other, biases apart from 0.
        for name, weight in ours.named_parameters():
            weight.add_(0.3 * torch.randn_like(weight) * (1 if name != "b_dec" else 3))
    theirs.load_state_dict(ours.state_dict())
    is_dead = torch.arange(D_SAE) < num_dead
    x = residuals(200) / 10
    outputs = [
        training_losses(sae, x, is_dead=is_dead, coefficients={}, step=0) for sae in (ours, theirs)
    ]
    found, wanted = outputs
    assert set(found.losses) == set(wanted.losses)
    for name in found.losses:
        torch.testing.assert_close(found.losses[name], wanted.losses[name], msg=name)
    torch.testing.assert_close(found.sae_out, wanted.sae_out)
    norms = ours.W_dec.norm(dim=1)
    torch.testing.assert_close(found.feature_acts.to_dense() * norms, wanted.feature_acts)
    for output in outputs:
        output.loss.backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_training_ends_where_the_trainer_of_sae_lens_ends() -> None:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer, SAETrainerConfig

    from sae_reasoning.edges.sae_checkpoint import finish

    steps, size = 20, 128
    ours = trained(steps=steps)
    torch.manual_seed(0)
    theirs = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    first = next(batches())
    scale = D_IN**0.5 / first.norm(dim=1).mean().item()
    with torch.no_grad():
        theirs.b_dec.copy_(first.mean(0) * scale)
    config = SAETrainerConfig(
        total_training_samples=steps * size,
        train_batch_size_samples=size,
        lr=3e-3,
        lr_end=3e-3,
        lr_decay_steps=steps // 5,
        dead_feature_window=2,
    )
    SAETrainer(config, theirs, (batch * scale for batch in batches())).fit()
    oracle = finish(theirs, scale)
    x = residuals(500, seed=1000)
    errors = [(x - d.decode(d.encode(x))).square().sum().item() for d in (ours, oracle)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    torch.testing.assert_close(ours.W_dec, oracle.W_dec, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bare_sae_lens_reads_the_folder_and_gives_the_same_latents(
    architecture: str, tmp_path: Path
) -> None:
    from sae_lens import SAE

    folder = tmp_path / "pooled" / "layer_3"
    made = trained(architecture)
    made.save(folder)
    assert {path.name for path in folder.iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    bare, read = SAE.load_from_disk(folder), load_dictionary(folder)
    x = residuals(300, seed=5)
    latents = read.encode(x)
    assert torch.equal(bare.encode(x), latents)
    assert torch.equal(made.encode(x), latents)
    torch.testing.assert_close(bare.decode(latents), read.decode(latents))
    torch.testing.assert_close(read.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert (read.d_in, read.d_sae, read.layer, read.name) == (D_IN, D_SAE, 3, "pooled/layer_3")
    assert read.fingerprint == made.fingerprint != ""

    sparse = read.encode_sparse(x)
    torch.testing.assert_close(
        torch.zeros_like(latents).scatter(1, sparse.latents, sparse.values), latents
    )
    torch.testing.assert_close(read.decode_sparse(sparse), read.decode(latents))
    assert sparse.values.shape[1] == (
        K if architecture == "topk" else max(int((latents > 0).sum(1).max()), 1)
    )


def test_latents_are_in_units_of_the_residual_stream() -> None:
    dictionary = trained(steps=300)
    x = residuals(500, seed=7)
    latents = dictionary.encode(x)
    error = x - dictionary.decode(latents)
    fvu = (error.square().sum() / (x - x.mean(0)).square().sum()).item()
    assert fvu < 0.35
    assert (latents > 0).sum(1).float().mean() <= K
    # The error term is what an edit must leave alone: taking latent j away removes exactly f_j d_j.
    without = latents.clone()
    without[:, 0] = 0
    removed = dictionary.decode(latents) - dictionary.decode(without)
    torch.testing.assert_close(removed, latents[:, :1] * dictionary.W_dec[:1], atol=1e-4, rtol=1e-4)


def test_decoder_norms_of_a_foreign_sae_are_folded_into_its_latents(tmp_path: Path) -> None:
    from sae_lens import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    foreign = TopKSAE(TopKSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    foreign.W_dec.data *= torch.rand(D_SAE, 1) + 0.5
    foreign.save_model(tmp_path)
    dictionary = load_dictionary(tmp_path)
    x = residuals(50)
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(D_SAE))
    torch.testing.assert_close(dictionary.decode(dictionary.encode(x)), foreign(x))
    sparse = dictionary.encode_sparse(x)
    latents = dictionary.encode(x)
    torch.testing.assert_close(
        torch.zeros_like(latents).scatter(1, sparse.latents, sparse.values), latents
    )


def test_missing_and_cut_short_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "layer_0"
    with pytest.raises(MissingInput, match=r"cfg\.json is missing; run `make train` first"):
        load_dictionary(folder)
    trained(steps=1).save(folder)
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BrokenArtifact, match="layer_0 can't be read as an SAE"):
        load_dictionary(folder)


def test_values_that_sae_lens_refuses_name_the_option() -> None:
    config = sae_config("matryoshka_batchtopk")
    config.matryoshka_widths = [32, 16, 64]
    with pytest.raises(ConfigError, match=r"train\.sae\.architecture=matryoshka_batchtopk"):
        build_training_sae(config, d_in=D_IN, seed=0, steps=1)
