"""The same training from other seeds, and what becomes of the span detectors there."""

from dataclasses import replace
from pathlib import Path

from sae_reasoning.behaviours.outcomes import Attack
from sae_reasoning.behaviours.replication import Replica, attack_by_seeds, replicas_of
from sae_reasoning.behaviours.streams import MaximaStream, SparseMaxima
from sae_reasoning.behaviours.windows import cell_index
from sae_reasoning.config import Config
from sae_reasoning.edges.activation_norms import kept_of_all
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_dictionary
from sae_reasoning.edges.sae_training import batches_done, mixed_batches, train_sae
from sae_reasoning.jobs.rank.data import BATCH_ROWS, RankData, active
from sae_reasoning.jobs.rank.subjects import Subject, by_layer


def attack_with_seeds(
    cfg: Config, data: RankData, subject: Subject, parts: Path, console: Console
) -> tuple[list[Attack], list[Replica]]:
    """Every tracker of a trained reader, looked for in `rank.replicas` other dictionaries."""
    found: list[Replica] = []
    for layer in sorted({target.layer for target in subject.targets}):
        own = [target for target in subject.targets if target.layer == layer]
        for seed in range(cfg.train.seed + 1, cfg.train.seed + 1 + cfg.rank.replicas):
            other = _dictionary(cfg, data, layer, seed, parts, console)
            maxima = _maxima(cfg, data, subject.name, layer, other, console)
            for target, latents in by_layer(own):
                number = cfg.behaviours.index(target.behaviour)
                found += replicas_of(
                    [replace(target, latent=latent) for latent in latents],
                    data.dictionaries[layer].W_dec.cpu().numpy(),
                    other.W_dec.cpu().numpy(),
                    maxima,
                    cell_index(number, target.writer, "select"),
                    cell_index(number, target.writer, "report"),
                    seed=seed,
                    near=cfg.rank.attacks.replica_cosine,
                    best=cfg.rank.attacks.replica_ranks * cfg.rank.span_detectors,
                    num_resamples=cfg.rank.bootstrap,
                )
    attacks = []
    for target in subject.targets:
        same = [
            one
            for one in found
            if (one.behaviour, one.writer, one.layer, one.latent)
            == (target.behaviour, target.writer, target.layer, target.latent)
        ]
        attacks.append(attack_by_seeds(target, same))
    return attacks, found


def _dictionary(
    cfg: Config, data: RankData, layer: int, seed: int, parts: Path, console: Console
) -> Dictionary:
    """The training of `make train`, from another seed; made once for both readers."""
    folder, device = parts / f"seed_{seed}" / f"layer_{layer}", resolve_device(cfg.device)
    if (folder / "cfg.json").exists():
        return load_dictionary(folder, device)
    readers = tuple(cfg.pair.readers) if cfg.train.readers == "pooled" else (cfg.train.readers,)
    stores = [data.stores[reader, layer] for reader in readers]
    kept = [
        kept_of_all([data.norms(reader, layer)], cfg.train.max_norm_multiple, data.select)
        for reader in readers
    ]
    checkpoint = parts / f"seed_{seed}_layer_{layer}.safetensors"
    done = batches_done(checkpoint)
    title = f"seed {seed} layer {layer}"
    with console.progress(cfg.train.steps, "steps", title, done=done) as bar:
        made = train_sae(
            cfg.train,
            mixed_batches(cfg.train, stores, data.select, seed=seed, skip_batches=done, kept=kept),
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
    data: RankData,
    reader: str,
    layer: int,
    dictionary: Dictionary,
    console: Console,
) -> SparseMaxima:
    store, counted = data.stores[reader, layer], data.counted(cfg, reader, layer)
    stream = MaximaStream(data.labels.spans, dictionary.d_sae)
    first_row = 0
    with console.progress(store.num_tokens, "tokens", f"{reader} layer {layer} again") as bar:
        for batch in store.batches(None, BATCH_ROWS):
            stream.add(active(dictionary, first_row, batch.activations, counted))
            first_row += len(batch.activations)
            bar.advance(len(batch.activations))
    return stream.result()
