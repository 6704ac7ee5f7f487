"""Where shortlisted latents fire, what fires with them, and what their directions say."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from scipy.sparse import csr_array

from sae_reasoning.config import Config
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.lm.load import LanguageModel, load, resolve_device
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.unembed import output_logits
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_ranked
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.jobs.report.sources import Sources
from sae_reasoning.records import MODELS, RL, Trace
from sae_reasoning.report.examples import (
    Example,
    Firing,
    choose,
    example,
    histogram,
    token_pieces,
)
from sae_reasoning.report.latents import LatentRecord
from sae_reasoning.texts import MAX_PIECE, shown

_BATCH_ROWS = 8192
_NUM_TOKENS, _NUM_NEIGHBOURS, _NUM_LOGIT_BINS = 10, 6, 24


@dataclass(frozen=True)
class Together:
    """How the latents asked for fire with all others, over tokens of the report split.

    Attributes:
        pearson: Correlation of activations.
        both: Tokens on which both fire.
    """

    pearson: Float64[np.ndarray, "asked latent"]
    both: Int64[np.ndarray, "asked latent"]


class Texts:
    """The traces that were read, as far as latents fire in them."""

    def __init__(
        self,
        cfg: Config,
        sources: Sources,
        found: Sequence[LatentRecord],
        shortlist: dict[str, Any],
    ) -> None:
        self.cfg, self.found = cfg, found
        self.traces = read_traces(sources.folder / "traces" / "traces.parquet")
        self.lm: LanguageModel = load(cfg.pair.rl, cfg.device)
        layers = sorted({one.layer for one in found})
        device = resolve_device(cfg.device)
        self.dictionaries = load_ranked(sources.folder, shortlist, layers, device)
        self.stores = {
            (reader, layer): ActivationStore.open(
                sources.folder / "cache" / reader / f"layer_{layer}"
            )
            for reader in MODELS
            for layer in layers
        }
        check_same_rows(*self.stores.values())
        self.index = next(iter(self.stores.values()))
        is_report = np.array([trace.split == "report" for trace in self.traces])
        self.is_reported = is_report[self.index.trace_index]
        self.pieces = lru_cache(maxsize=None)(self._pieces)

    def of_each(self) -> Iterator[dict[str, Any]]:
        """Evidence of each latent, in their order, which is by layer."""
        firing: dict[tuple[str, int], Firing] = {}
        layer, together, own = None, None, [0]
        for one in self.found:
            if one.layer != layer:
                layer = one.layer
                own = sorted({other.latent for other in self.found if other.layer == layer})
                for reader in MODELS:
                    fired, with_others = self._fire(reader, layer, own)
                    firing |= {(reader, latent): found for latent, found in fired.items()}
                    together = with_others if reader == RL else together
            assert together is not None
            yield self._evidence(
                one, {r: firing[r, one.latent] for r in MODELS}, together, own.index(one.latent)
            )

    def _fire(
        self, reader: str, layer: int, latents: Sequence[int]
    ) -> tuple[dict[int, Firing], Together]:
        """Where some latents are active on the report split, and with which others."""
        dictionary = self.dictionaries[layer]
        sums = _Sums(dictionary.d_sae, latents)
        slot = np.full(dictionary.d_sae, -1, np.int64)
        slot[list(latents)] = np.arange(len(latents))
        rows, slots, values, first = [], [], [], 0
        for batch in self.stores[reader, layer].batches(None, _BATCH_ROWS):
            sparse = dictionary.encode_sparse(batch.activations.to(dictionary.device))
            value, latent = sparse.numpy()
            here = (value > 0) & self.is_reported[first : first + len(value), None]
            sums.add(np.where(here, value, 0.0), latent)
            here &= slot[latent] >= 0
            place, _ = np.nonzero(here)
            rows.append(place + first)
            slots.append(slot[latent[here]])
            values.append(value[here])
            first += len(value)
        row, which, value = (np.concatenate(parts) for parts in (rows, slots, values))
        order = np.argsort(which, kind="stable")  # Rows ascend within a latent.
        bounds = np.searchsorted(which[order], np.arange(len(latents) + 1))
        fired = {
            latent: Firing(row[order[a:b]], value[order[a:b]])
            for latent, a, b in zip(latents, bounds, bounds[1:], strict=False)
        }
        return fired, sums.together(int(self.is_reported.sum()))

    def _evidence(
        self, one: LatentRecord, firing: dict[str, Firing], together: Together, place: int
    ) -> dict[str, Any]:
        chosen = choose(firing[RL], self._problem_of_row, seed=one.layer * 1_000_003 + one.latent)
        return {
            "histogram": asdict(histogram(firing, int(self.is_reported.sum()))),
            "examples": [asdict(self._example(band, row, firing)) for band, row in chosen],
            "output": self._output(self.dictionaries[one.layer], one.latent),
            "neighbours": self._neighbours(one),
            "companions": self._companions(one, together, place),
        }

    def _problem_of_row(self, row: int) -> str:
        return self.traces[int(self.index.trace_index[row])].problem_id

    def _example(self, band: str, row: int, firing: dict[str, Firing]) -> Example:
        number = int(self.index.trace_index[row])
        rows = self.index.row_of_trace[number : number + 2]
        first = int(self.index.position[rows[0]])
        near = {}
        for reader, own in firing.items():
            a, b = np.searchsorted(own.row, rows)
            places = self.index.position[own.row[a:b]].tolist()
            near[reader] = dict(zip(places, own.value[a:b].tolist(), strict=True))
        position = int(self.index.position[row])
        return example(band, self.traces[number], self.pieces(number), position, first, near)

    def _pieces(self, number: int) -> list[str]:
        """Text of each token of a trace."""
        trace: Trace = self.traces[number]
        tokens, start = trace.token_ids, trace.num_prompt_tokens
        offsets = offsets_of(self.lm.tokenizer, tokens[start:], trace.text)
        size = len(trace.text)
        # What ends a turn is no part of the text.
        stop = len(tokens) - (bool(offsets) and offsets[-1] == (size, size))
        ends = [end for _, end in offsets[: stop - start]]
        if not ends or ends[-1] < size:  # The text isn't what this tokenizer says.
            return [self._says(token) for token in tokens]
        return [
            *map(self._says, tokens[:start]),
            *token_pieces(trace.text, ends),
            *map(self._says, tokens[stop:]),
        ]

    def _says(self, token: int) -> str:
        return str(self.lm.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def _output(self, dictionary: Dictionary, latent: int) -> dict[str, Any]:
        """Output tokens that the latent's direction makes likelier, and those it makes rarer."""
        (logits,) = output_logits(self.lm, dictionary.W_dec[[latent]])
        count = min(_NUM_TOKENS, len(logits) // 2)

        def named(best: torch.return_types.topk) -> list[tuple[str, float]]:
            return [
                (shown(self._says(token), MAX_PIECE), float(f"{value:.4g}"))
                for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]

        counts, edges = np.histogram(logits.cpu().numpy(), _NUM_LOGIT_BINS)
        return {
            "top": named(logits.topk(count)),
            "bottom": named(logits.topk(count, largest=False)),
            "counts": counts.tolist(),
            "edges": [float(f"{edge:.4g}") for edge in edges],
        }

    def _neighbours(self, one: LatentRecord) -> list[dict[str, Any]]:
        """Latents of the same dictionary whose directions are nearest."""
        directions = self.dictionaries[one.layer].W_dec
        cosines = directions @ directions[one.latent]
        cosines[one.latent] = -2.0
        best = cosines.topk(min(_NUM_NEIGHBOURS, len(cosines) - 1))
        return [
            {"latent": latent, "cosine": float(f"{cosine:.3f}"), "name": self._name(one, latent)}
            for cosine, latent in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _companions(
        self, one: LatentRecord, together: Together, place: int
    ) -> list[dict[str, Any]]:
        """Latents of the same dictionary that fire with it the most, in the RL reader."""
        pearson = together.pearson[place].copy()
        pearson[one.latent] = -2.0
        best = np.argsort(-pearson, kind="stable")[:_NUM_NEIGHBOURS].tolist()
        return [
            {
                "latent": latent,
                "pearson": float(f"{pearson[latent]:.3f}"),
                "both": int(together.both[place, latent]),
                "name": self._name(one, latent),
            }
            for latent in best
            if together.both[place, latent]
        ]

    def _name(self, one: LatentRecord, latent: int) -> str:
        """Page of a latent of the same dictionary, or ""."""
        listed = any((other.layer, other.latent) == (one.layer, latent) for other in self.found)
        return f"{one.layer}_{latent}" if listed else ""


class _Sums:
    """Sums behind the correlations of some latents' activations with all others'."""

    def __init__(self, d_sae: int, latents: Sequence[int]) -> None:
        self._latents = list(latents)
        self._d_sae = d_sae
        self._products = np.zeros((len(latents), d_sae))
        self._both = np.zeros((len(latents), d_sae), np.int64)
        self._sum, self._square = np.zeros(d_sae), np.zeros(d_sae)

    def add(self, value: Float[np.ndarray, "token k"], latent: Int[np.ndarray, "token k"]) -> None:
        """Add some tokens; values of 0 don't count."""
        row, slot = np.nonzero(value)
        column, weight = latent[row, slot], value[row, slot].astype(np.float64)
        sparse = csr_array((weight, (row, column)), shape=(len(value), self._d_sae))
        fires = csr_array((np.ones(len(row), np.int64), (row, column)), shape=sparse.shape)
        self._products += (sparse[:, self._latents].T @ sparse).toarray()
        self._both += (fires[:, self._latents].T @ fires).toarray()
        self._sum += np.bincount(column, weight, self._d_sae)
        self._square += np.bincount(column, weight**2, self._d_sae)

    def together(self, num_tokens: int) -> Together:
        """Correlations over all tokens added, of which many may fire nothing."""
        mean = self._sum / num_tokens
        spread = np.sqrt(np.maximum(self._square / num_tokens - mean**2, 0.0))
        covariance = self._products / num_tokens - np.outer(mean[self._latents], mean)
        scale = np.outer(spread[self._latents], spread)
        pearson = np.divide(covariance, scale, out=np.full_like(covariance, -1.0), where=scale > 0)
        return Together(pearson, self._both)
