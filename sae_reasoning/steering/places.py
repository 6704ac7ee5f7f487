"""What the cache says of the places where edits act: sizes of latents, mean differences, shares.

All of it is of the select split. Places are opportunities in the RL model's texts, which the model
that is edited has read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.behaviours.windows import Rows
from sae_reasoning.records import RL, SELECT, Trace
from sae_reasoning.steering.controls import LatentSizes
from sae_reasoning.steering.vectors import unit

MAX_CODES = 1 << 25
"""Latents held at once, silent ones included: 128 MiB of them."""

FEW = 20
"""Opportunities below which latents' sizes there aren't known, and those of all tokens serve."""


@runtime_checkable
class Residuals(Protocol):
    """Cached residuals of one model after one block.

    Attributes:
        d_model: Width.
        token_id: Token that each row has just read.
        row_of_trace: Row of each trace's first cached token; one more, for the end.
        position: Index of each row's token in its trace.
    """

    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def token_id(self) -> Int[np.ndarray, " row"]: ...  # noqa: D102
    @property
    def row_of_trace(self) -> Int[np.ndarray, " trace_and_end"]: ...  # noqa: D102
    @property
    def position(self) -> Int[np.ndarray, " row"]: ...  # noqa: D102

    def read(self, rows: Int[np.ndarray, " some"]) -> Float[Tensor, "some d_model"]:
        """Residuals of rows."""
        ...


@runtime_checkable
class Code(Protocol):
    """An SAE, or a crosscoder as one of its models has it.

    Attributes:
        d_sae: Latents.
        device: Where it computes.
        W_dec: Decoder rows.
        encode: Gives latents of residuals, of as many models as the code is of.
    """

    @property
    def d_sae(self) -> int: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_model"]: ...  # noqa: D102, N802
    @property
    def encode(self) -> Callable[..., Float[Tensor, "n d_sae"]]: ...  # noqa: D102


@dataclass(frozen=True)
class CachedLayer:
    """One layer of the model that is edited.

    Attributes:
        code: Whose latents are edited.
        residuals: What the code reads: the edited model's, then the other's where it reads both.
        overall: Sizes of latents at all tokens.
    """

    code: Code
    residuals: Sequence[Residuals]
    overall: LatentSizes


@dataclass(frozen=True)
class Places:
    """Of one model, by behaviour.

    Attributes:
        sizes: By layer, of latents at the behaviour's opportunities.
        vectors: By layer, from where the behaviour could have started and didn't to where it did;
            from any end of a sentence where it didn't, if there are few of the former.
        untaken: By layer, the mean residual where it didn't.
    """

    sizes: dict[str, dict[int, LatentSizes]]
    vectors: dict[str, dict[int, Float[Tensor, " d_model"]]]
    untaken: dict[str, dict[int, Float[Tensor, " d_model"]]]


def sizes_overall(table: pd.DataFrame, reader: str, code: Code) -> LatentSizes:
    """How often and strongly latents of one layer fire in `reader`, on the RL model's texts.

    Args:
        table: Of the layer's latents, by reader and writer: firing rate, mean and maximum.
        reader: The model.
        code: Of the layer.

    Raises:
        ValueError: The table lacks latents.
    """
    table = table.sort_values("latent", kind="stable")
    here = table[(table.reader == reader) & (table.writer == RL)]
    if here.latent.tolist() != list(range(code.d_sae)):
        raise ValueError(f"the table doesn't list the {code.d_sae} latents")
    found = LatentSizes(
        here.firing_rate.to_numpy(),
        here.mean_active.fillna(0.0).to_numpy(),
        table.groupby("latent").max_active.max().fillna(0.0).to_numpy(),
    )
    return _as_written(found, code)


def _as_written(sizes: LatentSizes, code: Code) -> LatentSizes:
    """Mean values as norms of what is written; rows of a crosscoder's half aren't of norm 1."""
    norms = code.W_dec.norm(dim=1).double().cpu().numpy()
    return replace(sizes, mean_active=sizes.mean_active * norms)


def opportunities_of(traces: Sequence[Trace]) -> pd.DataFrame:
    """Every opportunity in the RL model's select texts: trace, token, behaviour, taken."""
    return pd.DataFrame(
        [
            (index, o.token, o.behaviour, o.taken)
            for index, trace in enumerate(traces)
            if (trace.split, trace.writer) == (SELECT, RL)
            for o in trace.opportunities
        ],
        columns=["trace", "token", "behaviour", "taken"],
    )


def measure_places(
    behaviours: Sequence[str], table: pd.DataFrame, layers: Mapping[int, CachedLayer]
) -> Places:
    """Read a model's residuals at opportunities.

    Args:
        behaviours: Behaviours.
        table: Opportunities, as `opportunities_of` lists them.
        layers: Of the model.
    """
    found = Places({}, {}, {})
    for behaviour in behaviours:
        for part in (found.sizes, found.vectors, found.untaken):
            part[behaviour] = {}
        own = table[table.behaviour == behaviour]
        onsets, untaken = places_of(own[own.taken]), places_of(own[~own.taken])
        if len(untaken) < FEW:
            untaken = places_of(table).difference(onsets)
        for number, layer in layers.items():
            is_known = len(own) >= FEW
            found.sizes[behaviour][number] = (
                _sizes_at(layer, places_of(own)) if is_known else layer.overall
            )
            if len(onsets) and len(untaken):
                elsewhere = _mean_at(layer.residuals[0], untaken)
                at_onsets = _mean_at(layer.residuals[0], onsets)
                found.vectors[behaviour][number] = unit(at_onsets - elsewhere)
                found.untaken[behaviour][number] = elsewhere
    return found


def places_of(table: pd.DataFrame) -> pd.MultiIndex:
    """The different places of some opportunities, each a trace and a token."""
    return pd.MultiIndex.from_frame(table[["trace", "token"]]).unique()


def codes_at(
    residuals: Sequence[Residuals], places: pd.MultiIndex, code: Code
) -> Iterator[Float[Tensor, "place d_sae"]]:
    """Latents at places, each a trace and a token; some places at a time."""
    for resid in _read_at(residuals, places, code.d_sae):
        yield code.encode(*(of_model.to(code.device) for of_model in resid))


def _mean_at(residuals: Residuals, places: pd.MultiIndex) -> Float[Tensor, " d_model"]:
    total = torch.zeros(residuals.d_model, dtype=torch.float64)
    for (resid,) in _read_at([residuals], places, residuals.d_model):
        total += resid.sum(0, dtype=torch.float64)
    return (total / len(places)).float()


def _read_at(
    residuals: Sequence[Residuals], places: pd.MultiIndex, width: int
) -> Iterator[list[Float[Tensor, "place d_model"]]]:
    """Residuals at places, so many at a time that `width` numbers of each are few enough."""
    first = residuals[0]
    rows = Rows.cached(first.token_id, first.row_of_trace, first.position)
    found = np.array([rows.row(*place) for place in places], np.int64)
    at_once = max(MAX_CODES // width, 1)
    for start in range(0, len(found), at_once):
        yield [of_model.read(found[start : start + at_once]) for of_model in residuals]


def _sizes_at(layer: CachedLayer, places: pd.MultiIndex) -> LatentSizes:
    """Sizes at some places; the maximum stays that of all tokens."""
    fires, total = torch.zeros(2, layer.code.d_sae, dtype=torch.float64)
    for codes in codes_at(layer.residuals, places, layer.code):
        fires += (codes > 0).sum(0).cpu()
        total += codes.sum(0, dtype=torch.float64).cpu()
    mean = total / fires.clamp_min(1)
    sizes = LatentSizes((fires / len(places)).numpy(), mean.numpy(), layer.overall.max_active)
    return _as_written(sizes, layer.code)


def like_edited(traces: Sequence[Trace], model: str, begun: str) -> list[Trace]:
    """The select traces most like a model's edited responses: begun alike, then its own.

    Args:
        traces: All of them.
        model: Who is edited.
        begun: What its edited responses begin with.
    """
    select = [trace for trace in traces if trace.split == SELECT]
    alike = [trace for trace in select if trace.text.lstrip().startswith(begun)]
    for some in (alike, select):
        if own := [trace for trace in some if trace.writer == model]:
            return own
        if some:
            return list(some)
    return []


def marked_shares(traces: Sequence[Trace], behaviours: Sequence[str]) -> dict[str, float]:
    """Opportunities among the tokens of responses, as the traces mark them."""
    tokens = sum(len(trace.token_ids) - trace.num_prompt_tokens for trace in traces)
    marked = [o.behaviour for trace in traces for o in trace.opportunities]
    return {behaviour: marked.count(behaviour) / max(tokens, 1) for behaviour in behaviours}


def streamed_shares(
    positions: Sequence[Sequence[frozenset[str]]], behaviours: Sequence[str]
) -> dict[str, float]:
    """Opportunities among the positions of responses, as they are found while text is written.

    Args:
        positions: Of each response, the behaviours that could start at each of its positions.
        behaviours: To be counted.
    """
    every = [own for response in positions for own in response]
    return {b: sum(b in own for own in every) / max(len(every), 1) for b in behaviours}
