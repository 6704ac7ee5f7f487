"""Latents of crosscoders: one code of both models' residuals of a token, a decoder for each.

When they are edited, the model that isn't edited reads along, so that the code is the one that was
trained; read from one half of its encoder it would be another code.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_pairs import paired_batches
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.crosscoder_checkpoint import Half, load_crosscoder
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.jobs.ablate.chosen import Choice
from sae_reasoning.records import BASE, MODELS, RL, SELECT, Trace
from sae_reasoning.steering import places
from sae_reasoning.steering.places import MAX_CODES, opportunities_of
from sae_reasoning.steering.separators import latent_sizes, separators, testable
from sae_reasoning.traces.problems import more_traces


def is_joint(cfg: Config) -> bool:
    """Whether what is edited are crosscoders' latents."""
    return cfg.train.readers == "crosscoder"


def open_stores(cfg: Config, layer: int, first: str) -> list[ActivationStore]:
    """All models' activations after a block, those of `first` first."""
    readers = sorted(cfg.pair.readers, key=lambda model: model != first)
    return [ActivationStore.open(cfg.folder / "cache" / x / f"layer_{layer}") for x in readers]


def choose_joint(cfg: Config, traces: Sequence[Trace]) -> Choice:
    """The latents of each behaviour, from the cache of both models.

    Raises:
        ConfigError: An option asks for what there is of SAEs only, or for a behaviour with too few
            opportunities.
    """
    own, table = cfg.ablate, opportunities_of(traces)
    if own.shortlist != "separators" or own.matches_of:
        raise ConfigError(
            f"ablate.shortlist={own.shortlist}, ablate.matches_of={own.matches_of}: latents of a "
            "crosscoder are chosen by onset AUROC and matched with none; set "
            "ablate.shortlist=separators, without ablate.matches_of"
        )
    known = [behaviour for behaviour in cfg.behaviours if behaviour in testable(table)]
    for behaviour in own.behaviours:
        if behaviour not in known:
            raise ConfigError(
                f"ablate.behaviours: {behaviour} has fewer than {places.FEW} opportunities taken, "
                f"or not; choose from {', '.join(known) or 'none'}, or {more_traces(cfg)}"
            )
    halves: dict[str, dict[int, Half]] = {model: {} for model in MODELS}
    for layer in cfg.layers:
        folder = cfg.folder / "train" / cfg.train.readers / f"layer_{layer}"
        crosscoder = load_crosscoder(folder, resolve_device(cfg.device))
        for model in MODELS:
            halves[model][layer] = Half(crosscoder, model)
    layers = {layer: (half, open_stores(cfg, layer, RL)) for layer, half in halves[RL].items()}
    ranked = separators(table, own.behaviours or known, layers, cfg.rank.onset_predictors)
    chosen = np.array([(t.split, t.writer) == (SELECT, RL) for t in traces])
    sizes = [
        latent_sizes(_batches(stores, half.d_sae), chosen, half, layer)
        for layer, (half, stores) in layers.items()
    ]
    listed = {behaviour: set(found) for behaviour, found in ranked.items()}
    # The code is both models', so neither has a list of its own.
    return Choice({RL: ranked, BASE: {}}, listed, pd.concat(sizes), dict(halves))


def _batches(
    stores: Sequence[ActivationStore], d_sae: int
) -> Iterator[tuple[Float[Tensor, "model row d_model"], Int[np.ndarray, " row"]]]:
    at_once = max(MAX_CODES // d_sae, 1)
    for batch in paired_batches(stores, range(stores[0].num_tokens), at_once):
        yield batch.activations, batch.trace_index
