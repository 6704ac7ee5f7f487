"""The training loop of SAEs: like sae-lens's trainer, but a kill costs nothing.

1. The first batch sets the scale (mean norm sqrt(d_in), as sae-lens's `expected_average_only_in`)
   and the decoder's bias (its mean).
2. Each step: losses by sae-lens (for TopK by our sparse step), gradient clipped to norm 1, Adam;
   constant learning rate, falling to 0 over the last fifth.
3. A latent that was silent for a tenth of the training (at most 1,000 steps) is dead and takes part
   in the loss that revives it.
4. Scale and decoder norms are folded into the weights.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sae_reasoning.config import ConfigError, TrainConfig
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import publish
from sae_reasoning.edges.sae_checkpoint import (
    Dictionary,
    build_training_sae,
    finish,
    training_losses,
)

NUM_RECORDS = 200
"""Points of a training's curve."""

_MOST_READERS = 2
_MAX_DEAD_WINDOW = 1000
_DECAY_SHARE = 5
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class StepRecord:
    """One point of a training's curve, on the batch of that step.

    Attributes:
        step: Steps done.
        loss: The whole loss, in scaled units.
        fvu: Fraction of the batch's variance unexplained.
        l0: Active latents a token.
        dead_share: Share of latents that are dead.
        lr: Learning rate.
    """

    step: int
    loss: float
    fvu: float
    l0: float
    dead_share: float
    lr: float


def batches_done(checkpoint: Path | None) -> int:
    """Batches that a training has consumed up to its checkpoint; hand it the ones after."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    with safe_open(checkpoint, framework="pt") as file:
        return int(file.metadata()["step"])


def mixed_batches(
    config: TrainConfig,
    stores: Sequence[ActivationStore],
    rows: range,
    *,
    seed: int,
    skip_batches: int = 0,
    kept: Sequence[Bool[np.ndarray, " row"] | None] | None = None,
) -> Iterator[Tensor]:
    """Batches of some rows, an equal part from each reader, after the first few.

    The order of rows within a batch means nothing to any of the losses, so parts are stacked.

    Args:
        config: Sizes of batches and buffers.
        stores: Of one layer; `base` before `rl` where it's both.
        rows: To draw from.
        seed: Of the order.
        skip_batches: Batches to leave out, on resuming.
        kept: Of each store, which rows take part; none for all.

    Raises:
        ConfigError: A batch is too small for so many readers.
    """
    sizes = [len(part) for part in np.array_split(np.arange(config.batch_size), len(stores))]
    if 0 in sizes:
        raise ConfigError(
            f"train.batch_size={config.batch_size} is too small for train.readers="
            f"{config.readers}; raise it to 2 or more"
        )
    streams = [
        store.shuffled_batches(
            size,
            # Readers apart, so that a batch doesn't hold the same tokens twice.
            seed=_MOST_READERS * seed + _place(config.readers, number),
            rows=rows,
            mixing_tokens=max(config.mixing_tokens // len(stores), size),
            skip_batches=skip_batches,
            kept=own,
        )
        for number, (size, store, own) in enumerate(
            zip(sizes, stores, kept or [None] * len(stores), strict=True)
        )
    ]
    return map(torch.cat, zip(*streams, strict=True))


def _place(readers: str, number: int) -> int:
    """Number of a reader, whether it stands alone or not."""
    return 1 if readers == "rl" else number


def train_sae(
    config: TrainConfig,
    batches: Iterator[Tensor],
    *,
    d_in: int,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    device: torch.device | str = "cpu",
    metadata: Mapping[str, Any] | None = None,
) -> Dictionary:
    """Train one SAE.

    Args:
        config: Architecture, steps, learning rate; its readers, seed and sizes of buffers are the
            business of whoever makes the batches.
        batches: Endless raw activations [batch, d_in], beginning after the first
            `batches_done(checkpoint)`.
        d_in: Width of the activations.
        seed: Of the weights.
        checkpoint: File to resume from and to write to; it is left there for the caller to delete
            once the result is safe.
        on_step: Called about 200 times; on resuming, first with the records made before.
        device: Where to train.
        metadata: Kept in the SAE's `cfg.json`.

    Raises:
        ConfigError: The loss isn't finite any more.
    """
    sae = build_training_sae(
        config.sae, d_in=d_in, seed=seed, steps=config.steps, device=device, metadata=metadata
    )
    run = _Run(sae, config)
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    every = max(config.steps // NUM_RECORDS, 1)
    if on_step is not None:
        for record in run.records:
            on_step(record)
    while run.step < config.steps:
        batch = next(batches).to(device, torch.float32)
        if run.step == 0:
            run.start(batch)
        output = run.advance(batch)
        is_last = run.step == config.steps
        if run.step % every == 0 or is_last:
            record = run.record(output)
            _check_finite(record.loss, run.step, config)
            run.records.append(record)
            if on_step is not None:
                on_step(record)
        if checkpoint is not None and (run.step % config.checkpoint_every == 0 or is_last):
            _check_finite(output.loss.item(), run.step, config)
            run.save(checkpoint)
    return finish(sae, run.scale)


class _Run:
    """What a training is at some step: weights, moments, silence of each latent, curve."""

    def __init__(self, sae: Any, config: TrainConfig) -> None:
        self.sae, self.steps, self.lr = sae, config.steps, config.lr
        self.step, self.scale = 0, 1.0
        self.records: list[StepRecord] = []
        self.silent_steps = torch.zeros(config.sae.d_sae, device=sae.W_dec.device)
        self.dead_window = min(max(config.steps // 10, 1), _MAX_DEAD_WINDOW)
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr, fused=True)
        # sae-lens's name, value and warm-up of each penalty: {} for the TopK family.
        self.coefficients = sae.get_coefficients()

    @torch.no_grad()
    def start(self, batch: Float[Tensor, "batch d_in"]) -> None:
        self.scale = batch.shape[1] ** 0.5 / batch.norm(dim=1).mean().item()
        self.sae.b_dec.copy_(batch.mean(0) * self.scale)

    def advance(self, batch: Float[Tensor, "batch d_in"]) -> Any:
        """One step; sae-lens's `TrainStepOutput`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        output = training_losses(
            self.sae,
            batch * self.scale,
            is_dead=self._is_dead(),
            coefficients={name: self._warm(c) for name, c in self.coefficients.items()},
            step=self.step,
        )
        output.loss.backward()
        nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.silent_steps += 1
        self.silent_steps[_fired(output.feature_acts)] = 0
        self.step += 1
        return output

    @torch.no_grad()
    def record(self, output: Any) -> StepRecord:
        x, active = output.sae_in, output.feature_acts
        variance = (x - x.mean(0)).square().sum()
        values = active._values() if active.is_sparse else active
        return StepRecord(
            step=self.step,
            loss=output.loss.item(),
            fvu=((x - output.sae_out).square().sum() / variance).item(),
            l0=((values > 0).sum() / len(x)).item(),
            dead_share=self._is_dead().float().mean().item(),
            lr=self.optimizer.param_groups[0]["lr"],
        )

    def save(self, path: Path) -> None:
        """Publish everything under `path`, whole."""
        tensors = {f"sae/{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{key}/{name}": moments[key] for key in _MOMENTS}
        tensors["silent_steps"] = self.silent_steps
        rows = [astuple(record) for record in self.records]
        tensors["records"] = torch.tensor(rows, dtype=torch.float64)
        metadata = {"step": str(self.step), "scale": self.scale.hex()}
        with publish(path) as partial:
            # Not by `save_file`, whose error on a full disk isn't the operating system's.
            partial.write_bytes(
                save({k: v.contiguous().cpu() for k, v in tensors.items()}, metadata)
            )

    def load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            names = self.sae.state_dict()
            self.sae.load_state_dict({name: file.get_tensor(f"sae/{name}") for name in names})
            for name, parameter in self.sae.named_parameters():
                self.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}/{name}").to(parameter.device) for key in _MOMENTS
                }
            self.silent_steps.copy_(file.get_tensor("silent_steps"))
            rows = file.get_tensor("records").tolist()
            self.records = [StepRecord(int(row[0]), *row[1:]) for row in rows]
            self.step = int(file.metadata()["step"])
            self.scale = float.fromhex(file.metadata()["scale"])

    def _is_dead(self) -> Bool[Tensor, " d_sae"]:
        return self.silent_steps > self.dead_window

    def _lr(self) -> float:
        decay = self.steps // _DECAY_SHARE
        return self.lr * min(1.0, (self.steps - self.step) / decay) if decay else self.lr

    def _warm(self, coefficient: Any) -> float:
        if isinstance(coefficient, (int, float)):
            return float(coefficient)
        share = self.step / coefficient.warm_up_steps if coefficient.warm_up_steps else 1.0
        return coefficient.value * min(share, 1.0)


def _check_finite(loss: float, step: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise ConfigError(
            f"train.lr={config.lr:g} made the loss {loss} at step {step}; lower train.lr, say to "
            f"{config.lr / 10:g}"
        )


def _fired(active: Tensor) -> Tensor:
    """Latents that were active anywhere in a batch, as indices (with repeats) or a mask."""
    if active.is_sparse:
        return active._indices()[1][active._values() > 0]
    return (active > 0).any(0)
