"""How well a dictionary explains one reader: the transfer gate's figures."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.config import TrainConfig
from sae_reasoning.config.checks import ConfigError
from sae_reasoning.edges.activation_norms import Norms, kept_of_all, sparing
from sae_reasoning.edges.activation_pairs import paired_batches
from sae_reasoning.edges.activation_store import ActivationStore
from sae_reasoning.edges.crosscoder_checkpoint import Crosscoder
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.read import Transform, splice_losses
from sae_reasoning.edges.sae_checkpoint import Dictionary, Sparse
from sae_reasoning.edges.schema import read_artifact
from sae_reasoning.records import Trace

_PROBED_TRACES = 200
"""Traces on which cross-entropy recovered is measured."""


@dataclass(frozen=True)
class Fit:
    """Reconstruction of one reader's activations.

    Attributes:
        num_tokens: Rows measured.
        fvu: Fraction of variance unexplained.
        l0: Active latents a token.
        dead_share: Share of latents never active on these rows.
        mean: Of the activations.
    """

    num_tokens: int
    fvu: float
    l0: float
    dead_share: float
    mean: Float[Tensor, " d_in"]


@dataclass(frozen=True)
class Recovery:
    """What the reader loses when it has to go on from reconstructions.

    Attributes:
        num_traces: Traces read.
        num_tokens: Response tokens predicted.
        cross_entropy: Untouched, in nats a token.
        spliced: With the residual reconstructed.
        mean_ablated: With the residual replaced by its mean.
    """

    num_traces: int
    num_tokens: int
    cross_entropy: float
    spliced: float
    mean_ablated: float

    @property
    def recovered(self) -> float:
        """(mean-ablated - spliced) / (mean-ablated - untouched); 1 is perfect."""
        return (self.mean_ablated - self.spliced) / (self.mean_ablated - self.cross_entropy)


@dataclass(frozen=True)
class Measured:
    """One layer's dictionary on one reader."""

    layer: int
    reader: str
    fit: Fit
    recovery: Recovery


@dataclass(frozen=True)
class CrossEntropyProbe:
    """Traces on which one reader's next-token loss is measured.

    Attributes:
        lm: The reader.
        sequences: Token ids.
        keep_from: First position of each whose residual is replaced.
        response_from: First response token of each.
        token_budget: Tokens of one pass.
        beside: Another reader of the same tokens, for reconstructions that need its residuals.
    """

    lm: LanguageModel
    sequences: Sequence[Sequence[int]]
    keep_from: Sequence[int]
    response_from: Sequence[int]
    token_budget: int
    beside: LanguageModel | None = None

    def loss(self, layer: int, transform: Transform | None) -> tuple[float, int]:
        """Nats a response token with residuals after `layer` transformed, and the tokens."""
        losses = splice_losses(
            self.lm,
            self.sequences,
            layer=layer,
            transform=transform,
            keep_from=self.keep_from,
            response_from=self.response_from,
            token_budget=self.token_budget,
            beside=self.beside,
        )
        num_tokens = int(losses.num_targets.sum())
        return float(losses.summed.sum()) / max(num_tokens, 1), num_tokens


def draw_probe(
    lm: LanguageModel,
    traces: Sequence[Trace],
    store: ActivationStore,
    token_budget: int,
    beside: LanguageModel | None = None,
    most_tokens: int | None = None,
) -> CrossEntropyProbe:
    """Up to 200 of the report split's traces, evenly spread over both writers.

    Args:
        lm: The reader.
        traces: All that the store was made from.
        store: Says from where on the cache has kept each trace's tokens.
        token_budget: Tokens of one pass.
        beside: Another reader of the same tokens.
        most_tokens: Fewer traces are taken where they'd hold more; none for as many as there are.
    """
    starts = store.row_of_trace
    kept = [
        index
        for index, trace in enumerate(traces)
        if trace.split != "select" and starts[index] < starts[index + 1]
    ]
    num = min(_PROBED_TRACES, len(kept))
    if most_tokens is not None:
        mean = np.mean([len(traces[index].token_ids) for index in kept])
        num = max(1, min(num, int(most_tokens / mean)))
    places = np.linspace(0, len(kept) - 1, num).round().astype(int)
    chosen = [kept[place] for place in places]
    return CrossEntropyProbe(
        lm=lm,
        sequences=[traces[index].token_ids for index in chosen],
        keep_from=[int(store.position[starts[index]]) for index in chosen],
        response_from=[traces[index].num_prompt_tokens for index in chosen],
        token_budget=token_budget,
        beside=beside,
    )


class _FitSums:
    """Sums behind a `Fit`, in float64, around the decoder's bias so that nothing cancels."""

    def __init__(self, bias: Float[Tensor, " d_in"], d_sae: int) -> None:
        self._bias = bias
        self._num_tokens = self._active = 0
        self._error = self._squares = 0.0
        self._total = torch.zeros_like(bias, dtype=torch.float64)
        self._fired = torch.zeros(d_sae, dtype=torch.bool, device=bias.device)

    def add(
        self,
        x: Float[Tensor, "row d_in"],
        reconstruction: Float[Tensor, "row d_in"],
        sparse: Sparse,
    ) -> None:
        self._error += (x - reconstruction).square().sum(dtype=torch.float64).item()
        centred = x - self._bias
        self._total += centred.sum(0, dtype=torch.float64)
        self._squares += centred.square().sum(dtype=torch.float64).item()
        latents = sparse.latents[sparse.values > 0]
        self._active += len(latents)
        self._fired[latents] = True
        self._num_tokens += len(x)

    def result(self) -> Fit:
        mean = self._total / max(self._num_tokens, 1)
        variance = self._squares - self._num_tokens * mean.square().sum().item()
        return Fit(
            num_tokens=self._num_tokens,
            fvu=self._error / variance if variance > 0 else float("nan"),
            l0=self._active / max(self._num_tokens, 1),
            dead_share=1 - self._fired.float().mean().item(),
            mean=(mean + self._bias).float(),
        )


def measure_fit(dictionary: Dictionary, batches: Iterable[Float[Tensor, "_ d_in"]]) -> Fit:
    """Reconstruction of raw activations, streamed."""
    sums = _FitSums(dictionary.b_dec, dictionary.d_sae)
    for batch in batches:
        x = batch.to(dictionary.device)
        sparse = dictionary.encode_sparse(x)
        sums.add(x, dictionary.decode_sparse(sparse), sparse)
    return sums.result()


def measure_joint_fit(
    crosscoder: Crosscoder, batches: Iterable[Float[Tensor, "reader _ d_model"]]
) -> dict[str, Fit]:
    """Reconstruction of each reader's raw activations, streamed, by reader.

    There is one code, so that L0 and dead share are the same for all.
    """
    sums = [_FitSums(bias, crosscoder.d_sae) for bias in crosscoder.biases]
    for batch in batches:
        x = batch.to(crosscoder.device)
        sparse = crosscoder.encode_sparse(x)
        for own, resid, reconstruction in zip(
            sums, x, crosscoder.decode_sparse(sparse), strict=True
        ):
            own.add(resid, reconstruction, sparse)
    return {reader: own.result() for reader, own in zip(crosscoder.readers, sums, strict=True)}


def measure_recovery(
    layer: int,
    reconstruct: Transform,
    probe: CrossEntropyProbe,
    mean: Float[Tensor, " d_model"],
    limit: float = math.inf,
) -> Recovery:
    """Cross-entropy recovered by reconstructions of the residual after `layer`.

    Args:
        layer: Decoder block.
        reconstruct: Of the reader's residuals; with `probe.beside`, called with that reader's too.
        probe: What is read.
        mean: Of the reader's residuals.
        limit: Residuals of a larger norm are left as they are.
    """

    def forget(
        resid: Float[Tensor, "row d_model"], *_beside: Tensor
    ) -> Float[Tensor, "row d_model"]:
        return mean.to(resid.device).expand_as(resid)

    cross_entropy, num_tokens = probe.loss(layer, None)
    return Recovery(
        num_traces=len(probe.sequences),
        num_tokens=num_tokens,
        cross_entropy=cross_entropy,
        spliced=probe.loss(layer, sparing(reconstruct, limit))[0],
        mean_ablated=probe.loss(layer, sparing(forget, limit))[0],
    )


def measure_saes(
    dictionaries: Mapping[int, Dictionary],
    stores: Mapping[tuple[str, int], ActivationStore],
    rows: range,
    batch_size: int,
    probes: Iterable[tuple[str, CrossEntropyProbe]],
    norms: Mapping[tuple[str, int], Norms],
    multiple: float,
) -> Iterator[Measured]:
    """Every layer's SAE on every reader.

    Args:
        dictionaries: By layer.
        stores: By reader and layer.
        rows: Which are measured on.
        batch_size: Rows at once.
        probes: By reader; one is held at a time.
        norms: By reader and layer.
        multiple: Of the median norm, beyond which tokens are left out; 0 for none.
    """
    for reader, probe in probes:
        for layer, dictionary in dictionaries.items():
            own = norms[reader, layer]
            kept = kept_of_all([own], multiple, rows)
            batches = stores[reader, layer].batches(rows, batch_size, kept)
            fit = measure_fit(dictionary, (batch.activations for batch in batches))
            recovery = measure_recovery(
                layer, dictionary.reconstruct, probe, fit.mean, own.limit(multiple)
            )
            yield Measured(layer, reader, fit, recovery)


def measure_crosscoders(
    crosscoders: Mapping[int, Crosscoder],
    stores: Mapping[tuple[str, int], ActivationStore],
    rows: range,
    batch_size: int,
    probes: Iterable[tuple[str, CrossEntropyProbe]],
    norms: Mapping[tuple[str, int], Norms],
    multiple: float,
) -> Iterator[Measured]:
    """Every layer's crosscoder on every reader; arguments as for SAEs, probes with `beside`.

    A token that is outlying in one reader is left out of both.
    """
    by_reader = dict(probes)
    for layer, crosscoder in crosscoders.items():
        paired = [stores[reader, layer] for reader in crosscoder.readers]
        both = [norms[reader, layer] for reader in crosscoder.readers]
        kept = kept_of_all(both, multiple, rows)
        batches = paired_batches(paired, rows, batch_size, kept)
        fits = measure_joint_fit(crosscoder, (batch.activations for batch in batches))
        for reader, fit in fits.items():
            reconstruct = partial(crosscoder.reconstruct, reader)
            limit = norms[reader, layer].limit(multiple)
            recovery = measure_recovery(layer, reconstruct, by_reader[reader], fit.mean, limit)
            yield Measured(layer, reader, fit, recovery)


def describe_quality(
    fit: Fit, recovery: Recovery, d_model: int, bars: TrainConfig
) -> dict[str, Any]:
    """One reader's part of `quality.json`: figures, and what they fail of the transfer gate."""
    figures = {name: value for name, value in vars(fit).items() if name != "mean"}
    figures |= {"ce_recovered": recovery.recovered, "ce": asdict(recovery)}
    failed = failures(figures, d_model, bars)
    return figures | {"passes": not failed, "failed": failed}


def failures(figures: Mapping[str, Any], d_model: int, bars: TrainConfig) -> dict[str, str]:
    """Figures of one reader that miss their bar, each with value, option and bar.

    A figure that is undefined (NaN) misses it too.
    Points are held against the bars: a figure is of one given dictionary on all tokens of the
    report split, and it's that dictionary, with that error, whose latents are read.
    """
    most = {
        "fvu": ("gate_fvu", bars.gate_fvu, ""),
        "l0": ("gate_l0", bars.gate_l0 * d_model, f" of d_model={d_model}"),
        "dead_share": ("gate_dead_share", bars.gate_dead_share, ""),
    }
    failed = {
        name: f"{name} {figures[name]:.3g} is over train.{option}={getattr(bars, option):g}{unit}"
        for name, (option, bar, unit) in most.items()
        if not figures[name] <= bar
    }
    if not figures["ce_recovered"] >= bars.gate_ce_recovered:
        failed["ce_recovered"] = (
            f"ce_recovered {figures['ce_recovered']:.3g} is under "
            f"train.gate_ce_recovered={bars.gate_ce_recovered:g}"
        )
    return failed


def require_transfer(folder: Path) -> None:
    """Refuse a dictionary that fails the transfer gate on a reader.

    Raises:
        ConfigError: It does; the message has the figures.
    """
    readers = read_artifact(folder / "quality.json")["readers"]
    failed = [
        f"{reason} on {reader}"
        for reader, figures in readers.items()
        for reason in figures["failed"].values()
    ]
    if failed:
        raise ConfigError(
            f"{folder} fails the transfer gate ({'; '.join(failed)}), so what it says of one "
            "reader doesn't hold beside the other; train it better (train.readers=pooled, more "
            "train.steps, a larger train.sae.d_sae), or set rank.gate=false to see it all the same"
        )
