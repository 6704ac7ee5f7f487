"""Latents of crosscoders: one code of both models' residuals of a token, a decoder for each.

`rank` scores what one model reads, so it has no say here. A behaviour's latents are chosen by onset
AUROC on the select split: active where the RL model started the behaviour, rather than where it
    could
have. When they are edited, the model that isn't edited reads along, so that the code is the one
that was trained; read from one half of its encoder it would be another code.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_pairs import paired_batches
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.crosscoder_checkpoint import Half, load_crosscoder
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.jobs.ablate.latents import Choice
from sae_reasoning.jobs.ablate.places import (
    FEW,
    MAX_CODES,
    codes_at,
    open_stores,
    opportunities_of,
)
from sae_reasoning.records import MODELS, Trace
from sae_reasoning.stats import auroc
from sae_reasoning.steering.conditions import LatentId
from sae_reasoning.traces.problems import more_traces


def is_joint(cfg: Config) -> bool:
    """Whether what is edited are crosscoders' latents."""
    return cfg.train.readers == "crosscoder"


def choose_joint(cfg: Config, traces: Sequence[Trace]) -> Choice:
    """The latents of each behaviour, from the cache of both models.

    Raises:
        ConfigError: An option asks for what there is of SAEs only.
    """
    own = cfg.ablate
    if own.shortlist != "separators" or own.matches_of:
        raise ConfigError(
            f"ablate.shortlist={own.shortlist}, ablate.matches_of={own.matches_of}: latents of a "
            "crosscoder are chosen by onset AUROC and matched with none; set "
            "ablate.shortlist=separators, without ablate.matches_of"
        )
    crosscoders = {
        layer: load_crosscoder(
            cfg.folder / "train" / cfg.train.readers / f"layer_{layer}", resolve_device(cfg.device)
        )
        for layer in cfg.layers
    }
    halves = {m: {x: Half(one, m) for x, one in crosscoders.items()} for m in MODELS}
    ranked = _separators(cfg, traces, halves["rl"])
    listed = {behaviour: set(found) for behaviour, found in ranked.items()}
    table = pd.concat([_sizes(cfg, traces, layer, half) for layer, half in halves["rl"].items()])
    # The code is both models', so neither has a list of its own.
    return Choice({"rl": ranked, "base": {}}, listed, table, dict(halves))


def _separators(
    cfg: Config, traces: Sequence[Trace], halves: Mapping[int, Half]
) -> dict[str, list[LatentId]]:
    """Of each behaviour that is asked for, the latents most active where it started."""
    table = opportunities_of(traces)
    taken = table.groupby("behaviour").taken.agg(["sum", "size"])
    enough = taken[(taken["sum"] >= FEW) & (taken["size"] - taken["sum"] >= FEW)].index
    known = [behaviour for behaviour in cfg.behaviours if behaviour in enough]
    for behaviour in cfg.ablate.behaviours:
        if behaviour not in known:
            raise ConfigError(
                f"ablate.behaviours: {behaviour} has fewer than {FEW} opportunities taken, or not; "
                f"choose from {', '.join(known) or 'none'}, or {more_traces(cfg)}"
            )
    found: dict[str, list[tuple[float, LatentId]]] = {
        behaviour: [] for behaviour in cfg.ablate.behaviours or known
    }
    places = pd.MultiIndex.from_frame(table[["trace", "token"]]).unique()
    own = {behaviour: table[table.behaviour == behaviour] for behaviour in found}
    at = {
        behaviour: places.get_indexer(pd.MultiIndex.from_frame(one[["trace", "token"]]))
        for behaviour, one in own.items()
    }
    for layer, half in halves.items():
        stores = open_stores(cfg, layer, "rl")
        for first, codes in _columns(stores, places, half):
            for behaviour, scored in found.items():
                scores = auroc(codes[at[behaviour]], own[behaviour].taken.to_numpy(bool))
                scored += [
                    (float(s), LatentId(layer, j)) for j, s in enumerate(scores, first) if s > 0.5
                ]
    return {
        behaviour: [latent for _, latent in sorted(scored, key=lambda one: -one[0])][
            : cfg.rank.onset_predictors
        ]
        for behaviour, scored in found.items()
    }


def _columns(
    stores: Sequence[ActivationStore], places: pd.MultiIndex, half: Half
) -> Iterator[tuple[int, Float[np.ndarray, "place latent"]]]:
    """All places' activations of some latents at a time, with the first latent's number.

    Meanwhile only the active latents of each place are held.
    """
    parts, done = [], 0
    for codes in codes_at(stores, places, half):
        active = codes.nonzero(as_tuple=True)
        at, which = (index.cpu().numpy() for index in active)
        parts.append((at + done, which, codes[active].cpu().double().numpy()))
        done += len(codes)
    if not parts:
        return
    place, latent, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(latent, kind="stable")
    place, latent, value = place[order], latent[order], value[order]
    width = max(MAX_CODES // max(done, 1), 1)
    for first in range(0, half.d_sae, width):
        size = min(width, half.d_sae - first)
        here = slice(*np.searchsorted(latent, [first, first + size]))
        dense = np.zeros((done, size))
        dense[place[here], latent[here] - first] = value[here]
        yield first, dense


def _sizes(cfg: Config, traces: Sequence[Trace], layer: int, half: Half) -> pd.DataFrame:
    """How often and strongly each latent fires on the RL model's select texts; as in `rank`."""
    stores = open_stores(cfg, layer, "rl")
    chosen = np.array([t.split == "select" and t.writer == "rl" for t in traces])
    fires, total, most = torch.zeros(3, half.d_sae, dtype=torch.float64, device=half.device)
    count = 0
    at_once = max(MAX_CODES // half.d_sae, 1)
    for batch in paired_batches(stores, range(stores[0].num_tokens), at_once):
        kept = torch.from_numpy(chosen[batch.trace_index])
        if not kept.any():
            continue
        codes = half.encode(*batch.activations[:, kept].to(half.device))
        fires += (codes > 0).sum(0)
        total += codes.sum(0, dtype=torch.float64)
        most = torch.maximum(most, codes.amax(0))
        count += len(codes)
    table = pd.DataFrame(
        {
            "layer": layer,
            "latent": np.arange(half.d_sae),
            "writer": "rl",
            "firing_rate": (fires / max(count, 1)).cpu().numpy(),
            "mean_active": (total / fires.clamp_min(1)).cpu().numpy(),
            "max_active": most.cpu().numpy(),
        }
    )
    return pd.concat([table.assign(reader=reader) for reader in MODELS], ignore_index=True)
