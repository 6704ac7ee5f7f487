"""Readers under attack: the two models, and one that was never trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int
from torch import Tensor

from sae_reasoning.config import Config
from sae_reasoning.edges.lm.load import LanguageModel, encode_response, load, word_junction
from sae_reasoning.edges.lm.read import residuals_in_memory
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.edges.sae_quality import measure_fit
from sae_reasoning.edges.window_maxima import window_maxima
from sae_reasoning.readings.data import MATCHED, SPANS, Readings, saved_maxima
from sae_reasoning.readings.random_reader import RandomReader
from sae_reasoning.records import Shortlist
from sae_reasoning.robustness.outcomes import RANDOM
from sae_reasoning.robustness.readers import Reader, Text, best_span_detectors, span_detectors


@dataclass(frozen=True)
class ReadingModel:
    """A loaded model with its dictionaries, as attacks need it.

    Attributes:
        lm: The model.
        dictionaries: By layer.
        residuals: Of the rows of some traces, one after the other, by layer.
        token_budget: Tokens, padding included, of one batch.
    """

    lm: LanguageModel
    dictionaries: Mapping[int, Dictionary]
    residuals: Callable[[Sequence[int]], Mapping[int, Float[Tensor, "row d_model"]]]
    token_budget: int

    def num_latents(self, layer: int) -> int:
        """Width of a layer's dictionary."""
        return self.dictionaries[layer].d_sae

    def latents_of(
        self, traces: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[int, Float32[np.ndarray, "row k"], Int[np.ndarray, "row k"]]]:
        """Layer, values and indices of the active latents at each row of some traces."""
        residuals = self.residuals(traces)
        for layer in layers:
            dictionary = self.dictionaries[layer]
            sparse = dictionary.encode_sparse(residuals[layer].to(dictionary.device))
            yield layer, *sparse.numpy()

    def window_maxima(
        self, texts: Sequence[Text], latents: Mapping[int, Sequence[int]]
    ) -> dict[int, list[Float[np.ndarray, "window latent"]]]:
        """Largest activation of some latents over each window of each text, by layer."""
        return window_maxima(self.lm, texts, self.dictionaries, latents, self.token_budget)

    def unexplained(
        self, texts: Sequence[tuple[Sequence[int], int]], layers: Sequence[int]
    ) -> dict[int, float]:
        """FVU of each layer's dictionary on texts, each from a token on; NaN without texts."""
        if not texts:
            return dict.fromkeys(layers, float("nan"))
        token_ids, first = zip(*texts, strict=True)
        resid = residuals_in_memory(
            self.lm, list(token_ids), np.array(first), list(layers), self.token_budget
        )
        return {x: measure_fit(self.dictionaries[x], [resid[x]]).fvu for x in layers}

    def is_junction(self, left: int, right: int) -> bool:
        """Whether a word ends between two tokens."""
        return self._junction(left, right)

    @cached_property
    def _junction(self) -> Callable[[int, int], bool]:
        return word_junction(self.lm.tokenizer)

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a response's text, and the characters of each."""
        return encode_response(self.lm.tokenizer, text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Their text."""
        return str(self.lm.tokenizer.decode(list(token_ids)))


def readers_under_attack(
    cfg: Config,
    readings: Readings,
    lists: Shortlist,
    random: RandomReader,
    parts: Path,
    *,
    is_shared: bool,
) -> list[Reader]:
    """The models with the shortlisted span detectors, and the untrained one with its own.

    One model stays loaded at a time; both where processes are to share them.
    """
    matched_of = saved_maxima(readings, parts, MATCHED)

    @lru_cache(maxsize=len(cfg.pair.readers) if is_shared else 1)
    def loaded(reader: str) -> LanguageModel:
        return load(getattr(cfg.pair, reader), cfg.device)

    def trained(reader: str) -> Reader:
        def cached(traces: Sequence[int]) -> dict[int, Float[Tensor, "row d_model"]]:
            rows = readings.rows.indices(traces)
            return {layer: readings.stores[reader, layer].read(rows) for layer in cfg.layers}

        return Reader(
            name=reader,
            behaviours=cfg.behaviours,
            traces=readings.traces,
            rows=readings.rows,
            matched=readings.labels.matched,
            maxima=partial(matched_of, reader),
            targets=span_detectors(lists, reader),
            model=lambda: ReadingModel(
                loaded(reader), readings.dictionaries, cached, cfg.cache.token_budget
            ),
        )

    def read(traces: Sequence[int]) -> Mapping[int, Float[Tensor, "row d_model"]]:
        return residuals_in_memory(
            random.lm,
            [random.traces[t].token_ids for t in traces],
            random.rows.first_position[list(traces)],
            cfg.layers,
            cfg.cache.token_budget,
        )

    of_spans = {layer: maxima[SPANS] for layer, maxima in random.maxima.items()}
    untrained = Reader(
        name=RANDOM,
        behaviours=cfg.behaviours,
        traces=random.traces,
        rows=random.rows,
        matched=random.matched,
        maxima=lambda layer: random.maxima[layer][MATCHED],
        targets=best_span_detectors(of_spans, lists, cfg.behaviours),
        model=lambda: ReadingModel(random.lm, random.dictionaries, read, cfg.cache.token_budget),
    )
    return [*map(trained, cfg.pair.readers), untrained]
