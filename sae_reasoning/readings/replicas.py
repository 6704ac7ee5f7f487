"""The same training from other seeds."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from sae_reasoning.behaviours.streams import MaximaStream, SparseMaxima
from sae_reasoning.config import Config
from sae_reasoning.edges.activation_norms import kept_of_all
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_dictionary
from sae_reasoning.edges.sae_training import batches_done, mixed_batches, train_sae
from sae_reasoning.readings.data import BATCH_ROWS, Readings, active
from sae_reasoning.robustness.outcomes import Attack
from sae_reasoning.robustness.readers import Reader
from sae_reasoning.robustness.replication import (
    Replica,
    attack_by_replication,
)


def attack_with_replicas(
    cfg: Config, readings: Readings, reader: Reader, parts: Path, console: Console
) -> tuple[list[Attack], list[Replica]]:
    """A trained reader's span detectors, looked for in `rank.replicas` other dictionaries."""

    def trained(layer: int, seed: int) -> tuple[Float[np.ndarray, "latent d_model"], SparseMaxima]:
        other = _dictionary(cfg, readings, layer, seed, parts, console)
        maxima = _maxima(cfg, readings, reader.name, layer, other, console)
        return other.W_dec.cpu().numpy(), maxima

    directions = {layer: d.W_dec.cpu().numpy() for layer, d in readings.dictionaries.items()}
    first = cfg.train.seed + 1
    seeds = range(first, first + cfg.rank.replicas)
    return attack_by_replication(reader, directions, trained, cfg.rank, seeds)


def _dictionary(
    cfg: Config, readings: Readings, layer: int, seed: int, parts: Path, console: Console
) -> Dictionary:
    """The training of `make train`, from another seed; made once for both readers."""
    folder, device = parts / f"seed_{seed}" / f"layer_{layer}", resolve_device(cfg.device)
    if (folder / "cfg.json").exists():
        return load_dictionary(folder, device)
    readers = tuple(cfg.pair.readers) if cfg.train.readers == "pooled" else (cfg.train.readers,)
    stores = [readings.stores[reader, layer] for reader in readers]
    kept = [
        kept_of_all([readings.norms(reader, layer)], cfg.train.max_norm_multiple, readings.select)
        for reader in readers
    ]
    checkpoint = parts / f"seed_{seed}_layer_{layer}.safetensors"
    done = batches_done(checkpoint)
    title = f"seed {seed} layer {layer}"
    with console.progress(cfg.train.steps, "steps", title, done=done) as bar:
        made = train_sae(
            cfg.train,
            mixed_batches(
                cfg.train, stores, readings.select, seed=seed, skip_batches=done, kept=kept
            ),
            d_in=stores[0].d_model,
            seed=seed,
            checkpoint=checkpoint,
            on_step=lambda record: bar.reach(record.step),
            device=device,
        )
    made.save(folder)
    return made


def _maxima(
    cfg: Config,
    readings: Readings,
    reader: str,
    layer: int,
    dictionary: Dictionary,
    console: Console,
) -> SparseMaxima:
    store, counted = readings.stores[reader, layer], readings.counted(cfg, reader, layer)
    stream = MaximaStream(readings.labels.spans, dictionary.d_sae)
    first_row = 0
    with console.progress(store.num_tokens, "tokens", f"{reader} layer {layer} again") as bar:
        for batch in store.batches(None, BATCH_ROWS):
            stream.add(active(dictionary, first_row, batch.activations, counted))
            first_row += len(batch.activations)
            bar.advance(len(batch.activations))
    return stream.result()
