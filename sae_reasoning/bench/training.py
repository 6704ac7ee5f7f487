"""Training: our loop fed from HDF5, against sae-lens's trainer fed from tensors in memory."""

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sae_reasoning.bench.material import language_model, random_sequences, write_store
from sae_reasoning.bench.sizes import Contender, Sizes
from sae_reasoning.config import SaeConfig, TrainConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_training import train_sae


def trainers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Both trainers; amounts are steps."""
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = resolve_device(device)
    lm = language_model(
        scratch / "reader", sizes.d_model, sizes.num_layers, device, max_positions=512
    )
    # Enough rows that the turns of a training pass over several mixing buffers.
    many = replace(sizes, num_sequences=2 * sizes.num_sequences)
    write_store(scratch / "store", lm, random_sequences(many, len(lm.tokenizer)), sizes)
    store = ActivationStore.open(scratch / "store")
    # As long as a real training, so that records and dead latents come as seldom; cut short below.
    config = TrainConfig(
        sae=SaeConfig(d_sae=sizes.d_sae, k=sizes.k),
        steps=10_000,
        batch_size=sizes.batch_size,
        mixing_tokens=max(store.num_tokens // 4, sizes.batch_size),
    )

    def train() -> int:
        batches = store.shuffled_batches(sizes.batch_size, 0, None, config.mixing_tokens)
        with contextlib.suppress(StopIteration):  # That's how a training without batches ends.
            train_sae(
                config,
                itertools.islice(batches, sizes.steps),
                d_in=sizes.d_model,
                seed=0,
                device=device,
            )
        return sizes.steps

    rows = store.read(torch.randperm(store.num_tokens)).to(device)

    def in_memory() -> Iterator[Tensor]:
        while True:
            for start in range(0, len(rows) - sizes.batch_size + 1, sizes.batch_size):
                yield rows[start : start + sizes.batch_size]

    def peer() -> int:
        sae = sae_lens.TopKTrainingSAE(
            sae_lens.TopKTrainingSAEConfig(
                d_in=sizes.d_model, d_sae=sizes.d_sae, k=sizes.k, device=device
            )
        )
        trainer = SAETrainer(
            SAETrainerConfig(
                total_training_samples=sizes.steps * sizes.batch_size,
                train_batch_size_samples=sizes.batch_size,
                lr=config.lr,
                lr_end=config.lr,
                device=device,
                logger=LoggingConfig(log_to_wandb=False),
            ),
            sae,
            in_memory(),
        )
        with contextlib.redirect_stderr(io.StringIO()):  # Its bar.
            trainer.fit()
        return sizes.steps

    return {"train": train, "sae_lens": peer}
