"""What the cache says of the places where edits act: sizes of latents, mean differences, shares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.behaviours.windows import Rows
from sae_reasoning.config import Config
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.artifacts import BrokenArtifact
from sae_reasoning.edges.crosscoder_checkpoint import Half
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_in
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.records import Trace
from sae_reasoning.steering.controls import LatentSizes
from sae_reasoning.steering.vectors import unit
from sae_reasoning.tasks.text.sentences import possible_starts
from sae_reasoning.traces.annotate import annotator_for

MAX_CODES = 1 << 25
"""Latents held at once, silent ones included: 128 MiB of them."""

FEW = 20
"""Opportunities below which latents' sizes there aren't known, and those of all tokens serve."""


@dataclass(frozen=True)
class Places:
    """Of one model, from the select split; by behaviour.

    Attributes:
        sizes: By layer, of latents at the behaviour's opportunities in the RL model's texts.
        vectors: By layer, from where the behaviour could have started and didn't to where it did;
            from any end of a sentence where it didn't, if there are few of the former.
        untaken: By layer, the mean residual where it didn't.
        shares: Opportunities among positions, in the traces most like the edited responses.
    """

    sizes: dict[str, dict[int, LatentSizes]]
    vectors: dict[str, dict[int, Float[Tensor, " d_model"]]]
    untaken: dict[str, dict[int, Float[Tensor, " d_model"]]]
    shares: dict[str, float]


def sizes_overall(
    cfg: Config, table: pd.DataFrame, reader: str, dictionaries: Mapping[int, Dictionary | Half]
) -> dict[int, LatentSizes]:
    """How often and strongly latents fire in `reader`, on the texts that hold the behaviours.

    Raises:
        BrokenArtifact: The table lacks latents.
    """
    found = {}
    for layer, dictionary in dictionaries.items():
        of_layer = table[table.layer == layer].sort_values("latent", kind="stable")
        here = of_layer[(of_layer.reader == reader) & (of_layer.writer == "rl")]
        if here.latent.tolist() != list(range(dictionary.d_sae)):
            raise BrokenArtifact(
                f"{cfg.folder / 'rank' / 'latents.parquet'} doesn't list the {dictionary.d_sae} "
                f"latents of layer {layer}; run `make rank` again"
            )
        found[layer] = LatentSizes(
            here.firing_rate.to_numpy(),
            here.mean_active.fillna(0.0).to_numpy(),
            of_layer.groupby("latent").max_active.max().fillna(0.0).to_numpy(),
        )
        found[layer] = _as_written(found[layer], dictionary)
    return found


def _as_written(sizes: LatentSizes, dictionary: Dictionary | Half) -> LatentSizes:
    """Mean values as norms of what is written; rows of a crosscoder's half aren't of norm 1."""
    norms = dictionary.W_dec.norm(dim=1).double().cpu().numpy()
    return replace(sizes, mean_active=sizes.mean_active * norms)


def measure_places(
    cfg: Config,
    model: str,
    behaviours: Sequence[str],
    traces: Sequence[Trace],
    dictionaries: Mapping[int, Dictionary | Half],
    overall: Mapping[int, LatentSizes],
    begun: str = "",
) -> Places:
    """Read the model's residuals at opportunities in the RL model's select texts.

    Args:
        cfg: The experiment.
        model: Who is edited.
        behaviours: Behaviours.
        traces: All of them.
        dictionaries: By layer.
        overall: Sizes at all tokens, by layer.
        begun: What the edited responses begin with.
    """
    table = opportunities_of(traces)
    found = Places({}, {}, {}, _shares(cfg, model, behaviours, traces, begun))
    stores = {layer: open_stores(cfg, layer, model) for layer in dictionaries}
    for behaviour in behaviours:
        for part in (found.sizes, found.vectors, found.untaken):
            part[behaviour] = {}
        own = table[table.behaviour == behaviour]
        onsets, untaken = _places(own[own.taken]), _places(own[~own.taken])
        if len(untaken) < FEW:
            untaken = _places(table).difference(onsets)
        for layer, (store, *others) in stores.items():
            read_by = [store, *(others if isinstance(dictionaries[layer], Half) else [])]
            found.sizes[behaviour][layer] = (
                _sizes_at(read_by, _places(own), dictionaries[layer], overall[layer])
                if len(own) >= FEW
                else overall[layer]
            )
            if len(onsets) and len(untaken):
                elsewhere = _mean_at(store, untaken)
                found.vectors[behaviour][layer] = unit(_mean_at(store, onsets) - elsewhere)
                found.untaken[behaviour][layer] = elsewhere
    return found


def opportunities_of(traces: Sequence[Trace]) -> pd.DataFrame:
    """Every opportunity in the RL model's select texts: trace, token, behaviour, taken."""
    return pd.DataFrame(
        [
            (index, o.token, o.behaviour, o.taken)
            for index, trace in enumerate(traces)
            if trace.split == "select" and trace.writer == "rl"
            for o in trace.opportunities
        ],
        columns=["trace", "token", "behaviour", "taken"],
    )


def open_stores(cfg: Config, layer: int, first: str) -> list[ActivationStore]:
    """Both models' activations after a block, those of `first` first."""
    readers = sorted(cfg.pair.readers, key=lambda model: model != first)
    return [ActivationStore.open(cfg.folder / "cache" / x / f"layer_{layer}") for x in readers]


def codes_at(
    stores: Sequence[ActivationStore], places: pd.MultiIndex, dictionary: Dictionary | Half
) -> Iterator[Float[Tensor, "place d_sae"]]:
    """Latents at places, each a trace and a token; some places at a time."""
    for resid in _read_at(stores, places, dictionary.d_sae):
        yield dictionary.encode(*(of_store.to(dictionary.device) for of_store in resid))


def _mean_at(store: ActivationStore, places: pd.MultiIndex) -> Float[Tensor, " d_model"]:
    total = torch.zeros(store.d_model, dtype=torch.float64)
    for (resid,) in _read_at([store], places, store.d_model):
        total += resid.sum(0, dtype=torch.float64)
    return (total / len(places)).float()


def _read_at(
    stores: Sequence[ActivationStore], places: pd.MultiIndex, width: int
) -> Iterator[list[Float[Tensor, "place d_model"]]]:
    """Activations at places, so many at a time that `width` numbers of each are few enough."""
    rows = Rows.cached(stores[0].token_id, stores[0].row_of_trace, stores[0].position)
    found = np.array([rows.row(*place) for place in places], np.int64)
    at_once = max(MAX_CODES // width, 1)
    for start in range(0, len(found), at_once):
        yield [store.read(found[start : start + at_once]) for store in stores]


def _places(table: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[["trace", "token"]]).unique()


def _sizes_at(
    stores: Sequence[ActivationStore],
    places: pd.MultiIndex,
    dictionary: Dictionary | Half,
    overall: LatentSizes,
) -> LatentSizes:
    """Sizes at some places; the maximum stays that of all tokens."""
    fires, total = torch.zeros(2, dictionary.d_sae, dtype=torch.float64)
    for codes in codes_at(stores, places, dictionary):
        fires += (codes > 0).sum(0).cpu()
        total += codes.sum(0, dtype=torch.float64).cpu()
    mean = total / fires.clamp_min(1)
    return _as_written(
        LatentSizes((fires / len(places)).numpy(), mean.numpy(), overall.max_active), dictionary
    )


def _shares(
    cfg: Config, model: str, behaviours: Sequence[str], traces: Sequence[Trace], begun: str
) -> dict[str, float]:
    """Positions among those of the model's responses at which each behaviour could start.

    They are counted as `ablate` hears them: in natural text, wherever a sentence may start.
    """
    like = _like_edited([trace for trace in traces if trace.split == "select"], model, begun)
    if annotator_for(cfg.traces.source) is None:
        tokenizer = load_tokenizer(next(iter(cfg.pair.readers.values())))
        heard = [_heard([end for _, end in offsets_in(tokenizer, t)], t) for t in like]
        share = sum(map(sum, heard)) / max(sum(map(len, heard)), 1)
        return dict.fromkeys(behaviours, share)
    tokens = sum(len(trace.token_ids) - trace.num_prompt_tokens for trace in like)
    return {
        behaviour: sum(o.behaviour == behaviour for trace in like for o in trace.opportunities)
        / max(tokens, 1)
        for behaviour in behaviours
    }


def _like_edited(traces: Sequence[Trace], model: str, begun: str) -> list[Trace]:
    """The traces most like the model's edited responses: begun alike, and its own, if there are."""
    alike = [trace for trace in traces if trace.text.lstrip().startswith(begun)]
    for some in (alike, traces):
        if own := [trace for trace in some if trace.writer == model]:
            return own
        if some:
            return list(some)
    return []


def _heard(ends: Sequence[int], trace: Trace) -> list[bool]:
    """Of each position that predicts a token of a natural text, whether a sentence may start.

    Args:
        ends: Of the text's tokens.
        trace: Whose text.
    """
    starts, places = frozenset(possible_starts(trace.text)), [0, *ends]
    return [place in starts for place in (places[:-1] if trace.truncated else places)]
